package statestore

import (
	"context"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/holdfast-mesh/holdfast/internal/fenced"
	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	replicationv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/replication/v1"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
	"github.com/holdfast-mesh/holdfast/statestore/crdt"
	"github.com/holdfast-mesh/holdfast/statestore/refusal"
	"github.com/holdfast-mesh/holdfast/statestore/strong"
)

// Publisher sends local changes to the other replicas. Publish is called by the committer once the changes are durable; it
// must not block, and may keep the deltas but not change them. What it loses, anti-entropy finds.
type Publisher interface {
	Publish(deltas []*replicationv1.Delta)
}

// Replicas is how a commit reaches other stores.
type Replicas interface {
	// Await is called after Publish, on the committer, and must not block. done is called exactly once, by any goroutine:
	// true once as many of the placed replicas as the level says have the dot on their disk, false at the deadline: then
	// nobody knows.
	Await(typ string, slot uint32, dot crdt.Dot, level configv1.WriteLevel, deadline time.Time, done func(reached bool))
	// Join asks for deltas of a slot for which this store is not placed, and fills it once from a placed replica. It takes a
	// Leave of the slot that is under way back, as not covered.
	Join(typ string, slot uint32, deadline time.Time, done func(error))
	// Fill fills a slot for which this store is placed, and was not, once from a store that kept it before. That there is
	// none is no error.
	Fill(typ string, slot uint32, deadline time.Time, done func(error))
	// Leave ends a Join, done(true), once all placed replicas have seen all of seen; done(false) at the deadline: it goes on.
	Leave(typ string, slot uint32, seen *crdt.Context, deadline time.Time, done func(covered bool))
	// AskRights asks other stores for rights of a bounded counter; they come as deltas.
	AskRights(typ, key string, amount uint64)
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
	Replicas  Replicas
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

// noReplicas is a store that knows no other.
type noReplicas struct{}

func (noReplicas) Await(_ string, _ uint32, _ crdt.Dot, _ configv1.WriteLevel, _ time.Time, done func(bool)) {
	done(false)
}

func (noReplicas) Join(_ string, _ uint32, _ time.Time, done func(error)) {
	done(refusal.NotApplied(codes.Unavailable, "this store is not placed for the entity, and has no peers to get it from"))
}

func (noReplicas) Fill(_ string, _ uint32, _ time.Time, done func(error)) { done(nil) }

func (noReplicas) Leave(_ string, _ uint32, _ *crdt.Context, _ time.Time, done func(bool)) {
	done(false)
}
func (noReplicas) AskRights(string, string, uint64) {}

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
func (noCommitter) Owner(context.Context, string, uint32) (string, error) { return "", nil }
func (noCommitter) Held(string, uint32, int64) bool                       { return false }
func (noCommitter) Up() bool                                              { return false }

func (noCommitter) Vacated(context.Context, string, uint32, string) error { return errNoEtcd() }

func (noCommitter) Load(context.Context, string, uint32, string) ([]byte, int64, error) {
	return nil, 0, errNoEtcd()
}

func (noCommitter) Cells(context.Context, string, uint32, string, string, string, int) ([]fenced.Cell, bool, error) {
	return nil, false, errNoEtcd()
}

func (noCommitter) Commit(context.Context, []fenced.Write) (int64, error) { return 0, errNoEtcd() }

func (noCommitter) Changed(context.Context, string, uint32, string, int64) error { return errNoEtcd() }

func (noCommitter) Due(context.Context, string, time.Time, int) ([]fenced.Mark, error) {
	return nil, errNoEtcd()
}
