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
	// defaultMaxStateBytes and defaultPassivateAfter are for types that do not say.
	defaultMaxStateBytes  = 65536
	defaultPassivateAfter = 10 * time.Minute
	// maxRequestIDs and requestIDAge bound what the store remembers of eventual commits: retries come within seconds.
	maxRequestIDs = 100_000
	requestIDAge  = 10 * time.Minute
	// maxAhead is how far in the future a time of another store's clock may be: more would let one wrong clock win every
	// register for as long.
	maxAhead = 500 * time.Millisecond
	// maxRound is longer than any comparison of a slot takes: entities that left memory before it are not looked at when one
	// ends.
	maxRound = 10 * time.Minute
	// memoryDelay is how long changes of LOCAL_MEM wait for the disk, so that many share a sync; memoryBytes ends it early.
	memoryDelay = 5 * time.Millisecond
	memoryBytes = 1 << 20
	// defaultDeadline is how long a commit waits for other stores where it names no deadline.
	defaultDeadline = 5 * time.Second
	// leaveTimeout is how long the placed replicas are asked whether they have all of a slot; a later sweep asks again.
	leaveTimeout = 30 * time.Second
	// freshTime is how long a slot that the placement gave this store is not served before it was filled: twice what it
	// takes to fill a store with a million entities.
	freshTime = 30 * time.Second
	// rightsRetry is how often other stores are asked for rights while a change waits for them.
	rightsRetry = 200 * time.Millisecond
	// maxJoinWaiters is how many requests wait for one slot, maxParked how many changes for rights.
	maxJoinWaiters = 1024
	maxParked      = 1024
	// tickInterval is how often idle entities are looked for, tickEntities how many are looked at each time: 2 ms.
	tickInterval = time.Second
	tickEntities = 20_000
	// maxIdentities bounds the registry: one each start of a store.
	maxIdentities = 1 << 20
)
