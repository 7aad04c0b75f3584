package wal

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
)

// ErrPoisoned says that an earlier write or sync failed: this batch was not written, and none will be until the log is
// opened again.
var ErrPoisoned = errors.New("log is poisoned by an earlier disk error")

// ErrUnknown says that this batch's write or sync failed: it may or may not be there after the next open.
var ErrUnknown = errors.New("disk error, the batch's fate is unknown")

// distrusted is the name of the mark that a write or sync failed.
const distrusted = "FAILED"

// Options of a log. The zero value is ready for use.
type Options struct {
	// FS is the disk; nil means the operating system's.
	FS FS
	// SegmentBytes is the size from which on ShouldRotate says yes; 0 means DefaultSegmentBytes.
	SegmentBytes int64
}

// Log is an open log. Append, Rotate and Close are for one goroutine; WriteSnapshot may run beside them in another.
type Log struct {
	fs           FS
	dir          string
	segmentBytes int64
	lock         io.Closer

	// The segment that is written to.
	file   File
	number uint64
	salt   uint64
	seq    uint64
	size   int64
	buf    []byte

	// doubt says that the process before left the mark. Only recover looks at it.
	doubt  bool
	poison atomic.Pointer[error]
	// snapshotBytes is the size of the last log snapshot of this process.
	snapshotBytes atomic.Int64
}

// Open takes the folder, replays every record in it and makes the log ready to append. replay must not keep the record.
func Open(dir string, opts Options, replay func(record []byte) error) (l *Log, err error) {
	l = &Log{fs: opts.FS, dir: dir, segmentBytes: opts.SegmentBytes}
	if l.fs == nil {
		l.fs = OS{}
	}
	if l.segmentBytes == 0 {
		l.segmentBytes = DefaultSegmentBytes
	}
	if err := l.fs.MkdirAll(dir); err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	if l.lock, err = l.fs.Lock(filepath.Join(dir, "LOCK")); err != nil {
		return nil, fmt.Errorf("open log in %s: %w", dir, err)
	}
	if err := l.recover(replay); err != nil {
		if l.file != nil {
			l.file.Close()
		}
		l.lock.Close()
		return nil, fmt.Errorf("open log in %s: %w", dir, err)
	}
	return l, nil
}

func (l *Log) path(number uint64, suffix string) string {
	return filepath.Join(l.dir, fmt.Sprintf("%016d%s", number, suffix))
}

// recover replays the newest snapshot and the segments from it on, removes what they made needless, and opens the last
// segment.
func (l *Log) recover(replay func(record []byte) error) error {
	segments, snapshots, err := l.list()
	if err != nil {
		return err
	}
	// A process that was killed may have made or renamed files without syncing the folder. From here on they are built on.
	if err := l.fs.SyncDir(l.dir); err != nil {
		return err
	}
	first := uint64(1)
	if len(snapshots) > 0 {
		first = snapshots[len(snapshots)-1]
		if err := l.replaySnapshot(first, replay); err != nil {
			return err
		}
	}
	if err := l.removeBefore(first, segments, snapshots); err != nil {
		return err
	}
	segments = slices.DeleteFunc(segments, func(n uint64) bool { return n < first })
	if len(segments) == 0 && len(snapshots) == 0 {
		return l.create(first)
	}
	for i, n := range segments {
		if n != first+uint64(i) {
			return fmt.Errorf("%w: segment %s is missing", ErrDamaged, l.path(first+uint64(i), ".log"))
		}
	}
	if len(segments) == 0 {
		return fmt.Errorf("%w: segment %s is missing", ErrDamaged, l.path(first, ".log"))
	}
	for i, n := range segments {
		if err := l.replaySegment(n, i == len(segments)-1, replay); err != nil {
			return err
		}
	}
	return nil
}

func (l *Log) list() (segments, snapshots []uint64, err error) {
	names, err := l.fs.ReadDir(l.dir)
	if err != nil {
		return nil, nil, err
	}
	for _, name := range names {
		l.doubt = l.doubt || name == distrusted
		base, suffix, ok := strings.Cut(name, ".")
		n, err := strconv.ParseUint(base, 10, 64)
		if !ok || err != nil || n == 0 {
			continue
		}
		switch suffix {
		case "log":
			segments = append(segments, n)
		case "snap":
			snapshots = append(snapshots, n)
		case "snap.tmp", "log.tmp":
			if err := l.fs.Remove(filepath.Join(l.dir, name)); err != nil {
				return nil, nil, err
			}
		}
	}
	slices.Sort(segments)
	slices.Sort(snapshots)
	return segments, snapshots, nil
}

func (l *Log) removeBefore(first uint64, segments, snapshots []uint64) error {
	for _, n := range segments {
		if n < first {
			if err := l.fs.Remove(l.path(n, ".log")); err != nil {
				return err
			}
		}
	}
	for _, n := range snapshots {
		if n < first {
			if err := l.fs.Remove(l.path(n, ".snap")); err != nil {
				return err
			}
		}
	}
	return nil
}

func (l *Log) replaySegment(n uint64, last bool, replay func(record []byte) error) error {
	name := l.path(n, ".log")
	b, err := l.fs.ReadFile(name)
	if err != nil {
		return err
	}
	good, seq, torn, err := scan(b, replay)
	if err == nil && torn && !last {
		err = fmt.Errorf("%w at offset %d: cut short, yet not the last segment", ErrDamaged, good)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if !last {
		return nil
	}
	if good == 0 {
		return l.create(n)
	}
	if l.doubt {
		if err := l.rewrite(name, b[:good]); err != nil {
			return err
		}
		torn = false
	}
	f, err := l.fs.OpenAppend(name)
	if err != nil {
		return err
	}
	l.file, l.number, l.seq, l.size = f, n, seq, good
	l.salt, _ = saltOf(b)
	if torn {
		if err := f.Truncate(good); err != nil {
			return err
		}
	}
	// Frames that were written but perhaps never synced were just replayed: they must not vanish after this.
	if err := f.Sync(); err != nil {
		l.distrust()
		return err
	}
	return nil
}

// create makes segment n and goes on there.
func (l *Log) create(n uint64) error {
	var salt [8]byte
	_, _ = rand.Read(salt[:])
	f, err := l.fs.Create(l.path(n, ".log"))
	if err != nil {
		return err
	}
	l.salt = binary.LittleEndian.Uint64(salt[:])
	_, err = f.Write(header(l.salt))
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = l.fs.SyncDir(l.dir)
	}
	if err != nil {
		f.Close()
		return err
	}
	if l.file != nil {
		l.file.Close()
	}
	l.file, l.number, l.seq, l.size = f, n, 0, headerSize
	return nil
}

// Append makes one batch of records durable. The error is ErrPoisoned (not written; a batch over MaxBatch poisons too) or
// ErrUnknown.
func (l *Log) Append(records [][]byte) error {
	if err := l.Err(); err != nil {
		return err
	}
	total := 0
	for _, r := range records {
		total += len(r) + 4
	}
	if total > MaxBatch {
		// The caller's states may have changed already; nothing may be built on them.
		err := fmt.Errorf("%w: batch of %d bytes, at most %d", ErrPoisoned, total, MaxBatch)
		l.poison.Store(&err)
		return err
	}
	l.buf = appendFrame(l.buf[:0], l.salt, l.seq+1, records)
	if _, err := l.file.Write(l.buf); err != nil {
		return l.fail("write", err)
	}
	if err := l.file.Sync(); err != nil {
		return l.fail("sync", err)
	}
	l.seq++
	l.size += int64(len(l.buf))
	if cap(l.buf) > snapshotFrame {
		l.buf = nil
	}
	return nil
}

func (l *Log) fail(op string, err error) error {
	if op != "write" {
		l.distrust()
	}
	poison := fmt.Errorf("%w: %s %s: %w", ErrPoisoned, op, l.path(l.number, ".log"), err)
	l.poison.Store(&poison)
	return fmt.Errorf("%w: %s: %w", ErrUnknown, op, err)
}

// distrust leaves a mark for the next open. After a failed sync the system may show what was written, take it for clean and
// forget it when the power goes: the mark lasts just as long as what the system shows, so it need not be durable.
func (l *Log) distrust() {
	if f, err := l.fs.Create(filepath.Join(l.dir, distrusted)); err == nil {
		_ = f.Close()
	}
}

// rewrite writes the last segment anew, so that what was replayed from it is on the disk whatever became of the first time.
func (l *Log) rewrite(name string, b []byte) error {
	if err := WriteFile(l.fs, name, b); err != nil {
		return err
	}
	return l.fs.Remove(filepath.Join(l.dir, distrusted))
}

// Err is nil, or ErrPoisoned with the cause. Any goroutine may ask.
func (l *Log) Err() error {
	if p := l.poison.Load(); p != nil {
		return *p
	}
	return nil
}

// ShouldRotate says that the segment is full: it has its bytes, and at least those of the last log snapshot, so that at
// most every second byte written is a snapshot's.
func (l *Log) ShouldRotate() bool { return l.size >= max(l.segmentBytes, l.snapshotBytes.Load()) }

// Rotate begins the next segment and returns its number, for WriteSnapshot. A failure poisons the log.
func (l *Log) Rotate() (uint64, error) {
	if err := l.Err(); err != nil {
		return 0, err
	}
	if err := l.create(l.number + 1); err != nil {
		_ = l.fail("rotate", err)
		return 0, l.Err()
	}
	return l.number, nil
}

// Close releases the folder. What Append acknowledged is durable already.
func (l *Log) Close() error {
	err := l.file.Close()
	if cerr := l.lock.Close(); err == nil {
		err = cerr
	}
	return err
}
