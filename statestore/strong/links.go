package strong

import (
	"context"
	"time"

	"github.com/holdfast-mesh/holdfast/internal/fenced"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
)

// Committer keeps strong entities and the ownership of their slots in etcd.
//
// Errors of Commit may implement Outcome() storev1.Outcome: not applied where a guard failed or nothing was sent; all others
// count as unknown. NotOwner() bool and Conflict() bool say that a slot's or a head's guard failed: nothing that was sent
// before can be carried out any more. Together with an unknown outcome they say that an earlier attempt may have been.
// Index() int is which write's guard failed.
type Committer interface {
	// Claim returns the owner of the slot, claiming it for this store when it is free. epoch is the slot key's create
	// revision when owner is this node.
	Claim(ctx context.Context, entityType string, slot uint32) (owner string, epoch int64, err error)
	// Owner tells the slot's owner without claiming, "" where there is none.
	Owner(ctx context.Context, entityType string, slot uint32) (string, error)
	// Vacated waits until the slot is not owner's (any more), or ctx ends.
	Vacated(ctx context.Context, entityType string, slot uint32, owner string) error
	// Held reports whether this store may still serve reads of the slot from memory.
	Held(entityType string, slot uint32, epoch int64) bool
	// Up is false while etcd is known to be gone.
	Up() bool
	// Load reads an entity's head, linearizably. rev is its modification revision; 0 where there is none.
	Load(ctx context.Context, entityType string, slot uint32, key string) (head []byte, rev int64, err error)
	// Cells reads an entity's cells whose names are in [from, to), in order, linearizably; to "" is the end. more says that
	// limit cut the list short.
	Cells(ctx context.Context, entityType string, slot uint32, key, from, to string, limit int) (cells []fenced.Cell, more bool, err error)
	// Commit carries out all writes in one transaction, or none. rev is the new modification revision of all heads that they
	// put. After it has returned, it sends nothing any more.
	Commit(ctx context.Context, writes []fenced.Write) (rev int64, err error)
	// Changed waits until the head's modification revision is above rev, or the head is gone after it, or ctx ends.
	Changed(ctx context.Context, entityType string, slot uint32, key string, rev int64) error
	// Due lists a type's marks before a time, oldest first.
	Due(ctx context.Context, entityType string, before time.Time, limit int) ([]fenced.Mark, error)
}

// Forwarder calls another store. An error means that the call was not carried out where it is a refusal that says so, or
// that nobody knows.
type Forwarder interface {
	Call(ctx context.Context, node string, req *storev1.Request) (*storev1.Response, error)
}
