// Package entitykey finds an entity's key in a request message.
//
// It walks the wire format without decoding the message and has to agree with every protobuf reader behind it: a filter
// that routes by one key while the service reads another would let a caller reach entities that are not its own. So
//   - the last occurrence of a field wins, and a submessage that occurs several times is merged;
//   - a later member of the same oneof clears the field;
//   - a field with another wire type than its type's is unknown, and skipped;
//   - with implicit presence the zero value is absent; an empty string or bytes is absent always, since it names nothing;
//   - what protobuf refuses on the way (and any string key that is not UTF-8, in proto2 too) is refused.
//
// The members of a oneof are known by number only, so a sibling with the wrong wire type clears the key too, where a
// protobuf reader skips it: such a message is refused or gives the same key, never another.
//
// Keys as text: a string is itself, an integer or enum is decimal, a bool is "true" or "false", bytes are base64url
// without padding (a key has to be UTF-8). A composite key has '%' in its parts written as "%25" and ',' as "%2C", and
// its parts joined by ','; no part may be absent. So no two composite keys of the same number of parts are equal, and none is
// equal to one of another number of parts above one. A key of one part is not escaped and may look like a
// composite ("a,b"): the methods of one entity type must all have the same number of parts, see [Extractor.Parts].
package entitykey

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/descriptorpb"

	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
)

var (
	// ErrAbsent says that the message or header has no key.
	ErrAbsent = errors.New("entity key absent")
	// ErrMalformed says that the message is not protobuf or that what it has as a key can't be one.
	ErrMalformed = errors.New("entity key malformed")
)

// Extractor finds keys as one KeySource says. It is immutable and safe for concurrent use.
type Extractor struct {
	header string
	paths  [][]step
}

type step struct {
	number   protowire.Number
	wire     protowire.Type
	kind     descriptorpb.FieldDescriptorProto_Type
	siblings []protowire.Number
	implicit bool
	repeated bool
}

// Compile checks a key source and makes it ready for use. It copies what it needs.
func Compile(src *configv1.KeySource) (*Extractor, error) {
	header, fields := src.GetHeader(), src.GetFields()
	switch {
	case header == "" && len(fields) == 0:
		return nil, errors.New("key source names neither a header nor a field")
	case header != "" && len(fields) != 0:
		return nil, errors.New("key source names both a header and fields")
	case len(fields) > MaxParts:
		return nil, fmt.Errorf("key source has %d fields, at most %d", len(fields), MaxParts)
	}
	x := &Extractor{header: strings.ToLower(header)}
	for i, f := range fields {
		path, err := compilePath(f)
		if err != nil {
			return nil, fmt.Errorf("key source field %d: %w", i, err)
		}
		if slices.ContainsFunc(path, func(s step) bool { return s.repeated }) {
			return nil, fmt.Errorf("key source field %d: a key is one value, and a step is repeated", i)
		}
		x.paths = append(x.paths, path)
	}
	return x, nil
}

func compilePath(f *configv1.FieldPath) ([]step, error) {
	n := len(f.GetSteps())
	if n == 0 || n > MaxDepth {
		return nil, fmt.Errorf("path has %d steps, want 1 to %d", n, MaxDepth)
	}
	path := make([]step, 0, n)
	for i, s := range f.Steps {
		st := step{
			number:   protowire.Number(s.GetNumber()),
			kind:     descriptorpb.FieldDescriptorProto_Type(s.GetType()),
			implicit: s.GetImplicitPresence(),
			repeated: s.GetRepeated(),
		}
		if s.GetNumber() > uint32(protowire.MaxValidNumber) || !st.number.IsValid() {
			return nil, fmt.Errorf("step %d: field number %d", i, s.GetNumber())
		}
		wire, ok := wireType(st.kind)
		if !ok {
			return nil, fmt.Errorf("step %d: a key can't be of type %v", i, st.kind)
		}
		if isMessage(st.kind) != (i < n-1) {
			return nil, fmt.Errorf("step %d of %d has type %v: the last is a scalar, the others are messages", i+1, n, st.kind)
		}
		st.wire = wire
		for _, sib := range s.GetOneofSiblings() {
			st.siblings = append(st.siblings, protowire.Number(sib))
		}
		path = append(path, st)
	}
	return path, nil
}

func isMessage(kind descriptorpb.FieldDescriptorProto_Type) bool {
	return kind == descriptorpb.FieldDescriptorProto_TYPE_MESSAGE || kind == descriptorpb.FieldDescriptorProto_TYPE_GROUP
}

// wireType is the only wire type that protobuf takes for a singular field of the kind. Floating-point numbers are no
// keys: equal ones have several spellings.
func wireType(kind descriptorpb.FieldDescriptorProto_Type) (protowire.Type, bool) {
	switch kind {
	case descriptorpb.FieldDescriptorProto_TYPE_STRING, descriptorpb.FieldDescriptorProto_TYPE_BYTES,
		descriptorpb.FieldDescriptorProto_TYPE_MESSAGE:
		return protowire.BytesType, true
	case descriptorpb.FieldDescriptorProto_TYPE_GROUP:
		return protowire.StartGroupType, true
	case descriptorpb.FieldDescriptorProto_TYPE_INT32, descriptorpb.FieldDescriptorProto_TYPE_INT64,
		descriptorpb.FieldDescriptorProto_TYPE_UINT32, descriptorpb.FieldDescriptorProto_TYPE_UINT64,
		descriptorpb.FieldDescriptorProto_TYPE_SINT32, descriptorpb.FieldDescriptorProto_TYPE_SINT64,
		descriptorpb.FieldDescriptorProto_TYPE_ENUM, descriptorpb.FieldDescriptorProto_TYPE_BOOL:
		return protowire.VarintType, true
	case descriptorpb.FieldDescriptorProto_TYPE_FIXED32, descriptorpb.FieldDescriptorProto_TYPE_SFIXED32:
		return protowire.Fixed32Type, true
	case descriptorpb.FieldDescriptorProto_TYPE_FIXED64, descriptorpb.FieldDescriptorProto_TYPE_SFIXED64:
		return protowire.Fixed64Type, true
	default:
		return 0, false
	}
}

// Header is the lower-case name of the header that has the key, or empty where the message has it.
func (x *Extractor) Header() string { return x.header }

// Parts is the number of a key's parts: 1 for a header.
func (x *Extractor) Parts() int { return max(1, len(x.paths)) }

// FromMessage finds the key in a serialised request message.
func (x *Extractor) FromMessage(msg []byte) (string, error) {
	if len(x.paths) == 0 {
		return "", fmt.Errorf("%w: it is in the header %s", ErrAbsent, x.header)
	}
	var key strings.Builder
	for i, path := range x.paths {
		w := walk{path: path}
		if err := w.message(msg, 0); err != nil {
			return "", err
		}
		part, err := w.text()
		if err != nil {
			return "", err
		}
		if len(x.paths) > 1 {
			part = escaper.Replace(part)
			if i > 0 {
				key.WriteByte(',')
			}
		}
		key.WriteString(part)
	}
	return check(key.String())
}

var escaper = strings.NewReplacer("%", "%25", ",", "%2C")

// FromHeader takes a header's value as the key, as it is.
func FromHeader(value string) (string, error) {
	if value == "" {
		return "", ErrAbsent
	}
	if !utf8.ValidString(value) {
		return "", fmt.Errorf("%w: header is not UTF-8", ErrMalformed)
	}
	return check(value)
}

func check(key string) (string, error) {
	if len(key) > MaxKeyBytes {
		return "", fmt.Errorf("%w: %d bytes, at most %d", ErrMalformed, len(key), MaxKeyBytes)
	}
	return key, nil
}

// text is the key part that the walk ended with.
func (w *walk) text() (string, error) {
	if !w.found {
		return "", ErrAbsent
	}
	last := w.path[len(w.path)-1]
	if last.wire == protowire.BytesType {
		if len(w.bytes) == 0 {
			return "", ErrAbsent
		}
		// Before it is copied or escaped: the limit holds for a part as well.
		if len(w.bytes) > MaxKeyBytes {
			return "", fmt.Errorf("%w: %d bytes, at most %d", ErrMalformed, len(w.bytes), MaxKeyBytes)
		}
		if last.kind == descriptorpb.FieldDescriptorProto_TYPE_BYTES {
			return base64.RawURLEncoding.EncodeToString(w.bytes), nil
		}
		return string(w.bytes), nil
	}
	text, zero := number(last.kind, w.number)
	if zero && last.implicit {
		return "", ErrAbsent
	}
	return text, nil
}

// number spells a scalar as every protobuf reader understands it: 32-bit types take the low bits.
func number(kind descriptorpb.FieldDescriptorProto_Type, v uint64) (text string, zero bool) {
	var signed int64
	switch kind {
	case descriptorpb.FieldDescriptorProto_TYPE_BOOL:
		return strconv.FormatBool(v != 0), v == 0
	case descriptorpb.FieldDescriptorProto_TYPE_UINT32, descriptorpb.FieldDescriptorProto_TYPE_FIXED32:
		return strconv.FormatUint(uint64(uint32(v)), 10), uint32(v) == 0
	case descriptorpb.FieldDescriptorProto_TYPE_UINT64, descriptorpb.FieldDescriptorProto_TYPE_FIXED64:
		return strconv.FormatUint(v, 10), v == 0
	case descriptorpb.FieldDescriptorProto_TYPE_SINT32:
		signed = int64(int32(protowire.DecodeZigZag(v & 0xffffffff)))
	case descriptorpb.FieldDescriptorProto_TYPE_SINT64:
		signed = protowire.DecodeZigZag(v)
	case descriptorpb.FieldDescriptorProto_TYPE_INT64, descriptorpb.FieldDescriptorProto_TYPE_SFIXED64:
		signed = int64(v)
	default: // int32, sfixed32, enum
		signed = int64(int32(v))
	}
	return strconv.FormatInt(signed, 10), signed == 0
}
