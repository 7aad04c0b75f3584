package stateclient

import "time"

const (
	// DefaultMaxPending bounds the calls under way. A store answers in well under a millisecond, so this many means
	// that it has stopped answering.
	DefaultMaxPending = 4096

	// DefaultMaxQueuedBytes bounds what waits to be written: 16 of the largest frames.
	DefaultMaxQueuedBytes = 64 << 20

	// DefaultCacheEntries and DefaultCacheBytes bound the cache; each entry is a subscription at the store too.
	DefaultCacheEntries = 65536
	DefaultCacheBytes   = 64 << 20

	// DefaultMaxWatches bounds the watches, each of which pins an entity's subscription.
	DefaultMaxWatches = 16384

	// entryOverhead is what an entry costs beside its state: map slot, list element, entity, version ring.
	entryOverhead = 512

	// maxBatch is how many bytes of frames the writer joins into one write. Larger ones save no more system calls and
	// delay the first frame.
	maxBatch = 256 << 10

	// keptBuffer is the largest read or write buffer that is kept for the next frame.
	keptBuffer = 1 << 20

	// dialTimeout bounds a connect; on a Unix socket it blocks only while the store's backlog is full.
	dialTimeout = time.Second

	// backoffMin and backoffMax bound the pause between two connects. The first is short because a store restarts in
	// tens of milliseconds, the last keeps a lost store's return noticed within two seconds.
	backoffMin = 20 * time.Millisecond
	backoffMax = time.Second

	// settled is how long a connection must have lived for the next loss to start at backoffMin again.
	settled = 2 * time.Second

	// grace is how long past a call's deadline its answer may come. A store answers by the deadline it was sent; one that
	// doesn't is hung, and what was cached from it is no longer kept fresh.
	grace = 10 * time.Second

	// recentVersions is how many of an entity's last versions are remembered to recognise a reply that a push overtook.
	recentVersions = 8
)
