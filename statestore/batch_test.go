package statestore_test

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-mesh/holdfast/internal/placement"
	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
	"github.com/holdfast-mesh/holdfast/statestore"
	"github.com/holdfast-mesh/holdfast/statestore/crdt"
	"github.com/holdfast-mesh/holdfast/statestore/wal/faultfs"
)

// What shares a batch sees what came before it, a merge after a commit as well as a commit after a merge, in the same entity
// or only in the same slot; and afterwards the slot has seen all of it.
func TestOneBatch(t *testing.T) {
	keys := keysOfOneSlot("tags", 2)
	slot := placement.Slot("tags", keys[0])
	for _, order := range []string{"commit, merge", "merge, commit", "commit, merge, commit"} {
		for _, key := range keys {
			b, wb := publishing(t)
			mustCommit(t, b, commitOf("tags", key, "", add("t")))
			fs := &faultfs.FS{}
			a := configured(t, statestore.Config{Dir: "/d", FS: fs})
			syncing, goOn, first := make(chan struct{}), make(chan struct{}), true
			fs.Inject(func(_ int, op, _ string) error {
				if op == "sync" && first {
					first = false
					close(syncing)
					<-goOn
				}
				return nil
			})
			done := make(chan error, 4)
			queued := 0
			wait := func() {
				for queued++; a.Queued() < queued; {
					runtime.Gosched()
				}
			}
			commits := 0
			commit := func(el string) {
				commits++
				a.CommitAsync(commitOf("tags", keys[0], "", add(el)), time.Time{}, func(_ *storev1.Committed, err error) { done <- err })
			}
			merge := func() {
				go func() { done <- a.Merge(context.Background(), wb.take()) }()
				wait()
			}
			commit("b")
			<-syncing
			// The committer waits for the disk: what comes now shares the next batch, in this order.
			switch order {
			case "commit, merge":
				commit("c")
				wait()
				merge()
			case "merge, commit":
				merge()
				commit("c")
			case "commit, merge, commit":
				commit("c")
				wait()
				merge()
				commit("d")
			}
			close(goOn)
			for range commits + 1 {
				if err := <-done; err != nil {
					t.Fatal(err)
				}
			}
			seen := a.Seen("tags", slot)
			if got, want := seen.Upto(a.Replica()), uint64(commits); got != want {
				t.Errorf("%s: has seen %d of its own changes, want %d", order, got, want)
			}
			if !seen.Has(crdt.Dot{Replica: b.Replica(), Seq: 1}) {
				t.Errorf("%s: has not seen the other's change", order)
			}
			want := "bc"
			if commits == 3 {
				want = "bcd"
			}
			if key == keys[0] {
				want += "t"
			} else if got := elements(t, a, key); got != "t" {
				t.Errorf("%s: the other entity has %q", order, got)
			}
			if got := elements(t, a, keys[0]); got != want {
				t.Errorf("%s: got %q, want %q", order, got, want)
			}
			fs.Inject(nil)
			repair(t, a, b)
			if got := elements(t, b, keys[0]); got != want {
				t.Errorf("%s: handed over %q, want %q", order, got, want)
			}
			consistent(t, a)
		}
	}
}

// Changes of LOCAL_MEM that wait for the disk end a batch, too: the log takes no frame without a bound, and what it refused
// would be tried for ever.
func TestManyLargeChangesInMemory(t *testing.T) {
	fs := &faultfs.FS{}
	a := open(t, statestore.Config{Dir: "/d", FS: fs})
	c := testConfigure(1)
	for _, typ := range c.Types {
		if typ.Type == "val" {
			typ.Write, typ.MaxStateBytes = configv1.WriteLevel_WRITE_LEVEL_LOCAL_MEM, 1<<20
		}
	}
	if err := a.Configure(context.Background(), c); err != nil {
		t.Fatal(err)
	}
	w := &wire{}
	a.Connect(statestore.Links{Publisher: w})
	syncing, goOn, first := make(chan struct{}), make(chan struct{}), true
	fs.Inject(func(_ int, op, _ string) error {
		if op == "sync" && first {
			first = false
			close(syncing)
			<-goOn
		}
		return nil
	})
	const n = 40
	done := make(chan error, n+2)
	commit := func(c *storev1.Commit) {
		a.CommitAsync(c, time.Time{}, func(_ *storev1.Committed, err error) { done <- err })
	}
	commit(commitOf("count", "k", "", inc(1)))
	<-syncing
	large := strings.Repeat("x", 1_000_000)
	for i := range n {
		commit(commitOf("val", fmt.Sprint(i), "", set(large)))
	}
	commit(commitOf("count", "k", "", inc(1)))
	close(goOn)
	for range n + 2 {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	fs.Inject(nil)
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if got := len(w.take()); got != n+2 {
		t.Errorf("%d changes were published, want %d", got, n+2)
	}
}
