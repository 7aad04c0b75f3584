package entitykey

import (
	"fmt"
	"slices"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/holdfast-mesh/holdfast/internal/planted"
)

// walk follows one path through a message. What it has found so far lives here and not on the stack, because a
// submessage that occurs again is merged into what it was.
type walk struct {
	path   []step
	found  bool
	bytes  []byte
	number uint64
}

// message walks a whole serialised message whose fields step i of the path is among.
func (w *walk) message(b []byte, i int) error {
	for len(b) > 0 {
		num, typ, n, err := tag(b)
		if err != nil {
			return err
		}
		if typ == protowire.EndGroupType {
			return fmt.Errorf("%w: end of a group that did not start", ErrMalformed)
		}
		b = b[n:]
		if n, err = w.field(b, num, typ, i); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// group walks the fields up to the end of group num and returns how many bytes it and its end take.
func (w *walk) group(b []byte, group protowire.Number, i int) (int, error) {
	for at := 0; ; {
		num, typ, n, err := tag(b[at:])
		if err != nil {
			return 0, err
		}
		at += n
		if typ == protowire.EndGroupType {
			if num != group {
				return 0, fmt.Errorf("%w: group %d ends as %d", ErrMalformed, group, num)
			}
			return at, nil
		}
		if n, err = w.field(b[at:], num, typ, i); err != nil {
			return 0, err
		}
		at += n
	}
}

// field takes one field's value off b and returns its length.
func (w *walk) field(b []byte, num protowire.Number, typ protowire.Type, i int) (int, error) {
	st := &w.path[i]
	if num != st.number || typ != st.wire {
		n, err := skip(b, num, typ, 0)
		if err == nil && slices.Contains(st.siblings, num) {
			w.found = false
		}
		return n, err
	}
	if typ == protowire.StartGroupType {
		return w.group(b, num, i+1)
	}
	n := protowire.ConsumeFieldValue(num, typ, b)
	if n < 0 {
		return 0, fmt.Errorf("%w: field %d: %w", ErrMalformed, num, protowire.ParseError(n))
	}
	if w.found && planted.On(planted.FirstOccurrenceWins) {
		return n, nil
	}
	switch typ {
	case protowire.BytesType:
		payload, _ := protowire.ConsumeBytes(b)
		if st.kind == descriptorpb.FieldDescriptorProto_TYPE_MESSAGE {
			return n, w.message(payload, i+1)
		}
		if st.kind == descriptorpb.FieldDescriptorProto_TYPE_STRING && !utf8.Valid(payload) {
			return 0, fmt.Errorf("%w: field %d is not UTF-8", ErrMalformed, num)
		}
		w.bytes = payload
	case protowire.VarintType:
		w.number, _ = protowire.ConsumeVarint(b)
	case protowire.Fixed32Type:
		v, _ := protowire.ConsumeFixed32(b)
		w.number = uint64(v)
	case protowire.Fixed64Type:
		w.number, _ = protowire.ConsumeFixed64(b)
	}
	w.found = true
	return n, nil
}

func tag(b []byte) (protowire.Number, protowire.Type, int, error) {
	num, typ, n := protowire.ConsumeTag(b)
	if n < 0 {
		return 0, 0, 0, fmt.Errorf("%w: %w", ErrMalformed, protowire.ParseError(n))
	}
	if num > protowire.MaxValidNumber {
		return 0, 0, 0, fmt.Errorf("%w: field number %d", ErrMalformed, num)
	}
	return num, typ, n, nil
}

// skip returns the length of a field's value that is none of ours.
func skip(b []byte, num protowire.Number, typ protowire.Type, depth int) (int, error) {
	if typ != protowire.StartGroupType {
		n := protowire.ConsumeFieldValue(num, typ, b)
		if n < 0 {
			return 0, fmt.Errorf("%w: field %d: %w", ErrMalformed, num, protowire.ParseError(n))
		}
		return n, nil
	}
	if depth == MaxDepth {
		return 0, fmt.Errorf("%w: groups nested deeper than %d", ErrMalformed, MaxDepth)
	}
	for at := 0; ; {
		inner, innerType, n := protowire.ConsumeTag(b[at:])
		if n < 0 {
			return 0, fmt.Errorf("%w: %w", ErrMalformed, protowire.ParseError(n))
		}
		at += n
		if innerType == protowire.EndGroupType {
			if inner != num {
				return 0, fmt.Errorf("%w: group %d ends as %d", ErrMalformed, num, inner)
			}
			return at, nil
		}
		n, err := skip(b[at:], inner, innerType, depth+1)
		if err != nil {
			return 0, err
		}
		at += n
	}
}
