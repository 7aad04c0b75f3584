package main

import (
	"math"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	bankv1 "github.com/holdfast-mesh/holdfast/examples/demo/accounts/bank/v1"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
)

func fields(t *testing.T, text string) *structpb.Struct {
	t.Helper()
	s := &structpb.Struct{}
	if err := protojson.Unmarshal([]byte(text), s); err != nil {
		t.Fatal(err)
	}
	return s
}

func profileOf(text string) *holdfastv1.StateIn {
	return &holdfastv1.StateIn{
		Type: "bank.Profile", Key: "ada", Exists: true,
		Value: &holdfastv1.Value{Kind: &holdfastv1.Value_Value{Value: []byte(text)}},
	}
}

func TestUpdateProfile(t *testing.T) {
	notANumber := &structpb.Struct{Fields: map[string]*structpb.Value{"n": structpb.NewNumberValue(math.NaN())}}
	for name, c := range map[string]struct {
		changes *structpb.Struct
		code    codes.Code
	}{
		"set and remove":            {fields(t, `{"city":"Paris","phone":null}`), codes.OK},
		"within":                    {fields(t, `{"address":{"city":"Paris"}}`), codes.OK},
		"nothing":                   {fields(t, `{}`), codes.InvalidArgument},
		"no changes at all":         {nil, codes.InvalidArgument},
		"what JSON has no word for": {notANumber, codes.InvalidArgument},
	} {
		t.Run(name, func(t *testing.T) {
			s := &call{}
			_, err := profiles{}.UpdateProfile(s.context(t, profileOf(`{"city":"Rome"}`)), &bankv1.UpdateProfileRequest{Account: "ada", Changes: c.changes})
			if status.Code(err) != c.code {
				t.Fatalf("got %v, want %v", err, c.code)
			}
			out := s.changes(t)
			if c.code != codes.OK {
				if out != nil {
					t.Errorf("refused, and yet to be kept: %v", out)
				}
				return
			}
			if len(out.GetOperations()) != 1 {
				t.Fatalf("got %v, want one operation", out)
			}
			if got := fields(t, string(out.GetOperations()[0].GetMergePatch().GetPatch())); !proto.Equal(got, c.changes) {
				t.Errorf("got %v, want %v", got, c.changes)
			}
		})
	}
}

func TestGetProfile(t *testing.T) {
	for name, c := range map[string]struct {
		in   *holdfastv1.StateIn
		want string
		code codes.Code
	}{
		"some":              {profileOf(`{"city":"Rome","n":1}`), `{"city":"Rome","n":1}`, codes.OK},
		"none":              {&holdfastv1.StateIn{Type: "bank.Profile", Key: "ada"}, `{}`, codes.OK},
		"no profile at all": {profileOf(`[1]`), "", codes.Internal},
	} {
		t.Run(name, func(t *testing.T) {
			s := &call{}
			got, err := profiles{}.GetProfile(s.context(t, c.in), &bankv1.GetProfileRequest{Account: "ada"})
			if status.Code(err) != c.code {
				t.Fatalf("got %v, want %v", err, c.code)
			}
			if out := s.changes(t); out != nil {
				t.Errorf("a read sent changes: %v", out)
			}
			if err == nil && !proto.Equal(got.GetProfile(), fields(t, c.want)) {
				t.Errorf("got %v, want %s", got.GetProfile(), c.want)
			}
		})
	}
}
