// Package wal keeps records on disk so that what was acknowledged is there again after a crash.
//
// One writer appends batches: a batch is one frame, one write and one fdatasync, and when Append returns nil it is durable.
// The records are opaque here, but they must be such that order does not matter and repetition does no harm (states that
// merge): a log snapshot is then simply the records of everything so far, written while appending goes on.
//
// Files of the folder, n a number from 1 on:
//
//	LOCK             held (flock) while the log is open
//	<n>.log          segment: header, then frames
//	<n>.snap         log snapshot: stands for all segments before n. Same form; its last frame is the end mark
//	<n>.snap.tmp     a snapshot that was not finished; removed at open
//
// A header is 20 bytes: "hfwal", two zero bytes, version (1), 8 random bytes (salt), crc32c of these. A frame is
//
//	4 bytes magic | 8 bytes sequence, from 1 | 4 bytes length | 4 bytes crc32c(salt, sequence, length, payload) | payload
//
// integers little-endian, the payload a run of (4 bytes length, record). The salt keeps a record from looking like a frame.
//
// A frame is written only after the one before it is durable. So a crash can only spoil the last frame of the last
// segment: that one is cut off at open, it was never acknowledged. A spoilt frame with a whole one anywhere after it, or in
// any other file, is damage: Open refuses and names file and offset. (A disk that loses the very last frame after it was
// synced can't be told from a crash.)
//
// After a failed write or sync nobody knows what is on the disk (the kernel may drop the dirty pages and report the
// error once only), so the log is poisoned: that batch's fate is unknown, every later one is refused.
package wal
