package gossip

import (
	"context"
	"errors"
	"fmt"

	replicationv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/replication/v1"
)

// The versions of the wire form that this package speaks, see replication.proto.
const (
	WireVersion       = 3
	OldestWireVersion = 2
)

var (
	errSelf     = errors.New("the peer is this store itself")
	errWrong    = errors.New("another member answers at the peer's address")
	errProtocol = errors.New("the peer does not speak the protocol")
	errReplaced = errors.New("the peer opened a newer stream")
	errCut      = errors.New("cut off by a fault that was asked for")
	errOverflow = errors.New("the peer sends more than it was asked for")
)

// VersionError refuses a peer that speaks no version that this store speaks.
type VersionError struct{ Theirs, TheirOldest, Ours, OurOldest uint32 }

func (e *VersionError) Error() string {
	return fmt.Sprintf("the peer speaks versions %d to %d of the replicas' protocol, this store %d to %d: update the older one",
		e.TheirOldest, e.Theirs, e.OurOldest, e.Ours)
}

// greet exchanges the first messages and returns the version that both speak.
func greet(ctx context.Context, conn Conn, self *replicationv1.Hello) (*replicationv1.Hello, uint32, error) {
	ctx, cancel := context.WithTimeout(ctx, helloTimeout)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	if err := conn.Send(&replicationv1.Message{Kind: &replicationv1.Message_Hello{Hello: self}}); err != nil {
		return nil, 0, fmt.Errorf("say hello: %w", err)
	}
	m, err := conn.Recv()
	if err != nil {
		return nil, 0, fmt.Errorf("wait for hello: %w", err)
	}
	hello := m.GetHello()
	switch {
	case hello == nil, hello.GetVersion() == 0, hello.GetNode() == "", hello.GetReplica() == 0:
		return nil, 0, errProtocol
	case hello.GetNode() == self.GetNode(), hello.GetReplica() == self.GetReplica():
		return nil, 0, errSelf
	}
	version := min(hello.GetVersion(), self.GetVersion())
	// Version 1 did not tell its oldest one.
	theirOldest := max(hello.GetOldestVersion(), 1)
	if version < self.GetOldestVersion() || version < theirOldest {
		return nil, 0, &VersionError{hello.GetVersion(), theirOldest, self.GetVersion(), self.GetOldestVersion()}
	}
	return hello, version, nil
}

func (n *Node) hello() *replicationv1.Hello {
	return &replicationv1.Hello{
		Version: n.cfg.MaxVersion, Node: n.cfg.Node, Replica: n.cfg.Replica, OldestVersion: OldestWireVersion,
	}
}

// refused counts a peer that this store does not talk to, and tells of it once for each reason.
func (n *Node) refused(peer string, err error) {
	var version *VersionError
	if !errors.Is(err, errSelf) && !errors.Is(err, errWrong) && !errors.Is(err, errProtocol) && !errors.As(err, &version) {
		return
	}
	n.metrics.refused.Inc()
	n.mu.Lock()
	told := n.told[peer] == err.Error()
	if len(n.told) < maxMembers {
		n.told[peer] = err.Error()
	}
	n.mu.Unlock()
	if !told {
		n.cfg.Logger.Warn("peer refused", "peer", peer, "error", err)
	}
}
