package main

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"

	bankv1 "github.com/holdfast-mesh/holdfast/examples/demo/accounts/bank/v1"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
)

// profiles answers from the profile that comes with each request: a JSON object, as its type's encoding says.
type profiles struct {
	bankv1.UnimplementedProfilesServer
}

// UpdateProfile hands the changes back as they came: the store patches the profile. Whether a caller's If-Match still fits was
// decided before this is called.
func (profiles) UpdateProfile(ctx context.Context, r *bankv1.UpdateProfileRequest) (*bankv1.UpdateProfileReply, error) {
	if len(r.GetChanges().GetFields()) == 0 {
		return nil, status.Error(codes.InvalidArgument, "there are no changes")
	}
	patch, err := protojson.Marshal(r.GetChanges())
	if err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "encode changes: %v", err)
	}
	err = stateOut(ctx, &holdfastv1.StateOut{Operations: []*holdfastv1.Operation{
		{Operation: &holdfastv1.Operation_MergePatch{MergePatch: &holdfastv1.MergePatch{Patch: patch}}},
	}})
	if err != nil {
		return nil, err
	}
	return &bankv1.UpdateProfileReply{}, nil
}

func (profiles) GetProfile(ctx context.Context, _ *bankv1.GetProfileRequest) (*bankv1.Profile, error) {
	in, err := stateIn(ctx)
	if err != nil {
		return nil, err
	}
	profile := &structpb.Struct{}
	if in.GetExists() {
		if err := protojson.Unmarshal(in.GetValue().GetValue(), profile); err != nil {
			return nil, status.Errorf(codes.Internal, "decode profile %q: %v", in.GetKey(), err)
		}
	}
	return &bankv1.Profile{Profile: profile}, nil
}
