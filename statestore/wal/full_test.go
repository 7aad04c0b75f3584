package wal_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-mesh/holdfast/statestore/wal"
)

// A real disk of 1 MiB is filled, refuses, is given room and recovers, 20 times (M5): refused batches are not there, all others
// are, and sections can be read all the time.
func TestFullDisk(t *testing.T) {
	disk := smallDisk(t)
	dir := filepath.Join(disk, "log")
	l, err := wal.Open(dir, wal.Options{SegmentBytes: 100_000}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { l.Close() }()
	want := []string{}
	record := func(cycle, i int) string { return fmt.Sprintf("%d-%d %04000d", cycle, i, i) }
	var slowest time.Duration
	for cycle := range 20 {
		// Ten records are enough, or all of them would fill the disk.
		if n := len(want); n > 10 {
			want = want[n-10:]
		}
		refs := replaceSections(t, l, want...)
		ballast := filepath.Join(disk, "ballast")
		fill(t, ballast)
		var refused error
		for i := 0; refused == nil; i++ {
			start := time.Now()
			if refused = l.Append(batch(record(cycle, i))); refused == nil {
				want = append(want, record(cycle, i))
			}
			slowest = max(slowest, time.Since(start))
			if i > 1000 {
				t.Fatal("the disk does not fill up")
			}
		}
		if !errors.Is(refused, wal.ErrPoisoned) || errors.Is(refused, wal.ErrUnknown) || !errors.Is(refused, unix.ENOSPC) {
			t.Fatalf("cycle %d: append to a full disk: %v", cycle, refused)
		}
		before := folder(t, dir)
		for range 5 {
			start := time.Now()
			if err := l.Append(batch("refused")); !errors.Is(err, wal.ErrPoisoned) {
				t.Fatalf("cycle %d: %v", cycle, err)
			}
			if err := l.Recover(); !errors.Is(err, unix.ENOSPC) {
				t.Fatalf("cycle %d: recover on a full disk: %v", cycle, err)
			}
			slowest = max(slowest, time.Since(start))
		}
		if folder(t, dir) != before {
			t.Fatalf("cycle %d: recover left something behind", cycle)
		}
		for i, ref := range refs {
			if _, err := l.ReadSection(ref); err != nil {
				t.Fatalf("cycle %d: section %d: %v", cycle, i, err)
			}
		}
		if cycle%4 == 3 {
			// A process that starts on the full disk.
			l.Close()
			if l, err = wal.Open(dir, wal.Options{SegmentBytes: 100_000}, func([]byte, wal.Ref) error { return nil }, func([]byte) error { return nil }); err != nil {
				t.Fatalf("cycle %d: open on a full disk: %v", cycle, err)
			}
			if !errors.Is(l.Err(), unix.ENOSPC) {
				t.Fatalf("cycle %d: open on a full disk: %v", cycle, l.Err())
			}
		}
		if err := os.Remove(ballast); err != nil {
			t.Fatal(err)
		}
		if err := l.Recover(); err != nil {
			t.Fatalf("cycle %d: recover with room: %v", cycle, err)
		}
		kept := fmt.Sprintf("after cycle %d", cycle)
		mustAppend(t, l, kept)
		want = append(want, kept)
		check(t, dir, want)
	}
	t.Logf("slowest answer %v", slowest)
}

// check opens a copy of the folder.
func check(t *testing.T, dir string, want []string) {
	t.Helper()
	copied := t.TempDir()
	if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	var refs []wal.Ref
	var got, records []string
	l, err := wal.Open(copied, wal.Options{}, func(_ []byte, ref wal.Ref) error {
		refs = append(refs, ref)
		return nil
	}, func(r []byte) error {
		records = append(records, string(r))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, ref := range refs {
		body, err := l.ReadSection(ref)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, string(body))
	}
	got = append(got, records...)
	// A batch that failed may be there until Recover; none is acknowledged or disowned wrongly.
	if !slices.Equal(got, want) {
		t.Fatalf("got %d records, want %d", len(got), len(want))
	}
}

// smallDisk mounts 1 MiB of memory.
func smallDisk(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		if os.Getenv("CI") == "true" && os.Getuid() == 0 {
			t.Fatalf("mount a disk of 1 MiB: %v", err)
		}
		t.Skipf("needs the right to mount: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return dir
}

// fill leaves room for some records.
func fill(t *testing.T, name string) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	if info, serr := f.Stat(); !errors.Is(err, unix.ENOSPC) || serr != nil || f.Truncate(info.Size()-50_000) != nil {
		t.Fatal(err, serr)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}
