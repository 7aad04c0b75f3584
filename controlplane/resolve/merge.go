package resolve

import (
	"crypto/sha256"
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/types/descriptorpb"
)

// Merged is one set of descriptors for several services.
type Merged struct {
	// Set is a serialised FileDescriptorSet, each file after what it imports.
	Set      []byte
	Services []string
	// Left tells, by service, why it is not among them.
	Left map[string]error
}

// Merge puts the services that have a REST form into one set, in their order. Services are built apart, so two may name
// different files alike: such a file is renamed, which nothing but imports sees. Two that define the same message
// differently can't be in one set; the later is left out, with the reason.
func Merge(services []*Service) *Merged {
	m := &merger{names: map[string]bool{}, content: map[[32]byte]string{}, symbols: map[string]string{}}
	out := &Merged{Left: map[string]error{}}
	for _, s := range services {
		if !s.REST {
			continue
		}
		name := s.Config.GetName()
		if err := m.add(name, s.Descriptors.Set); err != nil {
			out.Left[name] = err
			continue
		}
		out.Services = append(out.Services, name)
	}
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(&m.set)
	if err != nil {
		// Every file was accepted by protodesc, which refuses what can't be encoded.
		out.Services = nil
		return out
	}
	out.Set = raw
	return out
}

type merger struct {
	set descriptorpb.FileDescriptorSet
	// names of the files in set.
	names map[string]bool
	// content leads from a file's content without its name to its name in set.
	content map[[32]byte]string
	// symbols leads from a full name to the file that defines it.
	symbols map[string]string
}

// add takes all files of a service, or none.
func (m *merger) add(service string, set *descriptorpb.FileDescriptorSet) error {
	var added []*descriptorpb.FileDescriptorProto
	renamed := map[string]string{}
	names, content, symbols := map[string]bool{}, map[[32]byte]string{}, map[string]string{}
	for _, f := range set.GetFile() {
		f = proto.CloneOf(f)
		original := f.GetName()
		for i, dep := range f.Dependency {
			f.Dependency[i] = renamed[dep]
		}
		sum, err := hash(f)
		if err != nil {
			return err
		}
		if same, ok := m.content[sum]; ok {
			renamed[original] = same
			continue
		}
		// Several versions of these are about, which differ in nothing that matters here.
		if m.names[original] && (strings.HasPrefix(original, "google/") || strings.HasPrefix(original, "holdfast/")) {
			renamed[original] = original
			continue
		}
		for _, symbol := range symbolsOf(f) {
			if other, ok := m.symbols[symbol]; ok {
				return fmt.Errorf("%s defines %s otherwise than %s of a service before it does; no REST for %s until they agree", original, symbol, other, service)
			}
			symbols[symbol] = original
		}
		name := original
		if m.names[name] {
			name = service + "/" + name
		}
		f.Name = proto.String(name)
		renamed[original], names[name], content[sum] = name, true, name
		added = append(added, f)
	}
	// The last word is protobuf's own.
	if _, err := protodesc.NewFiles(&descriptorpb.FileDescriptorSet{File: append(append([]*descriptorpb.FileDescriptorProto(nil), m.set.File...), added...)}); err != nil {
		return fmt.Errorf("the descriptors of %s don't fit those of the services before it (%w); no REST for it until they do", service, err)
	}
	m.set.File = append(m.set.File, added...)
	for k := range names {
		m.names[k] = true
	}
	for k, v := range content {
		m.content[k] = v
	}
	for k, v := range symbols {
		m.symbols[k] = v
	}
	return nil
}

func hash(f *descriptorpb.FileDescriptorProto) ([32]byte, error) {
	name := f.Name
	f.Name = nil
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(f)
	f.Name = name
	if err != nil {
		return [32]byte{}, fmt.Errorf("encode %s: %w", f.GetName(), err)
	}
	return sha256.Sum256(raw), nil
}

func symbolsOf(f *descriptorpb.FileDescriptorProto) []string {
	var out []string
	add := func(name string) { out = append(out, fullName(f.GetPackage(), name)) }
	for _, m := range f.GetMessageType() {
		add(m.GetName())
	}
	for _, e := range f.GetEnumType() {
		add(e.GetName())
	}
	for _, s := range f.GetService() {
		add(s.GetName())
	}
	for _, x := range f.GetExtension() {
		add(x.GetName())
	}
	return out
}
