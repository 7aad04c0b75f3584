package gossip_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-mesh/holdfast/internal/simnet"
)

func TestAskRights(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stores := mesh(t, simnet.New(61, calm), 4)
		defer stop(stores...)
		within(t, 5*time.Second, "all connected", connected(stores))
		asked := func() (n int) {
			for _, s := range stores {
				n += len(s.Granted())
			}
			return n
		}
		// Nobody answers: all are asked, one after another, and no more often.
		for range 10 {
			stores[0].member.Node.AskRights("t", "k", 5)
		}
		within(t, 10*time.Millisecond, "one is asked", func() bool { return asked() == 1 })
		time.Sleep(time.Second)
		first := asked()
		for _, s := range stores[1:] {
			if len(s.Granted()) == 0 {
				t.Errorf("%s was not asked", node(s.index))
			}
		}
		if first > 6 || len(stores[0].Granted()) > 0 {
			t.Errorf("%d questions", first)
		}
		// One answers: the others are left alone, unless it is not enough.
		stores[0].member.Node.AskRights("t", "k", 7)
		within(t, 10*time.Millisecond, "one is asked", func() bool { return asked() == first+1 })
		for _, s := range stores[1:] {
			s.add("k")
		}
		time.Sleep(5 * time.Millisecond)
		stores[0].member.Node.AskRights("t", "k", 2)
		within(t, 10*time.Millisecond, "the next is asked", func() bool { return asked() == first+2 })
		for _, s := range stores[1:] {
			s.add("k")
		}
		time.Sleep(time.Second)
		if got := asked(); got != first+2 {
			t.Errorf("%d questions, want %d", got, first+2)
		}
	})
}
