package wal

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync/atomic"
)

// ErrPoisoned says that a write or sync failed, an earlier one or this batch's write, which was taken back: this batch is
// surely not there, and none will be written until Recover returned nil or the log is opened again.
var ErrPoisoned = errors.New("log is poisoned by a disk error")

// ErrUnknown says that this batch's write or sync failed: it may or may not be there after the next open. It is not there
// once Recover returned nil.
var ErrUnknown = errors.New("disk error, the batch's fate is unknown")

// ErrTooLarge says that a batch or section is over its bound. It was not written, and the log goes on.
var ErrTooLarge = errors.New("too large for the log")

// Options of a log. The zero value is ready for use.
type Options struct {
	// FS is the disk; nil means the operating system's.
	FS FS
	// Loaded, if not nil, is called by Open between the last section and the first record, also where there are none: from
	// there on l.ReadSection works, for records that need the section of their entity. Nothing else of l does yet.
	Loaded func(l *Log)
	// SegmentBytes is the size from which on ShouldRotate says yes; 0 means DefaultSegmentBytes.
	SegmentBytes int64
}

// Log is an open log. Append, ShouldRotate, Rotate, Recover and Close are for one goroutine; WriteSnapshot may run beside
// them in another, Err and ReadSection in any.
type Log struct {
	fs           FS
	dir          string
	segmentBytes int64
	lock         io.Closer

	// The segment that is written to. Invariant: its first frames are durable, this many, but for tail.
	file   File
	number uint64
	header header
	frames uint64
	size   int64 // of what is durable
	// tail is the payload of the last frame while it is not known to be on the disk, though it was replayed: only between
	// a start and the first segment that is begun.
	tail []byte
	// backlog is how many bytes of segments, and of how many, no log snapshot stands for, not counting those that one may
	// be written for now.
	backlog, segments int64
	buf               []byte
	// failed is the size of the frame that poisoned the log.
	failed int

	poison    atomic.Pointer[error]
	snapshots snapshots
	// snapshotBytes and snapshotNumber are the last log snapshot's.
	snapshotBytes  atomic.Int64
	snapshotNumber atomic.Uint64
}

func (l *Log) path(number uint64, suffix string) string {
	return filepath.Join(l.dir, fmt.Sprintf("%016d%s", number, suffix))
}

// begin makes the next segment, and goes on there. Only the frames that were acknowledged count of the segment before; the
// tail is written once more. Room for probe bytes must be on the disk. changed says that the folder may have changed though
// begin failed. Where inPlace, a segment of which no frame counts is replaced.
func (l *Log) begin(inPlace bool, probe int) (changed bool, err error) {
	n, h := l.number+1, newHeader(segmentKind, l.frames)
	if l.tail != nil {
		h.before--
	}
	replace := inPlace && h.before == 0 && l.number > 0
	if replace {
		n, h.before = l.number, l.header.before
	}
	start, frames := h.bytes(), uint64(0)
	if l.tail != nil {
		start, frames = appendPayload(start, h.salt, 1, l.tail), 1
	}
	tmp, name := l.path(n, ".log.tmp"), l.path(n, ".log")
	f, err := l.fs.Create(tmp)
	if err != nil {
		return false, err
	}
	if err = writeStart(f, start, probe); err == nil {
		if err = l.fs.Rename(tmp, name); err == nil {
			if err = l.fs.SyncDir(l.dir); err != nil {
				changed = true
				if !replace {
					_ = l.fs.Remove(name)
				}
			}
		}
	}
	if err != nil {
		_ = f.Close()
		if !changed {
			_ = l.fs.Remove(tmp)
		}
		return changed, err
	}
	if l.file != nil {
		_ = l.file.Close()
	}
	if !replace {
		l.segments++
	}
	l.file, l.number, l.header, l.frames, l.tail = f, n, h, frames, nil
	l.size = int64(len(start))
	return false, nil
}

// writeStart writes what a segment begins with.
func writeStart(f File, start []byte, probe int) error {
	if probe > 0 {
		_, err := f.Write(make([]byte, len(start)+probe))
		if err == nil {
			err = f.Sync()
		}
		if err == nil {
			err = f.Truncate(0)
		}
		if err != nil {
			return err
		}
	}
	if _, err := f.Write(start); err != nil {
		return err
	}
	return f.Sync()
}

// Append makes one batch of records durable. The error is ErrTooLarge or ErrPoisoned (surely not there), or ErrUnknown.
func (l *Log) Append(records [][]byte) error {
	if err := l.Err(); err != nil {
		return err
	}
	total := 0
	for _, r := range records {
		total += len(r) + 4
	}
	if total > MaxBatch {
		return fmt.Errorf("%w: batch of %d bytes, at most %d", ErrTooLarge, total, MaxBatch)
	}
	l.buf = appendFrame(l.buf[:0], l.header.salt, l.frames+1, records)
	if _, err := l.file.Write(l.buf); err != nil {
		unknown := l.fail("write", err)
		// The usual end of a disk that is full. Bytes that are taken back need no room, and then the batch is surely not there.
		if l.file.Truncate(l.size) == nil && l.file.Sync() == nil {
			return l.Err()
		}
		return unknown
	}
	if err := l.file.Sync(); err != nil {
		return l.fail("sync", err)
	}
	l.frames++
	l.size += int64(len(l.buf))
	l.backlog += int64(len(l.buf))
	if cap(l.buf) > keepBuffer {
		l.buf = nil
	}
	return nil
}

func (l *Log) fail(op string, err error) error {
	l.failed = len(l.buf)
	poison := fmt.Errorf("%w: %s %s: %w", ErrPoisoned, op, l.path(l.number, ".log"), err)
	l.poison.Store(&poison)
	return fmt.Errorf("%w: %s: %w", ErrUnknown, op, err)
}

// Recover makes a poisoned log take appends again. When it returns nil, the batch that failed is surely not there, now and
// after a crash, so its sequence numbers can be used again. An error leaves nothing behind and the log poisoned: call it
// again later. It is refused while the disk has no room for a batch like the failed one. Nothing is done to a log that is well.
func (l *Log) Recover() error {
	if l.Err() == nil {
		return nil
	}
	if _, err := l.begin(true, min(l.failed, maxProbe)); err != nil {
		return fmt.Errorf("recover log: %w", err)
	}
	l.buf = nil
	l.poison.Store(nil)
	return nil
}

// Err is nil, or ErrPoisoned with the cause. Any goroutine may ask.
func (l *Log) Err() error {
	if p := l.poison.Load(); p != nil {
		return *p
	}
	return nil
}

// ShouldRotate says that it is time for a log snapshot: the segments since the last one have their bytes, and at least
// those of the snapshot, so that at most every second byte written is a snapshot's; or there are many of them.
func (l *Log) ShouldRotate() bool {
	return l.backlog >= max(l.segmentBytes, l.snapshotBytes.Load()) || l.segments > maxSegments
}

// Rotate begins the next segment and returns its number, for WriteSnapshot. A failure leaves the log as it was, or poisons
// it where nobody knows whether the next segment is there; Err tells.
func (l *Log) Rotate() (uint64, error) {
	if err := l.Err(); err != nil {
		return 0, err
	}
	changed, err := l.begin(false, 0)
	if changed {
		// Frames that were appended to this segment would not count once the next one shows up.
		l.buf = l.buf[:0]
		_ = l.fail("rotate", err)
		return 0, l.Err()
	}
	if err != nil {
		return 0, fmt.Errorf("rotate log: %w", err)
	}
	l.backlog, l.segments = 0, 1
	return l.number, nil
}

// Close releases the folder. What Append acknowledged is durable already. Sections can't be read any more; reads that are
// under way finish.
func (l *Log) Close() error {
	l.snapshots.keepOnly(0)
	var err error
	if l.file != nil {
		err = l.file.Close()
	}
	if cerr := l.lock.Close(); err == nil {
		err = cerr
	}
	return err
}
