package entity_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/bufbuild/protocompile"
	jsonpatch "github.com/evanphx/json-patch/v5"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
	"pgregory.net/rapid"

	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
	"github.com/holdfast-mesh/holdfast/statestore/strong/entity"
)

const source = `
syntax = "proto3";
package patch;
import "google/protobuf/struct.proto";
import "google/protobuf/timestamp.proto";
import "google/protobuf/wrappers.proto";
import "google/protobuf/any.proto";
message Person {
  string name = 1;
  int64 age = 2;
  optional bool active = 3;
  Address home_address = 4;
  repeated string tags = 5;
  repeated Address former = 6;
  map<string, string> labels = 7;
  map<string, Address> places = 8;
  map<int32, Address> numbered = 9;
  oneof contact { string mail = 10; Address letter = 11; }
  google.protobuf.Struct free = 12;
  google.protobuf.Timestamp born = 13;
  google.protobuf.StringValue nick = 14;
  google.protobuf.Value any_json = 15;
  Colour colour = 16;
  bytes raw = 17;
  map<bool, int32> flags = 18;
  map<string, google.protobuf.Struct> frees = 19;
  google.protobuf.Any extra = 20;
}
message Address { string city = 1; int32 zip = 2; Address part_of = 3; }
enum Colour { COLOUR_NONE = 0; COLOUR_RED = 1; }
`

func compile(t failer) (protoreflect.MessageDescriptor, []byte) {
	t.Helper()
	c := protocompile.Compiler{Resolver: protocompile.WithStandardImports(&protocompile.SourceResolver{
		Accessor: protocompile.SourceAccessorFromMap(map[string]string{"patch.proto": source}),
	})}
	files, err := c.Compile(context.Background(), "patch.proto")
	if err != nil {
		t.Fatalf("compile: %v", err)
	}
	set := &descriptorpb.FileDescriptorSet{}
	imports := files[0].Imports()
	for i := range imports.Len() {
		set.File = append(set.File, protodesc.ToFileDescriptorProto(imports.Get(i)))
	}
	set.File = append(set.File, protodesc.ToFileDescriptorProto(files[0]))
	raw, err := proto.Marshal(set)
	if err != nil {
		t.Fatalf("descriptors: %v", err)
	}
	return files[0].Messages().ByName("Person"), raw
}

func protoType(t failer) *entity.Type {
	t.Helper()
	_, raw := compile(t)
	return newType(t, &configv1.EntityType{
		Model: configv1.Model_MODEL_VALUE, ValueEncoding: configv1.ValueEncoding_VALUE_ENCODING_PROTO,
		ValueMessage: "patch.Person", ValueDescriptors: raw,
	})
}

// patched applies operations to a value ("-": there is none) and returns the new one.
func patched(typ *entity.Type, value []byte, ops ...*holdfastv1.Operation) ([]byte, error) {
	r := &entity.Record{}
	if value != nil {
		next, _, err := typ.Apply(r, "", []*holdfastv1.Operation{{Operation: &holdfastv1.Operation_Set{Set: &holdfastv1.Set{Value: value}}}}, start)
		if err != nil {
			return nil, fmt.Errorf("the value: %w", err)
		}
		r = next
	}
	next, _, err := typ.Apply(r, "", ops, start)
	if err != nil {
		return nil, err
	}
	return typ.Value(next).GetValue(), nil
}

// The examples of RFC 7396, appendix A, and some more.
func TestMergePatchJSON(t *testing.T) {
	typ := jsonType(t)
	for _, c := range []struct{ value, patch, want string }{
		{`{"a":"b"}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"b"}`, `{"b":"c"}`, `{"a":"b","b":"c"}`},
		{`{"a":"b"}`, `{"a":null}`, `{}`},
		{`{"a":"b","b":"c"}`, `{"a":null}`, `{"b":"c"}`},
		{`{"a":["b"]}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"c"}`, `{"a":["b"]}`, `{"a":["b"]}`},
		{`{"a":{"b":"c"}}`, `{"a":{"b":"d","c":null}}`, `{"a":{"b":"d"}}`},
		{`{"a":[{"b":"c"}]}`, `{"a":[1]}`, `{"a":[1]}`},
		{`["a","b"]`, `["c","d"]`, `["c","d"]`},
		{`{"a":"b"}`, `["c"]`, `["c"]`},
		{`{"a":"foo"}`, `null`, `null`},
		{`{"a":"foo"}`, `"bar"`, `"bar"`},
		{`{"e":null}`, `{"a":1}`, `{"a":1,"e":null}`},
		{`[1,2]`, `{"a":"b","c":null}`, `{"a":"b"}`},
		{`{}`, `{"a":{"bb":{"ccc":null}}}`, `{"a":{"bb":{}}}`},
		{`-`, `{"a":1,"b":null}`, `{"a":1}`},
		{`{"a":[{"b":null}]}`, `{"c":[{"b":null}]}`, `{"a":[{"b":null}],"c":[{"b":null}]}`},
		{`{"n":12345678901234567890.10,"h":"<&>"}`, `{"m":1e400}`, `{"h":"<&>","m":1e400,"n":12345678901234567890.10}`},
	} {
		value := []byte(c.value)
		if c.value == "-" {
			value = nil
		}
		got, err := patched(typ, value, mergePatch(c.patch))
		if err != nil || string(got) != c.want {
			t.Errorf("%s + %s: got %s, %v, want %s", c.value, c.patch, got, err, c.want)
		}
	}
}

func TestFieldPatchJSON(t *testing.T) {
	typ := jsonType(t)
	for _, c := range []struct {
		value, from string
		paths       []string
		want        string
	}{
		{`{"a":1,"b":2}`, `{"a":3,"b":4}`, []string{"a"}, `{"a":3,"b":2}`},
		{`{"a":1,"b":2}`, `{}`, []string{"a"}, `{"b":2}`},
		{`{"a":{"x":1,"y":2}}`, `{"a":{"x":3}}`, []string{"a.x", "a.y"}, `{"a":{"x":3}}`},
		{`{"a":{"x":1}}`, `{"a":{"z":3}}`, []string{"a"}, `{"a":{"z":3}}`},
		{`{}`, `{"a":{"b":{"c":1}}}`, []string{"a.b.c"}, `{"a":{"b":{"c":1}}}`},
		{`{}`, `{}`, []string{"a.b.c"}, `{}`},
		{`{"a":null}`, `{"a":{"b":1}}`, []string{"a.b"}, `{"a":{"b":1}}`},
		{`{"a":1,"b":2}`, `{"b":5,"c":6}`, nil, `{"a":1,"b":5,"c":6}`},
		{`{"a":1}`, `{"b":5}`, []string{"*"}, `{"b":5}`},
		{`{"a":1}`, `{"a":null}`, []string{"a"}, `{"a":null}`},
		{`-`, `{"a":1}`, []string{"a"}, `{"a":1}`},
		{`{"a":{"b.c":1}}`, `{"a":{"b.c":2}}`, []string{"a.`b.c`"}, `{"a":{"b.c":2}}`},
	} {
		value := []byte(c.value)
		if c.value == "-" {
			value = nil
		}
		got, err := patched(typ, value, fieldPatch(c.from, c.paths...))
		if err != nil || string(got) != c.want {
			t.Errorf("%s + %s at %v: got %s, %v, want %s", c.value, c.from, c.paths, got, err, c.want)
		}
	}
}

func TestWhatPatchesRefuse(t *testing.T) {
	deep := strings.Repeat(`{"a":`, 101) + "1" + strings.Repeat("}", 101)
	js, pb := jsonType(t), protoType(t)
	for _, c := range []struct {
		name  string
		typ   *entity.Type
		value string
		op    *holdfastv1.Operation
		text  string
	}{
		{"no JSON", js, `{}`, mergePatch(`{"a":`), "the patch is no JSON"},
		{"too deep", js, `{}`, mergePatch(deep), "nests deeper than 100"},
		{"a set of no JSON", js, `{}`, set(`{`), "the value is no JSON"},
		{"a set that is too deep", js, `{}`, set(deep), "nests deeper"},
		{"a field patch of no object", js, `{}`, fieldPatch(`[1]`, "a"), "no JSON object"},
		{"a path through a number of the patch", js, `{}`, fieldPatch(`{"a":1}`, "a.b"), `no object at "a"`},
		{"an empty path", js, `{}`, fieldPatch(`{}`, ""), "a name is missing"},
		{"a path that ends with a dot", js, `{}`, fieldPatch(`{}`, "a."), "a name is missing"},
		{"a path with a lonely backtick", js, `{}`, fieldPatch(`{}`, "a.`b"), "a backtick is missing"},
		{"a path without a dot", js, `{}`, fieldPatch(`{}`, "`a`b"), "a dot is missing"},
		{"a path that is too long", js, `{}`, fieldPatch(`{}`, strings.Repeat("a.", 101)+"a"), "more than 100 steps"},
		{"too many paths", js, `{}`, fieldPatch(`{}`, make([]string, 257)...), "257 paths"},
		{"an unknown field", pb, "", mergePatch(`{"nome":1}`), `patch.Person has no field "nome"`},
		{"a field by both names", pb, "", mergePatch(`{"homeAddress":{},"home_address":{}}`), "twice"},
		{"a wrong kind", pb, "", mergePatch(`{"age":"old"}`), "patch.Person.age"},
		{"an object for a scalar", pb, "", mergePatch(`{"age":{}}`), "patch.Person.age"},
		{"an array for a message", pb, "", mergePatch(`{"homeAddress":[]}`), "home_address"},
		{"a null in a list", pb, "", mergePatch(`{"tags":[null]}`), "tags"},
		{"a patch of no object", pb, "", mergePatch(`[]`), "no JSON object"},
		{"a key of another kind", pb, "", mergePatch(`{"numbered":{"x":{}}}`), "no key of this map"},
		{"a set of no message", pb, "", set("\xff"), "the value is no patch.Person"},
		{"an unknown path", pb, "", fieldPatch("", "home_address.town"), `patch.Address has no field "town"`},
		{"a path through text", pb, "", fieldPatch("", "name.x"), "is no message"},
		{"a path through a list", pb, "", fieldPatch("", "former.city"), "is no message"},
		{"a path through a map by numbers", pb, "", fieldPatch("", "numbered.1"), "by text only"},
		{"a path through a map's text", pb, "", fieldPatch("", "labels.x.y"), "has no messages"},
	} {
		_, err := patched(c.typ, []byte(c.value), c.op)
		wantRefusal(t, c.name, err, codes.InvalidArgument, c.text)
	}
	// What was stored before the type had an encoding.
	r, _, err := valueType(t).Apply(&entity.Record{}, "", []*holdfastv1.Operation{set("\xff{")}, start)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		typ *entity.Type
		op  *holdfastv1.Operation
	}{{js, mergePatch(`{}`)}, {js, fieldPatch(`{}`, "a")}, {pb, mergePatch(`{}`)}, {pb, fieldPatch("", "name")}} {
		_, _, err := c.typ.Apply(r, "", []*holdfastv1.Operation{c.op}, start)
		wantRefusal(t, "an old value", err, codes.FailedPrecondition, "replace it by set")
	}
	_, err = patched(js, []byte(`{"a":1}`), fieldPatch(`{"a":{"b":1}}`, "a.b"))
	wantRefusal(t, "a path through a stored number", err, codes.FailedPrecondition, "no object above")
	_, err = patched(js, []byte(`[]`), fieldPatch(`{"a":1}`, "a"))
	wantRefusal(t, "a stored array", err, codes.FailedPrecondition, "no JSON object")
}

// person makes a serialised Person of its JSON form.
func person(t failer, js string) []byte {
	t.Helper()
	d, _ := compile(t)
	m := dynamicpb.NewMessage(d)
	if err := protojson.Unmarshal([]byte(js), m); err != nil {
		t.Fatalf("%s: %v", js, err)
	}
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatalf("%s: %v", js, err)
	}
	return b
}

// typesOf resolves what Any names.
func typesOf(d protoreflect.MessageDescriptor) *dynamicpb.Types {
	files := &protoregistry.Files{}
	if err := files.RegisterFile(d.ParentFile()); err != nil {
		panic(err)
	}
	return dynamicpb.NewTypes(files)
}

// personJSON is the JSON form of a serialised Person, its members sorted.
func personJSON(t failer, d protoreflect.MessageDescriptor, b []byte) string {
	t.Helper()
	m := dynamicpb.NewMessage(d)
	if err := proto.Unmarshal(b, m); err != nil {
		t.Fatalf("%x: %v", b, err)
	}
	js, err := protojson.MarshalOptions{Resolver: typesOf(d)}.Marshal(m)
	if err != nil {
		t.Fatalf("%v: %v", m, err)
	}
	var v any
	if err := json.Unmarshal(js, &v); err != nil {
		t.Fatalf("%s: %v", js, err)
	}
	out, err := json.Marshal(v)
	if err != nil {
		t.Fatalf("%s: %v", js, err)
	}
	return string(out)
}

func TestPatchesOfMessages(t *testing.T) {
	typ := protoType(t)
	d, _ := compile(t)
	for _, c := range []struct {
		name, value string
		op          *holdfastv1.Operation
		want        string
	}{
		{"merge", `{"name":"a","age":"5","homeAddress":{"city":"x","zip":1}}`, mergePatch(`{"name":"b","homeAddress":{"zip":2},"active":false}`), `{"active":false,"age":"5","homeAddress":{"city":"x","zip":2},"name":"b"}`},
		{"merge by the names of the .proto", `{"homeAddress":{"city":"x"}}`, mergePatch(`{"home_address":{"part_of":{"city":"y"}}}`), `{"homeAddress":{"city":"x","partOf":{"city":"y"}}}`},
		{"merge clears", `{"name":"a","homeAddress":{"city":"x"},"tags":["a"],"labels":{"a":"b"}}`, mergePatch(`{"name":null,"homeAddress":null,"tags":null,"labels":null}`), `{}`},
		{"merge makes an empty message", `{}`, mergePatch(`{"homeAddress":{"city":null}}`), `{"homeAddress":{}}`},
		{"merge replaces a list", `{"tags":["a","b"],"former":[{"city":"x"}]}`, mergePatch(`{"tags":["c"],"former":[{"zip":3}]}`), `{"former":[{"zip":3}],"tags":["c"]}`},
		{"merge a map", `{"labels":{"a":"1","b":"2"}}`, mergePatch(`{"labels":{"a":null,"c":"3"}}`), `{"labels":{"b":"2","c":"3"}}`},
		{"merge a map of messages", `{"places":{"a":{"city":"x","zip":1},"b":{}}}`, mergePatch(`{"places":{"a":{"zip":2},"b":null,"c":{"city":"z","zip":null}}}`), `{"places":{"a":{"city":"x","zip":2},"c":{"city":"z"}}}`},
		{"merge a map by numbers", `{"numbered":{"1":{"city":"x","zip":1},"2":{}}}`, mergePatch(`{"numbered":{"1":{"zip":2},"2":null,"3":{"city":"z"}}}`), `{"numbered":{"1":{"city":"x","zip":2},"3":{"city":"z"}}}`},
		{"merge a map by truth", `{"flags":{"true":1}}`, mergePatch(`{"flags":{"true":null,"false":2}}`), `{"flags":{"false":2}}`},
		{"merge another member of a oneof", `{"mail":"a"}`, mergePatch(`{"letter":{"city":"x"}}`), `{"letter":{"city":"x"}}`},
		{"merge a struct", `{"free":{"a":1,"b":{"c":2,"d":3}}}`, mergePatch(`{"free":{"a":null,"b":{"c":5}}}`), `{"free":{"b":{"c":5,"d":3}}}`},
		{"merge a map of structs", `{"frees":{"x":{"a":1,"b":2}}}`, mergePatch(`{"frees":{"x":{"a":null},"y":{"c":3,"d":null}}}`), `{"frees":{"x":{"b":2},"y":{"c":3}}}`},
		{"merge a free value", `{"anyJson":{"a":1}}`, mergePatch(`{"anyJson":[1,null]}`), `{"anyJson":[1,null]}`},
		{"merge a time", `{"born":"2020-01-01T00:00:00Z"}`, mergePatch(`{"born":"2021-01-01T00:00:00Z","nick":"n"}`), `{"born":"2021-01-01T00:00:00Z","nick":"n"}`},
		{"merge an any", `{}`, mergePatch(`{"extra":{"@type":"type.googleapis.com/patch.Address","city":"x"}}`), `{"extra":{"@type":"type.googleapis.com/patch.Address","city":"x"}}`},
		{"merge an enum and bytes", `{}`, mergePatch(`{"colour":"COLOUR_RED","raw":"AQI="}`), `{"colour":"COLOUR_RED","raw":"AQI="}`},
		{"merge the zero value", `{"age":"5"}`, mergePatch(`{"age":0}`), `{}`},
		{"fields", `{"name":"a","age":"5","homeAddress":{"city":"x","zip":1}}`, fieldPatch(string(person(t, `{"name":"b","homeAddress":{"zip":2}}`)), "name", "age", "home_address.zip"), `{"homeAddress":{"city":"x","zip":2},"name":"b"}`},
		{"fields by JSON names", `{}`, fieldPatch(string(person(t, `{"homeAddress":{"partOf":{"city":"y"}}}`)), "homeAddress.partOf.city"), `{"homeAddress":{"partOf":{"city":"y"}}}`},
		{"a whole message", `{"homeAddress":{"city":"x","zip":1}}`, fieldPatch(string(person(t, `{"homeAddress":{"zip":2}}`)), "home_address"), `{"homeAddress":{"zip":2}}`},
		{"nothing to clear", `{}`, fieldPatch("", "home_address.city", "places.a.city"), `{}`},
		{"all that is set", `{"name":"a","age":"5"}`, fieldPatch(string(person(t, `{"name":"b"}`))), `{"age":"5","name":"b"}`},
		{"everything", `{"name":"a","age":"5"}`, fieldPatch(string(person(t, `{"name":"b"}`)), "*"), `{"name":"b"}`},
		{"everything, then one", `{"age":"5"}`, fieldPatch(string(person(t, `{"homeAddress":{"zip":1}}`)), "*", "home_address.city"), `{"homeAddress":{"zip":1}}`},
		{"a list", `{"tags":["a"]}`, fieldPatch(string(person(t, `{"tags":["b","c"]}`)), "tags"), `{"tags":["b","c"]}`},
		{"map entries", `{"labels":{"a":"1","b":"2"}}`, fieldPatch(string(person(t, `{"labels":{"a":"5","x.y":"6"}}`)), "labels.a", "labels.b", "labels.`x.y`"), `{"labels":{"a":"5","x.y":"6"}}`},
		{"a map entry's field", `{"places":{"a":{"city":"x","zip":1}}}`, fieldPatch(string(person(t, `{"places":{"a":{"zip":7},"b":{"zip":8}}}`)), "places.a.zip", "places.b.zip"), `{"places":{"a":{"city":"x","zip":7},"b":{"zip":8}}}`},
	} {
		got, err := patched(typ, person(t, c.value), c.op)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if got := personJSON(t, d, got); got != c.want {
			t.Errorf("%s: got %s, want %s", c.name, got, c.want)
		}
	}
}

// Fields that only a newer service knows survive every patch.
func TestUnknownFieldsSurvivePatches(t *testing.T) {
	typ := protoType(t)
	inner := protowire.AppendString(protowire.AppendTag(nil, 99, protowire.BytesType), "inner")
	value := protowire.AppendBytes(protowire.AppendTag(nil, 4, protowire.BytesType), inner)
	value = protowire.AppendString(protowire.AppendTag(value, 98, protowire.BytesType), "outer")
	for _, op := range []*holdfastv1.Operation{
		mergePatch(`{"name":"x","homeAddress":{"city":"y"}}`),
		fieldPatch(string(person(t, `{"name":"x","homeAddress":{"city":"y"}}`)), "name", "home_address.city"),
	} {
		got, err := patched(typ, value, op)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(got, []byte("inner")) || !bytes.Contains(got, []byte("outer")) {
			t.Errorf("after %v: %q", op, got)
		}
	}
}

// genJSON draws a JSON value; nulls and objects in arrays only where the library that is compared with does them right.
func genJSON(t *rapid.T, label string, depth int, nulls bool) any {
	kinds := []string{"number", "text", "truth", "array"}
	if nulls {
		kinds = append(kinds, "null")
	}
	if depth > 0 {
		kinds = append(kinds, "object", "object", "object")
	}
	switch rapid.SampledFrom(kinds).Draw(t, label) {
	case "number":
		return rapid.IntRange(-3, 3).Draw(t, label)
	case "text":
		return rapid.SampledFrom([]string{"", "x", "<", "ü"}).Draw(t, label)
	case "truth":
		return rapid.Bool().Draw(t, label)
	case "array":
		return rapid.SliceOfN(rapid.IntRange(0, 3), 0, 2).Draw(t, label)
	case "object":
		return genObject(t, label, depth, nulls)
	}
	return nil
}

func genObject(t *rapid.T, label string, depth int, nulls bool) map[string]any {
	out := map[string]any{}
	for _, name := range rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "c"}), 0, 3).Draw(t, label) {
		out[name] = genJSON(t, label+name, depth-1, nulls)
	}
	return out
}

func sameJSON(a, b []byte) bool {
	var x, y any
	return json.Unmarshal(a, &x) == nil && json.Unmarshal(b, &y) == nil && reflect.DeepEqual(x, y)
}

func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

func TestMergePatchLikeTheLibrary(t *testing.T) {
	typ := jsonType(t)
	rapid.Check(t, func(t *rapid.T) {
		value, patch := mustJSON(genObject(t, "value", 4, false)), mustJSON(genObject(t, "patch", 4, true))
		want, err := jsonpatch.MergePatch(value, patch)
		if err != nil {
			t.Fatalf("the library: %v", err)
		}
		got, err := patched(typ, value, mergePatch(string(patch)))
		if err != nil || !sameJSON(got, want) {
			t.Fatalf("%s + %s: got %s, %v, want %s", value, patch, got, err, want)
		}
	})
}

// naiveMerge is RFC 7396's own pseudocode.
func naiveMerge(target, patch any) any {
	changes, ok := patch.(map[string]any)
	if !ok {
		return patch
	}
	out := map[string]any{}
	if o, ok := target.(map[string]any); ok {
		for k, v := range o {
			out[k] = v
		}
	}
	for k, v := range changes {
		if v == nil {
			delete(out, k)
			continue
		}
		out[k] = naiveMerge(out[k], v)
	}
	return out
}

func FuzzMergePatchJSON(f *testing.F) {
	for _, s := range [][2]string{
		{`{"a":[{"b":null}]}`, `{"a":{"b":[null,{"c":null}]},"d":null}`},
		{`null`, `{"a":null}`},
		{`{"a":1,"a":2}`, `{"a":{"b":1},"a":{"c":null}}`},
		{"{\"\xff\":1}", `{"�":null}`},
		{`{"a":1e999}`, ` {"b" : -0.0 } `},
	} {
		f.Add([]byte(s[0]), []byte(s[1]))
	}
	typ := jsonType(f)
	f.Fuzz(func(t *testing.T, value, patch []byte) {
		if len(value) > 2000 || len(patch) > 2000 || value == nil {
			return
		}
		got, err := patched(typ, value, mergePatch(string(patch)))
		if err != nil {
			return
		}
		var v, p, g any
		if json.Unmarshal(value, &v) != nil || json.Unmarshal(patch, &p) != nil || json.Unmarshal(got, &g) != nil {
			// Numbers that don't fit a float64 are fine for us.
			if json.Valid(value) && json.Valid(patch) && json.Valid(got) {
				return
			}
			t.Fatalf("%q + %q: no JSON came of it: %q", value, patch, got)
		}
		if want := naiveMerge(v, p); !reflect.DeepEqual(g, want) {
			t.Fatalf("%q + %q: got %q, want %v", value, patch, got, want)
		}
	})
}

// A patch of a message does what the patch of its JSON form does.
func FuzzMergePatchMessage(f *testing.F) {
	d, _ := compile(f)
	typ := protoType(f)
	for _, s := range [][2]string{
		{`{"name":"a","homeAddress":{"city":"x"},"free":{"a":{"b":1}}}`, `{"name":null,"homeAddress":{"zip":5},"free":{"a":{"b":null,"c":[1]}}}`},
		{`{"mail":"x","places":{"a":{"city":"b"}}}`, `{"letter":{},"places":{"a":{"zip":1},"b":{"city":null}}}`},
		{`{"numbered":{"1":{"city":"x"}},"flags":{"true":3}}`, `{"numbered":{"1":{"partOf":{}}},"flags":{"false":1,"true":null}}`},
		{`{"anyJson":{"a":1},"born":"2020-01-01T00:00:00Z"}`, `{"anyJson":{"a":{"b":null}},"born":"2020-01-01T00:00:01.5Z","nick":"","extra":{"@type":"type.googleapis.com/google.protobuf.StringValue","value":"x"}}`},
		{`{"frees":{"x":{"a":1}}}`, `{"frees":{"x":{"a":{"b":{}}}},"tags":["1"],"colour":1,"raw":"AA=="}`},
	} {
		f.Add(person(f, s[0]), []byte(s[1]))
	}
	f.Fuzz(func(t *testing.T, value, patch []byte) {
		if len(value) > 2000 || len(patch) > 2000 || value == nil {
			return
		}
		got, err := patched(typ, value, mergePatch(string(patch)))
		if err != nil {
			return
		}
		// The other way: the whole JSON form, merged, and read.
		m := dynamicpb.NewMessage(d)
		if err := proto.Unmarshal(value, m); err != nil {
			t.Fatalf("%x was taken as a value: %v", value, err)
		}
		whole, err := protojson.MarshalOptions{Resolver: typesOf(d)}.Marshal(m)
		if err != nil {
			return
		}
		var v, p any
		if json.Unmarshal(whole, &v) != nil || json.Unmarshal(patch, &p) != nil {
			return
		}
		want := dynamicpb.NewMessage(d)
		if err := (protojson.UnmarshalOptions{Resolver: typesOf(d)}).Unmarshal(mustJSON(naiveMerge(v, p)), want); err != nil {
			return // For one, the names of the .proto.
		}
		if got, want := personJSON(t, d, got), mustMarshal(t, want); got != personJSON(t, d, want) {
			t.Fatalf("%s + %s: got %s, want %s", whole, patch, got, personJSON(t, d, want))
		}
	})
}

func mustMarshal(t failer, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatalf("marshal: %v", err)
	}
	return b
}

func FuzzFieldPatch(f *testing.F) {
	js, pb := jsonType(f), protoType(f)
	f.Add([]byte(`{"a":{"b":1}}`), []byte(`{"a":{"b":2}}`), "a.b")
	f.Add([]byte(`{}`), []byte(`{"a":{"b":[]}}`), "a.`b`")
	f.Add(person(f, `{"homeAddress":{"city":"x"}}`), person(f, `{"places":{"a":{"city":"y"}}}`), "places.a.city")
	f.Add(person(f, `{"letter":{"city":"x"}}`), person(f, `{"mail":"y"}`), "letter.partOf.zip")
	f.Fuzz(func(t *testing.T, value, from []byte, path string) {
		if len(value) > 2000 || len(from) > 2000 || value == nil {
			return
		}
		for _, typ := range []*entity.Type{js, pb} {
			op := fieldPatch(string(from), path)
			once, err := patched(typ, value, op)
			if err != nil {
				continue
			}
			// It is idempotent, and what it makes can be patched.
			if twice, err := patched(typ, once, op); err != nil || !bytes.Equal(once, twice) {
				t.Fatalf("%q from %q at %q: once %q, twice %q, %v", value, from, path, once, twice, err)
			}
		}
	})
}

// A message whose parsing makes the protobuf library panic is refused, also inside of an Any.
func TestMessagesThatPanic(t *testing.T) {
	typ := protoType(t)
	bad := []byte("J\a00\b0\n\x010")
	_, err := patched(typ, nil, set(string(bad)))
	wantRefusal(t, "a bad map", err, codes.InvalidArgument, "the value is no patch.Person")
	inner := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), "type.googleapis.com/patch.Person")
	inner = protowire.AppendBytes(protowire.AppendTag(inner, 2, protowire.BytesType), bad)
	value := protowire.AppendBytes(protowire.AppendTag(nil, 20, protowire.BytesType), inner)
	_, err = patched(typ, value, mergePatch(`{"extra":{"name":"x"}}`))
	wantRefusal(t, "a bad map in an Any", err, codes.InvalidArgument, "has no JSON form")
}
