package gossip_test

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-mesh/holdfast/internal/simnet"
	"github.com/holdfast-mesh/holdfast/replication/gossip/sim"
)

// folded is true once no store's contexts name an identity but these.
func folded(stores []*store, live ...uint64) func() bool {
	return func() bool {
		for _, s := range stores {
			for _, id := range s.Named() {
				if !slices.Contains(live, id) {
					return false
				}
			}
		}
		return true
	}
}

func identities(stores []*store) (out []uint64) {
	for _, s := range stores {
		out = append(out, s.Replica())
	}
	return out
}

// fill makes all stores change a hundred entities, and deletes some.
func fill(stores []*store) {
	for i, s := range stores {
		for k := range 100 {
			s.add(fmt.Sprint("k", k))
			if k%7 == i {
				s.remove(fmt.Sprint("k", k))
			}
		}
	}
}

// Contexts do not grow with restarts: identities that are over go once all have seen the same of them.
func TestIdentitiesAreFoldedAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New(31, calm)
		stores := mesh(t, n, 3)
		defer func() { stop(stores...) }()
		within(t, 5*time.Second, "all connected", connected(stores))
		fill(stores)
		for i := range 6 {
			s := stores[i%3]
			// The first is not published: only its own disk has it.
			s.Add("t", fmt.Sprint("own", i), 1)
			stores[i%3] = s.restart(t, n, s.Restart(s.Replica()+1), configuration(1, 1, 2, 3))
			within(t, 20*time.Second, "equal", equal(stores))
			took := within(t, 60*time.Second, "folded away", folded(stores, identities(stores)...))
			t.Logf("folded away %s after the restart", took)
			fill(stores)
		}
		within(t, 20*time.Second, "equal", equal(stores))
		values := stores[0].Values()
		for i := range 6 {
			if got := values[fmt.Sprint("t/own", i)]; got != 1 {
				t.Errorf("own%d is %d, want 1", i, got)
			}
		}
		for _, s := range stores {
			if r := s.Residues(); r > 0 {
				t.Errorf("%s holds %d residues", node(s.index), r)
			}
		}
	})
}

// A member that is away blocks retirements, and deletes nothing by it.
func TestAwayMemberBlocksRetirement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New(32, calm)
		stores := mesh(t, n, 3)
		defer func() { stop(stores...) }()
		within(t, 5*time.Second, "all connected", connected(stores))
		fill(stores)
		within(t, 5*time.Second, "equal", equal(stores))
		old := stores[1].Replica()
		// What it did while nobody listened is on its disk only.
		away := stores[2]
		away.Add("t", "unseen", 1)
		away.crash()
		disk := away.Restart(away.Replica() + 1)
		stores[1] = stores[1].restart(t, n, stores[1].Restart(old+1), configuration(1, 1, 2, 3))
		stores[0].remove("k50")
		time.Sleep(10 * time.Minute)
		if !slices.Contains(stores[0].Named(), old) {
			t.Error("an identity was retired without the one who is away")
		}
		stores[2] = start(t, n, 3, disk)
		stores[2].member.Node.Configure(configuration(1, 1, 2, 3))
		within(t, 30*time.Second, "equal", equal(stores))
		if got := stores[0].Values(); got["t/unseen"] != 1 || got["t/k50"] != 0 {
			t.Errorf("unseen is %d, want 1; the deleted one is %d", got["t/unseen"], got["t/k50"])
		}
		within(t, 60*time.Second, "folded away", folded(stores, identities(stores)...))
	})
}

// A member comes back with an empty disk, or an old one, while others retired identities meanwhile, and while it was no
// member of the placement (else it had blocked that). Nothing that was deleted comes back, and it follows in the end.
func TestRestoredDisk(t *testing.T) {
	for _, name := range []string{"empty", "old"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := simnet.New(33, calm)
				stores := mesh(t, n, 3)
				defer func() { stop(stores...) }()
				within(t, 5*time.Second, "all connected", connected(stores))
				fill(stores)
				within(t, 5*time.Second, "equal", equal(stores))
				third := stores[2]
				backup := third.Restart(third.Replica() + 1)
				third.crash()
				for _, s := range stores[:2] {
					s.member.Node.Configure(configuration(2, 1, 2))
				}
				// The others delete, change, restart and retire.
				for k := range 40 {
					stores[k%2].remove(fmt.Sprint("k", k))
				}
				for i := range 2 {
					s := stores[i]
					stores[i] = s.restart(t, n, s.Restart(s.Replica()+1), configuration(2, 1, 2))
					within(t, 20*time.Second, "equal", equal(stores[:2]))
					within(t, 60*time.Second, "folded away", folded(stores[:2], append(identities(stores[:2]), third.Replica())...))
				}
				want := stores[0].Values()
				disk := backup
				if name == "empty" {
					disk = sim.NewStore(node(3), third.Replica()+1, counters("t"))
				}
				stores[2] = start(t, n, 3, disk)
				for _, s := range stores {
					s.member.Node.Configure(configuration(3, 1, 2, 3))
				}
				within(t, 30*time.Second, "equal", equal(stores))
				for key, value := range want {
					if got := stores[2].Values()[key]; got != value {
						t.Errorf("%s is %d, want %d", key, got, value)
					}
				}
				if got := len(stores[0].Values()); got != len(want) {
					t.Errorf("%d entities, want %d", got, len(want))
				}
				within(t, 60*time.Second, "folded away", folded(stores, identities(stores)...))
				fill(stores)
				within(t, 5*time.Second, "equal", equal(stores))
			})
		})
	}
}

// A mesh of one folds its own identities away.
func TestAloneFoldsItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New(34, calm)
		stores := mesh(t, n, 1)
		defer func() { stop(stores...) }()
		fill(stores)
		stores[0] = stores[0].restart(t, n, stores[0].Restart(stores[0].Replica()+1), configuration(1, 1))
		within(t, 5*time.Second, "folded away", folded(stores, identities(stores)...))
	})
}
