package probe

import (
	"context"
	"net"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
)

func serve(t *testing.T) *grpc.ClientConn {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = Serve(ctx, l)
	}()
	t.Cleanup(func() { cancel(); <-done })
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func TestConfigIsValid(t *testing.T) {
	c, err := Config()
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Services) != 1 || c.Services[0].Spec.Service != service || c.Mesh == nil {
		t.Errorf("got %+v", c)
	}
}

func TestCountsByTheStateItIsGiven(t *testing.T) {
	conn := serve(t)
	in, err := proto.Marshal(&holdfastv1.StateIn{
		Type: Type, Key: Key, Exists: true, Value: &holdfastv1.Value{Kind: &holdfastv1.Value_Gcounter{Gcounter: 41}},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx := metadata.AppendToOutgoingContext(t.Context(), stateKey, string(in))
	for method, want := range map[string]struct {
		count      uint64
		operations int
	}{"Touch": {42, 1}, "Read": {41, 0}} {
		var got wrapperspb.UInt64Value
		var trailer metadata.MD
		if err := conn.Invoke(ctx, "/"+service+"/"+method, wrapperspb.String(Key), &got, grpc.Trailer(&trailer)); err != nil {
			t.Fatal(err)
		}
		var out holdfastv1.StateOut
		if values := trailer.Get(stateKey); len(values) == 1 {
			if err := proto.Unmarshal([]byte(values[0]), &out); err != nil {
				t.Fatal(err)
			}
		}
		if got.GetValue() != want.count || len(out.GetOperations()) != want.operations {
			t.Errorf("%s: got %d with %d operations, want %+v", method, got.GetValue(), len(out.GetOperations()), want)
		}
	}
	if err := conn.Invoke(t.Context(), "/"+service+"/Read", wrapperspb.String(Key), &wrapperspb.UInt64Value{}); err == nil {
		t.Error("a call without state was answered")
	}
}

func TestReflection(t *testing.T) {
	stream, err := reflectionv1.NewServerReflectionClient(serve(t)).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	err = stream.Send(&reflectionv1.ServerReflectionRequest{
		MessageRequest: &reflectionv1.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: service},
	})
	if err != nil {
		t.Fatal(err)
	}
	reply, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	if n := len(reply.GetFileDescriptorResponse().GetFileDescriptorProto()); n != 2 {
		t.Errorf("got %d files (%v), want the probe's and the wrappers'", n, reply)
	}
}

// A mesh's callers must not find the probe where they ask what its services are.
func TestReflectionListsNoReflection(t *testing.T) {
	stream, err := reflectionv1.NewServerReflectionClient(serve(t)).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	err = stream.Send(&reflectionv1.ServerReflectionRequest{
		MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{ListServices: "*"},
	})
	if err != nil {
		t.Fatal(err)
	}
	reply, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	if got := reply.GetListServicesResponse().GetService(); len(got) != 1 || got[0].GetName() != service {
		t.Errorf("got %v, want only %s", got, service)
	}
}
