package wal

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
)

// WriteSnapshot writes the log snapshot that stands for all segments before number, and then removes those. records
// calls add for each record that was there when Rotate returned number (later ones do no harm), and must not change it
// afterwards. An error leaves the log as it was. One call at a time.
func (l *Log) WriteSnapshot(number uint64, records func(add func(record []byte) error) error) error {
	tmp, name := l.path(number, ".snap.tmp"), l.path(number, ".snap")
	f, err := l.fs.Create(tmp)
	if err != nil {
		return fmt.Errorf("log snapshot: %w", err)
	}
	size, err := writeSnapshot(f, records)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		_ = l.fs.Remove(tmp)
		return fmt.Errorf("log snapshot: %w", err)
	}
	if err := l.fs.Rename(tmp, name); err != nil {
		return fmt.Errorf("log snapshot: %w", err)
	}
	if err := l.fs.SyncDir(l.dir); err != nil {
		return fmt.Errorf("log snapshot: %w", err)
	}
	l.snapshotBytes.Store(size)
	segments, snapshots, err := l.list()
	if err == nil {
		err = l.removeBefore(number, segments, snapshots)
	}
	if err != nil {
		return fmt.Errorf("log snapshot: remove what it replaces: %w", err)
	}
	return nil
}

func writeSnapshot(f File, records func(add func(record []byte) error) error) (written int64, err error) {
	var salt8 [8]byte
	_, _ = rand.Read(salt8[:])
	salt := binary.LittleEndian.Uint64(salt8[:])
	buf := header(salt)
	seq := uint64(0)
	var pending [][]byte
	size := 0
	flush := func() error {
		seq++
		buf = appendFrame(buf, salt, seq, pending)
		pending, size = pending[:0], 0
		n, err := f.Write(buf)
		written += int64(n)
		buf = buf[:0]
		return err
	}
	add := func(record []byte) error {
		if len(record)+4 > MaxBatch {
			// Nobody could read it back, and what it stands for would be gone.
			return fmt.Errorf("record of %d bytes, at most %d", len(record), MaxBatch-4)
		}
		if size+len(record)+4 > MaxBatch {
			if err := flush(); err != nil {
				return err
			}
		}
		pending = append(pending, record)
		size += len(record) + 4
		if size >= snapshotFrame {
			return flush()
		}
		return nil
	}
	if err := records(add); err != nil {
		return written, err
	}
	if len(pending) > 0 {
		if err := flush(); err != nil {
			return written, err
		}
	}
	// The end mark: a frame without records.
	if err := flush(); err != nil {
		return written, err
	}
	return written, f.Sync()
}

// replaySnapshot replays log snapshot n. It was synced before it got its name, so it must be whole.
func (l *Log) replaySnapshot(n uint64, replay func(record []byte) error) error {
	name := l.path(n, ".snap")
	b, err := l.fs.ReadFile(name)
	if err != nil {
		return err
	}
	_, seq, torn, err := scan(b, replay)
	if err == nil && (torn || seq == 0 || !endsWithMark(b, seq)) {
		err = fmt.Errorf("%w: not whole", ErrDamaged)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

func endsWithMark(b []byte, seq uint64) bool {
	salt, _ := saltOf(b)
	mark := appendFrame(nil, salt, seq, nil)
	return len(b) >= headerSize+len(mark) && string(b[len(b)-len(mark):]) == string(mark)
}
