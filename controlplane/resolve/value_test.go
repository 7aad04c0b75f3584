package resolve

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
)

// What a store is sent of a value's message is enough to read and write values, and little more.
func TestValueDescriptors(t *testing.T) {
	sources := map[string]string{
		"t.proto": head + `
import "state.proto";
service Things { rpc Add(Req) returns (Rep); }
message Req { string id = 1 [(holdfast.v1.entity_key) = true]; s.State state = 2 [(holdfast.v1.state_in) = true]; }
message Rep { s.State state = 3 [(holdfast.v1.state_out) = true]; }`,
		"state.proto": `syntax = "proto3"; package s;
import "other.proto"; import "unused.proto"; import "google/protobuf/timestamp.proto"; import "google/protobuf/struct.proto"; import "google/protobuf/descriptor.proto";
extend google.protobuf.FieldOptions { string hint = 60000; }
message State {
  message Part { State parent = 1; Colour colour = 2; o.Outer.Inner inner = 3; }
  enum Colour { option allow_alias = true; RED = 0; ROT = 0; BLUE = 1; }
  map<string, Part> parts = 1 [(hint) = "x"];
  oneof kind { int64 number = 2; google.protobuf.Timestamp at = 3; }
  repeated int32 many = 4 [packed = false, json_name = "lots"];
  optional o.Mode mode = 5;
  google.protobuf.Value any = 6;
}
message Unused { u.Unused u = 1; }
service Extra { rpc Do(Unused) returns (Unused); }`,
		"other.proto": `edition = "2023"; package o; import "unused.proto";
message Outer { message Inner { Shut shut = 4; string name = 1 [features.field_presence = IMPLICIT]; Inner deep = 2 [features.message_encoding = DELIMITED]; u.Unused no = 3; } }
enum Mode { NONE = 0; OFF = 2; } enum Shut { option features.enum_type = CLOSED; OUT = 3; }
message Alone { string s = 1; }`,
		"unused.proto": `syntax = "proto2"; package u; message Unused { optional group G = 1 { required string s = 1; extensions 5 to 9; } } message Large { optional string s = 1; } extend Unused.G { optional int32 x = 5; }`,
	}
	set := build(t, sources, "t.proto")
	got, err := Compile(service(t, strong("{value: {encoding: proto}}")...), &Descriptors{Set: set})
	if err != nil {
		t.Fatal(err)
	}
	if got.Type.GetValueMessage() != "s.State" {
		t.Fatalf("got the message %q", got.Type.GetValueMessage())
	}
	pruned := &descriptorpb.FileDescriptorSet{}
	if err := proto.Unmarshal(got.Type.GetValueDescriptors(), pruned); err != nil {
		t.Fatal(err)
	}
	text := pruned.String()
	for _, no := range []string{"Things", "Alone", "Large", "Extra", "s.Unused", "hint", "descriptor.proto", "holdfast"} {
		if strings.Contains(text, no) {
			t.Errorf("%s is still there: %s", no, text)
		}
	}
	find := func(set *descriptorpb.FileDescriptorSet) protoreflect.MessageDescriptor {
		files, err := protodesc.NewFiles(set)
		if err != nil {
			t.Fatal(err)
		}
		d, err := files.FindDescriptorByName("s.State")
		if err != nil {
			t.Fatal(err)
		}
		return d.(protoreflect.MessageDescriptor)
	}
	const value = `{"parts":{"a":{"parent":{"number":"7"},"colour":"BLUE","inner":{"name":"n","deep":{"no":{"g":{"s":"x"}}}}}},` +
		`"at":"2026-01-02T03:04:05Z","lots":[1,2,3],"mode":"OFF","any":{"k":[true,null]}}`
	whole, part := dynamicpb.NewMessage(find(set)), dynamicpb.NewMessage(find(pruned))
	for _, m := range []*dynamicpb.Message{whole, part} {
		if err := protojson.Unmarshal([]byte(value), m); err != nil {
			t.Fatal(err)
		}
	}
	raw := func(m proto.Message) string {
		b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	if raw(whole) != raw(part) {
		t.Errorf("the same value is %x and %x", raw(whole), raw(part))
	}
	back := dynamicpb.NewMessage(find(pruned))
	if err := proto.Unmarshal([]byte(raw(whole)), back); err != nil || len(back.GetUnknown()) > 0 || raw(back) != raw(part) {
		t.Errorf("read back: %v, %v", back, err)
	}
}

func TestValueDescriptorsTooLarge(t *testing.T) {
	var fields strings.Builder
	for i := range 8000 {
		fmt.Fprintf(&fields, "int64 a_rather_long_field_name_%d = %d;", i, i+20000)
	}
	set := build(t, map[string]string{"t.proto": head + things + "message State {" + fields.String() + "}"}, "t.proto")
	_, err := Compile(service(t, strong("{value: {encoding: proto, message: t.v1.State}}")...), &Descriptors{Set: set})
	if err == nil || !strings.Contains(err.Error(), "at most 262144 are sent to stores") {
		t.Errorf("got %v", err)
	}
}
