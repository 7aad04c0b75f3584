package wal

const (
	// MaxBatch is the largest batch's payload, in bytes; a frame that declares more is not one. It is several times the
	// largest record, a whole state of 4 MiB.
	MaxBatch = 32 << 20
	// MaxMeta is the largest meta of a section, in bytes: it is read at open as a whole.
	MaxMeta = 32 << 20
	// MaxBody is the largest body of a section, in bytes: 256 states of 4 MiB in one slot.
	MaxBody = 1 << 30
	// DefaultSegmentBytes is when a segment is followed by the next, together with a snapshot: replaying 16 MiB takes
	// well under a second.
	DefaultSegmentBytes = 16 << 20
	// maxSegments is after how many segments a snapshot is due however small they are: each start and each Recover begins one.
	maxSegments = 64
	// windowBytes is how much is read and written at once. A record, meta or body that is larger is read as a whole, but
	// never more than the file holds.
	windowBytes = 256 << 10
	// keepBuffer is the largest append buffer that is kept from batch to batch.
	keepBuffer = 1 << 20
	// maxProbe is for how much of the failed batch Recover must find room. A batch is seldom larger, and a disk that has
	// room for this much takes most.
	maxProbe = 1 << 20
	// syncEvery is how many bytes of a snapshot are written between two syncs. A file system that must write out a whole
	// snapshot at once makes the appends' syncs wait for it.
	syncEvery = 8 << 20
)
