package resolve

import (
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// mark is a field option that means something to us.
type mark struct {
	number protowire.Number
	name   protoreflect.FullName
}

var (
	keyMark      = mark{50801, "holdfast.v1.entity_key"}
	otherKeyMark = mark{50804, "holdfast.v1.other_entity_keys"}
	cloudKeyMark = mark{1080, "cloudstate.entity_key"}
	stateInMark  = mark{50802, "holdfast.v1.state_in"}
	stateOutMark = mark{50803, "holdfast.v1.state_out"}
)

// marks reads the options of one set of descriptors.
type marks struct {
	// foreign holds numbers that somebody else's option has in these descriptors.
	foreign map[protowire.Number]bool
}

func newMarks(files *protoregistry.Files) marks {
	m := marks{foreign: map[protowire.Number]bool{}}
	look := func(xs protoreflect.ExtensionDescriptors) {
		for i := range xs.Len() {
			x := xs.Get(i)
			if x.ContainingMessage().FullName() != "google.protobuf.FieldOptions" {
				continue
			}
			for _, ours := range []mark{keyMark, otherKeyMark, cloudKeyMark, stateInMark, stateOutMark} {
				if x.Number() == ours.number && x.FullName() != ours.name {
					m.foreign[ours.number] = true
				}
			}
		}
	}
	var nested func(protoreflect.MessageDescriptors)
	nested = func(ms protoreflect.MessageDescriptors) {
		for i := range ms.Len() {
			look(ms.Get(i).Extensions())
			nested(ms.Get(i).Messages())
		}
	}
	files.RangeFiles(func(f protoreflect.FileDescriptor) bool {
		look(f.Extensions())
		nested(f.Messages())
		return true
	})
	return m
}

// has reports whether the field carries the mark as true. The option may have been decoded as an extension or have stayed
// unknown, depending on what this binary has linked in: its bytes are the same.
func (m marks) has(f protoreflect.FieldDescriptor, want mark) bool {
	if m.foreign[want.number] {
		return false
	}
	raw, err := proto.Marshal(f.Options())
	if err != nil {
		return false
	}
	set := false
	for len(raw) > 0 {
		num, typ, n := protowire.ConsumeTag(raw)
		if n < 0 {
			return false
		}
		raw = raw[n:]
		if num == want.number && typ == protowire.VarintType {
			v, n := protowire.ConsumeVarint(raw)
			if n < 0 {
				return false
			}
			set, raw = v != 0, raw[n:]
			continue
		}
		if n = protowire.ConsumeFieldValue(num, typ, raw); n < 0 {
			return false
		}
		raw = raw[n:]
	}
	return set
}

func (m marks) key(f protoreflect.FieldDescriptor) bool {
	return m.has(f, keyMark) || m.has(f, cloudKeyMark)
}
