package simulation

import (
	"fmt"
	"slices"
	"time"

	"github.com/holdfast-mesh/holdfast/internal/placement"
	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
)

const (
	// healTime is the promise: so long after the last fault all stores are equal.
	healTime = 10 * time.Second
	// troubleTime is how long faults happen.
	troubleTime = 15 * time.Second
	// forgetTime is how long it takes at most until dead identities are forgotten, all members being up.
	forgetTime = 60 * time.Second
	// diskLook is how often a store with a failed disk looks whether it is back.
	diskLook = time.Second
	// Below these a run proves nothing.
	leastAcked, leastFaults = 50, 2
)

// verify checks all promises of a run whose faults are over.
func (w *world) verify() {
	if !w.settle("the last fault") {
		return
	}
	w.clients.Wait()
	for _, n := range w.nodes {
		n.unsure = nil // Nobody asks again: from here on nothing changes but by what follows.
	}
	if !w.settle("the last client") {
		return
	}
	w.checkModel()
	w.elsewhere()
	w.restart()
	w.forgotten()
	w.last()
	tally, faults := w.model.tally(), 0
	for _, count := range w.faults {
		faults += count
	}
	w.log("changes: %d acknowledged, %d refused, %d unknown; faults: %v", tally[acked], tally[refused], tally[unknown], w.faults)
	if tally[acked] < leastAcked || faults < leastFaults {
		w.fail("the run proves nothing: %d acknowledged changes, faults %v", tally[acked], w.faults)
	}
}

// settle waits until all placed stores are equal.
func (w *world) settle(after string) bool {
	begin := time.Now()
	for {
		d := w.difference()
		if d == "" {
			w.log("equal %s after %s", time.Since(begin), after)
			return true
		}
		if time.Since(begin) > healTime {
			w.fail("stores differ %s after %s: %s", healTime, after, d)
			return false
		}
		w.sleep(100 * time.Millisecond)
	}
}

// keepers are the stores that have to agree on a key.
func (w *world) keepers(s *spec, key string) []*node {
	var out []*node
	for _, name := range placed(w.table, s, key) {
		if n := w.named(name); !n.poisoned || !s.timed() {
			out = append(out, n)
		}
	}
	return out
}

// poisoned says that a store has times of the type that others refuse.
func (w *world) poisoned(s *spec) bool {
	return s.timed() && slices.ContainsFunc(w.nodes, func(n *node) bool { return n.poisoned })
}

// difference tells one thing that two stores do not agree on, "" where they agree.
func (w *world) difference() string {
	for _, s := range w.specs {
		for i, key := range s.keys {
			nodes := w.keepers(s, key)
			if len(nodes) == 0 {
				continue
			}
			first := nodes[0]
			if i%keysPerSlot == 0 {
				slot := placement.Slot(s.name, key)
				hash := first.slotHash(s, slot)
				for _, n := range nodes[1:] {
					if got := n.slotHash(s, slot); got != hash {
						return fmt.Sprintf("%s slot %d: hash %x at %s, %x at %s: %s", s.name, slot, hash, first.name, got, n.name,
							n.explain(first, s, slot))
					}
				}
				// What a store outside the placement acknowledged, and perhaps crashed with, has to reach the placed ones, too.
				for _, n := range w.nodes {
					if n.engine == nil || slices.Contains(nodes, n) || w.poisoned(s) {
						continue
					}
					if !first.engine.Seen(s.name, slot).Covers(n.engine.Seen(s.name, slot)) {
						return fmt.Sprintf("%s slot %d: %s, which is not placed, has what %s has not", s.name, slot, n.name, first.name)
					}
				}
			}
			value := first.show(s, key)
			for _, n := range nodes[1:] {
				if got := n.show(s, key); got != value {
					return fmt.Sprintf("%s/%s is %s at %s, %s at %s", s.name, key, value, first.name, got, n.name)
				}
			}
		}
	}
	return ""
}

func (n *node) slotHash(s *spec, slot uint32) uint64 {
	for _, h := range n.engine.SlotHashes(s.name) {
		if h.GetSlot() == slot {
			return h.GetHash()
		}
	}
	return 0
}

// explain says in what two stores' slots differ.
func (n *node) explain(other *node, s *spec, slot uint32) string {
	mine, myKeys := n.engine.SlotKeys(s.name, slot, nil)
	theirs, theirKeys := other.engine.SlotKeys(s.name, slot, nil)
	return fmt.Sprintf("%s has seen %v, keys %v; %s has seen %v, keys %v", n.name, mine, myKeys, other.name, theirs, theirKeys)
}

// show is an entity's value at a store, as text.
func (n *node) show(s *spec, key string) string {
	state, err := n.engine.Get(&storev1.Entity{Type: s.name, Key: key})
	if err != nil {
		return err.Error()
	}
	return fmt.Sprint(state.GetExists(), " ", flat(state.GetValue()))
}

// checkModel compares all placed stores with what clients know.
func (w *world) checkModel() {
	for e, h := range w.model.entities {
		for _, n := range w.keepers(h.spec, e.key) {
			state, err := n.engine.Get(&storev1.Entity{Type: e.typ, Key: e.key})
			if err != nil {
				w.fail("%s: %s: %v", n.name, e, err)
				continue
			}
			if !h.spec.checked() {
				continue
			}
			if what := w.model.check(e, h, state.GetValue()); what != "" {
				w.fail("%s: %s", n.name, what)
			}
		}
	}
}

// elsewhere reads at stores that are not placed: they join the slot, or have joined it, and show the same. One that joined
// before may have been cut off: it has the time that all have to become equal.
func (w *world) elsewhere() {
	for _, s := range w.specs {
		key := s.keys[w.random.IntN(len(s.keys))]
		n := w.nodes[w.random.IntN(len(w.nodes))]
		if slices.Contains(placed(w.table, s, key), n.name) || w.poisoned(s) {
			continue
		}
		for begin := time.Now(); ; w.sleep(100 * time.Millisecond) {
			ctx, cancel := short(5 * time.Second)
			value, err := get(ctx, n.engine, s.name, key)
			cancel()
			want := w.keepers(s, key)[0].show(s, key)
			got := fmt.Sprint(value != nil, " ", flat(value))
			if err == nil && got == want {
				break
			}
			if time.Since(begin) > healTime {
				w.fail("%s, which is not placed, shows %s/%s as %s (%v), the placed ones as %s: %s", n.name, s.name, key, got, err, want,
					n.explain(w.keepers(s, key)[0], s, placement.Slot(s.name, key)))
				break
			}
		}
	}
}

// restart stops and starts one store: it shows the same again, from its disk.
func (w *world) restart() {
	n := w.nodes[w.random.IntN(len(w.nodes))]
	shown := func() []string {
		var out []string
		for _, s := range w.specs {
			for _, key := range s.keys {
				if slices.Contains(placed(w.table, s, key), n.name) {
					out = append(out, s.name+"/"+key+": "+n.show(s, key))
				}
			}
		}
		return out
	}
	before := shown()
	n.stop()
	n.up()
	for i, got := range shown() {
		if got != before[i] {
			w.fail("%s shows %s after a restart, before it %s", n.name, got, before[i])
		}
	}
}

// forgotten waits until contexts name live identities only.
func (w *world) forgotten() {
	if slices.ContainsFunc(w.nodes, func(n *node) bool { return n.poisoned }) {
		return // Its states are refused for an hour: they are not seen by all, and that is right.
	}
	begin := time.Now()
	for {
		what := w.remembered()
		if what == "" {
			w.log("dead identities forgotten after %s", time.Since(begin))
			return
		}
		if time.Since(begin) > forgetTime {
			w.fail("dead identities are still named %s after all is well: %s", forgetTime, what)
			return
		}
		w.sleep(500 * time.Millisecond)
	}
}

// remembered names a dead identity that a context still has.
func (w *world) remembered() string {
	live := map[uint64]bool{}
	for _, n := range w.nodes {
		live[n.engine.Replica()] = true
	}
	for _, s := range w.specs {
		for i := 0; i < len(s.keys); i += keysPerSlot {
			slot := placement.Slot(s.name, s.keys[i])
			for _, n := range w.keepers(s, s.keys[i]) {
				seen, _ := n.engine.SlotSummary(s.name, slot)
				for _, r := range seen.Replicas() {
					if !live[r] {
						return fmt.Sprintf("%s: %s slot %d names %016x", n.name, s.name, slot, r)
					}
				}
			}
		}
	}
	return ""
}

// last changes everything once more, now that all is well: each store must show exactly that. Then it deletes everything, and
// nothing must be left.
func (w *world) last() {
	type want struct {
		s    *spec
		key  string
		text string
	}
	var wants []want
	for _, s := range w.specs {
		if w.poisoned(s) {
			continue
		}
		for _, key := range s.keys {
			nodes := w.keepers(s, key)
			n := nodes[w.random.IntN(len(nodes))]
			op, text := s.final(w, key, n)
			if op == nil {
				continue
			}
			w.commit(n, s, key, op)
			wants = append(wants, want{s, key, text})
		}
	}
	if !w.settle("the last changes") {
		return
	}
	for _, x := range wants {
		for _, n := range w.keepers(x.s, x.key) {
			if got := n.show(x.s, x.key); got != x.text {
				w.fail("%s shows %s/%s as %s after the last change, want %s", n.name, x.s.name, x.key, got, x.text)
			}
		}
	}
	for _, n := range w.nodes {
		n.unwatch()
	}
	for _, s := range w.specs {
		if s.model == configv1.Model_MODEL_BCOUNTER || w.poisoned(s) {
			continue
		}
		for _, key := range s.keys {
			nodes := w.keepers(s, key)
			w.commit(nodes[w.random.IntN(len(nodes))], s, key, deletion)
		}
	}
	if !w.settle("all was deleted") {
		return
	}
	for _, s := range w.specs {
		if s.model == configv1.Model_MODEL_BCOUNTER || w.poisoned(s) {
			continue
		}
		for _, key := range s.keys {
			for _, n := range w.keepers(s, key) {
				_, left := n.engine.SlotKeys(s.name, placement.Slot(s.name, key), nil)
				if got := n.show(s, key); got != "false nothing" || len(left) > 0 {
					w.fail("%s shows %s/%s as %s after its deletion, and keeps %v", n.name, s.name, key, got, left)
				}
			}
		}
	}
}

// final is a last change and what all show after it; nil where the type has none that decides alone.
func (s *spec) final(w *world, key string, n *node) (*operation, string) {
	state, err := n.engine.Get(&storev1.Entity{Type: s.name, Key: key})
	if err != nil {
		w.fail("%s: %v", n.name, err)
		return nil, ""
	}
	v := state.GetValue()
	switch s.model {
	case configv1.Model_MODEL_GCOUNTER:
		return increment(5), fmt.Sprint("true ", counted(v, "")+5)
	case configv1.Model_MODEL_PNCOUNTER:
		return change(-5), fmt.Sprint("true ", counted(v, "")-5)
	case configv1.Model_MODEL_BCOUNTER:
		return change(5), fmt.Sprint("true ", counted(v, "")+5)
	case configv1.Model_MODEL_LWW, configv1.Model_MODEL_MVREGISTER:
		return set("last"), fmt.Sprintf("true %q", []string{"last"})
	case configv1.Model_MODEL_FLAG:
		if on := w.random.IntN(2) == 0; on {
			return enable, "true true"
		}
		if !state.GetExists() {
			return nil, ""
		}
		return disable, "true false"
	case configv1.Model_MODEL_ORSET:
		if !state.GetExists() {
			return nil, ""
		}
		return clearing, "true []"
	case configv1.Model_MODEL_GSET:
		return add("last"), fmt.Sprintf("true %q", slices.Sorted(slices.Values(append(items(v), "last"))))
	}
	return nil, ""
}

// commit is a change that must be acknowledged.
func (w *world) commit(n *node, s *spec, key string, op *operation) {
	ctx, cancel := short(5 * time.Second)
	defer cancel()
	w.ops++
	_, err := n.engine.Commit(ctx, &storev1.Commit{
		Entity: &storev1.Entity{Type: s.name, Key: key}, RequestId: fmt.Sprint("r", w.ops), Operations: []*operation{op},
	})
	if err != nil {
		w.fail("%s refuses %v of %s/%s though all is well: %v", n.name, op, s.name, key, err)
	}
}
