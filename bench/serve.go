package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	countersv1 "github.com/holdfast-mesh/holdfast/bench/counters/v1"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
)

// stateKey names the state in the request's metadata and the changes in the reply's trailers.
const stateKey = "holdfast-state-bin"

// serve is the service, as its user would write it, on HOST and PORT. Called without state it counts in a map: that is the
// direct row, and the row through an Envoy without our filter.
func serve(ctx context.Context) error {
	listener, err := net.Listen("tcp", net.JoinHostPort(os.Getenv("HOST"), os.Getenv("PORT")))
	if err != nil {
		return err
	}
	s := grpc.NewServer()
	countersv1.RegisterEventualServer(s, &eventual{})
	countersv1.RegisterStrongServer(s, &strong{})
	reflection.Register(s)
	go func() {
		<-ctx.Done()
		s.Stop()
	}()
	return s.Serve(listener)
}

// counts is the state of the rows without Holdfast.
type counts struct {
	mu sync.Mutex
	m  map[string]uint64
}

func (c *counts) add(key string, by uint64) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.m == nil {
		c.m = map[string]uint64{}
	}
	c.m[key] += by
	return c.m[key]
}

type eventual struct {
	countersv1.UnimplementedEventualServer
	own counts
}

func (e *eventual) Read(ctx context.Context, r *countersv1.Request) (*countersv1.Count, error) {
	in, err := stateIn(ctx)
	if err != nil {
		return nil, err
	}
	if in == nil {
		return &countersv1.Count{Value: e.own.add(r.GetCounter(), 0)}, nil
	}
	return &countersv1.Count{Value: in.GetValue().GetGcounter()}, nil
}

func (e *eventual) Increment(ctx context.Context, r *countersv1.Request) (*countersv1.Count, error) {
	in, err := stateIn(ctx)
	if err != nil {
		return nil, err
	}
	if in == nil {
		return &countersv1.Count{Value: e.own.add(r.GetCounter(), 1)}, nil
	}
	out := &holdfastv1.Operation{Operation: &holdfastv1.Operation_Increment{Increment: &holdfastv1.Increment{By: 1}}}
	if err := stateOut(ctx, out); err != nil {
		return nil, err
	}
	return &countersv1.Count{Value: in.GetValue().GetGcounter() + 1}, nil
}

type strong struct {
	countersv1.UnimplementedStrongServer
	own counts
}

func (s *strong) Read(ctx context.Context, r *countersv1.Request) (*countersv1.Count, error) {
	in, err := stateIn(ctx)
	if err != nil {
		return nil, err
	}
	if in == nil {
		return &countersv1.Count{Value: s.own.add(r.GetCounter(), 0)}, nil
	}
	value, err := decode(in.GetValue().GetValue())
	return &countersv1.Count{Value: value}, err
}

func (s *strong) Increment(ctx context.Context, r *countersv1.Request) (*countersv1.Count, error) {
	in, err := stateIn(ctx)
	if err != nil {
		return nil, err
	}
	if in == nil {
		return &countersv1.Count{Value: s.own.add(r.GetCounter(), 1)}, nil
	}
	value, err := decode(in.GetValue().GetValue())
	if err != nil {
		return nil, err
	}
	bytes := binary.AppendUvarint(nil, value+1)
	if err := stateOut(ctx, &holdfastv1.Operation{Operation: &holdfastv1.Operation_Set{Set: &holdfastv1.Set{Value: bytes}}}); err != nil {
		return nil, err
	}
	return &countersv1.Count{Value: value + 1}, nil
}

func decode(value []byte) (uint64, error) {
	if len(value) == 0 {
		return 0, nil
	}
	n, size := binary.Uvarint(value)
	if size != len(value) {
		return 0, status.Errorf(codes.Internal, "counter of %d bytes", len(value))
	}
	return n, nil
}

// stateIn is nil where the call came without Holdfast.
func stateIn(ctx context.Context) (*holdfastv1.StateIn, error) {
	values := metadata.ValueFromIncomingContext(ctx, stateKey)
	if len(values) == 0 {
		return nil, nil
	}
	in := &holdfastv1.StateIn{}
	if err := proto.Unmarshal([]byte(values[0]), in); err != nil {
		return nil, status.Errorf(codes.Internal, "decode state: %v", err)
	}
	return in, nil
}

func stateOut(ctx context.Context, op *holdfastv1.Operation) error {
	out, err := proto.Marshal(&holdfastv1.StateOut{Operations: []*holdfastv1.Operation{op}})
	if err != nil {
		return fmt.Errorf("encode changes: %w", err)
	}
	return grpc.SetTrailer(ctx, metadata.Pairs(stateKey, string(out)))
}
