package entitykey

import (
	"errors"
	"fmt"
	"slices"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/descriptorpb"

	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
)

var (
	// ErrTwice says that a request names one entity more than once.
	ErrTwice = errors.New("entity named twice")
	// ErrTooMany says that a request names more than MaxOthers further entities.
	ErrTooMany = fmt.Errorf("more than %d further entities", MaxOthers)
)

// Others finds the keys of the further entities that a request names, in the order of its fields. It agrees with protobuf's
// readers as an Extractor does; fields that are repeated name an entity each time. It is immutable and safe for concurrent
// use.
type Others struct {
	paths [][]step
}

// CompileOthers checks the paths of one method's other keys and makes them ready for use. It copies what it needs.
func CompileOthers(fields []*configv1.FieldPath) (*Others, error) {
	if len(fields) == 0 || len(fields) > MaxParts {
		return nil, fmt.Errorf("%d fields of other keys, want 1 to %d", len(fields), MaxParts)
	}
	o := &Others{}
	for i, f := range fields {
		path, err := compilePath(f)
		if err != nil {
			return nil, fmt.Errorf("other keys' field %d: %w", i, err)
		}
		o.paths = append(o.paths, path)
	}
	return o, nil
}

// FromMessage finds the keys in a serialised request message. A field that is absent names none. own is the request's own
// key, which none of them may be. Errors are ErrMalformed, ErrTwice and ErrTooMany.
func (o *Others) FromMessage(msg []byte, own string) ([]string, error) {
	var out []string
	for _, path := range o.paths {
		l := list{path: path}
		if err := l.message(msg, 0, 0); err != nil {
			return nil, err
		}
		for _, e := range l.found {
			w := walk{path: path, found: true, bytes: e.bytes, number: e.number}
			key, err := w.text()
			switch last := path[len(path)-1]; {
			case err == nil:
			case !errors.Is(err, ErrAbsent):
				return nil, err
			case !last.repeated:
				continue
			case last.wire == protowire.BytesType:
				return nil, fmt.Errorf("%w: one of the other keys is empty", ErrMalformed)
			default:
				// The zero of an implicit number is there all the same: an element has no presence.
				key, _ = number(last.kind, e.number)
			}
			if key, err = check(key); err != nil {
				return nil, err
			}
			if key == own || slices.Contains(out, key) {
				return nil, fmt.Errorf("%w: %q", ErrTwice, key)
			}
			if len(out) == MaxOthers {
				return nil, ErrTooMany
			}
			out = append(out, key)
		}
	}
	return out, nil
}

// element is a scalar as it was found.
type element struct {
	bytes  []byte
	number uint64
}

// list follows one path to all that it leads to.
type list struct {
	path []step
	// found holds what was found so far. What one element of a repeated field, or the message itself, has found is at its
	// end, from a base on: so a value that a later one replaces is cut off there.
	found []element
}

func (l *list) message(b []byte, i, base int) error {
	for len(b) > 0 {
		num, typ, n, err := tag(b)
		if err != nil {
			return err
		}
		if typ == protowire.EndGroupType {
			return fmt.Errorf("%w: end of a group that did not start", ErrMalformed)
		}
		b = b[n:]
		if n, err = l.field(b, num, typ, i, base); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

func (l *list) group(b []byte, group protowire.Number, i, base int) (int, error) {
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
		if n, err = l.field(b[at:], num, typ, i, base); err != nil {
			return 0, err
		}
		at += n
	}
}

func (l *list) field(b []byte, num protowire.Number, typ protowire.Type, i, base int) (int, error) {
	st := &l.path[i]
	packed := st.repeated && typ == protowire.BytesType && st.wire != protowire.BytesType && !isMessage(st.kind)
	if num != st.number || typ != st.wire && !packed {
		n, err := skip(b, num, typ, 0)
		if err == nil && len(l.found) > base && slices.Contains(st.siblings, num) {
			// A reader that knows the sibling's type may take it for an unknown field and keep the key. No writer sends two
			// members of a oneof.
			return 0, fmt.Errorf("%w: field %d replaces another member of its oneof", ErrMalformed, num)
		}
		return n, err
	}
	inner := base
	if st.repeated {
		inner = len(l.found)
	}
	if typ == protowire.StartGroupType {
		return l.group(b, num, i+1, inner)
	}
	n := protowire.ConsumeFieldValue(num, typ, b)
	if n < 0 {
		return 0, fmt.Errorf("%w: field %d: %w", ErrMalformed, num, protowire.ParseError(n))
	}
	if typ != protowire.BytesType {
		_, err := l.scalar(b, st, base)
		return n, err
	}
	payload, _ := protowire.ConsumeBytes(b)
	switch {
	case packed:
		for len(payload) > 0 {
			m, err := l.scalar(payload, st, base)
			if err != nil {
				return 0, err
			}
			payload = payload[m:]
		}
		return n, nil
	case st.kind == descriptorpb.FieldDescriptorProto_TYPE_MESSAGE:
		return n, l.message(payload, i+1, inner)
	case st.kind == descriptorpb.FieldDescriptorProto_TYPE_STRING && !utf8.Valid(payload):
		return 0, fmt.Errorf("%w: field %d is not UTF-8", ErrMalformed, num)
	}
	return n, l.add(element{bytes: payload}, st, base)
}

// scalar takes one number off b and returns its length.
func (l *list) scalar(b []byte, st *step, base int) (n int, err error) {
	var e element
	switch st.wire {
	case protowire.Fixed32Type:
		var v uint32
		v, n = protowire.ConsumeFixed32(b)
		e.number = uint64(v)
	case protowire.Fixed64Type:
		e.number, n = protowire.ConsumeFixed64(b)
	default:
		e.number, n = protowire.ConsumeVarint(b)
	}
	if n < 0 {
		return 0, fmt.Errorf("%w: field %d: %w", ErrMalformed, st.number, protowire.ParseError(n))
	}
	return n, l.add(e, st, base)
}

func (l *list) add(e element, st *step, base int) error {
	if !st.repeated {
		l.found = l.found[:base]
	}
	// Before the list grows: what is said of too many is not worth their memory.
	if len(l.found) == MaxOthers {
		return ErrTooMany
	}
	l.found = append(l.found, e)
	return nil
}
