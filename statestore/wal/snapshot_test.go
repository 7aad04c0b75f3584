package wal_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/holdfast-mesh/holdfast/statestore/wal"
	"github.com/holdfast-mesh/holdfast/statestore/wal/faultfs"
)

// What a log snapshot stands for is removed, so it must never hold what can't be read back.
func TestSnapshotOfLargeRecords(t *testing.T) {
	fs := &faultfs.FS{}
	l, _ := mustOpen(t, fs, 0)
	mustAppend(t, l, "a")
	n, err := l.Rotate()
	if err != nil {
		t.Fatal(err)
	}
	write := func(records ...string) error { return l.WriteSnapshot(n, snapshotOf(records...)) }
	tooMuch := func(w *wal.SnapshotWriter) error {
		if _, err := w.Section(make([]byte, wal.MaxMeta+1), nil); !errors.Is(err, wal.ErrTooLarge) {
			t.Errorf("meta over the bound: got %v", err)
		}
		return nil // the snapshot must fail all the same
	}
	if err := l.WriteSnapshot(n, tooMuch); !errors.Is(err, wal.ErrTooLarge) {
		t.Errorf("snapshot with a section over the bound: got %v", err)
	}
	large := strings.Repeat("x", wal.MaxBatch)
	if err := write("a", large); err != nil {
		t.Fatal(err)
	}
	l.Close()
	l, got := mustOpen(t, fs, 0)
	wantRecords(t, got, "a", large)
	l.Close()
}
