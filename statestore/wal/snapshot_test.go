package wal_test

import (
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
	write := func(records ...string) error {
		return l.WriteSnapshot(n, func(add func([]byte) error) error {
			for _, r := range records {
				if err := add([]byte(r)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := write("a", strings.Repeat("x", wal.MaxBatch)); err == nil {
		t.Fatal("a record over the bound was taken")
	}
	most := strings.Repeat("x", wal.MaxBatch-4)
	if err := write("a", most); err != nil {
		t.Fatal(err)
	}
	l.Close()
	l, got := mustOpen(t, fs, 0)
	wantRecords(t, got, "a", most)
	l.Close()
}
