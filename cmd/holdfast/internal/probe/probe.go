// Package probe is the stateful service that `holdfast check` calls: a counter that each store process answers for its
// node, configured like any user's service, so that a check's write and read go the whole way: gateway or ingress, filter,
// store, service, replication. It touches nothing of the user's.
package probe

import (
	"context"
	"fmt"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/holdfast-mesh/holdfast/controlplane/api/v1alpha1"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
)

const (
	// Workload is the probe's name among a node's services.
	Workload = "holdfast-probe"
	service  = "holdfast.probe.v1.Probe"
	file     = "holdfast/probe/v1/probe.proto"
	// stateKey names the state in a request's metadata and the changes in a reply's trailers.
	stateKey = "holdfast-state-bin"
	// Type is the entity type. All checks use the one entity Key, so that they don't pile up.
	Type = "holdfast.Probe"
	Key  = "check"
)

// configuration is the probe's, as a user would write it.
const configuration = `
apiVersion: holdfast.dev/v1alpha1
kind: StatefulService
metadata: {name: holdfast-probe}
spec:
  service: ` + service + `
  descriptors: {reflection: true}
  mode: commit
  entity:
    type: ` + Type + `
    key: {field: value}
    model: {gcounter: {}}
    consistency: eventual
    affinity: local
    replicas: all
    carriage: {metadata: {encoding: proto}}
  workloadRef: {kind: Local, name: ` + Workload + `}
---
apiVersion: holdfast.dev/v1alpha1
kind: LocalMesh
metadata: {name: holdfast-probe}
spec:
  workloads:
  - {name: ` + Workload + `, address: "127.0.0.1:1"} # mesh.json has each node's own
`

// Config is the probe's configuration, to be added to the user's.
func Config() (*v1alpha1.Config, error) {
	return v1alpha1.Parse("built-in probe", []byte(configuration))
}

// descriptor is the probe's schema, registered so that reflection finds it.
func descriptor() *descriptorpb.FileDescriptorProto {
	method := func(name string, level descriptorpb.MethodOptions_IdempotencyLevel) *descriptorpb.MethodDescriptorProto {
		return &descriptorpb.MethodDescriptorProto{
			Name: &name, InputType: proto.String(".google.protobuf.StringValue"), OutputType: proto.String(".google.protobuf.UInt64Value"),
			Options: &descriptorpb.MethodOptions{IdempotencyLevel: &level},
		}
	}
	return &descriptorpb.FileDescriptorProto{
		Name: proto.String(file), Package: proto.String("holdfast.probe.v1"), Syntax: proto.String("proto3"),
		Dependency: []string{"google/protobuf/wrappers.proto"},
		Service: []*descriptorpb.ServiceDescriptorProto{{Name: proto.String("Probe"), Method: []*descriptorpb.MethodDescriptorProto{
			method("Touch", descriptorpb.MethodOptions_IDEMPOTENCY_UNKNOWN),
			method("Read", descriptorpb.MethodOptions_NO_SIDE_EFFECTS),
		}}},
	}
}

// listed is what reflection lists: not reflection itself, or callers of a mesh whose services answer only v1alpha would be
// routed here for v1 and see the probe in place of them.
type listed map[string]grpc.ServiceInfo

func (l listed) GetServiceInfo() map[string]grpc.ServiceInfo { return l }

// Serve answers on l until ctx ends.
func Serve(ctx context.Context, l net.Listener) error {
	d, err := protodesc.NewFile(descriptor(), protoregistry.GlobalFiles)
	if err != nil {
		return fmt.Errorf("probe: %w", err)
	}
	files := &protoregistry.Files{}
	if err := files.RegisterFile(wrapperspb.File_google_protobuf_wrappers_proto); err != nil {
		return fmt.Errorf("probe: %w", err)
	}
	if err := files.RegisterFile(d); err != nil {
		return fmt.Errorf("probe: %w", err)
	}
	s := grpc.NewServer()
	only := listed{service: {Metadata: file}}
	s.RegisterService(&grpc.ServiceDesc{
		ServiceName: service, HandlerType: (*any)(nil), Metadata: file,
		Methods: []grpc.MethodDesc{{MethodName: "Touch", Handler: handler(touch)}, {MethodName: "Read", Handler: handler(read)}},
	}, struct{}{})
	reflectionv1.RegisterServerReflectionServer(s, reflection.NewServerV1(reflection.ServerOptions{Services: only, DescriptorResolver: files}))
	defer context.AfterFunc(ctx, s.Stop)()
	return s.Serve(l)
}

func handler(do func(ctx context.Context, count uint64) (*wrapperspb.UInt64Value, error)) grpc.MethodHandler {
	return func(_ any, ctx context.Context, dec func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		if err := dec(&wrapperspb.StringValue{}); err != nil {
			return nil, err
		}
		count, err := stateIn(ctx)
		if err != nil {
			return nil, err
		}
		return do(ctx, count)
	}
}

func stateIn(ctx context.Context) (uint64, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	values := md.Get(stateKey)
	if len(values) != 1 {
		return 0, status.Error(codes.Internal, "the request came without state: the filter did not see it")
	}
	var in holdfastv1.StateIn
	if err := proto.Unmarshal([]byte(values[0]), &in); err != nil {
		return 0, status.Errorf(codes.Internal, "state in: %v", err)
	}
	return in.GetValue().GetGcounter(), nil
}

func touch(ctx context.Context, count uint64) (*wrapperspb.UInt64Value, error) {
	out, err := proto.Marshal(&holdfastv1.StateOut{Operations: []*holdfastv1.Operation{{
		Operation: &holdfastv1.Operation_Increment{Increment: &holdfastv1.Increment{By: 1}},
	}}})
	if err != nil {
		return nil, err
	}
	if err := grpc.SetTrailer(ctx, metadata.Pairs(stateKey, string(out))); err != nil {
		return nil, err
	}
	return wrapperspb.UInt64(count + 1), nil
}

func read(_ context.Context, count uint64) (*wrapperspb.UInt64Value, error) {
	return wrapperspb.UInt64(count), nil
}

// Client calls the probe through one address of the mesh.
type Client struct {
	conn *grpc.ClientConn
}

// NewClient returns a client for a gateway's or an ingress's address.
func NewClient(address string) (*Client, error) {
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy())
	if err != nil {
		return nil, err
	}
	return &Client{conn: conn}, nil
}

// Close ends the connection.
func (c *Client) Close() { _ = c.conn.Close() }

// Touch adds one and returns the sum as the answering node saw it.
func (c *Client) Touch(ctx context.Context) (uint64, error) { return c.call(ctx, "Touch") }

// Read returns the count as the answering node sees it.
func (c *Client) Read(ctx context.Context) (uint64, error) { return c.call(ctx, "Read") }

func (c *Client) call(ctx context.Context, method string) (uint64, error) {
	var out wrapperspb.UInt64Value
	err := c.conn.Invoke(ctx, "/"+service+"/"+method, wrapperspb.String(Key), &out)
	return out.GetValue(), err
}
