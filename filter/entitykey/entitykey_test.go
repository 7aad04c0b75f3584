package entitykey

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/descriptorpb"
	"pgregory.net/rapid"

	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
)

func str(num protowire.Number, s string) []byte {
	return protowire.AppendString(protowire.AppendTag(nil, num, protowire.BytesType), s)
}

func sub(num protowire.Number, in ...[]byte) []byte { return str(num, string(cat(in...))) }

func varint(num protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(nil, num, protowire.VarintType), v)
}

func group(num protowire.Number, in ...[]byte) []byte {
	b := protowire.AppendTag(nil, num, protowire.StartGroupType)
	return protowire.AppendTag(append(b, cat(in...)...), num, protowire.EndGroupType)
}

func cat(bs ...[]byte) []byte { return slices.Concat(bs...) }

func groups(n int) (b []byte) {
	for range n {
		b = group(7, b)
	}
	return b
}

// cases are checked by name, and against dynamicpb for every schema.
var cases = []struct {
	schema string
	in     []byte
	want   string
	err    error
}{
	{"string", str(1, "a"), "a", nil},
	{"string", nil, "", ErrAbsent},
	{"string", str(1, ""), "", ErrAbsent},
	{"string", cat(str(1, "a"), str(1, "b")), "b", nil},
	{"string", cat(str(1, "a"), str(1, "")), "", ErrAbsent},
	{"string", cat(str(1, "a"), varint(1, 5)), "a", nil},
	{"string", cat(str(3, strings.Repeat("x", 1<<16)), str(1, "after a large one")), "after a large one", nil},
	{"string", cat(group(1, str(1, "no")), str(1, "a")), "a", nil},
	{"string", str(1, "a%,b"), "a%,b", nil},
	{"string", str(1, "\xff"), "", ErrMalformed},
	{"string", cat(str(1, "\xff"), str(1, "a")), "", ErrMalformed},
	{"string", str(1, strings.Repeat("k", MaxKeyBytes)), strings.Repeat("k", MaxKeyBytes), nil},
	{"string", str(1, strings.Repeat("k", MaxKeyBytes+1)), "", ErrMalformed},
	{"string", cat(str(1, strings.Repeat("k", MaxKeyBytes+1)), str(1, "a")), "a", nil},
	{"string", str(1, "a")[:2], "", ErrMalformed},
	{"string", cat(str(1, "a"), []byte{0x80}), "", ErrMalformed},
	{"string", cat(str(1, "a"), varint(0, 1)), "", ErrMalformed},
	{"string", cat(str(1, "a"), []byte{1<<3 | 4}), "", ErrMalformed},
	{"string", cat(str(1, "a"), []byte{1<<3 | 7}), "", ErrMalformed},
	{"string", cat(str(1, "a"), groups(MaxDepth)), "a", nil},
	{"string", cat(str(1, "a"), groups(MaxDepth+1)), "", ErrMalformed},
	{"string", cat(str(1, "a"), []byte{2<<3 | 3, 3<<3 | 4}), "", ErrMalformed},
	{"optional string", str(1, ""), "", ErrAbsent},
	{"bytes", str(1, "\xff\xfe,"), "__4s", nil},
	{"int32", varint(1, 5), "5", nil},
	{"int32", varint(1, 0), "", ErrAbsent},
	{"int32", cat(varint(1, 5), varint(1, 0)), "", ErrAbsent},
	{"int32", varint(1, math.MaxUint64), "-1", nil},
	{"int32", varint(1, 1<<32|3), "3", nil},
	{"int32", varint(1, 1<<32), "", ErrAbsent},
	{"int32", str(1, "\x05"), "", ErrAbsent}, // packed is for repeated fields
	{"optional int64", varint(1, 0), "0", nil},
	{"optional int64", varint(1, 1<<63), "-9223372036854775808", nil},
	{"uint32", varint(1, 1<<32|9), "9", nil},
	{"uint32", nil, "", ErrAbsent}, // a default value is no key
	{"uint64", varint(2, math.MaxUint64), "18446744073709551615", nil},
	{"sint32", cat(varint(1, 3), varint(2, 4)), "-2,2", nil},
	{"sint32", varint(1, 3), "", ErrAbsent},
	{"enum", varint(1, 77), "77", nil},
	{"enum", varint(1, math.MaxUint64), "-1", nil},
	{"bool", varint(1, 2), "true", nil},
	{"bool", varint(1, 0), "", ErrAbsent},
	{"optional bool", varint(2, 0), "false", nil},
	{"nested", sub(1, sub(1, str(1, "a"))), "a", nil},
	{"nested", cat(sub(1, sub(1, str(1, "a"))), sub(1, str(2, "merged")), sub(1, sub(1, varint(2, 1)))), "a", nil},
	{"nested", cat(sub(1, sub(1, str(1, "a"))), sub(1, sub(1, str(1, "b")))), "b", nil},
	{"nested", cat(sub(1, sub(1, str(1, "a"))), sub(1, sub(1, str(1, "")))), "", ErrAbsent},
	{"nested", sub(1, str(1, "\xff")), "", ErrMalformed},
	{"nested", cat(sub(1, sub(1, str(1, "a"))), str(1, "\xff")), "", ErrMalformed},
	{"itself", sub(1, sub(1, sub(1, str(2, "a")), str(2, "no")), str(2, "no")), "a", nil},
	{"oneof", cat(str(1, "a"), varint(2, 0)), "", ErrAbsent},
	{"oneof", cat(varint(2, 0), str(1, "a")), "a", nil},
	{"oneof", cat(str(1, "a"), varint(4, 0)), "", ErrAbsent}, // 4 is fixed32: cautious
	{"oneof of messages", cat(sub(1, str(1, "a")), sub(2, str(1, "b"))), "", ErrAbsent},
	{"oneof of messages", cat(sub(1, str(1, "a")), sub(2), sub(1, varint(3, 1))), "", ErrAbsent},
	{"oneof of messages", cat(sub(1, str(1, "a")), sub(1, varint(3, 1))), "a", nil},
	{"oneof of messages", cat(sub(1, str(1, "a")), sub(1, varint(2, 0))), "", ErrAbsent},
	{"oneof of messages", cat(sub(1, varint(2, 0)), sub(1, str(1, "a"))), "a", nil},
	{"oneof of numbers", sub(1, varint(2, 0)), "0", nil},
	{"group", group(1, str(1, "a")), "a", nil},
	{"group", sub(1, str(1, "a")), "", ErrAbsent},
	{"group", cat(group(1, str(1, "a")), group(1, group(2))), "a", nil},
	{"group", []byte{1<<3 | 3, 1<<3 | 2, 1, 'a'}, "", ErrMalformed},
	{"group", []byte{1<<3 | 3, 1<<3 | 2, 1, 'a', 2<<3 | 4}, "", ErrMalformed},
	{"composite", cat(str(1, "a,%b"), varint(2, 7), sub(3, str(1, "\xfb\xff"))), "a%2C%25b,7,-_8", nil},
	{"composite", cat(str(1, "a"), sub(3, str(1, "b"))), "", ErrAbsent},
	{"composite", cat(str(1, strings.Repeat(",", 400)), varint(2, 7), sub(3, str(1, "b"))), "", ErrMalformed},
	{"high number", str(protowire.MaxValidNumber, "a"), "a", nil},
	{"high number", protowire.AppendVarint(nil, uint64(protowire.MaxValidNumber+1)<<3), "", ErrMalformed},
}

// seeds are the cases' inputs.
var seeds = func() (out [][]byte) {
	for _, c := range cases {
		out = append(out, c.in)
	}
	return out
}()

func TestFromMessage(t *testing.T) {
	byName := map[string]schema{}
	for _, s := range compileSchemas(t) {
		byName[s.name] = s
	}
	for _, c := range cases {
		s, ok := byName[c.schema]
		if !ok {
			t.Fatalf("no schema %q", c.schema)
		}
		got, err := s.x.FromMessage(c.in)
		if got != c.want || !errors.Is(err, c.err) {
			t.Errorf("%s: %.80x: got %q, %v; want %q, %v", c.schema, c.in, got, err, c.want, c.err)
		}
		for _, s := range byName {
			s.check(t, c.in)
		}
	}
}

// TestAgreesWithProtobuf runs a sample of what the fuzz target runs.
func TestAgreesWithProtobuf(t *testing.T) {
	all := compileSchemas(t)
	rapid.Check(t, func(rt *rapid.T) {
		in, _ := build(rapid.SliceOfN(rapid.Byte(), 0, 60).Draw(rt, "program"), 0)
		for _, s := range all {
			s.check(t, in)
		}
	})
}

// TestCompositeKeysDoNotCollide: two lists of parts have the same key only where they are the same list.
func TestCompositeKeysDoNotCollide(t *testing.T) {
	extractor := func(parts int) *Extractor {
		src := &configv1.KeySource{}
		for i := range parts {
			src.Fields = append(src.Fields, &configv1.FieldPath{Steps: []*configv1.FieldStep{{
				Number: uint32(i + 1), Type: int32(descriptorpb.FieldDescriptorProto_TYPE_STRING),
			}}})
		}
		x, err := Compile(src)
		if err != nil {
			t.Fatal(err)
		}
		if x.Parts() != parts {
			t.Fatalf("Parts() = %d, want %d", x.Parts(), parts)
		}
		return x
	}
	xs := map[int]*Extractor{2: extractor(2), 3: extractor(3), 4: extractor(4)}
	part := rapid.StringOfN(rapid.SampledFrom([]rune("a,%25C")), 1, 4, -1)
	list := rapid.SliceOfN(part, 2, 4)
	key := func(t *rapid.T, parts []string) string {
		var msg []byte
		for i, p := range parts {
			msg = append(msg, str(protowire.Number(i+1), p)...)
		}
		k, err := xs[len(parts)].FromMessage(msg)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	rapid.Check(t, func(t *rapid.T) {
		a, b := list.Draw(t, "a"), list.Draw(t, "b")
		if ka, kb := key(t, a), key(t, b); (ka == kb) != slices.Equal(a, b) {
			t.Fatalf("%q has key %q, %q has %q", a, ka, b, kb)
		}
	})
}

func TestFromHeader(t *testing.T) {
	for _, tc := range []struct {
		in, want string
		err      error
	}{
		{"tenant-1", "tenant-1", nil},
		{"söze", "söze", nil},
		{"", "", ErrAbsent},
		{"\xff", "", ErrMalformed},
		{strings.Repeat("k", MaxKeyBytes+1), "", ErrMalformed},
	} {
		if got, err := FromHeader(tc.in); got != tc.want || !errors.Is(err, tc.err) {
			t.Errorf("FromHeader(%.20q) = %q, %v; want %q, %v", tc.in, got, err, tc.want, tc.err)
		}
	}
	x, err := Compile(&configv1.KeySource{Header: "X-Tenant"})
	if err != nil || x.Header() != "x-tenant" || x.Parts() != 1 {
		t.Errorf("header source: %+v, %v", x, err)
	}
	if _, err := x.FromMessage(str(1, "a")); !errors.Is(err, ErrAbsent) {
		t.Errorf("a header source found a key in the message: %v", err)
	}
}

func TestCompileRefuses(t *testing.T) {
	const (
		text = int32(descriptorpb.FieldDescriptorProto_TYPE_STRING)
		msg  = int32(descriptorpb.FieldDescriptorProto_TYPE_MESSAGE)
	)
	fields := func(steps ...*configv1.FieldStep) *configv1.KeySource {
		return &configv1.KeySource{Fields: []*configv1.FieldPath{{Steps: steps}}}
	}
	long := make([]*configv1.FieldStep, MaxDepth+1)
	for i := range long {
		long[i] = &configv1.FieldStep{Number: 1, Type: msg}
	}
	long[MaxDepth] = &configv1.FieldStep{Number: 1, Type: text}
	for _, tc := range []struct {
		name string
		src  *configv1.KeySource
		want string
	}{
		{"nil", nil, "neither"},
		{"both", &configv1.KeySource{Header: "h", Fields: fields(&configv1.FieldStep{Number: 1, Type: text}).Fields}, "both"},
		{"no steps", fields(), "0 steps"},
		{"nil path", &configv1.KeySource{Fields: []*configv1.FieldPath{nil}}, "0 steps"},
		{"nil step", fields(nil), "field number 0"},
		{"too deep", fields(long...), "33 steps"},
		{"field 0", fields(&configv1.FieldStep{Type: text}), "field number 0"},
		{"field too high", fields(&configv1.FieldStep{Number: 1 << 29, Type: text}), "field number 536870912"},
		{"field far too high", fields(&configv1.FieldStep{Number: math.MaxUint32, Type: text}), "field number 4294967295"},
		{"double", fields(&configv1.FieldStep{Number: 1, Type: 1}), "can't be of type TYPE_DOUBLE"},
		{"no type", fields(&configv1.FieldStep{Number: 1}), "can't be of type"},
		{"message last", fields(&configv1.FieldStep{Number: 1, Type: msg}), "last is a scalar"},
		{"scalar first", fields(&configv1.FieldStep{Number: 1, Type: text}, &configv1.FieldStep{Number: 1, Type: text}), "last is a scalar"},
		{"too many parts", &configv1.KeySource{Fields: make([]*configv1.FieldPath, MaxParts+1)}, "17 fields"},
	} {
		if _, err := Compile(tc.src); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want an error with %q", tc.name, err, tc.want)
		}
	}
	if _, err := Compile(fields(long[1:]...)); err != nil {
		t.Errorf("a path of %d steps: %v", MaxDepth, err)
	}
}

func BenchmarkFromMessage(b *testing.B) {
	s := compileSchemas(b)[0]
	in := cat(str(3, strings.Repeat("x", 1000)), str(1, "kubecon"), varint(2, 1))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.x.FromMessage(in); err != nil {
			b.Fatal(err)
		}
	}
}
