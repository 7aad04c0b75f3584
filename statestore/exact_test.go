package statestore_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/holdfast-mesh/holdfast/internal/placement"
	replicationv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/replication/v1"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
	"github.com/holdfast-mesh/holdfast/statestore"
	"github.com/holdfast-mesh/holdfast/statestore/crdt"
	"github.com/holdfast-mesh/holdfast/statestore/wal/faultfs"
)

// merge gives deltas to an engine.
func merge(t *testing.T, e *statestore.Engine, deltas []*replicationv1.Delta) {
	t.Helper()
	if err := e.Merge(context.Background(), deltas); err != nil {
		t.Fatal(err)
	}
}

func elements(t *testing.T, e *statestore.Engine, key string) string {
	t.Helper()
	out := ""
	for _, el := range read(t, e, "tags", key).GetValue().GetOrset().GetElements() {
		out += string(el)
	}
	return out
}

// A removal forgets nothing that could bring back what it took: deltas that come late, twice or in another order do not.
func TestRemovedStaysRemoved(t *testing.T) {
	a, wa := publishing(t)
	b, _ := publishing(t)
	mustCommit(t, a, commitOf("tags", "k", "", add("x", "y")))
	added := wa.take()
	mustCommit(t, a, commitOf("tags", "k", "", take("x")))
	removed := wa.take()
	mustCommit(t, a, commitOf("tags", "k", "", del()))
	deleted := wa.take()
	merge(t, b, removed)
	merge(t, b, added)
	if got := elements(t, b, "k"); got != "y" {
		t.Errorf("got %q, want y", got)
	}
	merge(t, b, deleted)
	merge(t, b, added)
	if s := read(t, b, "tags", "k"); s.Exists {
		t.Errorf("got %v", s)
	}
	if got := b.Status().Entities; got != 0 {
		t.Errorf("a delete left %d entities", got)
	}
	if got, want := hashes(a), hashes(b); !maps.Equal(got, want) {
		t.Errorf("hashes %v and %v", got, want)
	}
	if got := repair(t, a, b); got != 0 {
		t.Errorf("equal replicas exchanged %d states", got)
	}
}

// While a round is under way a removal reaches one side by it, and what was removed the other side by a late delta.
func TestRoundsAreExact(t *testing.T) {
	key := keysOfOneSlot("tags", 2)
	slot := placement.Slot("tags", key[0])
	for _, late := range []string{"offer", "keys", "midway", "last", "after"} {
		t.Run(late, func(t *testing.T) {
			a, wa := publishing(t)
			b, _ := publishing(t)
			// b lacks the key, and the removal: a has seen both.
			mustCommit(t, a, commitOf("tags", key[0], "", add("x")))
			added := wa.take()
			mustCommit(t, a, commitOf("tags", key[0], "", take("x"), del()))
			mustCommit(t, a, commitOf("tags", key[1], "", add("y")))
			wa.take()
			mustCommit(t, b, commitOf("tags", key[1], "", add("z")))
			for _, opener := range []string{"a", "b"} {
				r := &round{t: t, a: a, b: b, typ: "tags", slot: slot}
				if opener == "b" {
					r.a, r.b = b, a
				}
				deliver := func() { merge(t, b, added) }
				switch late {
				case "offer":
					r.afterOffer = deliver
				case "keys":
					r.afterKeys = deliver
				case "midway":
					r.midway = deliver
				case "last":
					r.lastWord = deliver
				}
				r.run()
				if late == "after" {
					deliver()
				}
			}
			repair(t, a, b)
			for _, e := range []*statestore.Engine{a, b} {
				if s := read(t, e, "tags", key[0]); s.Exists {
					t.Errorf("it is back: %v", s)
				}
				if got := elements(t, e, key[1]); got != "yz" {
					t.Errorf("got %q", got)
				}
				consistent(t, e)
			}
			if !maps.Equal(hashes(a), hashes(b)) {
				t.Errorf("hashes %v and %v", hashes(a), hashes(b))
			}
		})
	}
}

func TestForgedAndFutureChangesAreRefused(t *testing.T) {
	a, wa := publishing(t)
	b, _ := publishing(t)
	mustCommit(t, a, commitOf("tags", "k", "", add("x")))
	mine := wa.take()
	forge := func(m crdt.Mutator, typ string, op *holdfastv1.Operation) []*replicationv1.Delta {
		s, err := crdt.Decode(mine[0].State)
		if typ == "reg" {
			mustCommit(t, a, commitOf("reg", "k", "", set("x")))
			s, err = crdt.Decode(wa.take()[0].State)
		}
		if err != nil {
			t.Fatal(err)
		}
		d, err := s.Delta(op, m)
		if err != nil {
			t.Fatal(err)
		}
		return []*replicationv1.Delta{{Type: typ, Key: "k", State: d.Append(nil)}}
	}
	now := uint64(time.Now().UnixMilli()) << 16
	err := b.Merge(context.Background(), forge(crdt.Mutator{Replica: b.Replica(), Seq: 1, Now: now}, "tags", add("evil")))
	if !errors.Is(err, statestore.ErrForged) {
		t.Errorf("got %v, want %v", err, statestore.ErrForged)
	}
	ahead := uint64(time.Now().Add(time.Minute).UnixMilli()) << 16
	err = b.Merge(context.Background(), append(forge(crdt.Mutator{Replica: 7, Seq: 1, Now: ahead}, "reg", set("late")), mine...))
	if !errors.Is(err, statestore.ErrAhead) {
		t.Errorf("got %v, want %v", err, statestore.ErrAhead)
	}
	if got := elements(t, b, "k"); got != "x" {
		t.Errorf("what came with it: got %q", got)
	}
	slot := placement.Slot("tags", "k")
	claims := &crdt.Context{}
	claims.Add(crdt.Dot{Replica: b.Replica(), Seq: 5})
	err = b.MergeStates(context.Background(), "tags", slot, claims, nil, []string{"k"}, nil)
	if !errors.Is(err, statestore.ErrForged) {
		t.Errorf("fill: got %v, want %v", err, statestore.ErrForged)
	}
	err = b.MergeStates(context.Background(), "tags", slot, nil, nil, nil, &crdt.Comparison{Complete: claims})
	if !errors.Is(err, statestore.ErrForged) {
		t.Errorf("complete: got %v, want %v", err, statestore.ErrForged)
	}
	// The greatest sequence has no next one; and all of an identity that is over is more than what it made.
	greatest, over := &crdt.Context{}, &crdt.Context{}
	greatest.Add(crdt.Dot{Replica: b.Replica(), Seq: math.MaxUint64})
	over.Retire(crdt.NewRetired(b.Replica()))
	for _, claims := range []*crdt.Context{greatest, over} {
		err = b.MergeStates(context.Background(), "tags", slot, claims, nil, []string{"k"}, nil)
		if !errors.Is(err, statestore.ErrForged) {
			t.Errorf("fill: got %v, want %v", err, statestore.ErrForged)
		}
	}
	if got := b.Refused(); got != 6 {
		t.Errorf("%d refused, want 6", got)
	}
	if got := elements(t, b, "k"); got != "x" {
		t.Errorf("got %q", got)
	}
}

// Restarts leave identities; once retired they are in no context, and a counter has one dot for all of them.
func TestIdentitiesAreRetired(t *testing.T) {
	dir, ctx := t.TempDir(), context.Background()
	b, _ := publishing(t)
	var old []uint64
	for range 5 {
		a := configured(t, statestore.Config{Dir: dir})
		old = append(old, a.Replica())
		mustCommit(t, a, commitOf("count", "k", "", inc(1)))
		repair(t, a, b)
		if err := b.LearnIdentities(ctx, a.Identities()); err != nil {
			t.Fatal(err)
		}
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
	}
	a := configured(t, statestore.Config{Dir: dir})
	repair(t, a, b)
	if got := len(a.Identities()); got != 6 {
		t.Errorf("%d identities, want 6", got)
	}
	// b takes part first: its contexts and a's differ until a has it, too.
	for _, e := range []*statestore.Engine{b, a} {
		if err := e.Retire(ctx, old); err != nil {
			t.Fatal(err)
		}
	}
	slot := placement.Slot("count", "k")
	if got := a.Seen("count", slot).Replicas(); len(got) != 0 {
		t.Errorf("contexts still name %v", got)
	}
	if got := repair(t, a, b); got != 0 {
		t.Errorf("equal replicas exchanged %d states", got)
	}
	mustCommit(t, a, commitOf("count", "k", "", inc(1)))
	repair(t, a, b)
	wantCount(t, a, "k", 6)
	wantCount(t, b, "k", 6)
	_, states := a.SlotStates("count", slot, []string{"k"})
	s, err := crdt.Decode(states[0].State)
	if err != nil {
		t.Fatal(err)
	}
	dots := 0
	s.Live(func(crdt.Dot) bool { dots++; return true })
	if dots != 1 {
		t.Errorf("%d live dots, want 1", dots)
	}
	if got := a.Status().Identities; got != 1 {
		t.Errorf("status has %d identities, want the own one", got)
	}
	// A store that was away learns it by a comparison, and gets all of it.
	late, _ := publishing(t)
	repair(t, late, a)
	wantCount(t, late, "k", 6)
	if !late.Seen("count", slot).Retired().Has(old[0]) || !maps.Equal(hashes(a), hashes(late)) {
		t.Error("the comparison did not bring what is retired")
	}
	// All of it is there after a restart, from the log and from a log snapshot.
	want := hashes(a)
	for range 2 {
		if err := a.Age(time.Hour); err != nil {
			t.Fatal(err)
		}
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		a = configured(t, statestore.Config{Dir: dir})
		if got := hashes(a); !maps.Equal(got, want) {
			t.Errorf("hashes %v became %v", want, got)
		}
		if !a.Seen("count", slot).Retired().Has(old[0]) {
			t.Error("what is retired was forgotten")
		}
		wantCount(t, a, "k", 6)
	}
}

// fleet is some engines that exchange what they like, in any order, with losses.
type fleet struct {
	t       *testing.T
	engines []*statestore.Engine
	wires   []*wire
	// sent is all that was ever published: any of it may come at any time, or never.
	sent  []*replicationv1.Delta
	disks []*faultfs.FS
}

func (f *fleet) start(i int) {
	e := open(f.t, statestore.Config{Node: fmt.Sprint("node-", i+1), Dir: "/d", FS: f.disks[i], Logger: quiet(), SegmentBytes: 3000})
	if err := e.Configure(context.Background(), withLevel(0, "node-1", "node-2", "node-3")); err != nil {
		f.t.Fatal(err)
	}
	e.Connect(statestore.Links{Publisher: f.wires[i]})
	f.engines[i] = e
}

func (f *fleet) collect() {
	for _, w := range f.wires {
		f.sent = append(f.sent, w.take()...)
	}
}

// TestReplicasConverge: whatever is lost, doubled or late, and whatever happens while rounds are under way, rounds alone make
// all replicas equal; no increment is lost or counted twice.
func TestReplicasConverge(t *testing.T) {
	keys := keysOfOneSlot("tags", 3)
	rapid.Check(t, func(rt *rapid.T) {
		f := &fleet{t: t}
		for i := range 3 {
			f.disks, f.wires, f.engines = append(f.disks, &faultfs.FS{}), append(f.wires, &wire{}), append(f.engines, nil)
			f.start(i)
		}
		defer func() {
			for _, e := range f.engines {
				e.Close()
			}
		}()
		total := uint64(0)
		engine := rapid.IntRange(0, 2)
		var act func(depth int)
		rounds := func(a, b int, typ string, depth int) {
			r := &round{t: t, a: f.engines[a], b: f.engines[b], typ: typ, slot: placement.Slot(typ, keys[0])}
			if depth == 0 {
				maybe := func() {
					for range rapid.IntRange(0, 2).Draw(rt, "meanwhile") {
						act(1)
					}
				}
				r.afterOffer, r.afterKeys, r.midway, r.lastWord = maybe, maybe, maybe, maybe
			}
			r.run()
		}
		act = func(depth int) {
			i, key := engine.Draw(rt, "engine"), rapid.SampledFrom(keys).Draw(rt, "key")
			e := f.engines[i]
			el := rapid.SampledFrom([]string{"x", "y"}).Draw(rt, "element")
			switch rapid.IntRange(0, 9).Draw(rt, "action") {
			case 0, 1:
				mustCommit(t, e, commitOf("tags", key, "", add(el)))
			case 2:
				mustCommit(t, e, commitOf("tags", key, "", take(el)))
			case 3:
				mustCommit(t, e, commitOf("tags", key, "", del()))
			case 4:
				mustCommit(t, e, commitOf("count", keys[0], "", inc(1)))
				total++
			case 5, 6, 7:
				f.collect()
				if len(f.sent) > 0 {
					merge(t, e, []*replicationv1.Delta{rapid.SampledFrom(f.sent).Draw(rt, "delta")})
				}
			case 8:
				if depth == 0 {
					rounds(i, (i+1+rapid.IntRange(0, 1).Draw(rt, "other"))%3, rapid.SampledFrom([]string{"tags", "count"}).Draw(rt, "type"), 0)
				}
			case 9:
				if depth > 0 {
					return
				}
				f.collect()
				if rapid.Bool().Draw(rt, "age") {
					if err := e.Age(time.Hour); err != nil {
						t.Fatal(err)
					}
					return
				}
				if err := e.Close(); err != nil {
					t.Fatal(err)
				}
				f.start(i)
			}
		}
		for range rapid.IntRange(1, 40).Draw(rt, "steps") {
			act(0)
		}
		for range 2 {
			for i := range 3 {
				for _, typ := range []string{"tags", "count"} {
					rounds(i, (i+1)%3, typ, 1)
				}
			}
		}
		for i, e := range f.engines {
			consistent(t, e)
			if !maps.Equal(hashes(e), hashes(f.engines[0])) {
				rt.Fatalf("engine %d differs: %v and %v", i, hashes(e), hashes(f.engines[0]))
			}
			if got := read(t, e, "count", keys[0]).GetValue().GetGcounter(); got != total {
				rt.Fatalf("engine %d counts %d, want %d", i, got, total)
			}
			for _, key := range keys {
				if got, want := elements(t, e, key), elements(t, f.engines[0], key); got != want {
					rt.Fatalf("engine %d has %q in %s, the first %q", i, got, key, want)
				}
			}
		}
		// Nothing that comes late changes anything.
		before := hashes(f.engines[0])
		f.collect()
		merge(t, f.engines[0], f.sent)
		if after := hashes(f.engines[0]); !maps.Equal(before, after) {
			rt.Fatal("late deltas changed a replica that has seen everything")
		}
	})
}
