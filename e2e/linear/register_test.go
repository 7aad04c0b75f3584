package linear

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	registerv1 "github.com/holdfast-mesh/holdfast/e2e/linear/register/v1"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
)

// serveVariable in the environment makes this binary the registers' service.
const serveVariable = "LINEAR_SERVE"

// stateKey names the state in the request's metadata and the changes in the reply's trailers.
const stateKey = "holdfast-state-bin"

// server keeps nothing: a register comes with each request and goes back with the reply.
type server struct {
	registerv1.UnimplementedRegistersServer
}

func serveRegisters() error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	l, err := net.Listen("tcp", net.JoinHostPort(os.Getenv("HOST"), os.Getenv("PORT")))
	if err != nil {
		return err
	}
	s := grpc.NewServer()
	registerv1.RegisterRegistersServer(s, server{})
	registerv1.RegisterCountersServer(s, counters{})
	reflection.Register(s)
	go func() {
		<-ctx.Done()
		s.Stop()
	}()
	return s.Serve(l)
}

func (server) Write(ctx context.Context, r *registerv1.WriteRequest) (*registerv1.Register, error) {
	reg, err := stateIn(ctx)
	if err != nil {
		return nil, err
	}
	select {
	case <-time.After(time.Duration(r.GetHoldMs()) * time.Millisecond):
	case <-ctx.Done():
		return nil, status.FromContextError(ctx.Err()).Err()
	}
	reg.Value, reg.Writes = r.GetValue(), reg.Writes+1
	return reg, stateOut(ctx, reg)
}

func (server) CompareAndSet(ctx context.Context, r *registerv1.CompareAndSetRequest) (*registerv1.Comparison, error) {
	reg, err := stateIn(ctx)
	if err != nil {
		return nil, err
	}
	if reg.Value != r.GetExpected() {
		return &registerv1.Comparison{Register: reg}, nil
	}
	reg.Value, reg.Writes = r.GetValue(), reg.Writes+1
	return &registerv1.Comparison{Set: true, Register: reg}, stateOut(ctx, reg)
}

func (server) Read(ctx context.Context, _ *registerv1.ReadRequest) (*registerv1.Register, error) {
	return stateIn(ctx)
}

// counters counts what needs no etcd.
type counters struct {
	registerv1.UnimplementedCountersServer
}

func (counters) Add(ctx context.Context, _ *registerv1.AddRequest) (*registerv1.AddReply, error) {
	return &registerv1.AddReply{}, operationsOut(ctx,
		&holdfastv1.Operation{Operation: &holdfastv1.Operation_Increment{Increment: &holdfastv1.Increment{By: 1}}})
}

func (counters) Look(ctx context.Context, _ *registerv1.LookRequest) (*registerv1.Count, error) {
	in, err := valueIn(ctx)
	return &registerv1.Count{Count: uint32(in.GetValue().GetGcounter())}, err
}

func valueIn(ctx context.Context) (*holdfastv1.StateIn, error) {
	values := metadata.ValueFromIncomingContext(ctx, stateKey)
	if len(values) != 1 {
		return nil, status.Error(codes.Internal, "the request came without its state")
	}
	in := &holdfastv1.StateIn{}
	if err := proto.Unmarshal([]byte(values[0]), in); err != nil {
		return nil, fmt.Errorf("decode state: %w", err)
	}
	return in, nil
}

func stateIn(ctx context.Context) (*registerv1.Register, error) {
	in, err := valueIn(ctx)
	if err != nil {
		return nil, err
	}
	reg := &registerv1.Register{}
	if err := proto.Unmarshal(in.GetValue().GetValue(), reg); err != nil {
		return nil, fmt.Errorf("decode register %q: %w", in.GetKey(), err)
	}
	return reg, nil
}

func stateOut(ctx context.Context, reg *registerv1.Register) error {
	value, err := proto.Marshal(reg)
	if err != nil {
		return err
	}
	return operationsOut(ctx, &holdfastv1.Operation{Operation: &holdfastv1.Operation_Set{Set: &holdfastv1.Set{Value: value}}})
}

func operationsOut(ctx context.Context, operations ...*holdfastv1.Operation) error {
	out, err := proto.Marshal(&holdfastv1.StateOut{Operations: operations})
	if err != nil {
		return err
	}
	return grpc.SetTrailer(ctx, metadata.Pairs(stateKey, string(out)))
}
