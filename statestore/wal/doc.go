// Package wal keeps records on disk so that what was acknowledged is there again after a crash.
//
// One writer appends batches: a batch is one frame, one write and one fdatasync, and when Append returns nil it is durable.
// Records and sections are opaque here. A log snapshot, written while appending goes on, is a table of sections that stand
// for all records of the segments before it. Open hands over the sections first, in the order they were written, then the
// records of the segments that follow, in the order they were appended. A section may hold the effect of records that come
// again behind it, so a record must do no harm to a state that has it already. A section is a small meta, which Open hands
// over, and a body, which stays on disk until ReadSection is asked for it.
//
// Files of the folder, n a number from 1 on:
//
//	LOCK             held (flock) while the log is open
//	<n>.log          segment: header, then frames
//	<n>.snap         log snapshot: header, sections, end mark. Stands for all segments before n
//	<n>….tmp         a file that was not finished; removed at open. No file gets its name before it is synced
//
// All integers are little-endian, all checksums crc32c; those marked * begin with the file's salt.
//
//	header   28 bytes: "hfwal", 'L' or 'S' (segment, snapshot), 0, version (2) | 8 random bytes: the salt |
//	         8 bytes: how many frames of the segment before count (snapshot: 0) | 4 bytes checksum of these
//	frame    4 bytes magic | 8 bytes sequence, from 1 | 4 bytes length | 4 bytes checksum* of sequence, length, payload |
//	         payload: a run of (4 bytes length, record)
//	section  4 bytes magic | 8 bytes sequence, from 1 | 4 bytes meta's length | 4 bytes body's length |
//	         4 bytes checksum of the body | 4 bytes checksum* of what stands from the sequence to here and the meta | meta | body
//	end mark 4 bytes magic | 8 bytes number of sections | 4 bytes checksum* of that. Nothing follows
//
// A frame is written only after the one before it is durable. So a crash can only spoil the last frame of the last
// segment: that one does not count, it was never acknowledged. A spoilt frame with a whole one anywhere after it, or in any
// other segment among the frames that count, is damage: Open refuses and names file and offset. (A disk that loses the very
// last frame after it was synced can't be told from a crash.) The salt keeps a record from looking like a frame.
//
// Open reads the whole log snapshot, bodies too, and refuses one that is not as it was written: damage is found when the
// store starts and can still be filled by others, not hours later by the first read of an entity. It reads in order, keeps
// a window of 256 KiB, and takes as long as the disk takes: well under a second for 1,000,000 entities of 100 bytes.
// ReadSection checks the body's checksum once more.
//
// After a failed write or sync nobody knows what is on the disk (the kernel may drop the dirty pages, report the error once
// only, and take what it shows for written), so the log is poisoned: that batch's fate is unknown, every later one is
// refused. (A failed write is taken back where the disk lets it; then that batch is surely not there either.) Recover ends that in the running process. It begins the next segment, whose header says how many frames of the
// one before count: the failed batch is not among them and so it is surely not there, whatever the disk made of it. What
// counts was synced before, so nothing needs to be written anew, and there need not be room for it on a disk that is full.
// Open does the same with what the process before left: the last frame that it found may be one that only the system shows,
// so it does not count where it is, and is written once more into the segment that Open begins.
package wal
