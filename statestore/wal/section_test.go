package wal_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/holdfast-mesh/holdfast/statestore/wal"
	"github.com/holdfast-mesh/holdfast/statestore/wal/faultfs"
)

const secondSnapshot = "/log/0000000000000002.snap"

// withSections is a log with a snapshot of these bodies; their metas are "0", "1" and so on.
func withSections(t *testing.T, fs wal.FS, bodies ...string) (*wal.Log, []wal.Ref) {
	t.Helper()
	l, _ := mustOpen(t, fs, 0)
	mustAppend(t, l, "a")
	return l, replaceSections(t, l, bodies...)
}

func replaceSections(t *testing.T, l *wal.Log, bodies ...string) []wal.Ref {
	t.Helper()
	number, err := l.Rotate()
	if err != nil {
		t.Fatal(err)
	}
	var refs []wal.Ref
	err = l.WriteSnapshot(number, func(w *wal.SnapshotWriter) error {
		for i, body := range bodies {
			ref, err := w.Section(fmt.Append(nil, i), []byte(body))
			if err != nil {
				return err
			}
			refs = append(refs, ref)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return refs
}

func TestSections(t *testing.T) {
	fs := &faultfs.FS{}
	bodies := []string{"first", "", strings.Repeat("x", 700_000), "last"}
	l, refs := withSections(t, fs, bodies...)
	check := func(refs []wal.Ref) {
		t.Helper()
		if len(refs) != len(bodies) {
			t.Fatalf("%d sections, want %d", len(refs), len(bodies))
		}
		for i, ref := range refs {
			if got, err := l.ReadSection(ref); err != nil || string(got) != bodies[i] || ref.Size() != len(bodies[i]) {
				t.Errorf("section %d: got %d bytes of %d, %v", i, len(got), ref.Size(), err)
			}
		}
	}
	check(refs)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := l.ReadSection(refs[0]); err == nil || errors.Is(err, wal.ErrGone) {
		t.Errorf("read from a closed log: got %v", err)
	}
	// Metas and bodies come back in the order they were written, with large ones among them.
	refs = nil
	var err error
	loaded := 0
	options := wal.Options{FS: fs, Loaded: func(l *wal.Log) {
		loaded++
		if len(refs) != len(bodies) {
			t.Errorf("loaded after %d sections", len(refs))
		}
		if got, err := l.ReadSection(refs[0]); err != nil || string(got) != bodies[0] {
			t.Errorf("read while opening: got %q, %v", got, err)
		}
	}}
	l, err = wal.Open("/log", options, func(meta []byte, ref wal.Ref) error {
		if want := fmt.Sprint(len(refs)); string(meta) != want {
			t.Errorf("got meta %q, want %q", meta, want)
		}
		refs = append(refs, ref)
		return nil
	}, func([]byte) error { return errors.New("a record that the snapshot stands for") })
	if err != nil {
		t.Fatal(err)
	}
	check(refs)
	if loaded != 1 {
		t.Errorf("loaded %d times", loaded)
	}
	old := refs
	if err := l.Append(batch("b")); err != nil {
		t.Fatal(err)
	}
	check(replaceSections(t, l, bodies...))
	for _, ref := range append(old, wal.Ref{}) {
		if _, err := l.ReadSection(ref); !errors.Is(err, wal.ErrGone) {
			t.Errorf("a section that was replaced: got %v", err)
		}
	}
	l.Close()
	if fs.Readers() != 0 {
		t.Errorf("%d files left open", fs.Readers())
	}
}

// An error of the caller's ends Open and WriteSnapshot, and nothing is left open.
func TestCallersErrors(t *testing.T) {
	fs := &faultfs.FS{}
	mine := errors.New("mine")
	l, refs := withSections(t, fs, "body")
	number, err := l.Rotate()
	if err != nil {
		t.Fatal(err)
	}
	if err := l.WriteSnapshot(number, func(*wal.SnapshotWriter) error { return mine }); !errors.Is(err, mine) {
		t.Errorf("got %v", err)
	}
	if got, err := l.ReadSection(refs[0]); err != nil || string(got) != "body" {
		t.Errorf("after a snapshot that failed: got %q, %v", got, err)
	}
	if err := l.WriteSnapshot(number-1, func(*wal.SnapshotWriter) error { return nil }); err == nil {
		t.Error("a snapshot of a number that has one already was taken")
	}
	l.Close()
	_, err = wal.Open("/log", wal.Options{FS: fs}, func([]byte, wal.Ref) error { return mine }, nil)
	if !errors.Is(err, mine) || fs.Readers() != 0 {
		t.Errorf("open: got %v, %d files left open", err, fs.Readers())
	}
	l, got := mustOpen(t, fs, 0)
	wantRecords(t, got, "body")
	l.Close()
}

// A snapshot file that is not as it was written is refused by name, whichever byte it is.
func TestDamagedSnapshot(t *testing.T) {
	fs := &faultfs.FS{}
	l, refs := withSections(t, fs, "first", "", "third")
	l.Close()
	whole, err := fs.ReadFile(secondSnapshot)
	if err != nil {
		t.Fatal(err)
	}
	for at := range whole {
		for _, bad := range [][]byte{whole[:at], flip(whole, at)} {
			fs.WriteDurable(secondSnapshot, bad)
			if _, _, err := open(fs, 0); !errors.Is(err, wal.ErrDamaged) || !strings.Contains(err.Error(), secondSnapshot) {
				t.Fatalf("damage at %d: got %v", at, err)
			}
		}
	}
	fs.WriteDurable(secondSnapshot, append(bytes.Clone(whole), 0))
	if _, _, err := open(fs, 0); !errors.Is(err, wal.ErrDamaged) {
		t.Errorf("a byte too many: got %v", err)
	}
	// Damage that comes later is seen by who reads it.
	fs.WriteDurable(secondSnapshot, whole)
	refs = nil
	l, err = wal.Open("/log", wal.Options{FS: fs}, func(_ []byte, ref wal.Ref) error { refs = append(refs, ref); return nil }, nil)
	if err != nil {
		t.Fatal(err)
	}
	fs.Damage(secondSnapshot, bytes.Index(whole, []byte("third")))
	if _, err := l.ReadSection(refs[2]); !errors.Is(err, wal.ErrDamaged) {
		t.Errorf("a body that was damaged: got %v", err)
	}
	if got, err := l.ReadSection(refs[0]); err != nil || string(got) != "first" {
		t.Errorf("another one: got %q, %v", got, err)
	}
	l.Close()
}

// Readers go on while snapshots are replaced, on a real disk: what they get is the section of their Ref, or ErrGone, and then
// the new Ref is there.
func TestReadWhileReplaced(t *testing.T) {
	dir := t.TempDir()
	l, err := wal.Open(dir, wal.Options{}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	type table struct {
		round int
		refs  []wal.Ref
	}
	var now atomic.Pointer[table]
	body := func(round, section int) []byte {
		return bytes.Repeat([]byte{byte(round), byte(section)}, 500+section)
	}
	write := func(round int) {
		mustAppend(t, l, "x")
		number, err := l.Rotate()
		if err != nil {
			t.Fatal(err)
		}
		err = l.WriteSnapshot(number, func(w *wal.SnapshotWriter) error {
			next := &table{round: round}
			w.Installed(func() {
				for _, at := range []*table{now.Load(), next} {
					if at == nil {
						continue
					}
					if _, err := l.ReadSection(at.refs[0]); err != nil {
						t.Errorf("read while the snapshot is installed: %v", err)
					}
				}
				now.Store(next)
			})
			for i := range 50 {
				if old := now.Load(); old != nil {
					// As one who keeps what did not change reads it.
					if got, err := l.ReadSection(old.refs[i]); err != nil || !bytes.Equal(got, body(old.round, i)) {
						return fmt.Errorf("read while writing: %w", err)
					}
				}
				ref, err := w.Section(nil, body(round, i))
				if err != nil {
					return err
				}
				next.refs = append(next.refs, ref)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	write(0)
	var readers sync.WaitGroup
	var stop atomic.Bool
	for g := range 4 {
		readers.Go(func() {
			for i := g; !stop.Load(); i++ {
				at := now.Load()
				got, err := l.ReadSection(at.refs[i%50])
				switch {
				case errors.Is(err, wal.ErrGone):
					if now.Load() == at {
						t.Error("gone, and there is no new table")
						return
					}
				case err != nil || !bytes.Equal(got, body(at.round, i%50)):
					t.Errorf("read: %v", err)
					return
				}
			}
		})
	}
	for round := range 30 {
		write(round + 1)
	}
	stop.Store(true)
	readers.Wait()
	l.Close()
	names, err := os.ReadDir(dir)
	if err != nil || len(names) != 3 {
		t.Errorf("files left: %v, %v", names, err)
	}
}

// Writing and opening take a bounded piece at a time, however large the whole is; only a section that is larger is read whole.
func TestBoundedMemory(t *testing.T) {
	fs := &sizes{FS: &faultfs.FS{}}
	l, _ := withSections(t, fs, slices.Repeat([]string{strings.Repeat("x", 10_000)}, 400)...)
	for range 400 {
		mustAppend(t, l, strings.Repeat("y", 10_000))
	}
	l.Close()
	l, _ = mustOpen(t, fs, 0)
	l.Close()
	const bound = 256 << 10
	if fs.write.Load() > bound || fs.read.Load() > bound || fs.write.Load() < bound/2 || fs.read.Load() < bound/2 {
		t.Errorf("largest write %d, read %d; want at most %d and at least half of it", fs.write.Load(), fs.read.Load(), bound)
	}
}

// sizes notes the largest write and read.
type sizes struct {
	*faultfs.FS
	write, read atomic.Int64
}

func (s *sizes) Create(name string) (wal.File, error) {
	f, err := s.FS.Create(name)
	return sizedFile{f, s}, err
}

func (s *sizes) OpenRead(name string) (wal.Reader, error) {
	r, err := s.FS.OpenRead(name)
	return sizedReader{r, s}, err
}

type sizedFile struct {
	wal.File
	sizes *sizes
}

func (f sizedFile) Write(b []byte) (int, error) {
	f.sizes.write.Store(max(f.sizes.write.Load(), int64(len(b))))
	return f.File.Write(b)
}

type sizedReader struct {
	wal.Reader
	sizes *sizes
}

func (r sizedReader) ReadAt(b []byte, offset int64) (int, error) {
	r.sizes.read.Store(max(r.sizes.read.Load(), int64(len(b))))
	return r.Reader.ReadAt(b, offset)
}
