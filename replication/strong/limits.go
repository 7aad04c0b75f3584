package strong

import (
	"time"

	"github.com/holdfast-mesh/holdfast/internal/etcd"
)

const (
	// leaseTimeout is how long an unanswered request for the lease waits until etcd counts as gone.
	leaseTimeout = time.Second
	// claimTimeout bounds a claim's request for who brings no shorter deadline.
	claimTimeout = 5 * time.Second
	// leaseWait bounds how long a claim waits for the first lease (start, return of etcd).
	leaseWait = time.Second

	// maxBatch is how many commands share a transaction: each needs a guard on its head and one on its slot at worst, and as
	// many reads where they fail.
	maxBatch = etcd.MaxGuards / 2
	// maxTransactions is how many transactions are under way at once.
	maxTransactions = 16
	// maxQueued bounds the commits that wait for a transaction; one more is refused.
	maxQueued = 4096
	// maxDisplaced bounds how often a command goes again because another's guard failed in its transaction. Each time at
	// least one other leaves it for good.
	maxDisplaced = 16
	// txnTimeout is how long a transaction waits for an answer before it is tried again; a request that is only slow then
	// fails the second one's guards. It is above the pauses of a disk that is busy.
	txnTimeout = 2 * time.Second
	// retryPause is between two attempts of what had no answer.
	retryPause = 20 * time.Millisecond
	// closeTimeout bounds Close: revoking the lease is a courtesy to the next owner, it expires by itself.
	closeTimeout = time.Second

	// MaxHeadBytes is the largest head; larger values belong elsewhere than in etcd.
	MaxHeadBytes = 1 << 20
	// writeOverhead is what an operation or a guard takes beside its key and value, rounded up.
	writeOverhead = 32
)
