package main

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
)

// stateKey names the state in the request's metadata and the changes in the reply's trailers.
const stateKey = "holdfast-state-bin"

// stateIn reads the state that came with the request. A request without any is refused, because a balance of zero would be a
// guess.
func stateIn(ctx context.Context) (*holdfastv1.StateIn, error) {
	values := metadata.ValueFromIncomingContext(ctx, stateKey)
	if len(values) != 1 {
		return nil, status.Error(codes.Internal, "the request came without its state: call this service through Holdfast")
	}
	in := &holdfastv1.StateIn{}
	if err := proto.Unmarshal([]byte(values[0]), in); err != nil {
		return nil, status.Errorf(codes.Internal, "decode state: %v", err)
	}
	return in, nil
}

// stateOut hands changes back to be kept.
func stateOut(ctx context.Context, changes *holdfastv1.StateOut) error {
	out, err := proto.Marshal(changes)
	if err != nil {
		return status.Errorf(codes.Internal, "encode changes: %v", err)
	}
	if err := grpc.SetTrailer(ctx, metadata.Pairs(stateKey, string(out))); err != nil {
		return status.Errorf(codes.Internal, "send changes: %v", err)
	}
	return nil
}
