package gossip_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-mesh/holdfast/internal/placement"
	"github.com/holdfast-mesh/holdfast/internal/simnet"
)

// A store that a placement gives slots gets each from one that kept it, at once when it asks, whatever the other new ones have:
// of two members that follow two others, too.
func TestFill(t *testing.T) {
	for _, c := range []struct {
		before, after []byte
		least         int
	}{
		{[]byte{1, 2, 3}, []byte{2, 3, 4}, 3},
		{[]byte{1, 2}, []byte{3, 4}, 20},
		{[]byte{1, 2}, []byte{2, 4}, 10},
	} {
		synctest.Test(t, func(t *testing.T) {
			n := simnet.New(31, calm)
			stores := mesh(t, n, 4)
			defer func() { stop(stores...) }()
			configure := func(epoch uint64, members []byte) *placement.Table {
				c := configuration(epoch, members...)
				c.Types[0].Replicas = 2
				for _, s := range stores {
					s.member.Node.Configure(c)
				}
				table, err := placement.New(c.GetPlacement())
				if err != nil {
					t.Fatal(err)
				}
				return table
			}
			keys := []string{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j"}
			table := configure(2, c.before)
			within(t, 5*time.Second, "all connected", connected(stores))
			replicas := func(key string) (out []*store) {
				for _, m := range table.Replicas(placement.Slot("t", key), 2) {
					for _, s := range stores {
						if node(s.index) == m.GetName() {
							out = append(out, s)
						}
					}
				}
				return out
			}
			for _, key := range keys {
				replicas(key)[0].add(key)
			}
			time.Sleep(3 * time.Second)
			table = configure(3, c.after)
			moved, asked := 0, 0
			done := make(chan string, 2*len(keys))
			for _, key := range keys {
				for _, s := range replicas(key) {
					if s.Values()["t/"+key] == 0 {
						moved++
					}
					asked++
					s.member.Node.Fill("t", placement.Slot("t", key), time.Now().Add(time.Second), func(err error) {
						if got := s.Values()["t/"+key]; err != nil || got != 1 {
							done <- fmt.Sprintf("%s is %d at %s, where it was filled: %v", key, got, node(s.index), err)
						}
						done <- ""
					})
				}
			}
			for asked > 0 {
				if what := <-done; what != "" {
					t.Error(what)
				} else {
					asked--
				}
			}
			if moved < c.least {
				t.Errorf("of %d replicas that were filled %d lacked something, want %d", 2*len(keys), moved, c.least)
			}
		})
	}
}

// Where nobody is there to fill a slot, nobody waits for long.
func TestFillOfNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New(32, calm)
		alone := start(t, n, 1, fresh(1))
		defer stop(alone)
		alone.member.Node.Configure(configuration(1, 1, 2, 3))
		began := time.Now()
		done := make(chan error, 1)
		alone.member.Node.Fill("t", 7, time.Now().Add(time.Minute), func(err error) { done <- err })
		if err := <-done; err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took < time.Second || took > 3*time.Second {
			t.Errorf("it took %s; the others may come within two seconds of the start", took)
		}
		began = time.Now()
		alone.member.Node.Fill("t", 8, time.Now().Add(time.Minute), func(err error) { done <- err })
		if err := <-done; err != nil || time.Since(began) > time.Second {
			t.Errorf("later: %v after %s", err, time.Since(began))
		}
	})
}
