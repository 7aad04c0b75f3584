package grpcpeer

import (
	"context"
	"fmt"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/holdfast-mesh/holdfast/internal/identity"
	replicationv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/replication/v1"
)

// named checks that a Hello gives the name of the certificate with which its connection was made. Unix sockets have none:
// there any process of this user is trusted to name itself.
func named(ctx context.Context, m *replicationv1.Message) error {
	hello := m.GetHello()
	if hello == nil {
		return nil
	}
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok {
		return nil
	}
	id, err := identity.Of(info.State)
	switch {
	case err != nil:
		return err
	case id.Node != hello.GetNode():
		return fmt.Errorf("%w: its certificate names %s, its hello says %.80q", identity.ErrWrongName, id.Node, hello.GetNode())
	}
	return nil
}
