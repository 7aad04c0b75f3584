package statestore

import (
	"time"

	"github.com/holdfast-mesh/holdfast/statestore/slots"
)

// sweep goes over all slots again and again, a little at each tick, for what time alone makes due. The committer's.
type sweep struct {
	// slots are those still to be looked at in this round.
	slots []*slots.Slot
	// idle counts entities of the round that may leave memory once a log snapshot has them.
	idle uint64
	// snapshot is when the last one was made for them.
	snapshot time.Time
}

// tick looks at some slots. On the committer, between batches.
func (e *Engine) tick() {
	e.index.Tick(e.uptime())
	e.tickParked()
	e.ripen()
	if len(e.sweep.slots) == 0 {
		e.beginSweep()
	}
	for looked := 0; looked < tickEntities && len(e.sweep.slots) > 0; {
		s := e.sweep.slots[0]
		e.sweep.slots = e.sweep.slots[1:]
		looked += 4 + s.Active()
		c := e.config.Load()
		if c == nil || c.types[s.Type()] == nil || c.types[s.Type()].shape == nil {
			continue
		}
		e.tickSlot(c, c.types[s.Type()], s)
	}
}

func (e *Engine) beginSweep() {
	active, _ := e.index.Counts()
	// Entities leave memory only where the log snapshot has them as they are: a store with few writes makes one for them.
	if wait := defaultPassivateAfter; e.sweep.idle > 0 && e.sweep.idle >= active/8 && time.Since(e.sweep.snapshot) >= e.shortest(wait) && e.log.Err() == nil {
		e.sweep.snapshot = time.Now()
		e.maybeSnapshot(true)
	}
	e.sweep.idle = 0
	for _, t := range e.index.Types() {
		for s := range t.Slots {
			e.sweep.slots = append(e.sweep.slots, s)
		}
	}
}

// shortest is the shortest time after which a type's entities leave memory, at most longest.
func (e *Engine) shortest(longest time.Duration) time.Duration {
	if c := e.config.Load(); c != nil {
		for _, t := range c.types {
			longest = min(longest, t.passivateAfter)
		}
	}
	return longest
}

// tickSlot does what is due in a slot.
func (e *Engine) tickSlot(c *configuration, typ *entityType, s *slots.Slot) {
	e.passivate(typ, s)
	e.expire(c, typ, s)
	e.leave(c, typ, s)
}

// passivate takes entities out of memory that nobody uses and that the log snapshot has.
func (e *Engine) passivate(typ *entityType, s *slots.Slot) {
	after := uint32(max(typ.passivateAfter/time.Second, 1))
	now := e.uptime()
	if now <= after {
		return
	}
	idle, keys := s.Idle(now - after)
	wanted := keys[:0]
	for _, key := range keys {
		if e.subs.has(entityID{s.Type(), key}) {
			idle--
			continue
		}
		wanted = append(wanted, key)
	}
	if len(wanted) > 0 {
		s.Passivate(wanted, now-after)
	}
	e.sweep.idle += uint64(idle - len(wanted))
}
