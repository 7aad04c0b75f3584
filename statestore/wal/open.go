package wal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Open takes the folder, hands over the sections of its log snapshot, then every record that follows, and makes the log
// ready to append. Neither meta nor record may be kept. ReadSection works once
// Open returned, and from Options.Loaded on. On a disk that can be read but
// is full, the log is opened poisoned: Err tells, Recover ends it when there is room.
func Open(dir string, opts Options, section func(meta []byte, ref Ref) error, replay func(record []byte) error) (l *Log, err error) {
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
	if err := l.load(section, opts.Loaded, replay); err != nil {
		if l.file != nil {
			_ = l.file.Close()
		}
		l.snapshots.keepOnly(0)
		_ = l.lock.Close()
		return nil, fmt.Errorf("open log in %s: %w", dir, err)
	}
	return l, nil
}

// load replays the newest snapshot and the segments from it on, removes what they made needless, and opens the last
// segment.
func (l *Log) load(section func(meta []byte, ref Ref) error, loaded func(*Log), replay func(record []byte) error) error {
	files, err := l.list()
	if err != nil {
		return err
	}
	for _, name := range files.unfinished {
		if err := l.fs.Remove(filepath.Join(l.dir, name)); err != nil {
			return err
		}
	}
	// A process that was killed may have made, renamed or removed files without syncing the folder. From here on they are
	// built on.
	if err := l.fs.SyncDir(l.dir); err != nil {
		return err
	}
	first := uint64(1)
	if len(files.snapshots) > 0 {
		first = files.snapshots[len(files.snapshots)-1]
		if err := l.replaySnapshot(first, section); err != nil {
			return err
		}
		l.snapshotNumber.Store(first)
	}
	if err := l.removeBefore(first, files); err != nil {
		return err
	}
	if loaded != nil {
		loaded(l)
	}
	segments := slices.DeleteFunc(files.segments, func(n uint64) bool { return n < first })
	if len(segments) == 0 && len(files.snapshots) == 0 {
		_, err := l.begin(true, 0)
		return err
	}
	for i := range max(len(segments), 1) {
		if want := first + uint64(i); i >= len(segments) || segments[i] != want {
			return fmt.Errorf("%w: segment %s is missing", ErrDamaged, l.path(want, ".log"))
		}
	}
	return l.replaySegments(segments, replay)
}

// replaySegments replays all segments, and goes on in the last one.
func (l *Log) replaySegments(segments []uint64, replay func(record []byte) error) error {
	for i, n := range segments {
		limit, last := uint64(everyFrame), i == len(segments)-1
		if !last {
			err := l.read(segments[i+1], func(w *window) error {
				next, err := readHeader(w, segmentKind)
				limit = next.before
				return err
			})
			if err != nil {
				return err
			}
		}
		var s segment
		err := l.read(n, func(w *window) (err error) {
			s, err = scan(w, limit, replay)
			if err == nil && !last && s.frames < limit {
				err = fmt.Errorf("%w at offset %d: %d frames, and the next segment says %d", ErrDamaged, s.good, s.frames, limit)
			}
			return err
		})
		if err != nil {
			return err
		}
		l.backlog += s.good - headerSize
		l.segments++
		if last {
			return l.resume(n, s)
		}
	}
	return nil
}

// read calls f for segment n.
func (l *Log) read(n uint64, f func(w *window) error) error {
	name := l.path(n, ".log")
	r, err := l.fs.OpenRead(name)
	if err != nil {
		return err
	}
	defer r.Close()
	w, err := newWindow(r)
	if err == nil {
		err = f(w)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// resume goes on behind segment n, the last. Its last frame may be there only as far as the system shows it: its process
// ended before the sync, or the sync failed, and then the system may take it for clean and forget it when the power goes.
// It was just replayed, so it is written once more, behind those that are surely there.
func (l *Log) resume(n uint64, s segment) error {
	l.number, l.header, l.frames = n, s.header, s.frames
	if s.frames > 0 {
		err := l.read(n, func(w *window) error {
			_, payload, err := readFrame(w, s.last, s.salt)
			l.tail = append([]byte{}, payload...)
			return err
		})
		if err != nil {
			return err
		}
	}
	_, err := l.begin(true, 0)
	if err == nil {
		return nil
	}
	// On a disk that is full a store must start all the same: what is there can be read.
	if serr := l.syncSegment(n); serr != nil {
		return errors.Join(err, serr)
	}
	l.poison.Store(new(fmt.Errorf("%w: begin a segment: %w", ErrPoisoned, err)))
	return nil
}

func (l *Log) syncSegment(n uint64) error {
	f, err := l.fs.OpenAppend(l.path(n, ".log"))
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// listing is what is in the folder.
type listing struct {
	segments, snapshots []uint64 // sorted
	unfinished          []string
}

func (l *Log) list() (listing, error) {
	names, err := l.fs.ReadDir(l.dir)
	if err != nil {
		return listing{}, err
	}
	var files listing
	for _, name := range names {
		base, suffix, ok := strings.Cut(name, ".")
		n, err := strconv.ParseUint(base, 10, 64)
		if !ok || err != nil || n == 0 || len(base) < 16 {
			continue
		}
		switch suffix {
		case "log":
			files.segments = append(files.segments, n)
		case "snap":
			files.snapshots = append(files.snapshots, n)
		case "snap.tmp", "log.tmp":
			files.unfinished = append(files.unfinished, name)
		}
	}
	slices.Sort(files.segments)
	slices.Sort(files.snapshots)
	return files, nil
}

// removeBefore removes what a snapshot of number first stands for.
func (l *Log) removeBefore(first uint64, files listing) error {
	remove := func(numbers []uint64, suffix string) error {
		for _, n := range numbers {
			if n >= first {
				break
			}
			if err := l.fs.Remove(l.path(n, suffix)); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
		return nil
	}
	return errors.Join(remove(files.segments, ".log"), remove(files.snapshots, ".snap"))
}
