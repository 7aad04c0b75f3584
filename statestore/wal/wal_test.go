package wal_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/holdfast-mesh/holdfast/statestore/wal"
	"github.com/holdfast-mesh/holdfast/statestore/wal/faultfs"
)

func TestMain(m *testing.M) {
	// The scripts make much garbage on a small heap.
	debug.SetGCPercent(1000)
	goleak.VerifyTestMain(m)
}

// open opens the log and returns what it replayed.
func open(fs wal.FS, segmentBytes int64) (*wal.Log, []string, error) {
	var got []string
	var refs []wal.Ref
	l, err := wal.Open("/log", wal.Options{FS: fs, SegmentBytes: segmentBytes}, func(_ []byte, ref wal.Ref) error {
		refs = append(refs, ref)
		return nil
	}, func(r []byte) error {
		got = append(got, string(r))
		return nil
	})
	if err != nil {
		return nil, got, err
	}
	records := got
	got = nil
	for _, ref := range refs {
		b, err := l.ReadSection(ref)
		if err != nil {
			l.Close()
			return nil, nil, err
		}
		got = append(got, string(b))
	}
	return l, append(got, records...), nil
}

func mustOpen(t *testing.T, fs wal.FS, segmentBytes int64) (*wal.Log, []string) {
	t.Helper()
	l, got, err := open(fs, segmentBytes)
	if err != nil {
		t.Fatal(err)
	}
	return l, got
}

func batch(records ...string) [][]byte {
	var out [][]byte
	for _, r := range records {
		out = append(out, []byte(r))
	}
	return out
}

func mustAppend(t *testing.T, l *wal.Log, records ...string) {
	t.Helper()
	if err := l.Append(batch(records...)); err != nil {
		t.Fatal(err)
	}
}

func wantRecords(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("replayed %q, want %q", got, want)
	}
}

func TestReplay(t *testing.T) {
	fs := &faultfs.FS{}
	l, got := mustOpen(t, fs, 0)
	wantRecords(t, got)
	mustAppend(t, l, "a", "", "b")
	mustAppend(t, l, strings.Repeat("c", 300_000))
	if _, _, err := open(fs, 0); !errors.Is(err, wal.ErrLocked) {
		t.Errorf("second open: got %v, want %v", err, wal.ErrLocked)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l, got = mustOpen(t, fs, 0)
	wantRecords(t, got, "a", "", "b", strings.Repeat("c", 300_000))
	mustAppend(t, l, "d")
	if err := l.Append(batch(strings.Repeat("x", wal.MaxBatch))); !errors.Is(err, wal.ErrTooLarge) {
		t.Errorf("a batch over the bound: got %v", err)
	}
	mustAppend(t, l, "e")
	l.Close()
	l, got = mustOpen(t, fs, 0)
	wantRecords(t, got, "a", "", "b", strings.Repeat("c", 300_000), "d", "e")
	l.Close()
}

func TestOnARealDisk(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	for i := range 3 {
		n := 0
		l, err := wal.Open(dir, wal.Options{}, func([]byte, wal.Ref) error { n++; return nil }, func([]byte) error { n++; return nil })
		if err != nil {
			t.Fatal(err)
		}
		if n != i {
			t.Errorf("open %d: replayed %d", i, n)
		}
		if _, err := wal.Open(dir, wal.Options{}, nil, nil); !errors.Is(err, wal.ErrLocked) {
			t.Errorf("second open: got %v", err)
		}
		mustAppend(t, l, "r")
		if i == 1 {
			number, err := l.Rotate()
			if err != nil {
				t.Fatal(err)
			}
			if err := l.WriteSnapshot(number, snapshotOf("1", "2")); err != nil {
				t.Fatal(err)
			}
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("folder's mode: %v, %v", info.Mode(), err)
	}
	files, _ := os.ReadDir(dir)
	for _, f := range files {
		if info, _ := f.Info(); info.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v", f.Name(), info.Mode())
		}
	}
	if len(files) != 3 {
		t.Errorf("files: %v, want lock, snapshot and segment", files)
	}
}

// snapshotOf writes a section for each record.
func snapshotOf(records ...string) func(*wal.SnapshotWriter) error {
	return func(w *wal.SnapshotWriter) error {
		for i, r := range records {
			if _, err := w.Section(binary.AppendUvarint(nil, uint64(i)), []byte(r)); err != nil {
				return err
			}
		}
		return nil
	}
}

func TestSnapshot(t *testing.T) {
	fs := &faultfs.FS{}
	l, _ := mustOpen(t, fs, 100)
	mustAppend(t, l, strings.Repeat("a", 100))
	if !l.ShouldRotate() {
		t.Error("a full segment should be rotated")
	}
	number, err := l.Rotate()
	if err != nil {
		t.Fatal(err)
	}
	mustAppend(t, l, "b")
	if err := l.WriteSnapshot(number, snapshotOf("A", strings.Repeat("B", 3<<20))); err != nil {
		t.Fatal(err)
	}
	if l.ShouldRotate() {
		t.Error("a segment smaller than the snapshot need not be rotated")
	}
	l.Close()
	l, got := mustOpen(t, fs, 100)
	wantRecords(t, got, "A", strings.Repeat("B", 3<<20), "b")
	l.Close()
	names, _ := fs.ReadDir("/log")
	if want := []string{"0000000000000002.log", "0000000000000002.snap"}; !slices.Equal(names, want) {
		t.Errorf("files %v, want %v", names, want)
	}
	// One that fails leaves the log as it was.
	l, _ = mustOpen(t, fs, 100)
	if number, err = l.Rotate(); err != nil {
		t.Fatal(err)
	}
	fs.Inject(func(_ int, op, name string) error {
		if op == "sync" && strings.HasSuffix(name, ".tmp") {
			return errors.New("broken")
		}
		return nil
	})
	if err := l.WriteSnapshot(number, snapshotOf("C")); err == nil {
		t.Error("a snapshot that was not synced is no error")
	}
	mustAppend(t, l, "c")
	l.Close()
	l, got = mustOpen(t, fs, 100)
	wantRecords(t, got, "A", strings.Repeat("B", 3<<20), "b", "c")
	l.Close()
}

func TestPoison(t *testing.T) {
	for _, op := range []string{"write", "sync"} {
		fs := &faultfs.FS{}
		l, _ := mustOpen(t, fs, 0)
		mustAppend(t, l, "a")
		fs.Inject(func(_ int, o, _ string) error {
			if o == op {
				return errors.New("broken")
			}
			return nil
		})
		want := map[string]error{"write": wal.ErrPoisoned, "sync": wal.ErrUnknown}[op]
		if err := l.Append(batch("b")); !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", op, err, want)
		}
		fs.Inject(nil)
		if err := l.Append(batch("c")); !errors.Is(err, wal.ErrPoisoned) {
			t.Errorf("after a failed %s: got %v, want %v", op, err, wal.ErrPoisoned)
		}
		if err := l.Err(); !errors.Is(err, wal.ErrPoisoned) || !strings.Contains(err.Error(), "broken") {
			t.Errorf("err: got %v", err)
		}
		if _, err := l.Rotate(); !errors.Is(err, wal.ErrPoisoned) {
			t.Errorf("rotate: got %v", err)
		}
		l.Close()
		l, got := mustOpen(t, fs, 0)
		if got = slices.DeleteFunc(got, func(r string) bool { return r == "b" }); !slices.Equal(got, []string{"a"}) {
			t.Errorf("after a failed %s: replayed %q", op, got)
		}
		mustAppend(t, l, "d")
		l.Close()
	}
}

const firstSegment = "/log/0000000000000001.log"

func TestTornTailIsCutDamageIsNot(t *testing.T) {
	fs := &faultfs.FS{}
	l, _ := mustOpen(t, fs, 0)
	mustAppend(t, l, "aaaa")
	mustAppend(t, l, "bbbb")
	end, err := fs.ReadFile(firstSegment)
	if err != nil {
		t.Fatal(err)
	}
	mustAppend(t, l, "cccc")
	l.Close()
	whole, err := fs.ReadFile(firstSegment)
	if err != nil {
		t.Fatal(err)
	}
	for at := len(end); at < len(whole); at++ {
		for _, torn := range [][]byte{whole[:at], flip(whole, at), append(bytes.Clone(whole[:at]), make([]byte, 40)...)} {
			fs := &faultfs.FS{}
			fs.WriteDurable(firstSegment, torn)
			l, got, err := open(fs, 0)
			if err != nil {
				t.Fatalf("torn at %d: %v", at, err)
			}
			wantRecords(t, got, "aaaa", "bbbb")
			mustAppend(t, l, "dddd")
			l.Close()
			l, got = mustOpen(t, fs, 0)
			wantRecords(t, got, "aaaa", "bbbb", "dddd")
			l.Close()
		}
	}
	for at := range len(end) {
		fs := &faultfs.FS{}
		fs.WriteDurable(firstSegment, flip(whole, at))
		_, _, err := open(fs, 0)
		if !errors.Is(err, wal.ErrDamaged) || !strings.Contains(err.Error(), firstSegment) {
			t.Errorf("damage at %d: got %v", at, err)
		}
	}
}

// A segment that another follows has a number of frames; fewer are damage.
func TestDamageBeforeTheLastSegment(t *testing.T) {
	fs := &faultfs.FS{}
	l, _ := mustOpen(t, fs, 0)
	mustAppend(t, l, "aaaa")
	mustAppend(t, l, "bbbb")
	if _, err := l.Rotate(); err != nil {
		t.Fatal(err)
	}
	mustAppend(t, l, "cccc")
	l.Close()
	const secondSegment = "/log/0000000000000002.log"
	second, err := fs.ReadFile(secondSegment)
	if err != nil {
		t.Fatal(err)
	}
	whole, err := fs.ReadFile(firstSegment)
	if err != nil {
		t.Fatal(err)
	}
	for at := range whole {
		for _, bad := range [][]byte{whole[:at], flip(whole, at)} {
			fs.WriteDurable(firstSegment, bad)
			if _, _, err := open(fs, 0); !errors.Is(err, wal.ErrDamaged) || !strings.Contains(err.Error(), firstSegment) {
				t.Errorf("damage at %d: got %v", at, err)
			}
		}
	}
	fs.WriteDurable(firstSegment, whole)
	l, got := mustOpen(t, fs, 0)
	wantRecords(t, got, "aaaa", "bbbb", "cccc")
	l.Close()
	for _, name := range []string{firstSegment, secondSegment} {
		fs := &faultfs.FS{}
		fs.WriteDurable(firstSegment, whole)
		fs.WriteDurable(secondSegment, second)
		fs.WriteDurable("/log/0000000000000003.log", second)
		if err := fs.Remove(name); err != nil {
			t.Fatal(err)
		}
		if _, _, err := open(fs, 0); !errors.Is(err, wal.ErrDamaged) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s is missing: got %v", name, err)
		}
	}
}

func flip(b []byte, at int) []byte {
	c := bytes.Clone(b)
	c[at] ^= 0x20
	return c
}

// A record that looks like frames is no reason to take a torn tail for damage.
func TestRecordThatLooksLikeAFrame(t *testing.T) {
	fs := &faultfs.FS{}
	l, _ := mustOpen(t, fs, 0)
	mustAppend(t, l, "a")
	l.Close()
	copied, err := fs.ReadFile(firstSegment)
	if err != nil {
		t.Fatal(err)
	}
	other := &faultfs.FS{}
	l, _ = mustOpen(t, other, 0)
	mustAppend(t, l, "x")
	before, err := other.ReadFile(firstSegment)
	if err != nil {
		t.Fatal(err)
	}
	mustAppend(t, l, string(copied[28:]))
	l.Close()
	whole, err := other.ReadFile(firstSegment)
	if err != nil {
		t.Fatal(err)
	}
	other.WriteDurable(firstSegment, flip(whole, len(before)))
	l, got := mustOpen(t, other, 0)
	wantRecords(t, got, "x")
	l.Close()
}
