package gossip_test

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-mesh/holdfast/internal/placement"
	"github.com/holdfast-mesh/holdfast/internal/simnet"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
	"github.com/holdfast-mesh/holdfast/statestore/crdt"
)

// sparse is a mesh whose slots are placed on two of its stores each.
func sparse(t *testing.T, n *simnet.Net, size int) ([]*store, *storev1.Configure) {
	t.Helper()
	stores := mesh(t, n, size)
	var members []byte
	for _, s := range stores {
		members = append(members, s.index)
	}
	c := configuration(2, members...)
	c.Types[0].Replicas = 2
	for _, s := range stores {
		s.member.Node.Configure(c)
	}
	within(t, 5*time.Second, "all connected", connected(stores))
	return stores, c
}

func TestJoinAndLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New(21, calm)
		stores, c := sparse(t, n, 4)
		defer func() { stop(stores...) }()
		key, placed, outside := elsewhere(t, c, stores)
		slot := placement.Slot("t", key)
		placed[0].add(key)
		time.Sleep(5 * time.Second)
		if got := outside.Values()["t/"+key]; got != 0 {
			t.Fatalf("a store that is not placed has %d", got)
		}
		joined := make(chan error, 1)
		outside.member.Node.Join("t", slot, time.Now().Add(time.Second), func(err error) { joined <- err })
		within(t, 100*time.Millisecond, "joined", func() bool { return len(joined) == 1 })
		if err := <-joined; err != nil || outside.Values()["t/"+key] != 1 {
			t.Fatalf("joined: %v, it has %d", err, outside.Values()["t/"+key])
		}
		// From now on deltas come at once, of both, and go back.
		placed[0].add(key)
		placed[1].add(key)
		outside.add(key)
		three := []*store{placed[0], placed[1], outside}
		within(t, 10*time.Millisecond, "counted", counts(three, key, 4))
		// The interest outlives the streams.
		n.Cut(node(outside.index), node(placed[0].index))
		n.Cut(node(placed[0].index), node(outside.index))
		time.Sleep(20 * time.Second)
		placed[0].Add("t", key, 1)
		n.Heal()
		within(t, 20*time.Second, "counted", counts(three, key, 5))
		within(t, 20*time.Second, "all connected", connected(stores))
		placed[0].add(key)
		within(t, 10*time.Millisecond, "counted", counts(three, key, 6))

		// It leaves when all placed replicas have what it has.
		outside.Add("t", key, 1)
		seen, _ := outside.SlotSummary("t", slot)
		r := &reached{}
		outside.member.Node.Leave("t", slot, seen, time.Now().Add(5*time.Second), r.done)
		within(t, 200*time.Millisecond, "left", func() bool { return r.yes.Load() == 1 })
		if !counts(placed, key, 7)() {
			t.Error("it left before the replicas had what it has")
		}
		outside.Drop("t", slot)
		time.Sleep(3 * time.Second)
		placed[0].add(key)
		time.Sleep(5 * time.Second)
		if got := outside.Values()["t/"+key]; got != 0 {
			t.Errorf("it left, and has %d", got)
		}
	})
}

func TestLeaveWaitsForAllReplicas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New(22, calm)
		stores, c := sparse(t, n, 4)
		defer func() { stop(stores...) }()
		key, placed, outside := elsewhere(t, c, stores)
		slot := placement.Slot("t", key)
		outside.add(key)
		placed[1].crash()
		seen, _ := outside.SlotSummary("t", slot)
		r := &reached{}
		outside.member.Node.Leave("t", slot, seen, time.Now().Add(3*time.Second), r.done)
		within(t, 3001*time.Millisecond, "not covered", func() bool { return r.no.Load() == 1 })
	})
}

// A slot that was left and not dropped, for something came in between, is left soon after; and one that is asked for while it
// is left stays.
func TestLeaveAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New(28, calm)
		stores, c := sparse(t, n, 4)
		defer func() { stop(stores...) }()
		key, placed, outside := elsewhere(t, c, stores)
		slot := placement.Slot("t", key)
		outside.add(key)
		leave := func() *reached {
			seen, _ := outside.SlotSummary("t", slot)
			r := &reached{}
			outside.member.Node.Leave("t", slot, seen, time.Now().Add(10*time.Second), r.done)
			return r
		}
		for range 2 {
			r := leave()
			within(t, 200*time.Millisecond, "left", func() bool { return r.yes.Load() == 1 })
			outside.Add("t", key, 1)
		}
		placed[0].crash()
		r := leave()
		time.Sleep(time.Second)
		if r.yes.Load()+r.no.Load() != 0 {
			t.Fatalf("left without one of the replicas: %s", r)
		}
		joined := make(chan error, 1)
		outside.member.Node.Join("t", slot, time.Now().Add(time.Second), func(err error) { joined <- err })
		if r.no.Load() != 1 {
			t.Errorf("asked for while it is left: %s", r)
		}
		within(t, 300*time.Millisecond, "joined", func() bool { return len(joined) == 1 })
		if err := <-joined; err != nil {
			t.Error(err)
		}
		placed[1].add(key)
		within(t, 100*time.Millisecond, "counted", counts([]*store{placed[1], outside}, key, 4))
	})
}

// A slot in which all that was written is of retired identities has no runs in its context, and is not nothing.
func TestLeaveOfRetiredOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New(24, calm)
		stores, c := sparse(t, n, 4)
		defer func() { stop(stores...) }()
		key, _, outside := elsewhere(t, c, stores)
		seen := &crdt.Context{}
		seen.Retire(crdt.NewRetired(5))
		r := &reached{}
		outside.member.Node.Leave("t", placement.Slot("t", key), seen, time.Now().Add(time.Second), r.done)
		within(t, 1001*time.Millisecond, "not covered", func() bool { return r.no.Load() == 1 })
	})
}

func TestJoinOfNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New(23, calm)
		stores, c := sparse(t, n, 4)
		defer func() { stop(stores...) }()
		key, placed, outside := elsewhere(t, c, stores)
		placed[0].crash()
		placed[1].crash()
		var failed, ended atomic.Int32
		note := func(n *atomic.Int32) func(error) {
			return func(err error) {
				if err != nil {
					n.Add(1)
				}
			}
		}
		outside.member.Node.Join("t", placement.Slot("t", key), time.Now().Add(time.Second), note(&failed))
		within(t, 1001*time.Millisecond, "an error", func() bool { return failed.Load() == 1 })
		outside.member.Node.Join("t", placement.Slot("t", key), time.Now().Add(time.Hour), note(&ended))
		stop(outside)
		if ended.Load() != 1 || failed.Load() != 1 {
			t.Errorf("%d joins ended with the node, want 1; %d before", ended.Load(), failed.Load())
		}
	})
}

// A changed placement moves slots: the stores that got them are filled by those that still hold them, which may forget
// them then.
func TestPlacementMoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New(24, calm)
		stores, _ := sparse(t, n, 3)
		keys := []string{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j"}
		for i, key := range keys {
			stores[i%3].add(key)
		}
		time.Sleep(3 * time.Second)
		four := append(stores, start(t, n, 4, fresh(4)))
		defer func() { stop(four...) }()
		c := configuration(3, 2, 3, 4) // Store 1 leaves, store 4 comes.
		c.Types[0].Replicas = 2
		for _, s := range four {
			s.member.Node.Configure(c)
		}
		table, err := placement.New(c.GetPlacement())
		if err != nil {
			t.Fatal(err)
		}
		by := map[string]*store{}
		for _, s := range four {
			by[node(s.index)] = s
		}
		within(t, 20*time.Second, "all slots filled", func() bool {
			for _, key := range keys {
				for _, m := range table.Replicas(placement.Slot("t", key), 2) {
					if by[m.GetName()].Values()["t/"+key] != 1 {
						return false
					}
				}
			}
			return true
		})
		// What store 1 still holds it may drop.
		for _, h := range stores[0].SlotHashes("t") {
			seen, _ := stores[0].SlotSummary("t", h.GetSlot())
			r := &reached{}
			stores[0].member.Node.Leave("t", h.GetSlot(), seen, time.Now().Add(10*time.Second), r.done)
			within(t, 10*time.Second, "covered", func() bool { return r.yes.Load() == 1 })
			stores[0].Drop("t", h.GetSlot())
		}
		time.Sleep(5 * time.Second)
		if got := stores[0].Values(); len(got) != 0 {
			t.Errorf("it got back %v", got)
		}
	})
}

// Stores that have different placements do each other no harm, and agree once their placements do.
func TestEpochsDiffer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New(25, calm)
		stores, _ := sparse(t, n, 3)
		defer func() { stop(stores...) }()
		next := configuration(5, 1, 2, 3)
		next.Placement.Seed = 99
		stores[0].member.Node.Configure(next)
		for i := range 30 {
			stores[i%3].add(string(rune('a' + i%10)))
		}
		time.Sleep(10 * time.Second)
		for _, s := range stores[1:] {
			s.member.Node.Configure(next)
		}
		within(t, 20*time.Second, "equal", equal(stores))
		for key, got := range stores[0].Values() {
			if got != 3 {
				t.Errorf("%s is %d, want 3", key, got)
			}
		}
		// An older one is not taken.
		stores[0].member.Node.Configure(configuration(1, 1))
		stores[0].add("new")
		within(t, 10*time.Millisecond, "pushed", counts(stores, "new", 1))
	})
}

func TestNothingGoesBeforeConfigure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New(26, calm)
		a, b := start(t, n, 1, fresh(1)), start(t, n, 2, fresh(2))
		stores := []*store{a, b}
		defer stop(stores...)
		within(t, 5*time.Second, "all connected", connected(stores))
		b.member.Node.Configure(configuration(1, 1, 2))
		a.add("k")
		b.add("k")
		time.Sleep(5 * time.Second)
		if got := b.Values()["t/k"]; got != 1 {
			t.Errorf("it has %d, want 1", got)
		}
		r := a.commit("k", all, time.Second, false)
		within(t, 1001*time.Millisecond, "not acknowledged", func() bool { return r.no.Load() == 1 })
		a.member.Node.Configure(configuration(1, 1, 2))
		within(t, 5*time.Second, "counted", counts(stores, "k", 3))
	})
}

// What is asked for of a deleted slot's context is covered where nothing is left.
func TestLeaveWithNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stores, c := sparse(t, simnet.New(27, calm), 4)
		defer func() { stop(stores...) }()
		key, _, outside := elsewhere(t, c, stores)
		r := &reached{}
		outside.member.Node.Leave("t", placement.Slot("t", key), &crdt.Context{}, time.Now().Add(5*time.Second), r.done)
		within(t, 300*time.Millisecond, "left", func() bool { return r.yes.Load() == 1 })
	})
}
