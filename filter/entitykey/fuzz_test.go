package entitykey

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
)

// reference is the key as a service sees it: err is protobuf's, ErrAbsent or ErrMalformed. ambiguous says that a oneof
// sibling of the wrong wire type is in the way, for which the extractor may refuse the message.
func (s schema) reference(in []byte) (key string, ambiguous bool, err error) {
	m := dynamicpb.NewMessage(s.md)
	defer func() {
		// dynamicpb (1.36.12) panics on a map entry whose key comes twice, the second time with the wrong wire type.
		if r := recover(); r != nil {
			err = fmt.Errorf("protobuf panics: %v", r)
		}
	}()
	if err := (proto.UnmarshalOptions{AllowPartial: true}).Unmarshal(in, m); err != nil {
		return "", false, fmt.Errorf("protobuf refuses: %w", err)
	}
	var parts []string
	for _, path := range s.paths {
		part, amb, err2 := follow(m, path)
		ambiguous = ambiguous || amb
		if err == nil {
			err = err2
		}
		parts = append(parts, part)
	}
	if err != nil {
		return "", ambiguous, err
	}
	if len(parts) > 1 {
		for i, p := range parts {
			parts[i] = strings.ReplaceAll(strings.ReplaceAll(p, "%", "%25"), ",", "%2C")
		}
	}
	if key = strings.Join(parts, ","); len(key) > MaxKeyBytes {
		return "", ambiguous, ErrMalformed
	}
	return key, ambiguous, nil
}

func follow(m protoreflect.Message, path []protoreflect.FieldDescriptor) (part string, ambiguous bool, err error) {
	for _, fd := range path {
		if o := fd.ContainingOneof(); o != nil {
			for b := m.GetUnknown(); len(b) > 0; {
				num, _, n := protowire.ConsumeField(b)
				if f := o.Fields().ByNumber(num); f != nil && num != fd.Number() {
					ambiguous = true
				}
				b = b[n:]
			}
		}
		if !m.Has(fd) {
			return "", ambiguous, ErrAbsent
		}
		if fd.Message() != nil {
			m = m.Get(fd).Message()
			continue
		}
		switch v := m.Get(fd); fd.Kind() {
		case protoreflect.StringKind:
			if part = v.String(); !utf8.ValidString(part) {
				return "", ambiguous, ErrMalformed
			}
		case protoreflect.BytesKind:
			part = base64.RawURLEncoding.EncodeToString(v.Bytes())
		case protoreflect.EnumKind:
			part = fmt.Sprint(int32(v.Enum()))
		default:
			part = fmt.Sprint(v.Interface())
		}
		if part == "" {
			return "", ambiguous, ErrAbsent
		}
	}
	return part, ambiguous, nil
}

func (s schema) check(t *testing.T, in []byte) {
	t.Helper()
	given := bytes.Clone(in)
	got, err := s.x.FromMessage(in)
	if !bytes.Equal(in, given) {
		t.Fatalf("%s: the input was changed", s.name)
	}
	if (err == nil) != (got != "") || len(got) > MaxKeyBytes || !utf8.ValidString(got) {
		t.Fatalf("%s: %x: key %q with error %v", s.name, in, got, err)
	}
	if err != nil && !errors.Is(err, ErrAbsent) && !errors.Is(err, ErrMalformed) {
		t.Fatalf("%s: %x: error of no kind: %v", s.name, in, err)
	}
	want, ambiguous, wantErr := s.reference(in)
	switch {
	case wantErr != nil && !errors.Is(wantErr, ErrAbsent) && !errors.Is(wantErr, ErrMalformed):
		// The service never sees this message. That something else in it is malformed is not the extractor's to know.
	case err != nil && ambiguous:
	case errors.Is(err, ErrMalformed) && (strings.Contains(err.Error(), "nested deeper") || s.notUTF8(err)):
	case got != want || len(s.paths) == 1 && errors.Is(err, ErrAbsent) != errors.Is(wantErr, ErrAbsent):
		t.Fatalf("%s: %x: got %q, %v; protobuf says %q, %v", s.name, in, got, err, want, wantErr)
	}
}

// notUTF8 says that the extractor refused text that proto2 lets pass, also where it was overwritten later.
func (s schema) notUTF8(err error) bool {
	return s.md.ParentFile().Syntax() == protoreflect.Proto2 && strings.Contains(err.Error(), "not UTF-8")
}

// build makes a well-formed message of anything: random bytes are rarely one.
func build(program []byte, depth int) (out, rest []byte) {
	for len(program) > 0 {
		op := program[0]
		program = program[1:]
		num := protowire.Number(op>>3&7) + 1
		if num == 8 {
			num = protowire.MaxValidNumber
		}
		next := func() (b byte) {
			if len(program) > 0 {
				b, program = program[0], program[1:]
			}
			return b
		}
		switch op & 7 {
		case 0:
			v := uint64(next())
			if v > 250 {
				v = ^uint64(0) - v<<28
			}
			out = protowire.AppendVarint(protowire.AppendTag(out, num, protowire.VarintType), v)
		case 1:
			out = protowire.AppendFixed64(protowire.AppendTag(out, num, protowire.Fixed64Type), uint64(next())<<60|uint64(next()))
		case 5:
			out = protowire.AppendFixed32(protowire.AppendTag(out, num, protowire.Fixed32Type), uint32(next())<<28|uint32(next()))
		case 2:
			n := min(int(next())%6, len(program))
			out = protowire.AppendBytes(protowire.AppendTag(out, num, protowire.BytesType), program[:n])
			program = program[n:]
		case 3, 6:
			if depth > 8 {
				continue
			}
			var in []byte
			in, program = build(program, depth+1)
			if op&7 == 6 {
				out = protowire.AppendBytes(protowire.AppendTag(out, num, protowire.BytesType), in)
			} else {
				out = protowire.AppendTag(out, num, protowire.StartGroupType)
				out = protowire.AppendTag(append(out, in...), num, protowire.EndGroupType)
			}
		default:
			if depth > 0 {
				return out, program
			}
		}
	}
	return out, nil
}

func FuzzFromMessage(f *testing.F) {
	all := compileSchemas(f)
	for _, seed := range seeds {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		built, _ := build(in, 0)
		for _, s := range all {
			s.check(t, in)
			s.check(t, built)
		}
	})
}

func FuzzFromHeader(f *testing.F) {
	f.Add("kubecon")
	f.Add("")
	f.Add("\xff")
	f.Add(strings.Repeat("a", MaxKeyBytes+1))
	f.Fuzz(func(t *testing.T, in string) {
		got, err := FromHeader(in)
		if (err == nil) != (got != "") || (err == nil && got != in) || len(got) > MaxKeyBytes {
			t.Fatalf("FromHeader(%q) = %q, %v", in, got, err)
		}
	})
}
