package statestore_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	replicationv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/replication/v1"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
	"github.com/holdfast-mesh/holdfast/statestore"
	"github.com/holdfast-mesh/holdfast/statestore/crdt"
	"github.com/holdfast-mesh/holdfast/statestore/wal/faultfs"
)

// pair is two stores of which each gets all that the other publishes, unless the wire is cut.
type pair struct {
	t      *testing.T
	stores map[string]*statestore.Engine
	wg     sync.WaitGroup
	mu     sync.Mutex
	cut    bool
	joins  int
	leaves int
	fills  int
	// filling: fills take a comparison.
	filling bool
}

// end is one store's end of the wire.
type end struct {
	p    *pair
	name string
}

func (w end) other() *statestore.Engine {
	for name, e := range w.p.stores {
		if name != w.name {
			return e
		}
	}
	return nil
}

func (w end) dead() bool { w.p.mu.Lock(); defer w.p.mu.Unlock(); return w.p.cut }

func (w end) Publish(deltas []*replicationv1.Delta) {
	if w.dead() {
		return
	}
	w.p.wg.Go(func() {
		if err := w.other().Merge(context.Background(), deltas); err != nil {
			w.p.t.Errorf("merge at the other end of %s: %v", w.name, err)
		}
	})
}

func (w end) AskRights(typ, key string, amount uint64) {
	if w.dead() {
		return
	}
	to := w.p.stores[w.name].Replica()
	w.p.wg.Go(func() {
		if err := w.other().GrantRights(context.Background(), typ, key, to, amount); err != nil {
			w.p.t.Errorf("grant %s: %v", w.name, err)
		}
	})
}

func (w end) Await(_ string, _ uint32, _ crdt.Dot, _ configv1.WriteLevel, _ time.Time, done func(bool)) {
	done(true)
}

// Join runs a comparison with the other store, which is placed.
func (w end) Join(typ string, slot uint32, _ time.Time, done func(error)) {
	if w.dead() {
		done(fmt.Errorf("nobody is there"))
		return
	}
	w.p.mu.Lock()
	w.p.joins++
	w.p.mu.Unlock()
	w.p.wg.Go(func() {
		r := &round{t: w.p.t, a: w.p.stores[w.name], b: w.other(), typ: typ, slot: slot}
		r.run()
		done(nil)
	})
}

// Fill is Join of a slot that this store is placed for, too.
func (w end) Fill(typ string, slot uint32, deadline time.Time, done func(error)) {
	w.p.mu.Lock()
	w.p.fills++
	w.p.mu.Unlock()
	if !w.p.filling {
		done(nil)
		return
	}
	w.Join(typ, slot, deadline, done)
}

func (w end) Leave(typ string, slot uint32, seen *crdt.Context, _ time.Time, done func(bool)) {
	w.p.mu.Lock()
	w.p.leaves++
	w.p.mu.Unlock()
	w.p.wg.Go(func() { done(!w.dead() && w.other().Seen(typ, slot).Covers(seen)) })
}

// newPair opens two stores on disks in memory.
func newPair(t *testing.T, c *storev1.Configure) *pair {
	p := &pair{t: t, stores: map[string]*statestore.Engine{}}
	for _, name := range []string{"a", "b"} {
		e, err := statestore.Open(statestore.Config{Node: name, Dir: "/data", FS: &faultfs.FS{}, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		if err := e.Configure(context.Background(), c); err != nil {
			t.Fatal(err)
		}
		p.stores[name] = e
	}
	for name, e := range p.stores {
		e.Connect(statestore.Links{Publisher: end{p, name}, Replicas: end{p, name}})
	}
	return p
}

func (p *pair) close() {
	p.wg.Wait()
	for _, e := range p.stores {
		if err := e.Close(); err != nil {
			p.t.Error(err)
		}
	}
}

func configure(t *configv1.EntityType, members ...string) *storev1.Configure {
	t.Type, t.Consistency, t.Write = "t", configv1.Consistency_CONSISTENCY_EVENTUAL, configv1.WriteLevel_WRITE_LEVEL_LOCAL
	c := &storev1.Configure{Types: []*configv1.EntityType{t}, Placement: &configv1.Placement{Epoch: 1}}
	for _, m := range members {
		c.Placement.Members = append(c.Placement.Members, &configv1.Member{Name: m, Weight: 1})
	}
	return c
}

func by(n int64) *holdfastv1.Operation {
	return &holdfastv1.Operation{Operation: &holdfastv1.Operation_Change{Change: &holdfastv1.Change{By: n}}}
}

func TestRightsMoveToWhoNeedsThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, configure(&configv1.EntityType{Model: configv1.Model_MODEL_BCOUNTER}, "a", "b"))
		defer p.close()
		a, b := p.stores["a"], p.stores["b"]
		value := func(e *statestore.Engine) int64 { return read(t, e, "t", "stock").GetValue().GetBcounter().GetValue() }
		mustCommit(t, a, commitOf("t", "stock", "", by(10)))
		synctest.Wait()
		mustCommit(t, b, commitOf("t", "stock", "r1", by(-4)))
		synctest.Wait()
		if value(a) != 6 || value(b) != 6 {
			t.Errorf("after a decrement elsewhere: %d and %d, want 6", value(a), value(b))
		}
		_, err := b.Commit(context.Background(), commitOf("t", "stock", "", by(-7)))
		wantError(t, "below the floor", err, codes.FailedPrecondition, notApplied, "floor")
		p.mu.Lock()
		p.cut = true
		p.mu.Unlock()
		_, err = b.Commit(context.Background(), commitOf("t", "stock", "", by(-6)))
		wantError(t, "rights out of reach", err, codes.Unavailable, notApplied, "in time")
		if value(a) != 6 || value(b) != 6 {
			t.Errorf("after refusals: %d and %d, want 6", value(a), value(b))
		}
	})
}

func TestParkedChangeEndsWithTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, configure(&configv1.EntityType{Model: configv1.Model_MODEL_BCOUNTER}, "a", "b"))
		mustCommit(t, p.stores["a"], commitOf("t", "stock", "", by(10)))
		synctest.Wait()
		p.mu.Lock()
		p.cut = true
		p.mu.Unlock()
		answers := make(chan error, 1)
		p.stores["b"].CommitAsync(commitOf("t", "stock", "", by(-4)), time.Time{}, func(_ *storev1.Committed, err error) { answers <- err })
		synctest.Wait()
		p.close()
		wantError(t, "parked", <-answers, codes.Unavailable, notApplied, "shutting down")
	})
}

func TestEntitiesEndByTheirTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, configure(&configv1.EntityType{Model: configv1.Model_MODEL_GCOUNTER, Ttl: durationpb.New(time.Minute)}, "a", "b"))
		defer p.close()
		a, b := p.stores["a"], p.stores["b"]
		mustCommit(t, a, commitOf("t", "old", "", inc(1)))
		for range 4 { // Changed again and again at either store: it stays.
			time.Sleep(40 * time.Second)
			mustCommit(t, b, commitOf("t", "used", "", inc(1)))
		}
		synctest.Wait()
		for name, e := range p.stores {
			if read(t, e, "t", "old").Exists {
				t.Errorf("%s still has what nobody changed for 160 s", name)
			}
			if !read(t, e, "t", "used").Exists {
				t.Errorf("%s lost what was changed within its ttl", name)
			}
		}
		mustCommit(t, b, commitOf("t", "old", "", inc(5)))
		synctest.Wait()
		if got := read(t, a, "t", "old").GetValue().GetGcounter(); got != 5 {
			t.Errorf("created again after its ttl: %d, want 5", got)
		}
	})
}

func TestStoreOutsideThePlacementJoinsAndLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		typ := &configv1.EntityType{Model: configv1.Model_MODEL_GCOUNTER, PassivateAfter: durationpb.New(10 * time.Second)}
		p := newPair(t, configure(typ, "a"))
		defer p.close()
		a, b := p.stores["a"], p.stores["b"]
		role := func() string {
			t.Helper()
			in, err := b.Inspect(context.Background(), entity("t", "k"))
			if err != nil {
				t.Fatal(err)
			}
			return in.Role
		}
		mustCommit(t, a, commitOf("t", "k", "", inc(2)))
		p.mu.Lock()
		p.cut = true
		p.mu.Unlock()
		synctest.Wait()
		// b got the delta; but it is no replica, and answers nothing before a placed one filled its slot.
		_, err := b.Get(entity("t", "k"))
		wantError(t, "read without a replica", err, codes.Unavailable, notApplied, "not a replica")
		p.mu.Lock()
		p.cut = false
		p.mu.Unlock()
		want := func(e *statestore.Engine, want uint64) {
			t.Helper()
			if got := read(t, e, "t", "k").GetValue().GetGcounter(); got != want {
				t.Errorf("%s has %d, want %d", e.Node(), got, want)
			}
		}
		want(b, 2)
		mustCommit(t, b, commitOf("t", "k", "", inc(3)))
		synctest.Wait()
		want(a, 5)
		if role() != "joined" {
			t.Errorf("role while it is used is %s, want joined", role())
		}
		time.Sleep(30 * time.Second)
		if role() != "none" || p.joins != 1 || p.leaves == 0 {
			t.Errorf("role after idle time is %s after %d joins, %d leaves; want none, one join, a leave", role(), p.joins, p.leaves)
		}
		// Its own sequence goes on where it was: a new one from 1 would be taken for what is known already.
		want(b, 5)
		mustCommit(t, b, commitOf("t", "k", "", inc(1)))
		synctest.Wait()
		want(a, 6)
		want(b, 6)
	})
}
