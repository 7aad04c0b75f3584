package stateclient

import "time"

const (
	// DefaultMaxPending bounds the calls under way, with room for the client's own ones (see session.start) below the 1,024
	// that a store takes of one connection. A store answers in well under a millisecond, so this many means that it has
	// stopped answering, or that many callers wait for the turn of a strong entity.
	DefaultMaxPending = 768

	// commitShare: commits to one entity type may be all calls under way but one in so many. Those of level MAJORITY or ALL
	// wait for other stores, and when these are away they must leave room for everything that needs only this one.
	commitShare = 3

	// DefaultMaxQueuedBytes bounds what waits to be written: 16 of the largest frames.
	DefaultMaxQueuedBytes = 64 << 20

	// DefaultCacheEntries and DefaultCacheBytes bound the cache. Each entry is a subscription, of which a store takes 16,384
	// of one connection: twice this, because what is watched or being read comes on top.
	DefaultCacheEntries = 8192
	DefaultCacheBytes   = 64 << 20

	// DefaultMaxWatches bounds the watches, of any number of entities: each costs a few hundred bytes.
	DefaultMaxWatches = 65536

	// maxLeaving bounds the evictions under way, so that making room for one large state does not take all calls.
	maxLeaving = 64

	// entryOverhead is what an entry costs beside its state: map slot, list element, entity, version ring.
	entryOverhead = 512

	// maxBatch is how many bytes of frames the writer joins into one write. Larger ones save no more system calls and
	// delay the first frame.
	maxBatch = 256 << 10

	// maxDirect is the largest request that a caller writes itself: encoding a large one is no work for one of Envoy's
	// workers. maxDirectPending is with how many calls under way it still does: with more, the writer joins several into
	// one write, which costs less in all.
	maxDirect        = 16 << 10
	maxDirectPending = 4

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

	// probeEvery is how often a connection on which calls wait is looked at; a store that has said nothing since the last
	// look is asked for a sign of life. Without calls it is asked after idleProbe, for the sake of what is cached.
	probeEvery = 250 * time.Millisecond
	idleProbe  = 2 * time.Second

	// sweepEvery is how often the cache is looked through for entities that nobody reads: those go after one to two times
	// this. A store keeps what is subscribed in memory, and its slot if that is not its own, so it should be no longer than
	// the times that users think of; a read after it costs one round trip.
	sweepEvery = 10 * time.Second

	// hungAfter is how long a store may take to show life: long for a busy machine, short beside a lease and a caller's
	// patience.
	hungAfter = time.Second

	// grace is how long past a call's deadline its answer may come. A store answers by the deadline it was sent; one that
	// doesn't is hung, and what was cached from it is no longer kept fresh.
	grace = 10 * time.Second

	// recentVersions is how many of an entity's last versions are remembered to recognise a reply that a push overtook.
	recentVersions = 8
)
