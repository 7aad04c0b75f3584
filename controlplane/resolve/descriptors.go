// Package resolve turns a StatefulService and its service's descriptors into what the filter, the stores and the proxies
// need: the entity type, the keyed methods with the places of key and state, and the descriptors for REST.
//
// Reflect and ReadFile get descriptors; Compile is pure and refuses what can't work, with the remedy; Merge puts several
// services' descriptors into one set. Descriptors are bytes from outside: nothing in them makes this package panic.
package resolve

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
)

// ErrUnavailable says that the descriptors can't be had now, and may be later.
var ErrUnavailable = errors.New("descriptors can't be had yet")

// Descriptors are those of one service, whole and no more: each file after those that it imports, without comments.
type Descriptors struct {
	Set *descriptorpb.FileDescriptorSet
	// Listed holds the full names of all services that the process says it has; nil where it was not asked.
	Listed []string
}

// Digest identifies the content.
func (d *Descriptors) Digest() string {
	h := sha256.New()
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(d.Set)
	if err != nil {
		// Only invalid UTF-8 fails, and protodesc has refused it.
		raw = nil
	}
	h.Write(raw)
	for _, name := range d.Listed {
		fmt.Fprintf(h, "\x00%s", name)
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// ReadFile reads a serialised FileDescriptorSet (protoc --include_imports --descriptor_set_out) with the service in it.
func ReadFile(path, service string) (*Descriptors, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if info.Size() > maxBytes {
		return nil, fmt.Errorf("%s has %d bytes, at most %d are read; leave out what %s doesn't import", path, info.Size(), maxBytes, service)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	set := &descriptorpb.FileDescriptorSet{}
	if err := proto.Unmarshal(raw, set); err != nil {
		return nil, fmt.Errorf("%s is no serialised FileDescriptorSet (%w); make it with protoc --include_imports --descriptor_set_out", path, err)
	}
	pruned, err := prune(set.GetFile(), service)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	var listed []string
	for _, f := range set.GetFile() {
		for _, s := range f.GetService() {
			listed = append(listed, fullName(f.GetPackage(), s.GetName()))
		}
	}
	slices.Sort(listed)
	return &Descriptors{Set: pruned, Listed: slices.Compact(listed)}, nil
}

// prune keeps the file that defines service and what it imports, in the order of import.
func prune(files []*descriptorpb.FileDescriptorProto, service string) (*descriptorpb.FileDescriptorSet, error) {
	if len(files) > maxFiles {
		return nil, fmt.Errorf("%d files of descriptors, at most %d are read", len(files), maxFiles)
	}
	byName := map[string]*descriptorpb.FileDescriptorProto{}
	var root string
	for _, f := range files {
		byName[f.GetName()] = f
		for _, s := range f.GetService() {
			if fullName(f.GetPackage(), s.GetName()) == service {
				root = f.GetName()
			}
		}
	}
	if root == "" {
		return nil, fmt.Errorf("the descriptors have no service %s; correct spec.service, or the descriptors", service)
	}
	out := &descriptorpb.FileDescriptorSet{}
	state := map[string]int{} // 1: on the way, 2: done
	var add func(name, from string) error
	add = func(name, from string) error {
		switch state[name] {
		case 1:
			return fmt.Errorf("%s imports itself", name)
		case 2:
			return nil
		}
		state[name] = 1
		f := byName[name]
		if f == nil {
			if f = linkedIn(name); f == nil {
				return fmt.Errorf("%s imports %s, which is not among the descriptors; build them with all imports", from, name)
			}
		}
		for _, dep := range f.GetDependency() {
			if err := add(dep, name); err != nil {
				return err
			}
		}
		state[name] = 2
		f = proto.CloneOf(f)
		f.SourceCodeInfo = nil
		out.File = append(out.File, f)
		return nil
	}
	if err := add(root, ""); err != nil {
		return nil, err
	}
	if _, err := protodesc.NewFiles(out); err != nil {
		return nil, fmt.Errorf("the descriptors contradict themselves: %w", err)
	}
	return out, nil
}

// linkedIn is a well-known file that this binary has: some servers don't send those.
func linkedIn(name string) *descriptorpb.FileDescriptorProto {
	fd, err := protoregistry.GlobalFiles.FindFileByPath(name)
	if err != nil {
		return nil
	}
	return protodesc.ToFileDescriptorProto(fd)
}

func fullName(pkg, name string) string {
	if pkg == "" {
		return name
	}
	return pkg + "." + name
}

func (d *Descriptors) service(name string) (*protoregistry.Files, protoreflect.ServiceDescriptor, error) {
	files, err := protodesc.NewFiles(d.Set)
	if err != nil {
		return nil, nil, fmt.Errorf("the descriptors contradict themselves: %w", err)
	}
	found, err := files.FindDescriptorByName(protoreflect.FullName(name))
	if err != nil {
		return nil, nil, fmt.Errorf("the descriptors have no service %s; correct spec.service", name)
	}
	sd, ok := found.(protoreflect.ServiceDescriptor)
	if !ok {
		return nil, nil, fmt.Errorf("%s is no service; correct spec.service", name)
	}
	return files, sd, nil
}
