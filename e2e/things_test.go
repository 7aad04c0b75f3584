package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bufbuild/protocompile"
	_ "google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"

	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"

	"github.com/holdfast-mesh/holdfast/e2e/rig"
)

// thing is an entity type with a gRPC service of its own, things.v1.<Name>, which all do the same: a call tells the state
// that it was given, and gives back the operations that the caller named.
type thing struct {
	name string
	// spec are lines of the entity's configuration.
	spec string
	// carriage is "json", "field" or "own" (a field of a message of its own).
	carriage string
	// several says that its calls may name further entities.
	several bool
}

const thingMessages = `syntax = "proto3";
package things.v1;
import "google/api/annotations.proto";
import "holdfast/v1/contract.proto";
import "holdfast/v1/options.proto";

message Request {
  string key = 1 [(holdfast.v1.entity_key) = true];
  string operations = 2; // JSON
  holdfast.v1.StateIn state = 15 [(holdfast.v1.state_in) = true];
}
message SeveralRequest {
  string key = 1 [(holdfast.v1.entity_key) = true];
  string operations = 2; // JSON, of a whole state out
  repeated string others = 3 [(holdfast.v1.other_entity_keys) = true];
  holdfast.v1.StateIn state = 15 [(holdfast.v1.state_in) = true];
}
message SeveralReply {
  string state = 1;
  holdfast.v1.StateOut changes = 15 [(holdfast.v1.state_out) = true];
}
message Reply {
  string state = 1; // JSON
  holdfast.v1.StateOut changes = 15 [(holdfast.v1.state_out) = true];
}
message Seen { string state = 1; }

message NoteRequest {
  string key = 1 [(holdfast.v1.entity_key) = true];
  string operations = 2; // the new text
  Note state = 15 [(holdfast.v1.state_in) = true];
}
message NoteReply {
  string state = 1;
  Note changes = 15 [(holdfast.v1.state_out) = true];
}
message Note { string text = 1; uint32 edits = 2; }
`

const thingService = `
service %[1]s {
  rpc Do(%[2]sRequest) returns (%[2]sReply) { option (google.api.http) = {post: "/v1/%[1]s/{key}" body: "*"}; }
  rpc Get(%[2]sRequest) returns (Seen) {
    option idempotency_level = NO_SIDE_EFFECTS;
    option (google.api.http) = {get: "/v1/%[1]s/{key}"};
  }
  rpc Watch(%[3]sRequest) returns (stream Seen) {
    option idempotency_level = NO_SIDE_EFFECTS;
    option (google.api.http) = {get: "/v1/%[1]s/{key}/watch"};
  }
}
`

const thingYAML = `apiVersion: holdfast.dev/v1alpha1
kind: StatefulService
metadata: {name: %[1]s}
spec:
  service: things.v1.%[2]s
  descriptors: {file: things.binpb}
  entity:
    type: things.%[2]s
    carriage: %[3]s
%[4]s
  workloadRef: {kind: Local, name: things}
---
`

// startThings serves the things in this process and starts a mesh of so many nodes around them.
func startThings(t *testing.T, nodes int, things []thing) *rig.Mesh {
	t.Helper()
	_, config := serveThings(t, things)
	return own(t, rig.Options{Nodes: nodes, Config: config})
}

// serveThings serves the things in this process, and writes a configuration for them.
func serveThings(t *testing.T, things []thing) (address, config string) {
	t.Helper()
	source, yaml := thingMessages, ""
	for _, th := range things {
		message, watch, carriage := "", "", "{metadata: {encoding: json}}"
		switch th.carriage {
		case "field":
			carriage = "{field: {}}"
		case "own":
			message, watch, carriage = "Note", "Note", "{field: {}}"
		}
		if th.several {
			message = "Several"
		}
		source += fmt.Sprintf(thingService, th.name, message, watch)
		spec := "    " + strings.ReplaceAll(strings.TrimSpace(th.spec), "\n", "\n    ")
		yaml += fmt.Sprintf(thingYAML, strings.ToLower(th.name), th.name, carriage, spec)
	}
	compiler := protocompile.Compiler{Resolver: protocompile.WithStandardImports(protocompile.CompositeResolver{
		&protocompile.SourceResolver{Accessor: protocompile.SourceAccessorFromMap(map[string]string{"things.proto": source})},
		protocompile.ResolverFunc(func(path string) (protocompile.SearchResult, error) {
			fd, err := protoregistry.GlobalFiles.FindFileByPath(path)
			return protocompile.SearchResult{Desc: fd}, err
		}),
	})}
	files, err := compiler.Compile(t.Context(), "things.proto")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	for i := range files[0].Services().Len() {
		server.RegisterService(describeThing(files[0].Services().Get(i)), nil)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(l)
	}()
	t.Cleanup(func() { server.Stop(); <-served })

	dir := t.TempDir()
	raw, err := proto.Marshal(fileSet(files[0]))
	if err != nil {
		t.Fatal(err)
	}
	yaml += fmt.Sprintf("apiVersion: holdfast.dev/v1alpha1\nkind: LocalMesh\nmetadata: {name: things}\nspec: {workloads: [{name: things, address: %q}]}\n", l.Addr())
	config = filepath.Join(dir, "holdfast.yaml")
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "things.binpb"), raw, 0o600), os.WriteFile(config, []byte(yaml), 0o600)); err != nil {
		t.Fatal(err)
	}
	return l.Addr().String(), config
}

// fileSet is a file with all that it imports, imports first.
func fileSet(file protoreflect.FileDescriptor) *descriptorpb.FileDescriptorSet {
	set, seen := &descriptorpb.FileDescriptorSet{}, map[string]bool{}
	var add func(protoreflect.FileDescriptor)
	add = func(fd protoreflect.FileDescriptor) {
		if seen[fd.Path()] {
			return
		}
		seen[fd.Path()] = true
		for i := range fd.Imports().Len() {
			add(fd.Imports().Get(i).FileDescriptor)
		}
		set.File = append(set.File, protodesc.ToFileDescriptorProto(fd))
	}
	add(file)
	return set
}

// describeThing is a service as gRPC wants it, from its descriptor.
func describeThing(sd protoreflect.ServiceDescriptor) *grpc.ServiceDesc {
	desc := &grpc.ServiceDesc{ServiceName: string(sd.FullName())}
	for i := range sd.Methods().Len() {
		md := sd.Methods().Get(i)
		if md.IsStreamingServer() {
			desc.Streams = append(desc.Streams, grpc.StreamDesc{
				StreamName: string(md.Name()), ServerStreams: true,
				Handler: func(_ any, stream grpc.ServerStream) error {
					in := dynamicpb.NewMessage(md.Input())
					if err := stream.RecvMsg(in); err != nil {
						return err
					}
					out, err := handleThing(stream.Context(), in, md.Output())
					if err != nil {
						return err
					}
					return stream.SendMsg(out)
				},
			})
			continue
		}
		desc.Methods = append(desc.Methods, grpc.MethodDesc{
			MethodName: string(md.Name()),
			Handler: func(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
				in := dynamicpb.NewMessage(md.Input())
				if err := decode(in); err != nil {
					return nil, err
				}
				return handleThing(ctx, in, md.Output())
			},
		})
	}
	return desc
}

// handleThing tells the state and returns the operations that were asked for.
func handleThing(ctx context.Context, in *dynamicpb.Message, reply protoreflect.MessageDescriptor) (proto.Message, error) {
	out := dynamicpb.NewMessage(reply)
	operations := in.Get(in.Descriptor().Fields().ByName("operations")).String()
	changes := reply.Fields().ByName("changes")
	if strings.HasPrefix(operations, "[") {
		operations = `{"operations":` + operations + `}`
	}
	var state []byte
	var err error
	field := in.Descriptor().Fields().ByName("state")
	values := metadata.ValueFromIncomingContext(ctx, "holdfast-state")
	switch {
	case len(values) == 1:
		state = []byte(values[0])
		if operations != "" {
			err = grpc.SetTrailer(ctx, metadata.Pairs("holdfast-state", operations))
		}
	case field.Message().Name() == "Note":
		state, err = protojson.Marshal(in.Get(field).Message().Interface())
		if changes != nil && operations != "" {
			note := out.Mutable(changes).Message()
			text, edits := note.Descriptor().Fields().ByName("text"), note.Descriptor().Fields().ByName("edits")
			note.Set(text, protoreflect.ValueOfString(operations))
			note.Set(edits, protoreflect.ValueOfUint32(uint32(in.Get(field).Message().Get(edits).Uint())+1))
		}
	case in.Has(field):
		state, err = protojson.Marshal(in.Get(field).Message().Interface())
		if err == nil && changes != nil && operations != "" {
			err = protojson.Unmarshal([]byte(operations), out.Mutable(changes).Message().Interface())
		}
	default:
		return nil, status.Error(codes.Internal, "the request came without its state")
	}
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	out.Set(reply.Fields().ByName("state"), protoreflect.ValueOfString(string(state)))
	return out, nil
}

func thingPath(name, key string) string { return "/v1/" + name + "/" + url.PathEscape(key) }

// doThing calls a thing with operations as JSON.
func doThing(m *rig.Mesh, address, name, key, operations string, headers ...string) (*rig.Reply, error) {
	header := http.Header{}
	for i := 0; i+1 < len(headers); i += 2 {
		header.Set(headers[i], headers[i+1])
	}
	return m.Do(http.MethodPost, address, thingPath(name, key), map[string]string{"operations": operations}, header)
}

// doThingAt calls a thing at a node, which must serve the call itself.
func doThingAt(t *testing.T, m *rig.Mesh, node int, name, key, operations string) {
	t.Helper()
	r := must(t)(doThing(m, m.Ingress(node), name, key, operations, "holdfast-explain", "1"))
	if got, want := r.Header.Get("holdfast-explain"), fmt.Sprintf("node=node-%d", node); got != want {
		t.Fatalf("%s/%s: a call that entered node %d was served by %q, its own store was not there", name, key, node, got)
	}
}

// thingState is the state that a service is given at an address.
func thingState(m *rig.Mesh, address, name, key string) (*holdfastv1.StateIn, error) {
	in, _, err := askThing(m, address, name, key)
	return in, err
}

// askThing is thingState, and who answered.
func askThing(m *rig.Mesh, address, name, key string) (in *holdfastv1.StateIn, by string, err error) {
	r, err := ok(m.Do(http.MethodGet, address, thingPath(name, key), nil, http.Header{"Holdfast-Explain": {"1"}}))
	if err != nil {
		return nil, "", err
	}
	var reply struct{ State string }
	if err := r.JSON(&reply); err != nil {
		return nil, "", err
	}
	in = &holdfastv1.StateIn{}
	return in, r.Header.Get("holdfast-explain"), protojson.Unmarshal([]byte(reply.State), in)
}

// ownStores waits until every node serves what enters it.
func ownStores(m *rig.Mesh, name string) func() error {
	return func() error {
		for i, address := range m.Ingresses() {
			_, by, err := askThing(m, address, name, "ready")
			if want := fmt.Sprintf("node=node-%d", i+1); err != nil || by != want {
				return fmt.Errorf("a read at %s was served by %q, want %s: %v", address, by, want, err)
			}
		}
		return nil
	}
}

// thingIs waits until services are given this value, as JSON, at every address; "" is an entity that does not exist.
func thingIs(m *rig.Mesh, addresses []string, name, key, value string) func() error {
	want := &holdfastv1.Value{}
	if value != "" {
		if err := protojson.Unmarshal([]byte(value), want); err != nil {
			return func() error { return err }
		}
	}
	return func() error {
		for _, address := range addresses {
			in, by, err := askThing(m, address, name, key)
			switch {
			case err != nil:
				return fmt.Errorf("%s/%s at %s: %w", name, key, address, err)
			case in.GetExists() != (value != ""):
				return fmt.Errorf("%s/%s at %s (%s): exists %v with %v, want %q", name, key, address, by, in.GetExists(), in.GetValue(), value)
			case value != "" && !proto.Equal(everywhere(in.GetValue()), want):
				return fmt.Errorf("%s/%s at %s (%s): %v, want %v", name, key, address, by, in.GetValue(), want)
			}
		}
		return nil
	}
}

// everywhere takes away what of a value differs from node to node.
func everywhere(v *holdfastv1.Value) *holdfastv1.Value {
	switch k := v.GetKind().(type) {
	case *holdfastv1.Value_Vote:
		k.Vote.SelfVote = false
	case *holdfastv1.Value_Bcounter:
		k.Bcounter.Available = 0
	}
	return v
}
