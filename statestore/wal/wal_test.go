package wal_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/holdfast-mesh/holdfast/statestore/wal"
	"github.com/holdfast-mesh/holdfast/statestore/wal/faultfs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// open opens the log and returns what it replayed.
func open(fs wal.FS, segmentBytes int64) (*wal.Log, []string, error) {
	var got []string
	l, err := wal.Open("/log", wal.Options{FS: fs, SegmentBytes: segmentBytes}, func(r []byte) error {
		got = append(got, string(r))
		return nil
	})
	return l, got, err
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
	mustAppend(t, l, strings.Repeat("c", 100_000))
	if _, _, err := open(fs, 0); !errors.Is(err, wal.ErrLocked) {
		t.Errorf("second open: got %v, want %v", err, wal.ErrLocked)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l, got = mustOpen(t, fs, 0)
	wantRecords(t, got, "a", "", "b", strings.Repeat("c", 100_000))
	mustAppend(t, l, "d")
	for range 2 {
		if err := l.Append(batch(strings.Repeat("x", wal.MaxBatch))); !errors.Is(err, wal.ErrPoisoned) {
			t.Errorf("a batch over the bound: got %v", err)
		}
	}
	l.Close()
}

func TestOnARealDisk(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	for i := range 3 {
		n := 0
		l, err := wal.Open(dir, wal.Options{}, func([]byte) error { n++; return nil })
		if err != nil {
			t.Fatal(err)
		}
		if n != i {
			t.Errorf("open %d: replayed %d", i, n)
		}
		if _, err := wal.Open(dir, wal.Options{}, nil); !errors.Is(err, wal.ErrLocked) {
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

func snapshotOf(records ...string) func(func([]byte) error) error {
	return func(add func([]byte) error) error {
		for _, r := range records {
			if err := add([]byte(r)); err != nil {
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
		if err := l.Append(batch("b")); !errors.Is(err, wal.ErrUnknown) {
			t.Errorf("%s: got %v, want %v", op, err, wal.ErrUnknown)
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
			fs.Lock("x")
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
		fs.Lock("x")
		fs.WriteDurable(firstSegment, flip(whole, at))
		_, _, err := open(fs, 0)
		if !errors.Is(err, wal.ErrDamaged) || !strings.Contains(err.Error(), firstSegment) {
			t.Errorf("damage at %d: got %v", at, err)
		}
	}
	// Cut short, but not the last segment.
	fs.WriteDurable("/log/0000000000000002.log", whole)
	fs.WriteDurable(firstSegment, whole[:len(whole)-1])
	if _, _, err := open(fs, 0); !errors.Is(err, wal.ErrDamaged) {
		t.Errorf("cut short in the middle: got %v", err)
	}
	fs.WriteDurable(firstSegment, whole)
	fs.WriteDurable("/log/0000000000000004.log", whole)
	if _, _, err := open(fs, 0); !errors.Is(err, wal.ErrDamaged) {
		t.Errorf("segment missing: got %v", err)
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
	mustAppend(t, l, string(copied[20:]))
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

// script appends, rotates and takes snapshots; it returns what was acknowledged and what was under way.
func script(fs wal.FS) (acked, pending []string) {
	l, have, err := open(fs, 150)
	if err != nil {
		return nil, nil
	}
	defer l.Close()
	acked = have
	for i := range 50 {
		pending = []string{fmt.Sprintf("op-%d-a", i), fmt.Sprintf("op-%d-b", i)}
		if err := l.Append(batch(pending...)); err != nil {
			return acked, pending
		}
		acked, pending = append(acked, pending...), nil
		if l.ShouldRotate() {
			number, err := l.Rotate()
			if err != nil {
				return acked, nil
			}
			_ = l.WriteSnapshot(number, snapshotOf(acked...))
		}
	}
	return acked, nil
}

// A crash at every boundary: what was acknowledged is there, a batch is there whole or not at all, and nothing else is.
func TestCrashAtEveryBoundary(t *testing.T) {
	dry := &faultfs.FS{}
	script(dry)
	if dry.Ops() < 150 {
		t.Fatalf("the script has only %d boundaries", dry.Ops())
	}
	for at := 1; at <= dry.Ops(); at++ {
		for seed := range uint64(4) {
			fs := &faultfs.FS{}
			fs.Inject(func(n int, _, _ string) error {
				if n == at {
					return faultfs.ErrPowerOff
				}
				return nil
			})
			acked, pending := script(fs)
			rng := rand.New(rand.NewPCG(uint64(at), seed))
			crashed := fs.Crash(rng)
			l, got, err := open(crashed, 150)
			if err != nil {
				t.Fatalf("crash at %d, seed %d: %v", at, seed, err)
			}
			checkReplay(t, at, seed, got, acked, pending)
			mustAppend(t, l, "after")
			l.Close()
			l, again, err := open(crashed.Crash(rng), 150)
			if err != nil {
				t.Fatalf("second crash after %d, seed %d: %v", at, seed, err)
			}
			if !slices.Equal(unique(again), unique(append(got, "after"))) {
				t.Fatalf("second crash after %d, seed %d: %q, then %q", at, seed, got, again)
			}
			l.Close()
		}
	}
}

// A killed process leaves what it wrote in the page cache: the next one shows it, so it must stay when the power then fails.
func TestKillThenCrash(t *testing.T) {
	dry := &faultfs.FS{}
	script(dry)
	for at := 1; at <= dry.Ops(); at++ {
		fs := &faultfs.FS{}
		fs.Inject(func(n int, _, _ string) error {
			if n == at {
				return faultfs.ErrPowerOff
			}
			return nil
		})
		acked, pending := script(fs)
		fs.Kill()
		l, got := mustOpen(t, fs, 150)
		checkReplay(t, at, 0, got, acked, pending)
		l2, again := mustOpen(t, fs.Crash(rand.New(rand.NewPCG(uint64(at), 0))), 150)
		if !slices.Equal(unique(again), unique(got)) {
			t.Fatalf("kill at %d: replayed %q, after a crash %q", at, got, again)
		}
		l.Close()
		l2.Close()
	}
}

func unique(records []string) []string {
	s := slices.Clone(records)
	slices.Sort(s)
	return slices.Compact(s)
}

func checkReplay(t *testing.T, at int, seed uint64, got, acked, pending []string) {
	t.Helper()
	have := unique(got)
	for _, r := range acked {
		if _, ok := slices.BinarySearch(have, r); !ok {
			t.Fatalf("crash at %d, seed %d: %q was acknowledged and is lost", at, seed, r)
		}
	}
	extra := len(have) - len(unique(acked))
	if extra != 0 && extra != len(pending) {
		t.Fatalf("crash at %d, seed %d: replayed %d records that were not acknowledged, the batch under way has %d", at, seed, extra, len(pending))
	}
}

func FuzzOpen(f *testing.F) {
	fs := &faultfs.FS{}
	l, _, err := open(fs, 0)
	if err != nil {
		f.Fatal(err)
	}
	for _, r := range []string{"a", "bb", ""} {
		if err := l.Append(batch(r, r)); err != nil {
			f.Fatal(err)
		}
	}
	l.Close()
	whole, err := fs.ReadFile(firstSegment)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole, true)
	f.Add(whole[:len(whole)-3], true)
	f.Add(whole, false)
	f.Add([]byte{}, true)
	f.Fuzz(func(t *testing.T, b []byte, segment bool) {
		fs := &faultfs.FS{}
		fs.Lock("x")
		name := firstSegment
		if !segment {
			name = "/log/0000000000000001.snap"
			fs.WriteDurable(firstSegment, whole)
		}
		fs.WriteDurable(name, b)
		l, got, err := open(fs, 0)
		if err != nil {
			if !errors.Is(err, wal.ErrDamaged) {
				t.Fatalf("error of another kind: %v", err)
			}
			return
		}
		mustAppend(t, l, "more")
		l.Close()
		l, again := mustOpen(t, fs, 0)
		wantRecords(t, again, append(got, "more")...)
		l.Close()
	})
}
