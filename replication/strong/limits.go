package strong

import (
	"time"

	"github.com/holdfast-mesh/holdfast/internal/etcd"
)

const (
	// MinTTL is the shortest lease: etcd gives no shorter one than about 2.2 s in truth, and a margin must fit.
	MinTTL = 3 * time.Second
	// marginPart: the margin is TTL divided by it; see the package comment for the bound on clock rates that it buys.
	marginPart = 10
	// keepAlivesPerTTL is how many keep-alives are sent in one TTL while all goes well.
	keepAlivesPerTTL = 6
	// keepAliveTimeout is how long an unanswered keep-alive waits until etcd counts as gone.
	keepAliveTimeout = time.Second
	// leaseRetry is the pause after a failed attempt to get or keep a lease.
	leaseRetry = 100 * time.Millisecond
	// leaseWait bounds how long a claim waits for the first lease (start, return of etcd).
	leaseWait = time.Second

	// maxBatch is how many commits share a transaction: each needs two guards at worst, and two reads where they fail.
	maxBatch = etcd.MaxGuards / 2
	// maxSenders is how many transactions are under way at once: one alone would make every commit wait for the one
	// before it; many would leave nothing to share.
	maxSenders = 4
	// maxQueued bounds the commits that wait for a transaction; one more is refused.
	maxQueued = 4096
	// maxAttempts bounds how often a commit goes again because another's guard failed in its transaction. Each time at
	// least one other leaves the batch for good.
	maxAttempts = 16
	// txnTimeout ends a transaction that etcd does not answer. Callers wait by their own deadlines.
	txnTimeout = 10 * time.Second
	// closeTimeout bounds Close: revoking the lease is a courtesy to the next owner, it expires by itself.
	closeTimeout = time.Second

	// MaxRecordBytes is the largest record; larger values belong elsewhere than in etcd.
	MaxRecordBytes = 1 << 20
	// maxIDs and maxIDBytes bound the request ids in a record.
	maxIDs     = 1024
	maxIDBytes = 512
)
