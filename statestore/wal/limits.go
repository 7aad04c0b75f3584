package wal

const (
	// MaxBatch is the largest batch's payload, in bytes; a frame that declares more is not one. It is several times the
	// largest record, a whole state of 4 MiB.
	MaxBatch = 32 << 20
	// DefaultSegmentBytes is when a segment is followed by the next, together with a snapshot: replaying 16 MiB takes
	// well under a second.
	DefaultSegmentBytes = 16 << 20
	// snapshotFrame is how many bytes of records a snapshot's frame holds before the next one begins.
	snapshotFrame = 1 << 20
)
