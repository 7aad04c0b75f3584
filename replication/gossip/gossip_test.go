package gossip_test

import (
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/holdfast-mesh/holdfast/internal/simnet"
	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	replicationv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/replication/v1"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
	"github.com/holdfast-mesh/holdfast/replication/gossip"
	"github.com/holdfast-mesh/holdfast/replication/gossip/sim"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var calm = simnet.Faults{MinDelay: 100 * time.Microsecond, MaxDelay: time.Millisecond}

type store struct {
	*sim.Store
	member *sim.Member
	index  byte
	dead   bool
}

// add counts one and pushes it.
func (s *store) add(key string) {
	s.member.Node.Publish([]*replicationv1.Delta{s.Add("t", key, 1)})
}

// remove deletes an entity and pushes that.
func (s *store) remove(key string) {
	s.member.Node.Publish([]*replicationv1.Delta{s.Delete("t", key)})
}

func keys(t *testing.T) [][]byte {
	t.Helper()
	k, err := gossip.ParseKeys([]byte("MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\n"))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func node(index byte) string { return fmt.Sprint("node-", index) }

func counters(names ...string) map[string]*configv1.Shape {
	return sim.Types(configv1.Model_MODEL_GCOUNTER, names...)
}

// configuration has type t on all of the members.
func configuration(epoch uint64, members ...byte) *storev1.Configure {
	c := &storev1.Configure{Placement: &configv1.Placement{Epoch: epoch, Seed: 7}, Types: []*configv1.EntityType{{Type: "t"}}}
	for _, m := range members {
		c.Placement.Members = append(c.Placement.Members, &configv1.Member{Name: node(m), Weight: 1})
	}
	return c
}

func start(t *testing.T, n *simnet.Net, index byte, engine *sim.Store, change ...func(*gossip.Config)) *store {
	t.Helper()
	cfg := gossip.Config{
		Node: node(index), Replica: engine.Replica(), Keys: keys(t), Engine: engine,
		Join: []string{"10.0.0.1:7946", "10.0.0.2:7946"}, Logger: slog.New(slog.DiscardHandler), Seed: uint64(index),
	}
	for _, c := range change {
		c(&cfg)
	}
	m, err := sim.Start(n, int(index), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return &store{Store: engine, member: m, index: index}
}

// fresh makes an engine for a member's first incarnation.
func fresh(index byte) *sim.Store {
	return sim.NewStore(node(index), uint64(index)<<32|1, counters("t"))
}

// mesh starts stores that are all placed for everything.
func mesh(t *testing.T, n *simnet.Net, size int, change ...func(*gossip.Config)) []*store {
	t.Helper()
	var out []*store
	var members []byte
	for i := range size {
		members = append(members, byte(i+1))
	}
	for _, i := range members {
		s := start(t, n, i, fresh(i), change...)
		s.member.Node.Configure(configuration(1, members...))
		out = append(out, s)
	}
	return out
}

// restart crashes a store and brings it back with a disk, under a new identity.
func (s *store) restart(t *testing.T, n *simnet.Net, disk *sim.Store, c *storev1.Configure) *store {
	t.Helper()
	s.crash()
	again := start(t, n, s.index, disk)
	again.member.Node.Configure(c)
	return again
}

func (s *store) crash() {
	if !s.dead {
		s.dead = true
		s.member.Crash()
	}
}

func stop(stores ...*store) {
	for _, s := range stores {
		if !s.dead {
			s.dead = true
			s.member.Close()
		}
	}
	// Memberlist's last probes end by their timers, and the bubble's time stands still after the test's end.
	time.Sleep(time.Minute)
}

// within waits, in the bubble's time, until ok holds, and returns how long that took.
func within(t *testing.T, d time.Duration, what string, ok func() bool) time.Duration {
	t.Helper()
	start := time.Now()
	for !ok() {
		if time.Since(start) > d {
			t.Fatalf("not within %s: %s", d, what)
		}
		time.Sleep(time.Millisecond)
	}
	return time.Since(start)
}

func connected(stores []*store) func() bool {
	return func() bool {
		for _, s := range stores {
			n := 0
			for _, p := range s.member.Node.Peers() {
				if p.State == "alive" && p.Connected {
					n++
				}
			}
			if n != len(stores)-1 {
				return false
			}
		}
		return true
	}
}

func equal(stores []*store) func() bool {
	return func() bool {
		first := stores[0].Values()
		for _, s := range stores[1:] {
			if !maps.Equal(first, s.Values()) {
				return false
			}
		}
		return true
	}
}

// counts is true once all have a counter's value.
func counts(stores []*store, key string, want uint64) func() bool {
	return func() bool {
		for _, s := range stores {
			if s.Values()["t/"+key] != want {
				return false
			}
		}
		return true
	}
}

func TestDeltasArePushedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stores := mesh(t, simnet.New(1, calm), 5)
		defer stop(stores...)
		within(t, 5*time.Second, "all connected", connected(stores))
		for i := range 100 {
			stores[i%5].add(fmt.Sprint("k", i%7))
			took := within(t, 5*time.Millisecond, "everywhere", equal(stores))
			if i == 0 {
				t.Logf("first delta everywhere after %s", took)
			}
		}
	})
}

func TestAntiEntropyRepairsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stores := mesh(t, simnet.New(2, calm), 3)
		defer stop(stores...)
		within(t, 5*time.Second, "all connected", connected(stores))
		for i := range 800 {
			stores[i%3].Add("t", fmt.Sprint("k", i), 1) // Not published.
		}
		took := within(t, 10*time.Second, "repaired", equal(stores))
		if n := len(stores[0].Values()); n != 800 {
			t.Errorf("%d entities, want 800", n)
		}
		t.Logf("800 entities repaired after %s", took)
		// In step nothing is sent any more.
		before := stores[0].Merges()
		time.Sleep(10 * time.Second)
		if got := stores[0].Merges(); got != before {
			t.Errorf("%d states merged while all are equal", got-before)
		}
	})
}

func TestPartitionHeals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New(3, calm)
		stores := mesh(t, n, 5)
		defer stop(stores...)
		within(t, 5*time.Second, "all connected", connected(stores))
		for _, a := range []int{1, 2} {
			for _, b := range []int{3, 4, 5} {
				n.Cut(fmt.Sprint("node-", a), fmt.Sprint("node-", b))
				n.Cut(fmt.Sprint("node-", b), fmt.Sprint("node-", a))
			}
		}
		dead := within(t, 10*time.Second, "the other half seen dead", func() bool {
			for _, p := range stores[0].member.Node.Peers() {
				if p.Name == "node-4" && p.State == "dead" {
					return true
				}
			}
			return false
		})
		for i, s := range stores {
			s.add(fmt.Sprint("by-", i))
			s.add("shared")
		}
		// Longer than memberlist remembers the dead.
		time.Sleep(2 * time.Minute)
		n.Heal()
		took := within(t, 10*time.Second, "equal", equal(stores))
		within(t, 10*time.Second, "all connected", connected(stores))
		if got := stores[2].Values()["t/shared"]; got != 5 {
			t.Errorf("shared counter %d, want 5", got)
		}
		t.Logf("dead after %s, equal %s after the heal", dead, took)
	})
}

func TestRestartUnderTheSameNameWithANewIdentity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New(4, calm)
		stores := mesh(t, n, 3)
		defer func() { stop(stores...) }()
		within(t, 5*time.Second, "all connected", connected(stores))
		for i := range 5 {
			stores[1] = stores[1].restart(t, n, stores[1].Restart(stores[1].Replica()+1), configuration(1, 1, 2, 3))
			stores[1].add("k")
			stores[0].add("k")
			within(t, 5*time.Second, "counted", counts(stores, "k", uint64(2*(i+1))))
			within(t, 5*time.Second, "all connected", connected(stores))
		}
	})
}

func TestUnknownTypeIsRepairedOnceKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stores := mesh(t, simnet.New(5, calm), 2)
		defer stop(stores...)
		stores[1].SetTypes(nil)
		within(t, 5*time.Second, "all connected", connected(stores))
		stores[0].add("k")
		time.Sleep(5 * time.Second)
		if got := stores[1].Values(); len(got) != 0 {
			t.Errorf("merged %v of a type that was not known", got)
		}
		stores[1].SetTypes(counters("t"))
		within(t, 5*time.Second, "equal", equal(stores))
	})
}

func TestOverflowIsRepaired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New(6, calm)
		stores := mesh(t, n, 2)
		defer stop(stores...)
		within(t, 5*time.Second, "all connected", connected(stores))
		n.Cut("node-1", "node-2")
		var deltas []*replicationv1.Delta
		for i := range 400 {
			d := stores[0].Add("t", fmt.Sprint(strings.Repeat("k", 1<<15), i), 1)
			deltas = append(deltas, d)
		}
		stores[0].member.Node.Publish(deltas) // 13 MiB, more than a queue holds.
		time.Sleep(100 * time.Millisecond)
		n.Heal()
		within(t, 5*time.Second, "equal", equal(stores))
	})
}

func TestLeaveIsSeenAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stores := mesh(t, simnet.New(7, calm), 3)
		within(t, 5*time.Second, "all connected", connected(stores))
		stores[2].member.Close()
		within(t, 200*time.Millisecond, "gone", func() bool { return stores[0].member.Node.Peers()[1].State == "dead" })
		stop(stores[:2]...)
	})
}

func TestStrangersStayOut(t *testing.T) {
	for name, change := range map[string]func(*gossip.Config){
		"other key":   func(c *gossip.Config) { c.Keys = [][]byte{[]byte("fedcba9876543210")} },
		"no key":      func(c *gossip.Config) { c.Keys, c.Insecure = nil, true },
		"other label": func(c *gossip.Config) { c.Label = "other" },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := simnet.New(8, calm)
				stores := mesh(t, n, 2)
				defer stop(stores...)
				within(t, 5*time.Second, "all connected", connected(stores))
				cfg := gossip.Config{
					Node: "stranger", Replica: 99, Keys: keys(t), Engine: sim.NewStore("stranger", 99, counters("t")), Join: []string{"10.0.0.1:7946"},
					Logger: slog.New(slog.DiscardHandler),
				}
				change(&cfg)
				m, err := sim.Start(n, 9, cfg)
				if err != nil {
					t.Fatal(err)
				}
				defer func() { m.Close() }()
				time.Sleep(20 * time.Second)
				if got := m.Node.Peers(); len(got) != 0 {
					t.Errorf("the stranger sees %v", got)
				}
				if got := stores[0].member.Node.Peers(); len(got) != 1 {
					t.Errorf("a member sees %v", got)
				}
				within(t, 5*time.Second, "all connected", connected(stores))
			})
		})
	}
}

func TestStartRefuses(t *testing.T) {
	good := gossip.Config{
		Node: "a", Replica: 1, Bind: "127.0.0.1:0", PeerAddress: "p", Engine: sim.NewStore("a", 1, nil), Dialer: gossip.Dialer(nil),
	}
	for name, change := range map[string]func(*gossip.Config){
		"no dialer":  func(*gossip.Config) {},
		"no replica": func(c *gossip.Config) { c.Replica = 0 },
		"no name":    func(c *gossip.Config) { c.Node = "" },
	} {
		cfg := good
		change(&cfg)
		if n, err := gossip.Start(cfg); err == nil {
			n.Kill()
			t.Errorf("%s: started", name)
		}
	}
}
