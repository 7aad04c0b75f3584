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
	replicationv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/replication/v1"
	"github.com/holdfast-mesh/holdfast/replication/gossip"
	"github.com/holdfast-mesh/holdfast/replication/gossip/sim"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var calm = simnet.Faults{MinDelay: 100 * time.Microsecond, MaxDelay: time.Millisecond}

type store struct {
	*sim.Counters
	member  *sim.Member
	replica uint64
}

// add counts one and pushes it.
func (s *store) add(key string) {
	s.member.Node.Publish([]*replicationv1.Delta{s.Add("t", key, s.replica, 1)})
}

func keys(t *testing.T) [][]byte {
	t.Helper()
	k, err := gossip.ParseKeys([]byte("MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\n"))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func start(t *testing.T, n *simnet.Net, index byte, replica uint64, engine *sim.Counters) *store {
	t.Helper()
	m, err := sim.Start(n, index, gossip.Config{
		Node: fmt.Sprint("node-", index), Replica: replica, Keys: keys(t), Engine: engine,
		Join: []string{"10.0.0.1:7946", "10.0.0.2:7946"}, Logger: slog.New(slog.DiscardHandler), Seed: uint64(index),
	})
	if err != nil {
		t.Fatal(err)
	}
	return &store{Counters: engine, member: m, replica: replica}
}

func mesh(t *testing.T, n *simnet.Net, size int) []*store {
	t.Helper()
	var out []*store
	for i := range size {
		out = append(out, start(t, n, byte(i+1), uint64(i+1)<<32, sim.NewCounters("t")))
	}
	return out
}

func stop(stores ...*store) {
	for _, s := range stores {
		s.member.Close()
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
			stores[i%3].Add("t", fmt.Sprint("k", i), stores[i%3].replica, 1) // Not published.
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
			stores[1].member.Crash()
			// What it counted before is on its disk, what it does now counts under another identity.
			stores[1] = start(t, n, 2, stores[1].replica+1, stores[1].Counters)
			stores[1].add("k")
			stores[0].add("k")
			within(t, 5*time.Second, "equal", equal(stores))
			within(t, 5*time.Second, "all connected", connected(stores))
			if got, want := stores[2].Values()["t/k"], uint64(2*(i+1)); got != want {
				t.Fatalf("counter %d, want %d", got, want)
			}
		}
	})
}

func TestUnknownTypeIsRepairedOnceKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stores := mesh(t, simnet.New(5, calm), 2)
		defer stop(stores...)
		stores[1].SetTypes()
		within(t, 5*time.Second, "all connected", connected(stores))
		stores[0].add("k")
		time.Sleep(5 * time.Second)
		if got := stores[1].Values(); len(got) != 0 {
			t.Errorf("merged %v of a type that was not known", got)
		}
		stores[1].SetTypes("t")
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
			d := stores[0].Add("t", fmt.Sprint(strings.Repeat("k", 1<<15), i), stores[0].replica, 1)
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
					Node: "stranger", Replica: 99, Keys: keys(t), Engine: sim.NewCounters("t"), Join: []string{"10.0.0.1:7946"},
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
		Node: "a", Replica: 1, Bind: "127.0.0.1:0", PeerAddress: "p", Engine: sim.NewCounters(), Dialer: gossip.Dialer(nil),
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
