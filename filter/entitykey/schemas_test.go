package entitykey

import (
	"strings"
	"testing"

	"github.com/bufbuild/protocompile"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"

	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
)

// schemas are the messages that the tests find keys in. Field numbers are small and used again with other types, so that
// one input means something to many of them.
var schemas = []struct {
	name   string
	syntax string // with the messages, of which M is the request
	paths  []string
}{
	{"string", `syntax = "proto3"; message M { string k = 1; int32 a = 2; bytes b = 3; }`, []string{"k"}},
	{"optional string", `syntax = "proto3"; message M { optional string k = 1; repeated int32 a = 2; }`, []string{"k"}},
	{"proto2 string", `syntax = "proto2"; message M { optional string k = 1; optional M m = 2; repeated string r = 3; }`, []string{"k"}},
	{"required string", `syntax = "proto2"; message M { required string k = 1; }`, []string{"k"}},
	{"bytes", `syntax = "proto3"; message M { bytes k = 1; map<string, int32> m = 2; }`, []string{"k"}},
	{"int32", `syntax = "proto3"; message M { int32 k = 1; fixed32 f = 2; }`, []string{"k"}},
	{"optional int64", `syntax = "proto3"; message M { optional int64 k = 1; double d = 2; }`, []string{"k"}},
	{"uint32", `syntax = "proto2"; message M { optional uint32 k = 1 [default = 7]; }`, []string{"k"}},
	{"uint64", `syntax = "proto3"; message M { uint64 k = 2; repeated M m = 1; }`, []string{"k"}},
	{"sint32", `syntax = "proto3"; message M { sint32 k = 1; sint64 l = 2; }`, []string{"k", "l"}},
	{"fixed", `syntax = "proto3"; message M { fixed32 a = 1; optional fixed64 b = 2; sfixed32 c = 3; optional sfixed64 d = 4; }`, []string{"a", "b", "c", "d"}},
	{"enum", `syntax = "proto3"; message M { E k = 1; } enum E { ZERO = 0; ONE = 1; }`, []string{"k"}},
	{"proto2 enum", `syntax = "proto2"; message M { optional E k = 1; } enum E { ONE = 1; TWO = 2; }`, []string{"k"}},
	{"bool", `syntax = "proto3"; message M { bool k = 1; optional bool l = 2; }`, []string{"k"}},
	{"optional bool", `syntax = "proto3"; message M { bool k = 1; optional bool l = 2; }`, []string{"l"}},
	{"nested", `syntax = "proto3"; message M { A a = 1; M m = 2; } message A { B b = 1; string s = 2; } message B { string k = 1; int32 i = 2; }`, []string{"a.b.k"}},
	{"itself", `syntax = "proto3"; message M { M m = 1; string k = 2; }`, []string{"m.m.m.k"}},
	{"oneof", `syntax = "proto3"; message M { oneof o { string k = 1; int32 i = 2; M m = 3; fixed32 f = 4; } }`, []string{"k"}},
	{"oneof of messages", `syntax = "proto3"; message M { oneof o { A a = 1; A b = 2; string c = 3; } } message A { oneof o { string k = 1; bool l = 2; } int32 i = 3; }`, []string{"a.k"}},
	{"oneof of numbers", `syntax = "proto3"; message M { A a = 1; } message A { oneof o { uint32 k = 1; sint32 l = 2; } }`, []string{"a.l"}},
	{"group", `syntax = "proto2"; message M { optional group G = 1 { optional string k = 1; optional group H = 2 { optional int32 i = 1; } } optional string s = 2; }`, []string{"g.k"}},
	{"group in group", `syntax = "proto2"; message M { optional group G = 1 { optional string k = 1; optional group H = 2 { optional int32 i = 1; } } }`, []string{"g.h.i", "g.k"}},
	{"oneof of groups", `syntax = "proto2"; message M { oneof o { group A = 1 { optional string k = 1; } group B = 2 { optional string k = 1; } } }`, []string{"a.k"}},
	{"composite", `syntax = "proto3"; message M { string k = 1; int32 i = 2; A a = 3; } message A { bytes b = 1; }`, []string{"k", "i", "a.b"}},
	{"edition", `edition = "2023"; message M { string k = 1 [features.field_presence = IMPLICIT]; A a = 2 [features.message_encoding = DELIMITED]; } message A { int32 i = 1; }`, []string{"k", "a.i"}},
	{"high number", `syntax = "proto3"; message M { string k = 536870911; string s = 1; }`, []string{"k"}},
}

type schema struct {
	name  string
	md    protoreflect.MessageDescriptor
	paths [][]protoreflect.FieldDescriptor
	x     *Extractor
}

func compileSchemas(t testing.TB) []schema {
	t.Helper()
	out := make([]schema, 0, len(schemas))
	for _, s := range schemas {
		c := protocompile.Compiler{Resolver: protocompile.WithStandardImports(&protocompile.SourceResolver{
			Accessor: protocompile.SourceAccessorFromMap(map[string]string{"t.proto": s.syntax}),
		})}
		files, err := c.Compile(t.Context(), "t.proto")
		if err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
		// As the control plane has them.
		fd, err := protodesc.NewFile(protodesc.ToFileDescriptorProto(files[0]), nil)
		if err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
		sc := schema{name: s.name, md: fd.Messages().ByName("M")}
		src := &configv1.KeySource{}
		for _, p := range s.paths {
			path, steps := fieldPath(sc.md, p)
			sc.paths = append(sc.paths, path)
			src.Fields = append(src.Fields, &configv1.FieldPath{Steps: steps})
		}
		if sc.x, err = Compile(src); err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
		out = append(out, sc)
	}
	return out
}

// fieldPath is what the control plane makes of a path.
func fieldPath(md protoreflect.MessageDescriptor, path string) (fds []protoreflect.FieldDescriptor, steps []*configv1.FieldStep) {
	for name := range strings.SplitSeq(path, ".") {
		fd := md.Fields().ByName(protoreflect.Name(name))
		if fd == nil {
			for i := range md.Fields().Len() {
				if f := md.Fields().Get(i); f.TextName() == name || strings.EqualFold(string(f.Name()), name) {
					fd = f
				}
			}
		}
		step := &configv1.FieldStep{
			Number: uint32(fd.Number()), Type: int32(fd.Kind()), ImplicitPresence: !fd.HasPresence(),
		}
		if o := fd.ContainingOneof(); o != nil {
			for i := range o.Fields().Len() {
				if f := o.Fields().Get(i); f.Number() != fd.Number() {
					step.OneofSiblings = append(step.OneofSiblings, uint32(f.Number()))
				}
			}
		}
		fds, steps = append(fds, fd), append(steps, step)
		md = fd.Message()
	}
	return fds, steps
}
