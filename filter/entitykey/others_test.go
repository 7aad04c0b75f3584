package entitykey

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/bufbuild/protocompile"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
)

// othersSchemas are requests with the paths of other keys.
var othersSchemas = []struct {
	name   string
	syntax string
	paths  []string
}{
	{"single", `syntax = "proto3"; message M { string from = 1; string to = 2; int32 i = 3; }`, []string{"to"}},
	{"two", `syntax = "proto3"; message M { string a = 1; optional string b = 2; }`, []string{"b", "a"}},
	{"strings", `syntax = "proto3"; message M { repeated string k = 1; string s = 2; }`, []string{"k"}},
	{"bytes", `syntax = "proto3"; message M { repeated bytes k = 1; bytes s = 2; }`, []string{"k", "s"}},
	{"packed", `syntax = "proto3"; message M { repeated int64 k = 1; repeated sint32 s = 2; repeated bool b = 3; }`, []string{"k", "s", "b"}},
	{"unpacked", `syntax = "proto2"; message M { repeated uint32 k = 1; repeated fixed64 f = 2; repeated sfixed32 g = 3 [packed = true]; }`, []string{"k", "f", "g"}},
	{"number", `syntax = "proto3"; message M { int32 k = 1; optional int32 o = 2; }`, []string{"k", "o"}},
	{"enums", `syntax = "proto3"; message M { repeated E k = 1; } enum E { ZERO = 0; ONE = 1; }`, []string{"k"}},
	{"elements", `syntax = "proto3"; message M { repeated A a = 1; M m = 2; } message A { string k = 1; int32 i = 2; }`, []string{"a.k"}},
	{"elements of elements", `syntax = "proto3"; message M { repeated A a = 1; } message A { repeated B b = 1; B c = 2; } message B { repeated string k = 1; int32 i = 2; }`, []string{"a.b.k", "a.c.k"}},
	{"below", `syntax = "proto3"; message M { A a = 1; } message A { A a = 1; repeated string k = 2; string s = 3; }`, []string{"a.a.k", "a.s"}},
	{"oneof", `syntax = "proto3"; message M { oneof o { string k = 1; int32 i = 2; A a = 3; } } message A { repeated string k = 1; }`, []string{"k", "a.k"}},
	{"oneof in elements", `syntax = "proto3"; message M { repeated A a = 1; } message A { oneof o { string k = 1; int32 i = 2; } }`, []string{"a.k"}},
	{"groups", `syntax = "proto2"; message M { repeated group G = 1 { optional string k = 1; repeated int32 i = 2; } }`, []string{"g.k", "g.i"}},
}

type othersSchema struct {
	name  string
	md    protoreflect.MessageDescriptor
	paths [][]protoreflect.FieldDescriptor
	o     *Others
}

func compileOthers(t testing.TB) []othersSchema {
	t.Helper()
	var out []othersSchema
	for _, s := range othersSchemas {
		c := protocompile.Compiler{Resolver: protocompile.WithStandardImports(&protocompile.SourceResolver{
			Accessor: protocompile.SourceAccessorFromMap(map[string]string{"t.proto": s.syntax}),
		})}
		files, err := c.Compile(t.Context(), "t.proto")
		if err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
		fd, err := protodesc.NewFile(protodesc.ToFileDescriptorProto(files[0]), nil)
		if err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
		sc := othersSchema{name: s.name, md: fd.Messages().ByName("M")}
		var fields []*configv1.FieldPath
		for _, p := range s.paths {
			path, steps := fieldPath(sc.md, p)
			for i := range steps {
				steps[i].Repeated = path[i].IsList()
			}
			sc.paths = append(sc.paths, path)
			fields = append(fields, &configv1.FieldPath{Steps: steps})
		}
		if sc.o, err = CompileOthers(fields); err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
		out = append(out, sc)
	}
	return out
}

// spell is a scalar as a key, empty where it names none.
func spell(fd protoreflect.FieldDescriptor, v protoreflect.Value) string {
	switch fd.Kind() {
	case protoreflect.BytesKind:
		return base64.RawURLEncoding.EncodeToString(v.Bytes())
	case protoreflect.EnumKind:
		return fmt.Sprint(int32(v.Enum()))
	default:
		return fmt.Sprint(v.Interface())
	}
}

// collect is what a service finds at the path.
func collect(m protoreflect.Message, path []protoreflect.FieldDescriptor) (out []string) {
	fd := path[0]
	one := func(v protoreflect.Value) {
		if fd.Message() != nil {
			out = append(out, collect(v.Message(), path[1:])...)
		} else if key := spell(fd, v); key != "" || fd.IsList() {
			out = append(out, key)
		}
	}
	switch {
	case fd.IsList():
		for i := range m.Get(fd).List().Len() {
			one(m.Get(fd).List().Get(i))
		}
	case m.Has(fd):
		one(m.Get(fd))
	}
	return out
}

func (s othersSchema) check(t *testing.T, in []byte) {
	t.Helper()
	given := bytes.Clone(in)
	got, err := s.o.FromMessage(in, "own")
	if !bytes.Equal(in, given) {
		t.Fatalf("%s: the input was changed", s.name)
	}
	if err != nil && (len(got) > 0 || !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrTwice) && !errors.Is(err, ErrTooMany)) {
		t.Fatalf("%s: %x: got %q, %v", s.name, in, got, err)
	}
	m := dynamicpb.NewMessage(s.md)
	if (proto.UnmarshalOptions{AllowPartial: true}).Unmarshal(in, m) != nil {
		// The service never sees it.
		return
	}
	var want []string
	for _, path := range s.paths {
		want = append(want, collect(m, path)...)
	}
	sorted := slices.Sorted(slices.Values(want))
	twice := len(slices.Compact(sorted)) != len(want) || slices.Contains(want, "own")
	switch {
	case err == nil:
		if !slices.Equal(got, want) || twice {
			t.Fatalf("%s: %x: got %q, protobuf says %q", s.name, in, got, want)
		}
	case errors.Is(err, ErrTwice):
		if !twice {
			t.Fatalf("%s: %x: %v, protobuf says %q", s.name, in, err, want)
		}
	case errors.Is(err, ErrTooMany):
		if len(want) <= MaxOthers {
			t.Fatalf("%s: %x: %v, protobuf says %q", s.name, in, err, want)
		}
	case slices.Contains(want, ""), slices.ContainsFunc(want, func(k string) bool { return len(k) > MaxKeyBytes }):
	case strings.Contains(err.Error(), "its oneof"), strings.Contains(err.Error(), "nested deeper"):
	case s.md.ParentFile().Syntax() == protoreflect.Proto2 && strings.Contains(err.Error(), "not UTF-8"):
	default:
		t.Fatalf("%s: %x: %v, protobuf says %q", s.name, in, err, want)
	}
}

func packed(num protowire.Number, vs ...uint64) []byte {
	var b []byte
	for _, v := range vs {
		b = protowire.AppendVarint(b, v)
	}
	return sub(num, b)
}

func TestOthers(t *testing.T) {
	var many []byte
	for i := range MaxOthers + 1 {
		many = append(many, str(1, fmt.Sprint(i))...)
	}
	all := compileOthers(t)
	for _, tt := range []struct {
		schema string
		in     []byte
		want   []string
		err    error
	}{
		{"single", cat(str(1, "own"), str(2, "b")), []string{"b"}, nil},
		{"single", str(1, "own"), nil, nil},
		{"single", str(2, ""), nil, nil},
		{"single", cat(str(2, "b"), str(2, "c")), []string{"c"}, nil},
		{"single", cat(str(2, "b"), str(2, "")), nil, nil},
		{"single", str(2, "own"), nil, ErrTwice},
		{"single", str(2, "\xff"), nil, ErrMalformed},
		{"single", str(2, strings.Repeat("k", MaxKeyBytes+1)), nil, ErrMalformed},
		{"single", []byte{0x12, 9}, nil, ErrMalformed},
		{"two", cat(str(1, "a"), str(2, "b")), []string{"b", "a"}, nil},
		{"two", cat(str(1, "a"), str(2, "a")), nil, ErrTwice},
		{"strings", cat(str(1, "b"), str(2, "x"), str(1, "a")), []string{"b", "a"}, nil},
		{"strings", cat(str(1, "b"), str(1, "b")), nil, ErrTwice},
		{"strings", cat(str(1, "b"), str(1, "")), nil, ErrMalformed},
		{"strings", many[:len(many)-5], nil, nil},
		{"strings", many, nil, ErrTooMany},
		{"packed", cat(packed(1, 0, 7), varint(1, 8), packed(3, 1)), []string{"0", "7", "8", "true"}, nil},
		{"packed", cat(packed(1, 7), varint(1, 7)), nil, ErrTwice},
		{"packed", sub(1, []byte{0x80}), nil, ErrMalformed},
		{"number", varint(1, 0), nil, nil},
		{"number", varint(2, 0), []string{"0"}, nil},
		{"elements", cat(sub(1, str(1, "a")), sub(1, varint(2, 1)), sub(1, str(1, "b"), str(1, "c"))), []string{"a", "c"}, nil},
		{"elements of elements", cat(sub(1, sub(1, str(1, "a"), str(1, "b"))), sub(1, sub(1, str(1, "c")), sub(2, str(1, "d")))), []string{"a", "b", "c", "d"}, nil},
		{"below", cat(sub(1, sub(1, str(2, "a"))), sub(1, sub(1, str(2, "b")), str(3, "s"))), []string{"a", "b", "s"}, nil},
		{"oneof", cat(varint(2, 5), str(1, "a")), []string{"a"}, nil},
		{"oneof", cat(str(1, "a"), varint(2, 5)), nil, ErrMalformed},
		{"oneof in elements", cat(sub(1, str(1, "a")), sub(1, varint(2, 5)), sub(1, str(1, "b"))), []string{"a", "b"}, nil},
		{"groups", cat(group(1, str(1, "a")), group(1, varint(2, 4))), []string{"a", "4"}, nil},
		{"groups", append(protowire.AppendTag(nil, 1, protowire.StartGroupType), protowire.AppendTag(nil, 2, protowire.EndGroupType)...), nil, ErrMalformed},
	} {
		i := slices.IndexFunc(all, func(s othersSchema) bool { return s.name == tt.schema })
		got, err := all[i].o.FromMessage(tt.in, "own")
		if !errors.Is(err, tt.err) || tt.want != nil && !slices.Equal(got, tt.want) {
			t.Errorf("%s: %.60x: got %q, %v; want %q, %v", tt.schema, tt.in, got, err, tt.want, tt.err)
		}
		for _, s := range all {
			s.check(t, tt.in)
		}
	}
}

func TestCompileOthers(t *testing.T) {
	field := func(steps ...*configv1.FieldStep) *configv1.FieldPath { return &configv1.FieldPath{Steps: steps} }
	text := &configv1.FieldStep{Number: 1, Type: 9}
	for name, fields := range map[string][]*configv1.FieldPath{
		"none":        nil,
		"too many":    slices.Repeat([]*configv1.FieldPath{field(text)}, MaxParts+1),
		"no steps":    {field()},
		"a message":   {field(&configv1.FieldStep{Number: 1, Type: 11})},
		"a double":    {field(&configv1.FieldStep{Number: 1, Type: 1, Repeated: true})},
		"no number":   {field(&configv1.FieldStep{Type: 9})},
		"after a key": {field(text, text)},
	} {
		if _, err := CompileOthers(fields); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	if _, err := Compile(&configv1.KeySource{Fields: []*configv1.FieldPath{field(&configv1.FieldStep{Number: 1, Type: 9, Repeated: true})}}); err == nil {
		t.Error("a repeated key was taken")
	}
}

func FuzzOthers(f *testing.F) {
	all := compileOthers(f)
	for _, seed := range seeds {
		f.Add(seed)
	}
	f.Add(cat(sub(1, str(1, "a")), sub(1, varint(2, 1)), packed(1, 1, 2, 3), str(1, "own")))
	f.Fuzz(func(t *testing.T, in []byte) {
		built, _ := build(in, 0)
		for _, s := range all {
			s.check(t, in)
			s.check(t, built)
		}
	})
}
