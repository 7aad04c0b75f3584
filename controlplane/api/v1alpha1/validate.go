package v1alpha1

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// The values of the fields that are one of a few words.
const (
	ModeObserve = "observe"
	ModeRoute   = "route"
	ModeEnrich  = "enrich"
	ModeCommit  = "commit"

	ConsistencyStrong   = "strong"
	ConsistencyEventual = "eventual"

	WriteLocal    = "LOCAL"
	WriteLocalMem = "LOCAL_MEM"
	WriteMajority = "MAJORITY"
	WriteAll      = "ALL"

	AffinityLocal = "local"
	AffinityOwner = "owner"

	OnUnavailableFail = "fail"
	OnUnavailablePass = "pass"

	EncodingProto = "proto"
	EncodingJSON  = "json"
	EncodingBytes = "bytes"

	StateFull   = "full"
	StateFolded = "folded"

	TTLFromWrite = "write"
	TTLFromUse   = "use"

	ModelValue        = "value"
	ModelEventSourced = "event_sourced"
	ModelGCounter     = "gcounter"
	ModelPNCounter    = "pncounter"
	ModelBCounter     = "bcounter"
	ModelGSet         = "gset"
	ModelORSet        = "orset"
	ModelLWW          = "lww"
	ModelMVRegister   = "mvregister"
	ModelFlag         = "flag"
	ModelVote         = "vote"
	ModelORMap        = "ormap"

	KindLocal = "Local"
)

var (
	dnsLabel = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`)
	fullName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$`)
	token    = regexp.MustCompile(`^[a-z0-9][-a-z0-9.]*$`)
)

// word checks a field that is one of a few words; later holds those that the design has and this version has not.
func (d *document) word(field, got string, known, later []string) bool {
	switch {
	case slices.Contains(known, got):
		return true
	case slices.ContainsFunc(known, func(k string) bool { return strings.EqualFold(k, got) }):
		i := slices.IndexFunc(known, func(k string) bool { return strings.EqualFold(k, got) })
		d.errorf(field, "%q is not known; did you mean %s?", got, known[i])
	case slices.Contains(later, got):
		d.errorf(field, "%s is not in this version; write %s", got, strings.Join(known, " or "))
	default:
		d.errorf(field, "%q is not known; write %s", got, strings.Join(known, " or "))
	}
	return false
}

func (d *document) validateName(name string) {
	if !dnsLabel.MatchString(name) || len(name) > maxNameBytes {
		d.errorf("metadata.name", "%q is no name; write 1 to %d of a-z, 0-9 and -, with no - at either end", name, maxNameBytes)
	}
}

// validateService fills in the defaults and reports what can't work.
func (d *document) validateService(s *StatefulService) {
	d.validateName(s.Metadata.Name)
	spec := &s.Spec
	switch {
	case spec.Service == "":
		d.errorf("spec.service", "is missing; write the gRPC service's full name, for example qa.v1.Questions")
	case !fullName.MatchString(spec.Service):
		d.errorf("spec.service", "%q is no full name of a gRPC service; write it like qa.v1.Questions", spec.Service)
	}
	if spec.Descriptors == nil {
		spec.Descriptors = &Descriptors{Reflection: true}
	}
	if spec.Descriptors.Reflection == (spec.Descriptors.File != "") {
		d.errorf("spec.descriptors", "names %s source; write either reflection: true or file: PATH", oneOrNone(spec.Descriptors.Reflection))
	}
	setDefault(&spec.Mode, ModeCommit)
	d.word("spec.mode", spec.Mode, []string{ModeObserve, ModeRoute, ModeEnrich, ModeCommit}, nil)
	switch {
	case spec.WorkloadRef == nil:
		d.errorf("spec.workloadRef", "is missing; write {kind: Local, name: NAME} with the name of a workload of the LocalMesh")
	case spec.WorkloadRef.Kind != KindLocal:
		d.errorf("spec.workloadRef.kind", "%q is not known here: a file describes a local mesh; write Local", spec.WorkloadRef.Kind)
	case spec.WorkloadRef.Name == "":
		d.errorf("spec.workloadRef.name", "is missing; write the name of a workload of the LocalMesh")
	}
	d.validateEntity(spec)
}

func oneOrNone(more bool) string {
	if more {
		return "more than one"
	}
	return "no"
}

func setDefault(s *string, value string) {
	if *s == "" {
		*s = value
	}
}

func (d *document) validateEntity(spec *ServiceSpec) {
	const at = "spec.entity."
	e := &spec.Entity
	switch {
	case e.Type == "":
		d.errorf(at+"type", "is missing; write the entity type's name, for example qa.Presentation")
	case !fullName.MatchString(e.Type) || len(e.Type) > maxTypeBytes:
		d.errorf(at+"type", "%q is no entity type; write a dotted name of at most %d bytes, for example qa.Presentation", e.Type, maxTypeBytes)
	}
	d.validateKey(&e.Key)
	d.validateModel(at+"model", &e.Model, 0)
	setDefault(&e.Consistency, ConsistencyEventual)
	if !d.word(at+"consistency", e.Consistency, []string{ConsistencyEventual, ConsistencyStrong}, []string{"causal"}) {
		return
	}
	if e.Consistency == ConsistencyStrong {
		d.validateStrong(e)
	} else {
		setDefault(&e.Write, WriteLocal)
		d.word(at+"write", e.Write, []string{WriteLocal, WriteLocalMem, WriteMajority, WriteAll}, nil)
		setDefault(&e.Affinity, AffinityLocal)
		d.word(at+"affinity", e.Affinity, []string{AffinityLocal, AffinityOwner}, nil)
		d.validateEventual(e)
	}
	d.validateTTL(e)
	setDefault(&e.OnUnavailable, OnUnavailableFail)
	if d.word(at+"onUnavailable", e.OnUnavailable, []string{OnUnavailableFail, OnUnavailablePass}, nil) &&
		e.OnUnavailable == OnUnavailablePass && e.Consistency == ConsistencyStrong {
		d.errorf(at+"onUnavailable", "pass lets requests go on without their state, which strong forbids; write fail, or consistency: eventual")
	}
	d.validateCarriage(spec)
	switch {
	case !d.written(at + "passivateAfter"):
		e.PassivateAfter = Duration(defaultPassivateAfter)
	case time.Duration(e.PassivateAfter) < minPassivateAfter:
		d.errorf(at+"passivateAfter", "%s is too short; write %s or more", time.Duration(e.PassivateAfter), minPassivateAfter)
	}
}

func (d *document) validateStrong(e *Entity) {
	const at = "spec.entity."
	if name := e.Model.Name(); name != "" && name != ModelValue && name != ModelEventSourced {
		d.errorf(at+"consistency", "strong needs model value or event_sourced: a CRDT merges concurrent writes and strong has none; write model: value, or consistency: eventual")
	}
	if e.Write != "" {
		d.errorf(at+"write", "strong needs none: a commit is in etcd before the reply leaves; remove it")
	}
	if e.Affinity == AffinityLocal {
		d.errorf(at+"affinity", "local can't be with strong: only the owner commits; remove it, or write owner")
	} else if e.Affinity != "" {
		d.word(at+"affinity", e.Affinity, []string{AffinityOwner}, nil)
	}
	e.Affinity = AffinityOwner
}

// validateEventual reports what only strong types can have.
func (d *document) validateEventual(e *Entity) {
	const at = "spec.entity."
	switch m := &e.Model; {
	case m.EventSourced != nil:
		d.errorf(at+"consistency", "event_sourced needs strong: events have one order; write consistency: strong")
	case m.Value != nil && m.Value.Encoding != EncodingBytes:
		d.errorf(at+"model.value.encoding", "is for strong types: others can't be patched; remove it, or write consistency: strong")
	}
	if len(e.Key.Others) > 0 {
		d.errorf(at+"key.others", "is for strong types: only those change several entities as one; remove it, or write consistency: strong")
	}
	if e.TTLFrom != "" {
		d.errorf(at+"ttlFrom", "is for strong types: others expire after their last write; remove it")
	}
}

func (d *document) validateTTL(e *Entity) {
	const at, from = "spec.entity.ttl", "spec.entity.ttlFrom"
	if e.Consistency == ConsistencyStrong {
		if e.TTLFrom != "" && !d.written(at) {
			d.errorf(from, "says what ttl counts from, and there is no ttl; write one, or remove it")
		}
		setDefault(&e.TTLFrom, TTLFromWrite)
		d.word(from, e.TTLFrom, []string{TTLFromWrite, TTLFromUse}, nil)
	}
	switch {
	case !d.written(at):
	case e.Model.BCounter != nil:
		d.errorf(at, "can't be with bcounter: a store that is away could still take off what the others deleted; remove it")
	case time.Duration(e.TTL) < minTTL:
		d.errorf(at, "%s is too short; write %s or more, or remove it to keep entities for ever", time.Duration(e.TTL), minTTL)
	}
}

// written tells whether the document has the field.
func (d *document) written(field string) bool {
	_, ok := d.lines[field]
	return ok
}

func (d *document) validateKey(k *Key) {
	const at = "spec.entity.key"
	if !d.written(at) || len(k.Others) > 0 && !d.written(at+".option") && k.Field == "" && k.Header == "" {
		k.Option = true
	}
	if len(k.Others) > maxOthers {
		d.errorf(at+".others", "names %d fields, at most %d are read; make them one repeated field", len(k.Others), maxOthers)
	}
	for i, path := range k.Others {
		if !fullName.MatchString(path) {
			d.errorf(fmt.Sprintf("%s.others[%d]", at, i), "%q is no path of field names; write it like receiver.account", path)
		} else if slices.Contains(k.Others[:i], path) || path == k.Field {
			d.errorf(fmt.Sprintf("%s.others[%d]", at, i), "%s is named before; remove it", path)
		}
	}
	if n := count(k.Option, k.Field != "", k.Header != ""); n != 1 {
		d.errorf(at, "names %d sources; write exactly one of {option: true}, {field: PATH}, {header: NAME}", n)
		return
	}
	if k.Field != "" && !fullName.MatchString(k.Field) {
		d.errorf(at+".field", "%q is no path of field names; write it like presentation.id", k.Field)
	}
	if h := k.Header; h != "" {
		switch {
		case strings.ContainsRune(h, '_'):
			d.errorf(at+".header", "%q has an underscore, and such headers are refused where callers enter; write it with -", h)
		case !token.MatchString(h) || len(h) > maxTypeBytes:
			d.errorf(at+".header", "%q is no header name; write lower-case letters, digits and -", h)
		case strings.HasPrefix(h, "holdfast-") || strings.HasPrefix(h, "grpc-"):
			d.errorf(at+".header", "%q is a reserved name: callers can't send it; choose another, for example x-tenant", h)
		case strings.HasSuffix(h, "-bin"):
			d.errorf(at+".header", "%q is a binary header, which is not in this version; choose a text one", h)
		}
	}
}

func (d *document) validateCarriage(spec *ServiceSpec) {
	const at = "spec.entity."
	e := &spec.Entity
	n := count(e.Carriage.Field != nil, e.Carriage.Metadata != nil)
	needed := spec.Mode == ModeEnrich || spec.Mode == ModeCommit
	if n > 1 || n == 0 && needed {
		d.errorf(at+"carriage", "names %d carriages; write one of {field: {}}, {metadata: {encoding: proto}}, {metadata: {encoding: json}}", n)
		return
	}
	written := d.written(at + "maxStateBytes")
	if m := e.Carriage.Metadata; m != nil {
		setDefault(&m.Encoding, EncodingProto)
		d.word(at+"carriage.metadata.encoding", m.Encoding, []string{EncodingProto, EncodingJSON}, nil)
		if !written {
			e.MaxStateBytes = MaxMetadataState
		}
		if e.MaxStateBytes > MaxMetadataState {
			d.errorf(at+"maxStateBytes", "%d is more than metadata may carry (%d: gRPC servers refuse larger metadata); lower it, or write carriage: {field: {}}", e.MaxStateBytes, MaxMetadataState)
			return
		}
	} else if !written {
		e.MaxStateBytes = defaultFieldState
	}
	most := MaxState
	if e.Consistency == ConsistencyStrong {
		most = MaxStrongState
	}
	if e.MaxStateBytes < 1 || e.MaxStateBytes > most {
		d.errorf(at+"maxStateBytes", "%d is out of range; write 1 to %d", e.MaxStateBytes, most)
	}
}

func count(set ...bool) int {
	n := 0
	for _, s := range set {
		if s {
			n++
		}
	}
	return n
}
