package slots

import (
	"math"
	"slices"

	"github.com/holdfast-mesh/holdfast/internal/planted"
	"github.com/holdfast-mesh/holdfast/statestore/crdt"
)

// Draft is what a batch will have made of a slot. Nobody sees it before Apply. The writer's; one at a time per slot.
type Draft struct {
	slot *Slot
	// seen is nil while nothing but own dots came; then a copy of the slot's, or in a replay the slot's own.
	seen     *crdt.Context
	inPlace  bool
	next     uint64
	replica  uint64
	entities map[string]*drafted
	order    []string
	// strip: seen grew beyond what was joined, residues may be covered.
	strip bool
}

type drafted struct {
	state crdt.State
	size  int
}

// Draft begins one.
func (s *Slot) Draft() *Draft {
	return &Draft{slot: s, next: s.next, entities: map[string]*drafted{}}
}

// Slot is whose draft it is.
func (d *Draft) Slot() *Slot { return d.slot }

// Next is the next own sequence as of the draft.
func (d *Draft) Next() uint64 { return d.next }

// Seen is the context as of the draft; the caller must not change it.
func (d *Draft) Seen() *crdt.Context {
	switch {
	case d.seen != nil:
	case d.inPlace:
		d.seen = d.slot.seen
	default:
		d.seen = d.slot.seen.Clone()
		// What the draft made itself before anything else came is seen, too.
		addDots(d.seen, d.replica, d.slot.next, d.next)
	}
	return d.seen
}

// Peek is the context as of the draft but for own dots; the caller must not change it.
func (d *Draft) Peek() *crdt.Context {
	if d.seen != nil {
		return d.seen
	}
	return d.slot.seen
}

// State is the entity as of the draft, and at least its encoded size. found is false where nothing is known of it.
func (d *Draft) State(key string) (state crdt.State, size int, found bool, err error) {
	if e := d.entities[key]; e != nil {
		return e.state, e.size, true, nil
	}
	return d.slot.state(key)
}

// state is the entity as it is durable. The writer's.
func (s *Slot) state(key string) (state crdt.State, size int, found bool, err error) {
	if err := s.activate(key); err != nil {
		return crdt.State{}, 0, false, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	e := s.entities[key]
	if e == nil {
		return crdt.State{}, 0, false, nil
	}
	return e.State, e.size(), true, nil
}

// Durable is the entity without the draft.
func (d *Draft) Durable(key string) (state crdt.State, size int, found bool, err error) {
	return d.slot.state(key)
}

func (d *Draft) put(key string, state crdt.State, size int) {
	e := d.entities[key]
	if e == nil {
		e = &drafted{}
		d.entities[key] = e
		d.order = append(d.order, key)
	}
	e.state, e.size = state, size
}

// Own takes a local change: the state after it, and the next own sequence.
func (d *Draft) Own(replica uint64, key string, after crdt.State, size int, next uint64) {
	d.replica = replica
	d.put(key, after, size)
	if d.seen != nil {
		addDots(d.seen, replica, d.next, next)
	}
	d.next = next
	d.slot.used.Store(d.slot.typ.index.clock.Load())
}

// OwnNow is Own that takes effect at once, before it is durable. after is Durable with the delta. It must not be called
// while the draft has own dots that are not in effect: then it returns false and does nothing.
func (d *Draft) OwnNow(replica uint64, key string, after, delta crdt.State, size int, next uint64, now uint32) (bool, error) {
	s := d.slot
	if d.next != s.next {
		return false, nil
	}
	if e := d.entities[key]; e != nil {
		if _, err := e.state.Join(&delta, nil, nil); err != nil {
			return false, err
		}
		e.size += size
	}
	if d.seen != nil {
		addDots(d.seen, replica, d.next, next)
	}
	d.next = next
	s.mu.Lock()
	defer s.mu.Unlock()
	addDots(s.seen, replica, s.next, next)
	s.next = next
	s.used.Store(s.typ.index.clock.Load())
	s.set(key, after, size, now)
	return true, nil
}

func addDots(c *crdt.Context, replica, from, to uint64) {
	for seq := from; seq < to; seq++ {
		c.Add(crdt.Dot{Replica: replica, Seq: seq})
	}
}

// Join takes a change from outside. fill is nil for a delta; else state is whole, and what fill covers beyond it was removed.
func (d *Draft) Join(key string, state crdt.State, fill *crdt.Context, size int) (changed bool, err error) {
	seen := d.Seen()
	mine, before, found, err := d.State(key)
	if err != nil {
		return false, err
	}
	if !found {
		if mine, err = crdt.New(state.Shape()); err != nil {
			return false, err
		}
	}
	if changed, err = mine.Join(&state, seen, fill); err != nil || !changed {
		return false, err
	}
	learned := state.Context()
	if planted.On(planted.TombstoneEarly) && fill == nil {
		forgotten := seen.Clone()
		forgotten.Merge(learned)
		mine.Strip(forgotten)
		state.Live(func(dot crdt.Dot) bool { seen.Add(dot); return true })
	} else {
		seen.Merge(learned)
	}
	mine.Strip(seen)
	d.put(key, mine, before+size)
	return true, nil
}

// Learn adds to the context what a log record says was seen.
func (d *Draft) Learn(seen *crdt.Context) {
	d.Seen().Merge(seen)
	d.strip = true
}

// Strip drops residues that the context covers by now.
func (d *Draft) Strip() { d.strip = true }

// Complete ends a comparison: what came by other ways since it, and the peer had removed, goes. It returns the removals, as
// deltas by key; they are in the draft. The comparison began after began, in unix seconds.
func (d *Draft) Complete(c *crdt.Comparison, began uint32) (removed map[string]crdt.State, err error) {
	seen := d.Seen()
	if !c.Compared.Covers(seen) || (len(c.Buckets) > 0 && !c.ComparedKeys.Covers(seen)) {
		if removed, err = d.remove(c, began); err != nil {
			return nil, err
		}
	}
	d.Learn(c.Complete)
	return removed, nil
}

func (d *Draft) remove(c *crdt.Comparison, began uint32) (map[string]crdt.State, error) {
	keys, err := d.slot.keys(began)
	if err != nil {
		return nil, err
	}
	removed := map[string]crdt.State{}
	for _, key := range slices.Concat(keys, d.order) {
		if _, twice := removed[key]; twice {
			continue
		}
		state, size, found, err := d.State(key)
		if err != nil {
			return nil, err
		}
		before := state
		if !found || !c.Settle(key, Bucket(key), &state) {
			continue
		}
		left := map[crdt.Dot]struct{}{}
		state.Live(func(dot crdt.Dot) bool { left[dot] = struct{}{}; return true })
		gone := &crdt.Context{}
		before.Live(func(dot crdt.Dot) bool {
			if _, ok := left[dot]; !ok {
				gone.Add(dot)
			}
			return true
		})
		delta, err := crdt.New(state.Shape())
		if err != nil {
			return nil, err
		}
		delta.Hold(gone)
		removed[key] = delta
		state.Strip(d.seen)
		d.put(key, state, size)
	}
	return removed, nil
}

// keys are all of the slot's but for passive ones that did not change since the moment. The writer's.
func (s *Slot) keys(since uint32) ([]string, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	out := make([]string, 0, len(s.entities))
	for key := range s.entities {
		out = append(out, key)
	}
	if s.newest < since {
		return out, nil
	}
	err := s.eachPassive(func(p *stored) error {
		if p.changed >= since {
			out = append(out, string(p.key))
		}
		return nil
	})
	return out, err
}

// Retire makes the slot take all dots of the retired for seen.
func (d *Draft) Retire(set *crdt.Retired) {
	d.Seen().Retire(set)
	d.strip = true
}

// Apply puts the draft in force, now that it is durable, and returns the keys that it touched. now is in unix seconds.
func (d *Draft) Apply(replica uint64, now uint32) []string {
	s := d.slot
	s.mu.Lock()
	defer s.mu.Unlock()
	if d.seen == nil {
		addDots(s.seen, replica, s.next, d.next)
	} else {
		s.seen = d.seen
	}
	s.next = d.next
	s.stamp = s.begun
	for _, key := range d.order {
		e := d.entities[key]
		e.state.Strip(s.seen)
		s.set(key, e.state, e.size, now)
	}
	if d.strip {
		for e := range s.residues {
			s.change(e)
			e.State.Strip(s.seen)
			s.settle(e)
		}
	}
	return d.order
}

// set is with mu.
func (s *Slot) set(key string, state crdt.State, size int, now uint32) {
	e := s.entities[key]
	if e == nil {
		e = &Entity{Key: key}
		s.entities[key] = e
		s.peak = max(s.peak, len(s.entities))
	}
	s.change(e)
	e.State, e.Changed = state, now
	e.State.Strip(s.seen)
	e.setSize(size)
	e.used.Store(s.typ.index.clock.Load())
	s.settle(e)
}

// Drop forgets everything of the slot but the next own sequence. The writer's.
func (s *Slot) Drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.entities {
		if e.is(exists) {
			s.typ.index.active.Add(-1)
		}
	}
	s.typ.index.passive.Add(-int64(len(s.passive) - s.ghosts))
	s.entities, s.peak, s.residues = map[string]*Entity{}, 0, nil
	s.passive, s.ghosts, s.stale, s.hash, s.seen = nil, 0, nil, 0, &crdt.Context{}
	s.oldest = math.MaxUint32
	s.turns++
	s.dropped++
	s.stamp = s.begun
}

// Empty tells that nothing is known of the slot.
func (s *Slot) Empty() bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.seen.Empty() && len(s.entities) == 0 && len(s.passive) == 0
}
