package statestore_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/holdfast-mesh/holdfast/internal/placement"
	replicationv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/replication/v1"
	"github.com/holdfast-mesh/holdfast/statestore"
	"github.com/holdfast-mesh/holdfast/statestore/crdt"
	"github.com/holdfast-mesh/holdfast/statestore/wal/faultfs"
)

// departed is all that left a store: whoever has it may count on it.
type departed struct {
	// deltas were published, or came from outside and were acknowledged.
	deltas []*replicationv1.Delta
	// states were fetched, with what the store said it had seen then.
	states []fetched
	// counts are values of the counter that were answered or pushed.
	count uint64
}

type fetched struct {
	slot   uint32
	seen   *crdt.Context
	states []*replicationv1.Delta
}

// leaveScript has a store commit, merge, hand over, passivate and rewrite its log until the disk ends it.
func leaveScript(t *testing.T, fs *faultfs.FS, remote []*replicationv1.Delta, round []fetched, keys []string) (d departed) {
	t.Helper()
	e, err := statestore.Open(statestore.Config{Node: "node-1", Dir: "/d", FS: fs, Logger: quiet(), SegmentBytes: 700})
	if err != nil {
		return d
	}
	w, r := &wire{}, &recorder{}
	defer func() {
		e.Close()
		d.deltas = append(d.deltas, w.take()...)
		for _, s := range r.states {
			d.count = max(d.count, s.GetValue().GetGcounter())
		}
	}()
	if err := e.Configure(context.Background(), testConfigure(1)); err != nil {
		return d
	}
	e.Connect(statestore.Links{Publisher: w})
	view(t, e, entity("count", "k"), r)
	slot := placement.Slot("tags", keys[0])
	for i := range 12 {
		if c, err := e.Commit(context.Background(), commitOf("count", "k", fmt.Sprint(i), inc(1))); err == nil {
			d.count = max(d.count, c.State.GetValue().GetGcounter())
		}
		key := keys[i%len(keys)]
		_, _ = e.Commit(context.Background(), commitOf("tags", key, "", add(fmt.Sprint(i)), take(fmt.Sprint(i-1))))
		if i%4 == 3 {
			_, _ = e.Commit(context.Background(), commitOf("tags", key, "", del()))
		}
		in := remote[i%len(remote) : i%len(remote)+1]
		if e.Merge(context.Background(), in) == nil {
			d.deltas = append(d.deltas, in...)
		}
		if i == 5 {
			for _, f := range round {
				done := &crdt.Comparison{Complete: f.seen, Compared: e.Seen("tags", f.slot), Delivered: map[string]struct{}{}}
				for _, s := range f.states {
					done.Delivered[s.Key] = struct{}{}
				}
				if e.MergeStates(context.Background(), "tags", f.slot, f.seen, f.states, nil, done) == nil {
					d.states = append(d.states, f)
				}
			}
		}
		if i == 7 {
			_ = e.Age(time.Hour)
		}
		seen, states := e.SlotStates("tags", slot, keys)
		d.states = append(d.states, fetched{slot, seen, states})
	}
	return d
}

// TestNothingLeavesBeforeItIsDurable: wherever the power goes off, the store that starts again has all that ever left it.
func TestNothingLeavesBeforeItIsDurable(t *testing.T) {
	keys := keysOfOneSlot("tags", 3)
	slot := placement.Slot("tags", keys[0])
	other, wo := publishing(t)
	for i := range 4 {
		mustCommit(t, other, commitOf("tags", keys[i%3], "", add(fmt.Sprint("o", i)), take(fmt.Sprint("o", i-1))))
	}
	remote := wo.take()
	seen, states := other.SlotStates("tags", slot, keys)
	round := []fetched{{slot, seen, states}}
	dry := &faultfs.FS{}
	leaveScript(t, dry, remote, round, keys)
	if dry.Ops() < 80 {
		t.Fatalf("the script has only %d boundaries", dry.Ops())
	}
	for at := 1; at <= dry.Ops(); at++ {
		fs := &faultfs.FS{}
		fs.Inject(func(n int, _, _ string) error {
			if n == at {
				return faultfs.ErrPowerOff
			}
			return nil
		})
		d := leaveScript(t, fs, remote, round, keys)
		e := open(t, statestore.Config{Dir: "/d", FS: fs.Crash(rand.New(rand.NewPCG(uint64(at), 2))), Logger: quiet()})
		if err := e.Configure(context.Background(), testConfigure(1)); err != nil {
			t.Fatal(err)
		}
		consistent(t, e)
		before := hashes(e)
		if got := read(t, e, "count", "k").GetValue().GetGcounter(); got < d.count {
			t.Fatalf("crash at %d: %d was shown, %d is there", at, d.count, got)
		}
		merge(t, e, d.deltas)
		for _, f := range d.states {
			if err := e.MergeStates(context.Background(), "tags", f.slot, f.seen, f.states, nil, nil); err != nil {
				t.Fatal(err)
			}
		}
		if after := hashes(e); !maps.Equal(before, after) {
			t.Fatalf("crash at %d: what had left was not all there: %v, with it %v", at, before, after)
		}
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
