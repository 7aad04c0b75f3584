package statestore_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/holdfast-mesh/holdfast/internal/placement"
	replicationv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/replication/v1"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
	"github.com/holdfast-mesh/holdfast/statestore"
	"github.com/holdfast-mesh/holdfast/statestore/crdt"
)

// wire collects what an engine publishes.
type wire struct {
	mu     sync.Mutex
	deltas []*replicationv1.Delta
}

func (w *wire) Publish(deltas []*replicationv1.Delta) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.deltas = append(w.deltas, deltas...)
}

func (w *wire) take() []*replicationv1.Delta {
	w.mu.Lock()
	defer w.mu.Unlock()
	d := w.deltas
	w.deltas = nil
	return d
}

func publishing(t *testing.T) (*statestore.Engine, *wire) {
	t.Helper()
	e := configured(t, statestore.Config{Dir: t.TempDir()})
	w := &wire{}
	e.Connect(statestore.Links{Publisher: w})
	return e, w
}

func TestDeltasReachAnotherReplica(t *testing.T) {
	a, wa := publishing(t)
	b, wb := publishing(t)
	mustCommit(t, a, commitOf("count", "k", "", inc(2)))
	mustCommit(t, b, commitOf("count", "k", "", inc(3)))
	mustCommit(t, a, commitOf("votes", "k", "", update("q", inc(1))))
	if err := b.Merge(context.Background(), wa.take()); err != nil {
		t.Fatal(err)
	}
	wantCount(t, b, "k", 5)
	sent := wb.take()
	if len(sent) != 1 {
		t.Errorf("b published %d deltas, want its own one", len(sent))
	}
	if repair(t, b, a) == 0 {
		t.Error("digests did not differ")
	}
	wantCount(t, a, "k", 5)
	if got := repair(t, a, b); got != 0 {
		t.Errorf("equal replicas exchanged %d states", got)
	}
	for _, typ := range []string{"count", "votes"} {
		if got, want := read(t, b, typ, "k").Value, read(t, a, typ, "k").Value; !proto.Equal(got, want) {
			t.Errorf("%s: %v and %v", typ, got, want)
		}
	}
	// A merge that brings nothing new makes no new version.
	version := read(t, a, "count", "k").Version
	slot := placement.Slot("count", "k")
	fill, states := b.SlotStates("count", slot, []string{"k", "none"})
	if err := a.MergeStates(context.Background(), "count", slot, fill, states, nil, nil); err != nil {
		t.Fatal(err)
	}
	if got := read(t, a, "count", "k").Version; got != version {
		t.Errorf("version %s became %s", version, got)
	}
}

func TestDigests(t *testing.T) {
	a, _ := publishing(t)
	b, _ := publishing(t)
	for i := range 100 {
		mustCommit(t, a, commitOf("count", fmt.Sprint(i), "", inc(uint64(i))))
	}
	if got := repair(t, a, b); got != 100 {
		t.Errorf("repaired %d, want 100", got)
	}
	mustCommit(t, a, commitOf("count", "7", "", inc(1)))
	// Both send what they have of the one that differs.
	if got := repair(t, a, b); got != 2 {
		t.Errorf("repaired %d, want 2", got)
	}
	slot := placement.Slot("count", "7")
	found := false
	_, keys := a.SlotKeys("count", slot, nil)
	for _, k := range keys {
		found = found || k.Key == "7"
	}
	if !found {
		t.Error("the key is not in its slot")
	}
	_, keys = a.SlotKeys("nothing", 1, nil)
	_, states := a.SlotStates("nothing", 1, []string{"k"})
	if keys != nil || states != nil {
		t.Error("digest of a type that is not there")
	}
}

func TestMergeLeavesOutWhatDoesNotFit(t *testing.T) {
	a, wa := publishing(t)
	mustCommit(t, a, commitOf("count", "k", "", inc(2)))
	good := wa.take()[0]
	b, _ := publishing(t)
	bad := []*replicationv1.Delta{
		{Type: "nothing", Key: "k", State: good.State},
		{Type: "reg", Key: "k", State: good.State},
		{Type: "count", Key: "", State: good.State},
		{Type: "count", Key: "k", State: []byte("garbage")},
		{Type: "account", Key: "k", State: good.State},
		good,
	}
	err := b.Merge(context.Background(), bad)
	if !errors.Is(err, crdt.ErrCorrupt) || !errors.Is(err, crdt.ErrModel) {
		t.Errorf("got %v", err)
	}
	wantCount(t, b, "k", 2)
}

// recorder is a subscriber that keeps what it got.
type recorder struct {
	mu     sync.Mutex
	states []*storev1.State
}

func (r *recorder) Push(s *storev1.State) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.states = append(r.states, s)
}

func TestSubscriberSeesEveryVersionInOrder(t *testing.T) {
	e := configured(t, statestore.Config{Dir: t.TempDir()})
	r := &recorder{}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				mustCommit(t, e, commitOf("count", "k", "", inc(1)))
			}
		})
	}
	view(t, e, entity("count", "k"), r)
	wg.Wait()
	last := uint64(0)
	for _, s := range r.states {
		n := s.GetValue().GetGcounter()
		if n < last {
			t.Fatalf("%d after %d", n, last)
		}
		last = n
	}
	if last != 400 {
		t.Errorf("the last push says %d, want 400", last)
	}
	e.Unsubscribe(entity("count", "k"), r)
	before := len(r.states)
	mustCommit(t, e, commitOf("count", "k", "", inc(1)))
	if len(r.states) != before {
		t.Error("pushed after unsubscribe")
	}
}

func TestEverythingAtOnce(t *testing.T) {
	a, wa := publishing(t)
	b, wb := publishing(t)
	var wg sync.WaitGroup
	for i, e := range []*statestore.Engine{a, b} {
		for w := range 3 {
			wg.Go(func() {
				for n := range 60 {
					key := fmt.Sprint(n % 5)
					mustCommit(t, e, commitOf("count", key, "", inc(1)))
					mustCommit(t, e, commitOf("votes", key, fmt.Sprint(i, w, n), update("q", inc(1)), update("r", nil)))
					e.SlotHashes("votes")
					e.SlotSummary("votes", placement.Slot("votes", key))
					e.Status()
				}
			})
		}
		wg.Go(func() {
			from, to := wa, b
			if i == 1 {
				from, to = wb, a
			}
			for range 40 {
				if err := to.Merge(context.Background(), from.take()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	repair(t, a, b)
	for key := range 5 {
		wantCount(t, a, fmt.Sprint(key), 72)
		wantCount(t, b, fmt.Sprint(key), 72)
		for _, e := range []*statestore.Engine{a, b} {
			if got := read(t, e, "votes", fmt.Sprint(key)).GetValue().GetOrmap().GetEntries()["q"].GetGcounter(); got != 72 {
				t.Errorf("votes %d: got %d, want 72", key, got)
			}
		}
	}
}
