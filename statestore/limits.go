package statestore

import "time"

const (
	// maxQueue is how many commits, merges and calls wait for the committer; a commit over it is refused as not applied.
	// At 10,000 commits a second it is 0.4 s of waiting, more than a caller wants.
	maxQueue = 4096
	// maxBatch is how many of them share one sync.
	maxBatch = 512
	// maxBatchBytes ends a batch early, so that its log frame stays far below wal.MaxBatch.
	maxBatchBytes = 4 << 20
	// maxOperations of one commit. Each costs a pass over the entity's state.
	maxOperations = 1024
	// maxKey is an entity key's length in bytes; it travels in headers.
	maxKey = 1024
	// maxRequestID is a request id's length in bytes: the filter's are 32, a caller's may be hashed.
	maxRequestID = 256
	// defaultMaxStateBytes is for types that do not say.
	defaultMaxStateBytes = 65536
	// maxRequestIDs and requestIDAge bound what the store remembers of eventual commits: retries come within seconds.
	maxRequestIDs = 100_000
	requestIDAge  = 10 * time.Minute
	// roomBytes is how much the disk must take again before a store whose log failed is started anew: with less it would
	// fail at once again.
	roomBytes = 256 << 10
)
