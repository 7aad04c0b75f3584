package resolve

import (
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

func TestMessages(t *testing.T) {
	set := &descriptorpb.FileDescriptorSet{File: []*descriptorpb.FileDescriptorProto{
		protodesc.ToFileDescriptorProto(wrapperspb.File_google_protobuf_wrappers_proto),
		protodesc.ToFileDescriptorProto(structpb.File_google_protobuf_struct_proto),
	}}
	text, err := proto.Marshal(wrapperspb.String("tea"))
	if err != nil {
		t.Fatal(err)
	}
	known := NewMessages([]*Descriptors{{Set: &descriptorpb.FileDescriptorSet{}}, {Set: set}})
	for _, c := range []struct {
		name, want string
		bytes      []byte
		ok         bool
	}{
		{"google.protobuf.StringValue", `"tea"`, text, true},
		{"google.protobuf.StringValue", `""`, nil, true},
		// Another message's bytes must not be shown as this one's.
		{"google.protobuf.Int32Value", "", text, false},
		{"google.protobuf.StringValue", "", []byte{0xff}, false},
		{"google.protobuf.NullValue", "", nil, false},
		{"cart.v1.ItemAdded", "", nil, false},
		{"", "", nil, false},
	} {
		got, ok := known.JSON(c.name, c.bytes)
		if ok != c.ok || string(got) != c.want {
			t.Errorf("%s %x: got %s, %v; want %s, %v", c.name, c.bytes, got, ok, c.want, c.ok)
		}
	}
}
