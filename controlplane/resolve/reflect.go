package resolve

import (
	"context"
	"fmt"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	reflectionv1alpha "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"
)

// Reflect asks the process at address for the service's descriptors, by gRPC reflection: v1 first, then v1alpha.
// ErrUnavailable means that asking again later makes sense.
func Reflect(ctx context.Context, address, service string) (*Descriptors, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	cc, err := grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxBytes)))
	if err != nil {
		return nil, fmt.Errorf("reflection at %s: %w", address, err)
	}
	defer cc.Close()
	d, err := reflectWith(service, func() (asker, error) { return newV1(ctx, cc) })
	if status.Code(err) == codes.Unimplemented {
		d, err = reflectWith(service, func() (asker, error) { return newV1Alpha(ctx, cc) })
	}
	switch status.Code(err) {
	case codes.OK:
		return d, nil
	case codes.Unimplemented:
		return nil, fmt.Errorf("%w: %s has no gRPC reflection; switch it on, or write descriptors: {file: PATH}", ErrUnavailable, address)
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled:
		return nil, fmt.Errorf("%w: reflection at %s: %w", ErrUnavailable, address, err)
	}
	return nil, fmt.Errorf("reflection at %s: %w", address, err)
}

// asker asks one question of a reflection stream. Both versions of the service have the same messages on the wire.
type asker func(*reflectionv1.ServerReflectionRequest) (*reflectionv1.ServerReflectionResponse, error)

func newV1(ctx context.Context, cc *grpc.ClientConn) (asker, error) {
	stream, err := reflectionv1.NewServerReflectionClient(cc).ServerReflectionInfo(ctx)
	if err != nil {
		return nil, err
	}
	return func(q *reflectionv1.ServerReflectionRequest) (*reflectionv1.ServerReflectionResponse, error) {
		if err := stream.Send(q); err != nil {
			// The reason is what Recv returns.
			_, err = stream.Recv()
			return nil, err
		}
		return stream.Recv()
	}, nil
}

func newV1Alpha(ctx context.Context, cc *grpc.ClientConn) (asker, error) {
	stream, err := reflectionv1alpha.NewServerReflectionClient(cc).ServerReflectionInfo(ctx)
	if err != nil {
		return nil, err
	}
	return func(q *reflectionv1.ServerReflectionRequest) (*reflectionv1.ServerReflectionResponse, error) {
		//lint:ignore SA1019 Python servers have nothing newer.
		old, out := &reflectionv1alpha.ServerReflectionRequest{}, &reflectionv1.ServerReflectionResponse{}
		if err := recode(q, old); err != nil {
			return nil, err
		}
		// The error of Send is io.EOF; the reason is what Recv returns.
		_ = stream.Send(old)
		answer, err := stream.Recv()
		if err != nil {
			return nil, err
		}
		return out, recode(answer, out)
	}, nil
}

func recode(from, to proto.Message) error {
	raw, err := proto.Marshal(from)
	if err != nil {
		return err
	}
	return proto.Unmarshal(raw, to)
}

func reflectWith(service string, open func() (asker, error)) (*Descriptors, error) {
	ask, err := open()
	if err != nil {
		return nil, err
	}
	answer, err := ask(&reflectionv1.ServerReflectionRequest{MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{ListServices: "*"}})
	if err != nil {
		return nil, err
	}
	listed := []string{}
	for _, s := range answer.GetListServicesResponse().GetService() {
		if len(listed) == maxListed {
			break
		}
		listed = append(listed, s.GetName())
	}
	slices.Sort(listed)
	if !slices.Contains(listed, service) {
		// Another service may still be starting up in the same process.
		return nil, fmt.Errorf("%w: the process has no service %s, it lists %v; correct spec.service or spec.workloadRef", ErrUnavailable, service, listed)
	}
	files, total := map[string]*descriptorpb.FileDescriptorProto{}, 0
	want := []*reflectionv1.ServerReflectionRequest{{
		MessageRequest: &reflectionv1.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: service},
	}}
	asked := map[string]bool{}
	for len(want) > 0 {
		answer, err := ask(want[0])
		if err != nil {
			return nil, err
		}
		if e := answer.GetErrorResponse(); e != nil {
			return nil, fmt.Errorf("the process can't describe %s: %s", service, e.GetErrorMessage())
		}
		want = want[1:]
		for _, raw := range answer.GetFileDescriptorResponse().GetFileDescriptorProto() {
			if total += len(raw); total > maxBytes || len(files) > maxFiles {
				return nil, fmt.Errorf("the descriptors of %s have more than %d bytes or %d files", service, maxBytes, maxFiles)
			}
			f := &descriptorpb.FileDescriptorProto{}
			if err := proto.Unmarshal(raw, f); err != nil {
				return nil, fmt.Errorf("the process sends no descriptors of %s: %w", service, err)
			}
			files[f.GetName()] = f
		}
		if len(want) > 0 {
			continue
		}
		for _, f := range files {
			for _, dep := range f.GetDependency() {
				if files[dep] == nil && !asked[dep] && linkedIn(dep) == nil {
					asked[dep] = true
					want = append(want, &reflectionv1.ServerReflectionRequest{
						MessageRequest: &reflectionv1.ServerReflectionRequest_FileByFilename{FileByFilename: dep},
					})
				}
			}
		}
	}
	list := make([]*descriptorpb.FileDescriptorProto, 0, len(files))
	for _, f := range files {
		list = append(list, f)
	}
	set, err := prune(list, service)
	if err != nil {
		return nil, err
	}
	return &Descriptors{Set: set, Listed: listed}, nil
}
