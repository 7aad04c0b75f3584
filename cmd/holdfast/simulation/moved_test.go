package simulation

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// TestMovedSlotsAreFilledFirst: while nothing is broken, a store that a placement gives a slot shows at once what all showed
// before, be it one that was there without the slot or one with an empty disk.
func TestMovedSlotsAreFilledFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 4, 5)
		s := w.specs[2]
		if s.name != "count-majority" {
			t.Fatal("the types are others")
		}
		s.replicas = 2
		for _, n := range w.nodes {
			n.configure()
		}
		w.sleep(5 * time.Second)
		count := 0
		change := func() {
			count++
			for _, key := range s.keys {
				w.commit(w.named(placed(w.table, s, key)[0]), s, key, increment(1))
			}
		}
		check := func(n *node, key string) {
			ctx, cancel := short(2 * time.Second)
			defer cancel()
			if v, err := get(ctx, n.engine, s.name, key); err != nil || v.GetGcounter() != uint64(count) {
				t.Errorf("%s shows %s as %d (%v), want %d", n.name, key, v.GetGcounter(), err, count)
			}
		}
		newcomers, keys := 0, []string{s.keys[0], s.keys[keysPerSlot]}
		for _, key := range keys {
			change()
			before := placed(w.table, s, key)
			w.epoch++
			w.place(w.named(before[0]))
			after := placed(w.table, s, key)
			last := func(n *node) int { // Who is given the slot hears of it last, when the others have its part elsewhere already.
				if slices.Contains(after, n.name) && !slices.Contains(before, n.name) {
					return 1
				}
				return 0
			}
			order := slices.Clone(w.nodes)
			slices.SortStableFunc(order, func(a, b *node) int { return last(a) - last(b) })
			for _, n := range order {
				n.configure()
				if last(n) == 1 {
					newcomers++
					check(n, key)
				}
			}
			change()
			w.epoch++
			w.place(nil)
			for _, n := range w.nodes {
				n.configure()
			}
			w.sleep(5 * time.Second)
		}
		if newcomers != len(keys) {
			t.Errorf("%d stores were given a slot, want %d", newcomers, len(keys))
		}
		n := w.named(placed(w.table, s, s.keys[0])[1])
		n.wipe()
		n.up()
		check(n, s.keys[0])
		w.end()
	})
}
