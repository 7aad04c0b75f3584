package gossip_test

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-mesh/holdfast/internal/simnet"
	"github.com/holdfast-mesh/holdfast/replication/gossip"
)

func TestCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New(41, calm)
		stores := mesh(t, n, 3)
		defer stop(stores...)
		within(t, 5*time.Second, "all connected", connected(stores))
		// One side is enough.
		third := stores[2].member.Node
		third.Cut([]string{"node-2", "node-1"})
		if got := third.Cutting(); !slices.Equal(got, []string{"node-1", "node-2"}) {
			t.Errorf("it cuts %v", got)
		}
		if _, ok := third.PeerAddress("node-1"); ok {
			t.Error("a cut peer has an address")
		}
		stores[0].add("k")
		stores[2].add("k")
		dead := within(t, 20*time.Second, "seen dead", func() bool {
			return stores[0].member.Node.Dead("node-3") && stores[1].member.Node.Dead("node-3") && third.Dead("node-1")
		})
		if got := stores[2].Values()["t/k"]; got != 1 {
			t.Errorf("through the cut came %d", got)
		}
		if got := stores[1].Values()["t/k"]; got != 1 {
			t.Errorf("on the other side it is %d", got)
		}
		// Not all of it: what is still cut stays so.
		third.Cut([]string{"node-2"})
		within(t, 20*time.Second, "counted", counts([]*store{stores[0], stores[2]}, "k", 2))
		third.Cut(nil)
		took := within(t, 5*time.Second, "equal", equal(stores))
		within(t, 5*time.Second, "all connected", connected(stores))
		t.Logf("seen dead after %s, equal %s after the heal", dead, took)
	})
}

// Keys are rotated while stores work: add, use, remove, each at all before the next. Nobody is lost.
func TestKeyRotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New(42, calm)
		stores := mesh(t, n, 5)
		defer stop(stores...)
		within(t, 5*time.Second, "all connected", connected(stores))
		old := keys(t)[0]
		over := make(chan struct{})
		var load sync.WaitGroup
		load.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-over:
					return
				case <-time.After(5 * time.Millisecond):
					stores[i%5].add("k")
				}
			}
		})
		for round := range byte(3) {
			next := []byte(strings.Repeat(string('A'+rune(round)), 32))
			for _, step := range [][][]byte{{old, next}, {next, old}, {next}, {next}} {
				for _, s := range stores {
					if err := s.member.Node.SetKeys(step); err != nil {
						t.Fatal(err)
					}
					time.Sleep(300 * time.Millisecond)
					for _, other := range stores {
						if got := len(alive(other)); got != 4 {
							t.Fatalf("%s sees %d others alive, want 4", node(other.index), got)
						}
					}
				}
			}
			old = next
		}
		close(over)
		load.Wait()
		within(t, 5*time.Second, "equal", equal(stores))
		// Who has only the first key is out.
		late := start(t, n, 9, fresh(9))
		defer stop(late)
		time.Sleep(10 * time.Second)
		if got := late.member.Node.Peers(); len(got) != 0 {
			t.Errorf("with a removed key it sees %v", got)
		}
	})
}

func alive(s *store) (out []string) {
	for _, p := range s.member.Node.Peers() {
		if p.GetState() == "alive" {
			out = append(out, p.GetName())
		}
	}
	return out
}

func TestSetKeysRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New(43, calm)
		s := start(t, n, 1, fresh(1))
		open := start(t, n, 2, fresh(2), func(c *gossip.Config) { c.Keys, c.Insecure = nil, true })
		defer stop(s, open)
		for name, err := range map[string]error{
			"none":         s.member.Node.SetKeys(nil),
			"a short one":  s.member.Node.SetKeys([][]byte{[]byte("short")}),
			"without keys": open.member.Node.SetKeys(keys(t)),
		} {
			if err == nil {
				t.Errorf("%s: taken", name)
			}
		}
		if err := s.member.Node.SetKeys(keys(t)); err != nil {
			t.Error(err)
		}
	})
}

// Two versions in one mesh: they speak the older one.
func TestVersionsTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New(44, calm)
		stores := mesh(t, n, 1)
		old := start(t, n, 2, fresh(2), func(c *gossip.Config) { c.MaxVersion = 2 })
		stores = append(stores, old, start(t, n, 3, fresh(3)))
		defer stop(stores...)
		for _, s := range stores {
			s.member.Node.Configure(configuration(2, 1, 2, 3))
		}
		within(t, 5*time.Second, "all connected", connected(stores))
		for i := range 30 {
			stores[i%3].add("k")
		}
		within(t, 10*time.Millisecond, "counted", counts(stores, "k", 30))
		for i := range 30 {
			stores[i%3].Add("t", "by anti-entropy", 1)
		}
		within(t, 20*time.Second, "counted", counts(stores, "by anti-entropy", 30))
	})
}

func TestVersionErrorTellsBoth(t *testing.T) {
	err := error(&gossip.VersionError{Theirs: 1, TheirOldest: 1, Ours: 3, OurOldest: 2})
	var v *gossip.VersionError
	if !errors.As(err, &v) || !strings.Contains(err.Error(), "1 to 1") || !strings.Contains(err.Error(), "2 to 3") {
		t.Error(err)
	}
}
