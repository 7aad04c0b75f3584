package wal

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync"
)

// ErrGone says that the snapshot file of a Ref was replaced: look the section up anew.
var ErrGone = errors.New("section's file was replaced")

var errClosed = errors.New("log is closed")

// snapshotFile is a snapshot that sections are read from, until the last reader after its replacement is done.
type snapshotFile struct {
	id     uint64
	reader Reader
	users  int // the log itself is one
}

// snapshots are the files that can be read: the one in force, and while one is being installed the next one too.
type snapshots struct {
	mu sync.Mutex
	// +checklocks:mu
	files []*snapshotFile
	// +checklocks:mu
	lastID uint64
	// +checklocks:mu
	closed bool
}

// newID is for a file that will be added.
func (s *snapshots) newID() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastID++
	return s.lastID
}

func (s *snapshots) add(id uint64, r Reader) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		_ = r.Close()
		return
	}
	s.files = append(s.files, &snapshotFile{id: id, reader: r, users: 1})
}

// keepOnly drops all but one; 0 closes the table.
func (s *snapshots) keepOnly(id uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = s.closed || id == 0
	var kept []*snapshotFile
	for _, f := range s.files {
		if f.id == id {
			kept = append(kept, f)
			continue
		}
		f.release()
	}
	s.files = kept
}

// release ends one use. The table's mutex is held.
func (f *snapshotFile) release() {
	if f.users--; f.users == 0 {
		_ = f.reader.Close()
	}
}

func (s *snapshots) use(id uint64) (*snapshotFile, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errClosed
	}
	for _, f := range s.files {
		if f.id == id {
			f.users++
			return f, nil
		}
	}
	return nil, ErrGone
}

func (s *snapshots) done(f *snapshotFile) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f.release()
}

// ReadSection reads a section's body. Any goroutine may, while snapshots are replaced: ErrGone says that this one's was.
func (l *Log) ReadSection(ref Ref) ([]byte, error) {
	f, err := l.snapshots.use(ref.file)
	if err != nil {
		return nil, fmt.Errorf("read section: %w", err)
	}
	defer l.snapshots.done(f)
	body := make([]byte, ref.size)
	if n, err := f.reader.ReadAt(body, ref.offset); n < len(body) {
		if err == nil || errors.Is(err, io.EOF) {
			err = fmt.Errorf("%w: file ends at offset %d", ErrDamaged, ref.offset+int64(n))
		}
		return nil, fmt.Errorf("read section: %w", err)
	}
	if crc32.Checksum(body, castagnoli) != ref.sum {
		return nil, fmt.Errorf("read section: %w at offset %d: body has another checksum", ErrDamaged, ref.offset)
	}
	return body, nil
}

// WriteSnapshot writes the log snapshot that stands for all segments before number, and then removes those. write adds
// sections that hold at least what was there when Rotate returned number (the effect of later records does no harm). An
// error leaves the log as it was and the new Refs void. One call at a time; Append, Recover and ReadSection may go on.
func (l *Log) WriteSnapshot(number uint64, write func(w *SnapshotWriter) error) error {
	if have := l.snapshotNumber.Load(); number <= have {
		return fmt.Errorf("log snapshot: number %d, and %d is in force", number, have)
	}
	w, r, err := l.writeSnapshot(number, write)
	if err != nil {
		return fmt.Errorf("log snapshot: %w", err)
	}
	l.snapshotNumber.Store(number)
	l.snapshotBytes.Store(w.written)
	l.snapshots.add(w.file, r)
	if w.installed != nil {
		w.installed()
	}
	l.snapshots.keepOnly(w.file)
	// What it replaces is needless now. A file that can't be removed is tried again by the next snapshot and the next open.
	if files, err := l.list(); err == nil {
		_ = l.removeBefore(number, files)
	}
	return nil
}

func (l *Log) writeSnapshot(number uint64, write func(w *SnapshotWriter) error) (*SnapshotWriter, Reader, error) {
	tmp, name := l.path(number, ".snap.tmp"), l.path(number, ".snap")
	f, err := l.fs.Create(tmp)
	if err != nil {
		return nil, nil, err
	}
	w := newSnapshotWriter(f, l.snapshots.newID())
	if err = write(w); err == nil {
		err = w.finish()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	var r Reader
	if err == nil {
		r, err = l.fs.OpenRead(tmp)
	}
	if err == nil {
		if err = l.fs.Rename(tmp, name); err == nil {
			if err = l.fs.SyncDir(l.dir); err != nil {
				// All that it stands for is still there.
				_ = l.fs.Remove(name)
			}
		}
		if err != nil {
			_ = r.Close()
		}
	}
	if err != nil {
		_ = l.fs.Remove(tmp)
		return nil, nil, err
	}
	return w, r, nil
}

// replaySnapshot hands over the sections of log snapshot n, and leaves it open for ReadSection.
func (l *Log) replaySnapshot(n uint64, section func(meta []byte, ref Ref) error) error {
	name := l.path(n, ".snap")
	r, err := l.fs.OpenRead(name)
	if err != nil {
		return err
	}
	id := l.snapshots.newID()
	l.snapshots.add(id, r)
	w, err := newWindow(r)
	if err == nil {
		err = readSections(w, id, section)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	l.snapshotBytes.Store(w.size)
	return nil
}
