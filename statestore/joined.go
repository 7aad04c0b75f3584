package statestore

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/holdfast-mesh/holdfast/statestore/crdt"
	"github.com/holdfast-mesh/holdfast/statestore/refusal"
	"github.com/holdfast-mesh/holdfast/statestore/slots"
)

// joins are the slots for which the placement does not name this store, and that it keeps a replica of because requests
// for them come here. It gets one from the placed replicas, answers from it while it is used, and lets it go again. Those
// that are fresh are in it while they are filled.
type joins struct {
	// mu guards slots. Who answers from a joined slot holds it for reading: a slot is let go between answers only.
	mu    sync.RWMutex
	slots map[slotID]*join
}

type slotID struct {
	typ  string
	slot uint32
}

// join is a slot's.
type join struct {
	// joined says that a placed replica has filled the slot.
	joined bool
	// waiting are told once one has, or can't. While there are any, one is asked, until asked.
	waiting []waiting
	asked   time.Time
	// leaving says that the placed replicas are asked whether they have all of it; wanted, that it was asked for since.
	leaving, wanted bool
}

type waiting struct {
	deadline time.Time
	then     func(error)
}

func (j *joins) init() { j.slots = map[slotID]*join{} }

// ready calls then, at once or later, when the slot may be read and changed here.
func (e *Engine) ready(typ *entityType, slot uint32, deadline time.Time, then func(error)) {
	if e.config.Load().placedHere(typ, slot, e.cfg.Node) && !e.fresh.Load().has(typ.Type, slot) {
		then(nil)
		return
	}
	id := slotID{typ.Type, slot}
	e.joins.mu.RLock()
	if j := e.joins.slots[id]; j != nil && j.joined {
		defer e.joins.mu.RUnlock()
		then(nil)
		return
	}
	e.joins.mu.RUnlock()
	e.join(id, deadline, then)
}

// join gets the slot from a placed replica, once for all who wait.
func (e *Engine) join(id slotID, deadline time.Time, then func(error)) {
	if deadline.IsZero() {
		deadline = time.Now().Add(defaultDeadline)
	}
	e.joins.mu.Lock()
	j := e.joins.slots[id]
	if j == nil {
		j = &join{}
		e.joins.slots[id] = j
	}
	if !j.joined && len(j.waiting) >= maxJoinWaiters {
		e.joins.mu.Unlock()
		then(refusal.NotApplied(codes.ResourceExhausted, "%d requests wait for slot %d of %s already", maxJoinWaiters, id.slot, id.typ))
		return
	}
	first := !j.joined && len(j.waiting) == 0
	if first { // Of a slot that is being let go, too: that may take as long as a replica is away.
		j.asked, j.wanted = deadline, j.leaving
	} else { // Who asked first has another deadline.
		then = until(deadline, id, then)
	}
	j.waiting = append(j.waiting, waiting{deadline, then})
	joined := j.joined
	e.joins.mu.Unlock()
	switch {
	case joined: // Since ready looked.
		e.joined(id, nil)
	case first:
		e.askToJoin(id, deadline)
	}
}

// until calls then at the deadline, unless what it returns was called before.
func until(deadline time.Time, id slotID, then func(error)) func(error) {
	var called atomic.Bool
	once := func(err error) {
		if called.CompareAndSwap(false, true) {
			then(err)
		}
	}
	timer := time.AfterFunc(time.Until(deadline), func() {
		once(refusal.NotApplied(codes.Unavailable,
			"this store is not a replica of slot %d of %s, or not a full one yet, and did not get one in time", id.slot, id.typ))
	})
	return func(err error) {
		timer.Stop()
		once(err)
	}
}

func (e *Engine) askToJoin(id slotID, deadline time.Time) {
	r, fill := e.links.Load().Replicas, e.placedSlot(id)
	ask := r.Join
	if fill {
		ask = r.Fill
	}
	ask(id.typ, id.slot, deadline, func(err error) {
		if err == nil && fill && !e.placedSlot(id) { // It was placed elsewhere meanwhile, and brings no deltas here.
			e.askToJoin(id, deadline)
			return
		}
		if err != nil {
			err = refusal.NotApplied(codes.Unavailable,
				"this store is not a replica of slot %d of %s, or not a full one yet, and got none from one in time: %v", id.slot, id.typ, err)
		}
		e.joined(id, err)
	})
}

// placedSlot tells whether the placement names this store for a slot.
func (e *Engine) placedSlot(id slotID) bool {
	c := e.config.Load()
	t := c.types[id.typ]
	return t != nil && t.shape != nil && c.placedHere(t, id.slot, e.cfg.Node)
}

// joined calls those who wait. Where nobody was reached until the deadline of the first, one is asked for the others.
func (e *Engine) joined(id slotID, err error) {
	e.joins.mu.Lock()
	j := e.joins.slots[id]
	if j == nil {
		j = &join{}
		e.joins.slots[id] = j
	}
	over := j.waiting
	j.waiting = nil
	if err != nil && !time.Now().Before(j.asked) {
		for _, w := range over {
			if w.deadline.After(j.asked) {
				j.waiting = append(j.waiting, w)
			}
		}
		over = slices.DeleteFunc(over, func(w waiting) bool { return w.deadline.After(j.asked) })
	}
	var again time.Time
	for _, w := range j.waiting {
		if w.deadline.After(again) {
			again = w.deadline
		}
	}
	switch j.asked = again; {
	case err == nil && e.placedSlot(id):
		e.fresh.Load().filled(id.typ, id.slot)
		delete(e.joins.slots, id)
	case err == nil:
		j.joined = true
		// Nobody may let the slot go before these have been answered from it.
		e.index.Use(id.typ, id.slot)
	case !j.joined && !j.leaving && len(j.waiting) == 0:
		delete(e.joins.slots, id)
	}
	e.joins.mu.Unlock()
	if !again.IsZero() {
		e.askToJoin(id, again)
	}
	e.joins.mu.RLock()
	defer e.joins.mu.RUnlock()
	for _, w := range over {
		w.then(err)
	}
}

// closeJoins refuses all who wait for a slot.
func (e *Engine) closeJoins() {
	e.joins.mu.Lock()
	var over []waiting
	for _, j := range e.joins.slots {
		over = append(over, j.waiting...)
		j.waiting = nil
	}
	e.joins.mu.Unlock()
	for _, w := range over {
		w.then(errClosed)
	}
}

// serves tells whether this store may answer from the slot now. The committer's: only it lets slots go.
func (e *Engine) serves(c *configuration, typ *entityType, slot uint32) bool {
	if c.placedHere(typ, slot, e.cfg.Node) {
		return true
	}
	e.joins.mu.RLock()
	defer e.joins.mu.RUnlock()
	j := e.joins.slots[slotID{typ.Type, slot}]
	return j != nil && j.joined
}

func (e *Engine) isJoined(typ string, slot uint32) bool {
	e.joins.mu.RLock()
	defer e.joins.mu.RUnlock()
	j := e.joins.slots[slotID{typ, slot}]
	return j != nil && j.joined
}

// placed is called on the committer after each accepted configuration.
func (e *Engine) placed(c *configuration) {
	e.joins.mu.Lock()
	for id, j := range e.joins.slots {
		if t := c.types[id.typ]; t != nil && t.shape != nil && len(j.waiting) == 0 && c.placedHere(t, id.slot, e.cfg.Node) {
			delete(e.joins.slots, id)
		}
	}
	e.joins.mu.Unlock()
	e.repush(func(typ string) bool { return c.types[typ] != nil && c.types[typ].votes })
}

// leave lets a slot go that the placement does not name this store for: where nobody has used it for as long as entities stay
// in memory, or where it was left over from another placement, and all placed replicas have all of it. On the committer.
func (e *Engine) leave(c *configuration, typ *entityType, s *slots.Slot) {
	if c.placedHere(typ, s.Number, e.cfg.Node) || s.Empty() {
		return
	}
	id := slotID{typ.Type, s.Number}
	if e.isJoined(id.typ, id.slot) &&
		(e.uptime()-s.LastUsed() <= uint32(typ.passivateAfter/time.Second) || e.subs.hasSlot(id.typ, id.slot)) {
		return
	}
	e.joins.mu.Lock()
	j := e.joins.slots[id]
	if j == nil {
		j = &join{}
		e.joins.slots[id] = j
	}
	busy := j.leaving || len(j.waiting) > 0
	if !busy {
		j.leaving = true // left will end it.
	}
	e.joins.mu.Unlock()
	if busy {
		return
	}
	seen := s.Seen()
	e.links.Load().Replicas.Leave(id.typ, id.slot, seen, time.Now().Add(leaveTimeout), func(covered bool) {
		over := func() { e.left(typ, s, seen, covered) }
		if err := e.offer(item{call: over, done: make(chan struct{})}); err != nil {
			e.left(typ, s, nil, covered)
		}
	})
}

// left ends leave. seen is what the placed replicas have, as they said; nil where the slot can't be dropped now. On the
// committer, unless seen is nil.
func (e *Engine) left(typ *entityType, s *slots.Slot, seen *crdt.Context, covered bool) {
	id := slotID{typ.Type, s.Number}
	e.joins.mu.Lock()
	j := e.joins.slots[id]
	if j == nil { // Placed here by now.
		e.joins.mu.Unlock()
		return
	}
	if j.leaving = false; j.wanted { // Replicas.Join took it back.
		covered, j.wanted = false, false
	}
	// Once covered nothing comes from the others any more: who wants it has to join anew.
	j.joined = j.joined && !covered
	idle := !j.joined && len(j.waiting) == 0
	if idle {
		delete(e.joins.slots, id)
	}
	e.joins.mu.Unlock()
	switch {
	case idle && e.subs.hasSlot(id.typ, id.slot): // Subscribed meanwhile.
		e.join(id, time.Time{}, func(error) {})
	case idle && covered && seen != nil && s.Seen().Equal(seen) && !e.config.Load().placedHere(typ, s.Number, e.cfg.Node):
		if err := e.dropSlot(s); err != nil {
			e.cfg.Logger.Warn("slot that others have not dropped", "type", id.typ, "slot", id.slot, "error", err)
		}
	}
}
