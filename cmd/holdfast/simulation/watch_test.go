package simulation

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
)

// view looks at an entity at one store for as long as the store lives: what grows never shrinks, and what has a floor never
// goes below it.
type view struct {
	world  *world
	node   string
	entity entity
	spec   *spec
	over   atomic.Bool

	// mu guards last.
	mu   sync.Mutex
	last *holdfastv1.Value
}

// watch subscribes to some entities of a store that came up.
func (n *node) watch() {
	for _, s := range n.world.specs {
		if !s.grows() && s.model != configv1.Model_MODEL_BCOUNTER {
			continue
		}
		for _, key := range s.keys {
			// A watch keeps a slot joined: where the store is not placed, seldom.
			rare := 2
			if !slices.Contains(placed(n.world.home, s, key), n.name) {
				rare = 8
			}
			if s.wild(key) || n.random.IntN(rare) > 0 {
				continue
			}
			v := &view{world: n.world, node: n.name, entity: entity{typ: s.name, key: key}, spec: s}
			n.views = append(n.views, v)
			n.engine.View(&storev1.Entity{Type: s.name, Key: key}, time.Time{}, v, func(state *storev1.State, err error) {
				if err == nil {
					v.Push(state)
				}
			})
		}
	}
}

// unwatch ends what the store's watchers expect.
func (n *node) unwatch() {
	for _, v := range n.views {
		v.over.Store(true)
	}
	n.views = nil
}

// Push implements statestore.Subscriber.
func (v *view) Push(s *storev1.State) {
	if v.over.Load() {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.spec.model == configv1.Model_MODEL_BCOUNTER {
		if got := counted(s.GetValue(), ""); s.GetExists() && got < v.spec.floor {
			v.world.fail("%s shows %s at %d, below its floor %d", v.node, v.entity, got, v.spec.floor)
		}
		return
	}
	if what := shrunk(v.last, s.GetValue()); what != "" {
		v.world.fail("%s shows %s after %s: %s", v.node, flat(s.GetValue()), flat(v.last), v.entity)
	}
	v.last = s.GetValue()
}

// shrunk says what a value that grows lost, "" for nothing.
func shrunk(before, after *holdfastv1.Value) string {
	for name, e := range before.GetOrmap().GetEntries() {
		if what := shrunk(e, after.GetOrmap().GetEntries()[name]); what != "" {
			return name + ": " + what
		}
	}
	if counted(after, "") < counted(before, "") {
		return "counts less"
	}
	shown := items(after)
	for _, i := range items(before) {
		if !slices.Contains(shown, i) {
			return "lacks " + i
		}
	}
	return ""
}
