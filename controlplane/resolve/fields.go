package resolve

import (
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"

	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
)

// key finds the key source of a request message, nil where it has none.
func (c *compiler) key(in protoreflect.MessageDescriptor) (*configv1.KeySource, error) {
	k := &c.spec.Entity.Key
	switch {
	case k.Header != "":
		return &configv1.KeySource{Header: k.Header}, nil
	case k.Field != "":
		path, err := fieldPath(in, strings.Split(k.Field, "."), "spec.entity.key.field", false)
		if path == nil || err != nil {
			return nil, err
		}
		return &configv1.KeySource{Fields: []*configv1.FieldPath{path}}, nil
	}
	var marked []protoreflect.FieldDescriptor
	for i := range in.Fields().Len() {
		if f := in.Fields().Get(i); c.marks.key(f) {
			marked = append(marked, f)
		}
	}
	if len(marked) == 0 {
		return nil, nil
	}
	if len(marked) > maxKeyParts {
		return nil, fmt.Errorf("%d fields of %s are marked as key, at most %d may be", len(marked), in.FullName(), maxKeyParts)
	}
	// By number: moving lines about in a proto must not change anybody's keys.
	slices.SortFunc(marked, func(a, b protoreflect.FieldDescriptor) int { return int(a.Number()) - int(b.Number()) })
	out := &configv1.KeySource{}
	for _, f := range marked {
		path, err := fieldPath(in, []string{string(f.Name())}, "", false)
		if err != nil {
			return nil, err
		}
		out.Fields = append(out.Fields, path)
	}
	return out, nil
}

// otherKeys finds the fields of a request that name further entities: those that the configuration says, else the marked
// ones.
func (c *compiler) otherKeys(in protoreflect.MessageDescriptor) ([]*configv1.FieldPath, error) {
	var out []*configv1.FieldPath
	add := func(names []string) error {
		path, err := fieldPath(in, names, "spec.entity.key.others", true)
		if path != nil {
			out = append(out, path)
		}
		return err
	}
	if others := c.spec.Entity.Key.Others; len(others) > 0 {
		for _, other := range others {
			if err := add(strings.Split(other, ".")); err != nil {
				return nil, err
			}
		}
		return out, nil
	}
	for i := range in.Fields().Len() {
		f := in.Fields().Get(i)
		if !c.marks.has(f, otherKeyMark) {
			continue
		}
		if c.marks.key(f) {
			return nil, fmt.Errorf("%s is marked both as the key and as one of the others; take one mark off", f.FullName())
		}
		if err := add([]string{string(f.Name())}); err != nil {
			return nil, err
		}
	}
	if len(out) > maxKeyParts {
		return nil, fmt.Errorf("%d fields of %s are marked (%s), at most %d may be; make them one repeated field", len(out), in.FullName(), otherKeyMark.name, maxKeyParts)
	}
	if nested := c.markedBelow(in, otherKeyMark); nested != nil {
		return nil, fmt.Errorf("%s is marked (%s) below the message itself; name its path in spec.entity.key.others, or move it to %s", nested.FullName(), otherKeyMark.name, in.FullName())
	}
	return out, nil
}

// others adds the keys of further entities to a method whose state fields are known.
func (c *compiler) others(m protoreflect.MethodDescriptor, out *configv1.Method) error {
	paths, err := c.otherKeys(m.Input())
	if err != nil || len(paths) == 0 {
		return err
	}
	const one = "names further entities, and "
	switch t := c.out.Type; {
	case t.Consistency != configv1.Consistency_CONSISTENCY_STRONG:
		return fmt.Errorf(one + "only those of a strong type change as one; take the mark off, or write consistency: strong")
	case out.Watch:
		return fmt.Errorf(one + "a watch is of one entity; take the mark off")
	case len(out.Key.Fields) > 1:
		return fmt.Errorf(one+"has a key of %d parts; make the key one field", len(out.Key.Fields))
	case out.StateInField != 0 && !out.StateInWrapped:
		return fmt.Errorf(one + "its state_in field has room for one; make it a holdfast.v1.StateIn")
	case out.StateOutField != 0 && !out.StateOutWrapped:
		return fmt.Errorf(one + "its state_out field has room for one; make it a holdfast.v1.StateOut")
	}
	out.OtherKeys = paths
	return nil
}

// fieldPath resolves names from a message on. It returns nil where the message doesn't have the first. setting is what a
// user corrects where the path is wrong; repeated says that its fields may be.
func fieldPath(in protoreflect.MessageDescriptor, names []string, setting string, repeated bool) (*configv1.FieldPath, error) {
	if len(names) > maxKeyDepth {
		return nil, fmt.Errorf("the key's path has %d steps, at most %d are read", len(names), maxKeyDepth)
	}
	out := &configv1.FieldPath{}
	at := in
	for i, name := range names {
		f := at.Fields().ByName(protoreflect.Name(name))
		last := i == len(names)-1
		switch {
		case f == nil && i == 0:
			return nil, nil
		case f == nil:
			return nil, fmt.Errorf("%s has no field %s; correct %s", at.FullName(), name, setting)
		case f.IsMap():
			return nil, fmt.Errorf("%s is a map, and a key is one value; choose another field", f.FullName())
		case f.IsList() && !repeated:
			return nil, fmt.Errorf("%s is repeated, and a key is one value; choose a singular field", f.FullName())
		case !last && f.Message() == nil:
			return nil, fmt.Errorf("%s is a %s and has no fields; end the key's path there", f.FullName(), f.Kind())
		case last && f.Message() != nil:
			return nil, fmt.Errorf("%s is a message, and a key is a scalar; name or mark a field in it", f.FullName())
		case last && (f.Kind() == protoreflect.FloatKind || f.Kind() == protoreflect.DoubleKind):
			return nil, fmt.Errorf("%s is a %s, and equal ones have several spellings; choose a string, an integer, a bool or bytes", f.FullName(), f.Kind())
		}
		step := &configv1.FieldStep{Number: uint32(f.Number()), Type: int32(f.Kind()), ImplicitPresence: !f.HasPresence(), Repeated: f.IsList()}
		if o := f.ContainingOneof(); o != nil && !o.IsSynthetic() {
			for j := range o.Fields().Len() {
				if sibling := o.Fields().Get(j); sibling.Number() != f.Number() {
					step.OneofSiblings = append(step.OneofSiblings, uint32(sibling.Number()))
				}
			}
		}
		out.Steps = append(out.Steps, step)
		at = f.Message()
	}
	return out, nil
}

// stateFields finds the fields that carry the state of one method.
func (c *compiler) stateFields(m protoreflect.MethodDescriptor, out *configv1.Method) error {
	in, err := c.stateField(m.Input(), stateInMark, "holdfast.v1.StateIn")
	if err != nil {
		return err
	}
	if in != nil {
		c.stateIn++
		out.StateInField, out.StateInWrapped = uint32(in.Number()), in.Message().FullName() == "holdfast.v1.StateIn"
	}
	reply, err := c.stateField(m.Output(), stateOutMark, "holdfast.v1.StateOut")
	if err != nil {
		return err
	}
	if f := c.marked(m.Input(), stateOutMark); f != nil {
		return fmt.Errorf("%s is marked state_out, and is in a request; mark a field of the reply", f.FullName())
	}
	if f := c.marked(m.Output(), stateInMark); f != nil {
		return fmt.Errorf("%s is marked state_in, and is in a reply; mark a field of the request", f.FullName())
	}
	if reply == nil {
		return nil
	}
	if out.Watch {
		return fmt.Errorf("%s is marked state_out, and a watch changes nothing; take the mark off, or reply with another message", reply.FullName())
	}
	c.stateOut++
	out.StateOutField, out.StateOutWrapped = uint32(reply.Number()), reply.Message().FullName() == "holdfast.v1.StateOut"
	return nil
}

// stateField finds the marked field of a message and checks that the filter can cut it out and put it in.
func (c *compiler) stateField(in protoreflect.MessageDescriptor, want mark, wrapper protoreflect.FullName) (protoreflect.FieldDescriptor, error) {
	var found protoreflect.FieldDescriptor
	for i := range in.Fields().Len() {
		f := in.Fields().Get(i)
		if !c.marks.has(f, want) {
			continue
		}
		switch {
		case found != nil:
			return nil, fmt.Errorf("%s and %s are both marked (%s); mark one", found.FullName(), f.FullName(), want.name)
		case f.Cardinality() == protoreflect.Repeated:
			return nil, fmt.Errorf("%s is marked (%s) and is repeated; make it singular", f.FullName(), want.name)
		case f.ContainingOneof() != nil && !f.ContainingOneof().IsSynthetic():
			return nil, fmt.Errorf("%s is marked (%s) and is in a oneof, which appending it would change; move it out", f.FullName(), want.name)
		case f.Kind() != protoreflect.MessageKind:
			return nil, fmt.Errorf("%s is marked (%s) and is a %s; make it a message", f.FullName(), want.name, f.Kind())
		}
		m := c.out.Type.Model
		own := m == configv1.Model_MODEL_VALUE || m == configv1.Model_MODEL_LWW
		other := map[protoreflect.FullName]protoreflect.FullName{"holdfast.v1.StateIn": "holdfast.v1.StateOut", "holdfast.v1.StateOut": "holdfast.v1.StateIn"}[wrapper]
		if t := f.Message().FullName(); t == other || t != wrapper && !own {
			return nil, fmt.Errorf("%s is a %s; with model %s make it a %s", f.FullName(), t, &c.spec.Entity.Model, wrapper)
		} else if t != wrapper && c.value == nil {
			c.value = f.Message()
		} else if t != wrapper && t != c.value.FullName() && c.out.Type.ValueEncoding == configv1.ValueEncoding_VALUE_ENCODING_PROTO {
			return nil, fmt.Errorf("%s is a %s, and the state is a %s in another message; make them equal", f.FullName(), t, c.value.FullName())
		}
		found = f
	}
	if nested := c.markedBelow(in, want); nested != nil {
		return nil, fmt.Errorf("%s is marked (%s) below the message itself; move it to %s", nested.FullName(), want.name, in.FullName())
	}
	return found, nil
}

// marked finds the mark in a message's own fields.
func (c *compiler) marked(in protoreflect.MessageDescriptor, want mark) protoreflect.FieldDescriptor {
	for i := range in.Fields().Len() {
		if f := in.Fields().Get(i); c.marks.has(f, want) {
			return f
		}
	}
	return nil
}

// markedBelow finds the mark in the messages that a message holds, however deep: there the filter would not see it.
func (c *compiler) markedBelow(in protoreflect.MessageDescriptor, want mark) protoreflect.FieldDescriptor {
	seen := map[protoreflect.FullName]bool{in.FullName(): true}
	queue := []protoreflect.MessageDescriptor{in}
	for len(queue) > 0 {
		at := queue[0]
		queue = queue[1:]
		for i := range at.Fields().Len() {
			m := at.Fields().Get(i).Message()
			if m == nil || seen[m.FullName()] {
				continue
			}
			seen[m.FullName()] = true
			if f := c.marked(m, want); f != nil {
				return f
			}
			queue = append(queue, m)
		}
	}
	return nil
}
