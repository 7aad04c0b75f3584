package resolve

import (
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"
)

// Messages shows bytes of services' own messages to people.
type Messages struct {
	files []*protoregistry.Files
}

// NewMessages knows the messages of these descriptors.
func NewMessages(all []*Descriptors) *Messages {
	m := &Messages{}
	for _, d := range all {
		// They were built before; what can't be built again has no messages.
		if files, err := protodesc.NewFiles(d.Set); err == nil {
			m.files = append(m.files, files)
		}
	}
	return m
}

// JSON is the message of that full name, with field names as the .proto has them. It reports false where no message has the
// name, or b is not wholly what that describes.
func (m *Messages) JSON(name string, b []byte) ([]byte, bool) {
	for _, files := range m.files {
		found, err := files.FindDescriptorByName(protoreflect.FullName(name))
		if err != nil {
			continue
		}
		described, ok := found.(protoreflect.MessageDescriptor)
		if !ok {
			continue
		}
		types := dynamicpb.NewTypes(files)
		message := dynamicpb.NewMessage(described)
		if err := (proto.UnmarshalOptions{Resolver: types}).Unmarshal(b, message); err != nil || len(message.GetUnknown()) > 0 {
			continue
		}
		if out, err := (protojson.MarshalOptions{UseProtoNames: true, Resolver: types}).Marshal(message); err == nil {
			return out, true
		}
	}
	return nil, false
}
