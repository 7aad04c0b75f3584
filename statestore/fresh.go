package statestore

import (
	"sync/atomic"
	"time"

	"github.com/holdfast-mesh/holdfast/internal/placement"
)

// fresh are the slots that a placement gave this store, as far as nothing filled them yet: the store is a replica that may
// lack what the others have. Each is filled, in one comparison with a store that kept it before, when it is first asked
// for. Anti-entropy fills them all meanwhile: after freshTime they are served as they are.
type fresh struct {
	until time.Time
	// types are never added to. A bit is set until its slot is filled.
	types map[string]*[placement.Slots / 64]atomic.Uint64
}

func (f *fresh) has(typ string, slot uint32) bool {
	if f == nil || f.types[typ] == nil {
		return false
	}
	return f.types[typ][slot/64].Load()&(1<<(slot%64)) != 0
}

// filled takes a slot out.
func (f *fresh) filled(typ string, slot uint32) {
	if f != nil && f.types[typ] != nil {
		f.types[typ][slot/64].And(^uint64(1 << (slot % 64)))
	}
}

// refresh finds the slots that c gives this store and old, nil at its first one, did not, and those still to be filled. On
// the committer, before c is what requests see.
func (e *Engine) refresh(old, c *configuration) {
	before := e.fresh.Load()
	f := &fresh{until: time.Now().Add(freshTime), types: map[string]*[placement.Slots / 64]atomic.Uint64{}}
	for name, t := range c.types {
		if t.shape == nil {
			continue
		}
		var was *entityType
		if old != nil && old.types[name] != nil && old.types[name].shape != nil {
			was = old.types[name]
		}
		bits := &[placement.Slots / 64]atomic.Uint64{}
		some := false
		for slot := range uint32(placement.Slots) {
			if was != nil && old.placedHere(was, slot, e.cfg.Node) && !before.has(name, slot) {
				continue
			}
			if c.placedHere(t, slot, e.cfg.Node) && !e.isJoined(name, slot) {
				bits[slot/64].Or(1 << (slot % 64))
				some = true
			}
		}
		if some {
			f.types[name] = bits
		}
	}
	if len(f.types) == 0 || len(c.table.Members()) == 1 {
		f = nil
	}
	e.fresh.Store(f)
}

// ripen ends the time of the slots that were not filled, and lets go on who waits for one. The committer's.
func (e *Engine) ripen() {
	f := e.fresh.Load()
	if f == nil || time.Now().Before(f.until) {
		return
	}
	e.fresh.Store(nil)
	c := e.config.Load()
	var waited []slotID
	e.joins.mu.Lock()
	for id, j := range e.joins.slots {
		if t := c.types[id.typ]; len(j.waiting) > 0 && t != nil && t.shape != nil && c.placedHere(t, id.slot, e.cfg.Node) {
			waited = append(waited, id)
		}
	}
	e.joins.mu.Unlock()
	for _, id := range waited {
		e.joined(id, nil)
	}
}
