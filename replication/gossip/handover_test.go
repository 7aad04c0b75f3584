package gossip_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-mesh/holdfast/internal/simnet"
)

// A store that leaves gives what nobody was told of, and takes nothing.
func TestHandOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New(51, calm)
		stores := mesh(t, n, 3)
		within(t, 5*time.Second, "all connected", connected(stores))
		for i := range 500 {
			stores[0].Add("t", fmt.Sprint("key-", i), 1)
		}
		stores[1].Add("t", "key-0", 5)
		stores[1].Add("t", "theirs", 5)
		mine := stores[0].Values()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := stores[0].member.Node.HandOver(ctx); err != nil {
			t.Fatal(err)
		}
		for _, s := range stores[1:] {
			have := s.Values()
			for key, want := range mine {
				if have[key] < want {
					t.Errorf("%s has %s = %d, want at least %d", node(s.index), key, have[key], want)
				}
			}
		}
		if got := stores[0].Values()["t/theirs"]; got != 0 {
			t.Errorf("it took %d", got)
		}
		stop(stores...)
	})
}

// Each slot goes to the members that are placed for it.
func TestHandOverByPlacement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New(52, calm)
		stores, c := sparse(t, n, 4)
		key, placed, outside := elsewhere(t, c, stores)
		outside.Add("t", key, 1)
		for i := range 100 {
			outside.Add("t", fmt.Sprint("key-", i), 1)
		}
		if err := outside.member.Node.HandOver(t.Context()); err != nil {
			t.Fatal(err)
		}
		if !counts(placed, key, 1)() {
			t.Errorf("its replicas have %v and %v", placed[0].Values()["t/"+key], placed[1].Values()["t/"+key])
		}
		total := 0
		for _, s := range stores {
			if s != outside {
				total += len(s.Values())
			}
		}
		if own := 101 * 2; total > own {
			t.Errorf("the others have %d entities, want at most %d", total, own)
		}
		stop(stores...)
	})
}

func TestHandOverTellsWhoLacksWhat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New(53, calm)
		stores := mesh(t, n, 3)
		within(t, 5*time.Second, "all connected", connected(stores))
		stores[0].Add("t", "k", 1)
		stores[2].Refuse(func(string) bool { return true })
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		err := stores[0].member.Node.HandOver(ctx)
		if err == nil || !strings.Contains(err.Error(), "node-3") || strings.Contains(err.Error(), "node-2") {
			t.Errorf("handed over: %v", err)
		}
		if got := stores[1].Values()["t/k"]; got != 1 {
			t.Errorf("the other one has %d", got)
		}
		stop(stores...)
	})
}

func TestHandOverToNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stores := mesh(t, simnet.New(54, calm), 1)
		if err := stores[0].member.Node.HandOver(t.Context()); err != nil {
			t.Error(err)
		}
		stop(stores...)
	})
}
