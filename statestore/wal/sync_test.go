package wal_test

import (
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/holdfast-mesh/holdfast/statestore/wal"
	"github.com/holdfast-mesh/holdfast/statestore/wal/faultfs"
)

// After a failed sync the system shows what was written and takes it for clean: a later sync says yes, and the power takes
// it away. What a new start replayed must be there all the same, and what it appended behind it, too.
func TestFailedSyncThenCrash(t *testing.T) {
	for at := range 12 {
		fs := &faultfs.FS{}
		l, _ := mustOpen(t, fs, 0)
		mustAppend(t, l, "a")
		before := fs.Ops()
		fs.Inject(func(n int, op, _ string) error {
			if op == "sync" && n <= before+2+at {
				return errors.New("medium error")
			}
			return nil
		})
		if err := l.Append(batch("b")); !errors.Is(err, wal.ErrUnknown) {
			t.Fatal(err)
		}
		l.Close()
		var got []string
		for {
			var err error
			if l, got, err = open(fs, 0); err == nil {
				break
			}
		}
		for l.Recover() != nil {
		}
		mustAppend(t, l, "c")
		for seed := range uint64(20) {
			l2, again := mustOpen(t, fs.Crash(rand.New(rand.NewPCG(seed, 0))), 0)
			wantRecords(t, again, append(append([]string(nil), got...), "c")...)
			l2.Close()
		}
		l.Close()
	}
}
