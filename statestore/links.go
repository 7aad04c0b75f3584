package statestore

import (
	"context"

	"google.golang.org/grpc/codes"

	replicationv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/replication/v1"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
	"github.com/holdfast-mesh/holdfast/statestore/refusal"
	"github.com/holdfast-mesh/holdfast/statestore/strong"
)

// Publisher sends local changes to the other replicas. Publish is called by the committer once the changes are durable; it
// must not block, and may keep the deltas but not change them. What it loses, anti-entropy finds.
type Publisher interface {
	Publish(deltas []*replicationv1.Delta)
}

// Committer keeps strong entities in etcd.
type Committer = strong.Committer

// Forwarder calls another store.
type Forwarder = strong.Forwarder

// Error is how the engine refuses.
type Error = refusal.Error

// Links are what the engine calls. A nil member is replaced by one that does nothing, or refuses.
type Links struct {
	Publisher Publisher
	Committer Committer
	Forwarder Forwarder
	// Peers lists the other stores for Status.
	Peers func() []*storev1.Peer
	// Configured is called at Connect where there is a configuration, and after each one that is accepted, on the
	// committer: it must not block, nor call the engine.
	Configured func(*storev1.Configure)
}

type noPublisher struct{}

func (noPublisher) Publish([]*replicationv1.Delta) {}

type noForwarder struct{}

func (noForwarder) Call(_ context.Context, node string, _ *storev1.Request) (*storev1.Response, error) {
	return nil, refusal.NotApplied(codes.Unavailable, "store of %s can't be reached: this store has no peers", node)
}

// noCommitter is a store without etcd.
type noCommitter struct{}

func errNoEtcd() error {
	return refusal.NotApplied(codes.Unavailable, "this store has no etcd: strong entities are not served")
}

func (noCommitter) Claim(context.Context, string, uint32) (string, int64, error) {
	return "", 0, errNoEtcd()
}
func (noCommitter) Held(string, uint32, int64) bool { return false }
func (noCommitter) Load(context.Context, string, uint32, string) ([]byte, bool, int64, []string, error) {
	return nil, false, 0, nil, errNoEtcd()
}

func (noCommitter) Commit(context.Context, string, uint32, int64, string, int64, []byte, bool, []string) (int64, error) {
	return 0, errNoEtcd()
}
func (noCommitter) Up() bool                                              { return false }
func (noCommitter) Owner(context.Context, string, uint32) (string, error) { return "", nil }
