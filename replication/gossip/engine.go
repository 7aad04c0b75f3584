package gossip

import (
	"context"

	replicationv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/replication/v1"
	"github.com/holdfast-mesh/holdfast/replication/gossip/rounds"
	"github.com/holdfast-mesh/holdfast/statestore/crdt"
)

// Engine is the state behind a Node. All methods may be called concurrently. What the reading ones return is durable, and
// no longer the engine's to change.
type Engine interface {
	rounds.Engine
	// Merge takes deltas in; they are durable when it returns. The error tells of those that were refused: the others were
	// merged.
	Merge(ctx context.Context, deltas []*replicationv1.Delta) error
	// Seen is what this store has seen of some identities in a slot, with the identities that are retired there.
	Seen(entityType string, slot uint32, replicas ...uint64) *crdt.Context
	// Identities lists those that this store knows; retired are those that all its slots took for retired.
	Identities() []*replicationv1.Identity
	// LearnIdentities remembers identities and their nodes, and Retire retires some in all slots. Both are durable.
	LearnIdentities(ctx context.Context, identities []*replicationv1.Identity) error
	Retire(ctx context.Context, identities []uint64) error
	// GrantRights moves rights of a bounded counter, if this store has some to spare. They leave as a delta.
	GrantRights(ctx context.Context, entityType, key string, to, amount uint64) error
}
