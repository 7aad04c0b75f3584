package wal_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/holdfast-mesh/holdfast/statestore/wal"
	"github.com/holdfast-mesh/holdfast/statestore/wal/faultfs"
)

// A batch fails, Recover is refused as long as the disk fails and leaves nothing behind, then the log goes on without the
// batch: 20 times, for a failed write and a failed sync, with the same batch used again.
func TestRecover(t *testing.T) {
	for _, op := range []string{"write", "sync"} {
		fs := &faultfs.FS{}
		l, _ := mustOpen(t, fs, 0)
		if err := l.Recover(); err != nil {
			t.Errorf("of a log that is well: %v", err)
		}
		mustAppend(t, l, "first")
		want := []string{"first"}
		for cycle := range 20 {
			fs.Inject(func(_ int, o, _ string) error {
				if o == op {
					return errBroken
				}
				return nil
			})
			lost := fmt.Sprint("lost ", cycle)
			kind := map[string]error{"write": wal.ErrPoisoned, "sync": wal.ErrUnknown}[op]
			if err := l.Append(batch(lost)); !errors.Is(err, kind) {
				t.Fatalf("%s: got %v", op, err)
			}
			before, _ := fs.ReadDir("/log")
			for range 3 {
				if err := l.Recover(); !errors.Is(err, errBroken) {
					t.Fatalf("recover while the disk fails: got %v", err)
				}
				if err := l.Append(batch(lost)); !errors.Is(err, wal.ErrPoisoned) || l.Err() == nil {
					t.Fatalf("append after that: got %v", err)
				}
			}
			if after, _ := fs.ReadDir("/log"); !slices.Equal(after, before) {
				t.Fatalf("recover left %v, there was %v", after, before)
			}
			fs.Inject(nil)
			if err := l.Recover(); err != nil || l.Err() != nil {
				t.Fatal(err, l.Err())
			}
			crashed, got := mustOpen(t, fs.Crash(rand.New(rand.NewPCG(uint64(cycle), 0))), 0)
			wantRecords(t, got, want...)
			crashed.Close()
			kept := fmt.Sprint("kept ", cycle)
			mustAppend(t, l, kept)
			want = append(want, kept)
		}
		l.Close()
		l, got := mustOpen(t, fs, 0)
		wantRecords(t, got, want...)
		l.Close()
	}
}

// Recover makes sure of room for a batch like the one that failed, or it would be refused and taken by turns.
func TestRecoverNeedsRoom(t *testing.T) {
	fs := &room{FS: &faultfs.FS{}, free: 10_000}
	l, _ := mustOpen(t, fs, 0)
	large := string(make([]byte, 5_000))
	mustAppend(t, l, large)
	if err := l.Append(batch(large)); !errors.Is(err, wal.ErrPoisoned) {
		t.Fatalf("append to a full disk: got %v", err)
	}
	if err := l.Recover(); !errors.Is(err, errFull) {
		t.Errorf("recover: got %v", err)
	}
	fs.free += 10_000
	if err := l.Recover(); err != nil {
		t.Errorf("recover with room: got %v", err)
	}
	mustAppend(t, l, large)
	l.Close()
}

// A start on a full disk: what is there can be read, and Recover makes the log take appends when there is room.
func TestOpenOnAFullDisk(t *testing.T) {
	fs := &faultfs.FS{}
	l, _ := withSections(t, fs, "body")
	mustAppend(t, l, "b")
	l.Close()
	full := &room{FS: fs}
	l, got := mustOpen(t, full, 0)
	wantRecords(t, got, "body", "b")
	for range 3 {
		if err := l.Append(batch("c")); !errors.Is(err, wal.ErrPoisoned) || !errors.Is(err, errFull) {
			t.Fatalf("append: got %v", err)
		}
		if err := l.Recover(); !errors.Is(err, errFull) {
			t.Fatalf("recover: got %v", err)
		}
	}
	full.free = 1000
	if err := l.Recover(); err != nil {
		t.Fatal(err)
	}
	mustAppend(t, l, "c")
	l.Close()
	l, got = mustOpen(t, fs.Crash(rand.New(rand.NewPCG(1, 1))), 0)
	wantRecords(t, got, "body", "b", "c")
	l.Close()
}

// Restarts without appends don't make the folder grow, and with them a snapshot is due at last.
func TestManyStarts(t *testing.T) {
	fs := &faultfs.FS{}
	for range 20 {
		l, _ := mustOpen(t, fs, 0)
		l.Close()
	}
	if names, _ := fs.ReadDir("/log"); len(names) != 1 {
		t.Errorf("20 starts left %v", names)
	}
	var l *wal.Log
	starts := 0
	for ; l == nil || !l.ShouldRotate(); starts++ {
		if starts > 200 {
			t.Fatal("200 starts, each with an append, and no snapshot is due")
		}
		if l != nil {
			l.Close()
		}
		l, _ = mustOpen(t, fs, 0)
		mustAppend(t, l, "x")
	}
	replaceSections(t, l, "x")
	if names, _ := fs.ReadDir("/log"); len(names) != 2 || l.ShouldRotate() {
		t.Errorf("after the snapshot: %v", names)
	}
	l.Close()
}

var errFull = errors.New("no space left")

// room is a disk on which free bytes can be written, for ever.
type room struct {
	*faultfs.FS
	free int
}

func (r *room) Create(name string) (wal.File, error) {
	f, err := r.FS.Create(name)
	return &roomFile{File: f, room: r}, err
}

type roomFile struct {
	wal.File
	room *room
	used int
}

func (f *roomFile) Write(b []byte) (int, error) {
	if len(b) > f.room.free {
		n, _ := f.File.Write(b[:f.room.free])
		f.room.free, f.used = 0, f.used+n
		return n, errFull
	}
	f.room.free, f.used = f.room.free-len(b), f.used+len(b)
	return f.File.Write(b)
}

func (f *roomFile) Truncate(size int64) error {
	f.room.free, f.used = f.room.free+f.used-int(size), int(size)
	return f.File.Truncate(size)
}
