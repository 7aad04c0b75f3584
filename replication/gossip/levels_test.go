package gossip_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-mesh/holdfast/internal/placement"
	"github.com/holdfast-mesh/holdfast/internal/simnet"
	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	replicationv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/replication/v1"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
	"github.com/holdfast-mesh/holdfast/statestore/crdt"
)

const (
	local    = configv1.WriteLevel_WRITE_LEVEL_LOCAL
	majority = configv1.WriteLevel_WRITE_LEVEL_MAJORITY
	all      = configv1.WriteLevel_WRITE_LEVEL_ALL
)

// reached counts how a write's wait ended.
type reached struct{ yes, no atomic.Int32 }

func (r *reached) done(ok bool) {
	if ok {
		r.yes.Add(1)
	} else {
		r.no.Add(1)
	}
}

func (r *reached) String() string {
	return fmt.Sprintf("%d reached, %d not", r.yes.Load(), r.no.Load())
}

// commit counts one, pushes it and waits for its level.
func (s *store) commit(key string, l configv1.WriteLevel, timeout time.Duration, push bool) *reached {
	d := s.Add("t", key, 1)
	if push {
		s.member.Node.Publish([]*replicationv1.Delta{d})
	}
	state, err := crdt.Decode(d.GetState())
	if err != nil {
		panic(err)
	}
	dot := crdt.Dot{Replica: s.Replica(), Seq: state.Context().Next(s.Replica()) - 1}
	r := &reached{}
	s.member.Node.Await("t", placement.Slot("t", key), dot, l, time.Now().Add(timeout), r.done)
	return r
}

// acknowledged is a configuration whose commits wait for others.
func acknowledged(c *storev1.Configure, l configv1.WriteLevel) *storev1.Configure {
	c.Types[0].Write = l
	return c
}

func TestLevels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New(11, calm)
		stores := mesh(t, n, 3)
		defer stop(stores...)
		for _, s := range stores {
			s.member.Node.Configure(acknowledged(configuration(2, 1, 2, 3), majority))
		}
		within(t, 5*time.Second, "all connected", connected(stores))
		check := func(what string, r *reached, yes, no int32, soon time.Duration) {
			t.Helper()
			within(t, soon, what, func() bool { return r.yes.Load()+r.no.Load() > 0 })
			if r.yes.Load() != yes || r.no.Load() != no {
				t.Errorf("%s: %s", what, r)
			}
		}
		check("local", stores[0].commit("a", local, time.Second, true), 1, 0, 0)
		check("majority", stores[0].commit("a", majority, time.Second, true), 1, 0, 10*time.Millisecond)
		check("all", stores[0].commit("a", all, time.Second, true), 1, 0, 10*time.Millisecond)
		// Not pushed: the next rounds bring it, and their contexts are acknowledgements.
		check("all, by anti-entropy", stores[0].commit("b", all, time.Minute, false), 1, 0, 15*time.Second)
		// A store that is away holds up ALL and not MAJORITY.
		n.Cut("node-1", "node-3")
		n.Cut("node-3", "node-1")
		n.Cut("node-2", "node-3")
		n.Cut("node-3", "node-2")
		check("majority without one", stores[0].commit("a", majority, time.Second, true), 1, 0, 10*time.Millisecond)
		check("all without one", stores[0].commit("a", all, time.Second, true), 0, 1, 1001*time.Millisecond)
		// The minority reaches nothing, whoever it thinks is alive.
		time.Sleep(10 * time.Second)
		check("majority in the minority", stores[2].commit("a", majority, time.Second, true), 0, 1, 1001*time.Millisecond)
		late := stores[0].commit("a", all, time.Minute, true)
		time.Sleep(time.Second)
		if late.yes.Load()+late.no.Load() != 0 {
			t.Errorf("all without one ended: %s", late)
		}
		n.Heal()
		check("all, once the other is back", late, 1, 0, 20*time.Second)
	})
}

// Of a slot that is placed elsewhere, only the placed replicas count.
func TestLevelsOfASlotThatIsPlacedElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New(12, calm)
		stores := mesh(t, n, 4)
		defer stop(stores...)
		c := acknowledged(configuration(2, 1, 2, 3, 4), all)
		c.Types[0].Replicas = 2
		for _, s := range stores {
			s.member.Node.Configure(c)
		}
		within(t, 5*time.Second, "all connected", connected(stores))
		key, placed, outside := elsewhere(t, c, stores)
		r := outside.commit(key, all, time.Second, true)
		within(t, 10*time.Millisecond, "acknowledged", func() bool { return r.yes.Load() == 1 })
		for _, s := range stores {
			want := uint64(0)
			if s == outside || s == placed[0] || s == placed[1] {
				want = 1
			}
			if got := s.Values()["t/"+key]; got != want {
				t.Errorf("%s has %d, want %d", node(s.index), got, want)
			}
		}
		placed[1].crash()
		r = outside.commit(key, majority, time.Second, true) // Two of two.
		within(t, 1001*time.Millisecond, "not acknowledged", func() bool { return r.no.Load() == 1 })
	})
}

// elsewhere finds a key, the two stores that are placed for it, and one that is not.
func elsewhere(t *testing.T, c *storev1.Configure, stores []*store) (key string, placed []*store, outside *store) {
	t.Helper()
	table, err := placement.New(c.GetPlacement())
	if err != nil {
		t.Fatal(err)
	}
	key = "somewhere"
	by := map[string]*store{}
	for _, s := range stores {
		by[node(s.index)] = s
	}
	for _, m := range table.Replicas(placement.Slot("t", key), int(c.GetTypes()[0].GetReplicas())) {
		placed = append(placed, by[m.GetName()])
		delete(by, m.GetName())
	}
	for _, s := range stores {
		if by[node(s.index)] != nil {
			return key, placed, s
		}
	}
	t.Fatal("all stores are placed")
	return "", nil, nil
}

func TestAwaitEndsWithTheNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stores := mesh(t, simnet.New(13, calm), 2)
		within(t, 5*time.Second, "all connected", connected(stores))
		stores[1].crash()
		r := stores[0].commit("a", all, time.Hour, true)
		stop(stores...)
		if r.no.Load() != 1 {
			t.Errorf("after the end: %s", r)
		}
		if r = stores[0].commit("a", all, time.Hour, false); r.no.Load() != 1 {
			t.Errorf("of an ended node: %s", r)
		}
	})
}
