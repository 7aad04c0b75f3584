package entity

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
)

// message parses a value. Fields that the descriptors don't have are kept.
func (t *Type) message(what string, b []byte) (m *dynamicpb.Message, err error) {
	defer guard(&err, what+" is no "+string(t.Message.FullName()))
	m = dynamicpb.NewMessage(t.Message)
	opts := proto.UnmarshalOptions{AllowPartial: true, Resolver: t.types, RecursionLimit: maxDepth}
	if err := opts.Unmarshal(b, m); err != nil {
		return nil, invalid("%s is no %s: %v", what, t.Message.FullName(), err)
	}
	return m, nil
}

// guard makes an error of a panic: the protobuf library (v1.36) has one for a map entry whose key comes twice, the second time
// as another wire type.
func guard(err *error, what string) {
	if p := recover(); p != nil {
		*err = invalid("%s: %v", what, p)
	}
}

func (t *Type) stored(b []byte) (*dynamicpb.Message, error) {
	m, err := t.message("the stored value", b)
	if err != nil {
		return nil, errorOf(codes.FailedPrecondition, "%v; replace it by set", err)
	}
	return m, nil
}

func serialise(m protoreflect.Message) ([]byte, error) {
	b, err := proto.MarshalOptions{AllowPartial: true, Deterministic: true}.Marshal(m.Interface())
	if err != nil {
		return nil, invalid("the patched value can't be written: %v", err)
	}
	return b, nil
}

// mergeProto applies a JSON merge patch field by field, so that fields which the descriptors don't have survive.
func (t *Type) mergeProto(value, patch []byte) ([]byte, error) {
	if err := checkJSON("the patch", patch); err != nil {
		return nil, err
	}
	changes := asObject(patch)
	if changes == nil || special(t.Message) {
		return nil, invalid("the patch is no JSON object, or %s has no fields in JSON", t.Message.FullName())
	}
	m, err := t.stored(value)
	if err != nil {
		return nil, err
	}
	if err := t.mergeFields(m, changes); err != nil {
		return nil, err
	}
	return serialise(m)
}

func (t *Type) mergeFields(m protoreflect.Message, changes object) error {
	seen := map[protoreflect.FieldNumber]bool{}
	for _, name := range slices.Sorted(maps.Keys(changes)) {
		fd := fieldOf(m.Descriptor(), name)
		if fd == nil {
			return invalid("%s has no field %q", m.Descriptor().FullName(), name)
		}
		if seen[fd.Number()] {
			return invalid("the patch has field %s twice", fd.FullName())
		}
		seen[fd.Number()] = true
		if err := t.mergeField(m, fd, changes[name]); err != nil {
			return err
		}
	}
	return nil
}

// fieldOf finds a field by its name in JSON, or in the .proto.
func fieldOf(d protoreflect.MessageDescriptor, name string) protoreflect.FieldDescriptor {
	if fd := d.Fields().ByJSONName(name); fd != nil {
		return fd
	}
	return d.Fields().ByTextName(name)
}

func (t *Type) mergeField(m protoreflect.Message, fd protoreflect.FieldDescriptor, change json.RawMessage) error {
	inner := asObject(change)
	switch {
	case isNull(change):
		m.Clear(fd)
		return nil
	case inner == nil || fd.IsList():
		return t.setJSON(m, fd, change)
	case fd.IsMap():
		return t.mergeMap(m, fd, inner)
	case fd.Message() == nil:
		return t.setJSON(m, fd, change)
	case special(fd.Message()):
		var old []byte
		if m.Has(fd) {
			whole, err := t.toJSON(m.Get(fd).Message())
			if err != nil {
				return err
			}
			old = whole
		}
		return t.setJSON(m, fd, merge(old, change))
	}
	return t.mergeFields(m.Mutable(fd).Message(), inner)
}

// mergeMap merges into a map field entry by entry. An entry that both have is merged in its JSON form, as a whole, unless it
// is a message of fields.
func (t *Type) mergeMap(m protoreflect.Message, fd protoreflect.FieldDescriptor, changes object) error {
	value := fd.MapValue()
	additions := object{}
	for _, name := range slices.Sorted(maps.Keys(changes)) {
		change := changes[name]
		key, err := mapKey(fd, name)
		if err != nil {
			return err
		}
		entries := m.Mutable(fd).Map()
		inner := asObject(change)
		switch {
		case isNull(change):
			entries.Clear(key)
		case value.Message() != nil && inner != nil && entries.Has(key) && !special(value.Message()):
			if err := t.mergeFields(entries.Mutable(key).Message(), inner); err != nil {
				return err
			}
		case value.Message() != nil && inner != nil && entries.Has(key):
			old, err := t.toJSON(entries.Get(key).Message())
			if err != nil {
				return err
			}
			additions[name] = merge(old, change)
		default:
			additions[name] = merge(nil, change)
		}
	}
	if len(additions) == 0 {
		return nil
	}
	fresh, err := t.fromJSON(m.Descriptor(), fd, additions.encode())
	if err != nil {
		return err
	}
	entries := m.Mutable(fd).Map()
	fresh.Get(fd).Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
		entries.Set(k, v)
		return true
	})
	return nil
}

// mapKey parses a key as JSON writes it.
func mapKey(fd protoreflect.FieldDescriptor, name string) (protoreflect.MapKey, error) {
	var v protoreflect.Value
	var err error
	switch kind := fd.MapKey().Kind(); kind {
	case protoreflect.StringKind:
		v = protoreflect.ValueOfString(name)
	case protoreflect.BoolKind:
		if v = protoreflect.ValueOfBool(name == "true"); name != "true" && name != "false" {
			err = strconv.ErrSyntax
		}
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		var n int64
		n, err = strconv.ParseInt(name, 10, 32)
		v = protoreflect.ValueOfInt32(int32(n))
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
		var n int64
		n, err = strconv.ParseInt(name, 10, 64)
		v = protoreflect.ValueOfInt64(n)
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		var n uint64
		n, err = strconv.ParseUint(name, 10, 32)
		v = protoreflect.ValueOfUint32(uint32(n))
	default:
		var n uint64
		n, err = strconv.ParseUint(name, 10, 64)
		v = protoreflect.ValueOfUint64(n)
	}
	if err != nil {
		return protoreflect.MapKey{}, invalid("%s: %q is no key of this map", fd.FullName(), name)
	}
	return v.MapKey(), nil
}

// setJSON replaces a field by its JSON form.
func (t *Type) setJSON(m protoreflect.Message, fd protoreflect.FieldDescriptor, change []byte) error {
	if fd.Message() != nil && !fd.IsList() {
		// What is new is merged into nothing: RFC 7396 drops its nulls.
		change = merge(nil, change)
	}
	fresh, err := t.fromJSON(m.Descriptor(), fd, change)
	if err != nil {
		return err
	}
	if !fresh.Has(fd) {
		m.Clear(fd)
		return nil
	}
	m.Set(fd, fresh.Get(fd))
	return nil
}

// fromJSON makes a message with one field, of its JSON form.
func (t *Type) fromJSON(d protoreflect.MessageDescriptor, fd protoreflect.FieldDescriptor, value []byte) (protoreflect.Message, error) {
	fresh := dynamicpb.NewMessage(d)
	name := fd.JSONName()
	if fd.IsExtension() {
		name = "[" + string(fd.FullName()) + "]"
	}
	opts := protojson.UnmarshalOptions{AllowPartial: true, Resolver: t.types, RecursionLimit: maxDepth}
	if err := opts.Unmarshal(object{name: value}.encode(), fresh); err != nil {
		return nil, invalid("field %s: %v", fd.FullName(), noSpaces(err))
	}
	return fresh, nil
}

func (t *Type) toJSON(m protoreflect.Message) (out []byte, err error) {
	// An Any is parsed here.
	defer guard(&err, "the stored "+string(m.Descriptor().FullName())+" has no JSON form")
	b, err := protojson.MarshalOptions{AllowPartial: true, Resolver: t.types}.Marshal(m.Interface())
	if err != nil {
		return nil, errorOf(codes.FailedPrecondition, "the stored %s has no JSON form: %v", m.Descriptor().FullName(), noSpaces(err))
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, b); err != nil {
		return nil, err
	}
	return compact.Bytes(), nil
}

// noSpaces undoes what the protobuf library does to keep programs from comparing its messages.
func noSpaces(err error) string {
	return strings.ReplaceAll(err.Error(), "\u00a0", " ")
}

// special messages have a JSON form of their own.
func special(d protoreflect.MessageDescriptor) bool {
	if d.ParentFile().Package() != "google.protobuf" {
		return false
	}
	switch d.Name() {
	case "Any", "Timestamp", "Duration", "Struct", "Value", "ListValue", "FieldMask", "DoubleValue", "FloatValue", "Int64Value", "UInt64Value",
		"Int32Value", "UInt32Value", "BoolValue", "StringValue", "BytesValue":
		return true
	}
	return false
}

// patchProto replaces what the paths name by what from has there.
func (t *Type) patchProto(value, from []byte, paths [][]string) ([]byte, error) {
	source, err := t.message("the patch's value", from)
	if err != nil {
		return nil, err
	}
	stored, err := t.stored(value)
	if err != nil {
		return nil, err
	}
	m := protoreflect.Message(stored)
	if len(paths) == 0 {
		// AIP-134: all that is set.
		source.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
			m.Set(fd, v)
			return true
		})
		return serialise(m)
	}
	for _, path := range paths {
		if len(path) == 1 && path[0] == "*" {
			// A copy: later paths change it.
			m = proto.Clone(source.Interface()).ProtoReflect()
			continue
		}
		if err := replaceField(m, source, path); err != nil {
			return nil, err
		}
	}
	return serialise(m)
}

// replaceField makes what is at the path the same as in source. source is invalid (read-only and empty) where it has
// nothing there.
func replaceField(m, source protoreflect.Message, path []string) error {
	d := m.Descriptor()
	fd := d.Fields().ByTextName(path[0])
	if fd == nil {
		fd = d.Fields().ByJSONName(path[0])
	}
	switch {
	case fd == nil:
		return invalid("%s has no field %q", d.FullName(), path[0])
	case len(path) == 1:
		if source.Has(fd) {
			m.Set(fd, source.Get(fd))
		} else {
			m.Clear(fd)
		}
		return nil
	case fd.IsMap():
		return replaceEntry(m, source, fd, path[1:])
	case fd.IsList() || fd.Message() == nil:
		return invalid("%s is no message: a path can't go on with %q", fd.FullName(), path[1])
	case !source.Has(fd) && !m.Has(fd):
		// Nothing to clear; but the path has to be one.
		return replaceField(dynamicpb.NewMessage(fd.Message()), source.Get(fd).Message(), path[1:])
	}
	return replaceField(m.Mutable(fd).Message(), source.Get(fd).Message(), path[1:])
}

// replaceEntry is for a path through a map with keys of text: the next step is the key.
func replaceEntry(m, source protoreflect.Message, fd protoreflect.FieldDescriptor, path []string) error {
	if fd.MapKey().Kind() != protoreflect.StringKind {
		return invalid("%s: a path goes through maps by text only", fd.FullName())
	}
	key := protoreflect.ValueOfString(path[0]).MapKey()
	has := source.Get(fd).Map().Has(key)
	if len(path) == 1 {
		if has {
			m.Mutable(fd).Map().Set(key, source.Get(fd).Map().Get(key))
		} else if m.Has(fd) {
			m.Mutable(fd).Map().Clear(key)
		}
		return nil
	}
	value := fd.MapValue().Message()
	if value == nil {
		return invalid("%s has no messages: a path can't go on with %q", fd.FullName(), path[1])
	}
	from := protoreflect.Message(dynamicpb.NewMessage(value))
	if has {
		from = source.Get(fd).Map().Get(key).Message()
	}
	if !has && !m.Get(fd).Map().Has(key) {
		return replaceField(dynamicpb.NewMessage(value), from, path[1:])
	}
	return replaceField(m.Mutable(fd).Map().Mutable(key).Message(), from, path[1:])
}
