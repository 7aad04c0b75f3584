package resolve

import (
	"fmt"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
)

// valueMessage gives a type whose values are protobuf messages what a store has to know of them.
func (c *compiler) valueMessage() error {
	t := c.out.Type
	if t.ValueEncoding == configv1.ValueEncoding_VALUE_ENCODING_UNSPECIFIED {
		return nil
	}
	if t.ValueEncoding == configv1.ValueEncoding_VALUE_ENCODING_JSON {
		if c.value != nil {
			return fmt.Errorf("the state fields are of %s, and its bytes are no JSON; make them holdfast.v1.StateIn and StateOut, or write model: {value: {encoding: proto}}", c.value.FullName())
		}
		return nil
	}
	md := c.value
	switch name := c.spec.Entity.Model.Value.Message; {
	case name == "" && md == nil:
		return fmt.Errorf("the values are protobuf, and nothing says of which message; write model: {value: {encoding: proto, message: NAME}}")
	case name == "":
	case md != nil && string(md.FullName()) != name:
		return fmt.Errorf("spec.entity.model.value.message is %s, and the state fields are of %s; make them equal", name, md.FullName())
	default:
		found, err := c.files.FindDescriptorByName(protoreflect.FullName(name))
		if err != nil {
			return fmt.Errorf("the descriptors have no message %s; correct spec.entity.model.value.message, or import its file where the service is", name)
		}
		var ok bool
		if md, ok = found.(protoreflect.MessageDescriptor); !ok {
			return fmt.Errorf("%s is no message; correct spec.entity.model.value.message", name)
		}
	}
	set, err := closure(md)
	if err != nil {
		return fmt.Errorf("descriptors of %s: %w", md.FullName(), err)
	}
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(set)
	if err != nil {
		return fmt.Errorf("descriptors of %s: %w", md.FullName(), err)
	}
	if len(raw) > maxValueDescriptors {
		return fmt.Errorf("the descriptors of %s and all that it holds have %d bytes, at most %d are sent to stores; choose a smaller message, or write encoding: bytes", md.FullName(), len(raw), maxValueDescriptors)
	}
	t.ValueMessage, t.ValueDescriptors = string(md.FullName()), raw
	return nil
}

// closure is a set with the message and all that it holds, and little more: of each file only the outermost messages and
// enums that are needed, and no options but protobuf's own. Each file comes after those that it imports.
func closure(root protoreflect.MessageDescriptor) (*descriptorpb.FileDescriptorSet, error) {
	needed := map[protoreflect.FullName]bool{}
	imports := map[string]map[string]bool{}
	files := map[string]protoreflect.FileDescriptor{}
	var queue []protoreflect.Descriptor
	need := func(d protoreflect.Descriptor, from protoreflect.FileDescriptor) {
		for d.Parent() != d.ParentFile() {
			d = d.Parent()
		}
		path := d.ParentFile().Path()
		if files[path] == nil {
			files[path], imports[path] = d.ParentFile(), map[string]bool{}
		}
		if from != nil && from.Path() != path {
			imports[from.Path()][path] = true
		}
		if !needed[d.FullName()] {
			needed[d.FullName()] = true
			queue = append(queue, d)
		}
	}
	need(root, nil)
	for len(queue) > 0 {
		d := queue[0]
		queue = queue[1:]
		if md, ok := d.(protoreflect.MessageDescriptor); ok {
			eachField(md, func(f protoreflect.FieldDescriptor) {
				switch {
				case f.Message() != nil:
					need(f.Message(), md.ParentFile())
				case f.Enum() != nil:
					need(f.Enum(), md.ParentFile())
				}
			})
		}
	}
	out := &descriptorpb.FileDescriptorSet{}
	done := map[string]bool{}
	var add func(path string)
	add = func(path string) {
		if done[path] {
			return
		}
		done[path] = true
		deps := slices.Sorted(maps.Keys(imports[path]))
		for _, dep := range deps {
			add(dep)
		}
		out.File = append(out.File, only(files[path], needed, deps))
	}
	add(root.ParentFile().Path())
	if _, err := protodesc.NewFiles(out); err != nil {
		return nil, fmt.Errorf("what is left of them contradicts itself: %w", err)
	}
	return out, nil
}

// eachField calls f for the fields of a message and of those that are defined in it.
func eachField(md protoreflect.MessageDescriptor, f func(protoreflect.FieldDescriptor)) {
	for i := range md.Fields().Len() {
		f(md.Fields().Get(i))
	}
	for i := range md.Messages().Len() {
		eachField(md.Messages().Get(i), f)
	}
}

// only is a file with nothing but the needed outermost messages and enums.
func only(fd protoreflect.FileDescriptor, needed map[protoreflect.FullName]bool, deps []string) *descriptorpb.FileDescriptorProto {
	whole := protodesc.ToFileDescriptorProto(fd)
	out := &descriptorpb.FileDescriptorProto{
		Name: whole.Name, Package: whole.Package, Syntax: whole.Syntax, Edition: whole.Edition, Dependency: deps,
	}
	if o := whole.GetOptions(); o.GetFeatures() != nil {
		out.Options = &descriptorpb.FileOptions{Features: bare(o.Features)}
	}
	for _, m := range whole.GetMessageType() {
		if needed[fd.FullName().Append(protoreflect.Name(m.GetName()))] {
			out.MessageType = append(out.MessageType, bareMessage(m))
		}
	}
	for _, e := range whole.GetEnumType() {
		if needed[fd.FullName().Append(protoreflect.Name(e.GetName()))] {
			out.EnumType = append(out.EnumType, bareEnum(e))
		}
	}
	return out
}

// bareMessage takes off what no reader of values needs.
func bareMessage(m *descriptorpb.DescriptorProto) *descriptorpb.DescriptorProto {
	m.Extension = nil
	if o := m.GetOptions(); o != nil {
		m.Options = &descriptorpb.MessageOptions{MapEntry: o.MapEntry, MessageSetWireFormat: o.MessageSetWireFormat, Features: bare(o.Features)}
	}
	for _, f := range m.GetField() {
		if o := f.GetOptions(); o != nil {
			f.Options = &descriptorpb.FieldOptions{Packed: o.Packed, Features: bare(o.Features)}
		}
	}
	for _, o := range m.GetOneofDecl() {
		if o.Options != nil {
			o.Options = &descriptorpb.OneofOptions{Features: bare(o.Options.Features)}
		}
	}
	for _, e := range m.GetExtensionRange() {
		e.Options = nil
	}
	for i, e := range m.GetEnumType() {
		m.EnumType[i] = bareEnum(e)
	}
	for i, n := range m.GetNestedType() {
		m.NestedType[i] = bareMessage(n)
	}
	return m
}

func bareEnum(e *descriptorpb.EnumDescriptorProto) *descriptorpb.EnumDescriptorProto {
	if o := e.GetOptions(); o != nil {
		e.Options = &descriptorpb.EnumOptions{AllowAlias: o.AllowAlias, Features: bare(o.Features)}
	}
	for _, v := range e.GetValue() {
		v.Options = nil
	}
	return e
}

// bare takes the features of single languages off.
func bare(f *descriptorpb.FeatureSet) *descriptorpb.FeatureSet {
	if f == nil {
		return nil
	}
	return &descriptorpb.FeatureSet{
		FieldPresence: f.FieldPresence, EnumType: f.EnumType, RepeatedFieldEncoding: f.RepeatedFieldEncoding,
		Utf8Validation: f.Utf8Validation, MessageEncoding: f.MessageEncoding, JsonFormat: f.JsonFormat,
	}
}
