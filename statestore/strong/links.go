package strong

import (
	"context"

	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
)

// Committer keeps strong entities and the ownership of their slots in etcd. Errors of Commit may implement
// Outcome() storev1.Outcome: not applied where a guard failed or nothing was sent; all others count as unknown.
type Committer interface {
	// Claim returns the owner of the slot, claiming it for this store when it is free. epoch is the slot key's create
	// revision when owner is this node.
	Claim(ctx context.Context, entityType string, slot uint32) (owner string, epoch int64, err error)
	// Held reports whether this store may still serve reads of the slot from memory.
	Held(entityType string, slot uint32, epoch int64) bool
	// Load reads an entity, linearizably. rev is 0 where it was never written. ids are the request ids stored with it.
	Load(ctx context.Context, entityType string, slot uint32, key string) (value []byte, exists bool, rev int64, ids []string, err error)
	// Commit writes the entity guarded by the slot's epoch and the entity's expected revision, and returns its new one.
	Commit(ctx context.Context, entityType string, slot uint32, epoch int64, key string, expectedRev int64, value []byte, exists bool, ids []string) (rev int64, err error)
	// Up is false while etcd is known to be gone.
	Up() bool
	// Owner tells the slot's owner without claiming, "" where there is none.
	Owner(ctx context.Context, entityType string, slot uint32) (string, error)
}

// Forwarder calls another store. An error means that the call was not carried out where it is a refusal that says so, or
// that nobody knows.
type Forwarder interface {
	Call(ctx context.Context, node string, req *storev1.Request) (*storev1.Response, error)
}
