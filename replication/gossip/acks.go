package gossip

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	"github.com/holdfast-mesh/holdfast/replication/gossip/settle"
	"github.com/holdfast-mesh/holdfast/statestore/crdt"
)

// acks knows which peer has what on its disk, as far as somebody waits for it: peers' acknowledgements of deltas, and
// their contexts in comparisons.
type acks struct {
	self   string
	layout *atomic.Pointer[layout]

	mu sync.Mutex
	// +checklocks:mu
	closed bool
	// number of the newest waiter.
	// +checklocks:mu
	number uint64
	// +checklocks:mu
	waiting map[settle.Slot][]*waiter
	// acked has each peer's last acknowledgement for each slot, for it may come before who waits for it: of this store's
	// identity only, so at most one context for each slot of the types that are acknowledged.
	// +checklocks:mu
	acked map[string]map[settle.Slot]*crdt.Context
	// epochs has the placement's epoch that each peer last said it has.
	// +checklocks:mu
	epochs map[string]uint64
}

// waiter waits until enough placed replicas have seen something of a slot.
type waiter struct {
	slot   settle.Slot
	number uint64
	// seen says whether a context has it.
	seen func(*crdt.Context) bool
	// need is how many placed replicas beside this store must have it, by the layout of the moment.
	need func(*layout) (int, bool)
	// agreed counts only peers that have the same placement: by another one they may be about to let the slot go, too.
	agreed bool
	by     []string
	// ended: nobody is to wait any more.
	ended bool
	timer *time.Timer
	done  func(bool)
}

// wait calls done(true) once enough have seen it, and done(false) at the deadline.
func (a *acks) wait(w *waiter, deadline time.Time) {
	a.mu.Lock()
	if w.ended {
		a.mu.Unlock()
		return
	}
	w.done = once(w.done)
	for peer, slots := range a.acked {
		if c := slots[w.slot]; c != nil && w.seen(c) {
			w.by = append(w.by, peer)
		}
	}
	reached, closed := a.reached(w), a.closed
	if !reached && !closed {
		a.number++
		w.number = a.number
		a.waiting[w.slot] = append(a.waiting[w.slot], w)
		w.timer = time.AfterFunc(time.Until(deadline), func() {
			a.mu.Lock()
			a.remove(w)
			a.mu.Unlock()
			w.done(false)
		})
	}
	a.mu.Unlock()
	if reached || closed {
		w.done(reached)
	}
}

// end calls done(false), unless the waiter has been told something before.
func (a *acks) end(w *waiter) {
	a.mu.Lock()
	a.remove(w)
	w.ended = true
	if w.timer != nil {
		w.timer.Stop()
	}
	done := w.done
	a.mu.Unlock()
	done(false)
}

func (a *acks) reached(w *waiter) bool {
	l := a.layout.Load()
	need, known := w.need(l)
	if !known {
		return false
	}
	have := 0
	for _, node := range l.replicas(w.slot.Type, w.slot.Slot) {
		if node != a.self && slices.Contains(w.by, node) && (!w.agreed || a.epochs[node] == l.epoch) {
			have++
		}
	}
	return have >= need
}

// +checklocks:a.mu
func (a *acks) remove(w *waiter) {
	if rest := slices.DeleteFunc(a.waiting[w.slot], func(o *waiter) bool { return o == w }); len(rest) > 0 {
		a.waiting[w.slot] = rest
	} else {
		delete(a.waiting, w.slot)
	}
}

// mark is a moment: what is waited for up to it was in the engine before.
func (a *acks) mark() uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.number
}

// saw takes a peer's context of a slot. An acknowledgement is kept for who begins to wait later.
func (a *acks) saw(peer string, slot settle.Slot, c *crdt.Context, ack bool) {
	a.mu.Lock()
	if ack {
		if a.acked[peer] == nil {
			a.acked[peer] = map[settle.Slot]*crdt.Context{}
		}
		a.acked[peer][slot] = c
	}
	done := a.count(peer, slot, func(w *waiter) bool { return w.seen(c) })
	a.mu.Unlock()
	tell(done)
}

// same takes that a peer had, at or after a mark, all that this store had at the mark. The slots are in order: there are
// thousands, and few that somebody waits for.
func (a *acks) same(peer string, entityType string, in []uint32, mark uint64) {
	var done []*waiter
	a.mu.Lock()
	for s := range a.waiting {
		if _, named := slices.BinarySearch(in, s.Slot); named && s.Type == entityType {
			done = append(done, a.count(peer, s, func(w *waiter) bool { return w.number <= mark })...)
		}
	}
	a.mu.Unlock()
	tell(done)
}

// count adds a peer to those of a slot's waiters that has says, and takes out those for which that was enough.
//
// +checklocks:a.mu
func (a *acks) count(peer string, slot settle.Slot, has func(*waiter) bool) (done []*waiter) {
	for _, w := range slices.Clone(a.waiting[slot]) {
		if slices.Contains(w.by, peer) || !has(w) {
			continue
		}
		w.by = append(w.by, peer)
		if a.reached(w) {
			a.remove(w)
			done = append(done, w)
		}
	}
	return done
}

// changed looks at all waiters again: the layout is another one. What was acknowledged before no longer counts for who begins
// to wait: the peer may have let the slot go since, and have got it back without anything in it.
func (a *acks) changed() { a.look(func() { clear(a.acked) }) }

// placed takes the placement's epoch that a peer says it has.
func (a *acks) placed(peer string, epoch uint64) {
	a.mu.Lock()
	known := a.epochs[peer] == epoch
	a.mu.Unlock()
	if known {
		return
	}
	a.look(func() {
		if a.epochs == nil {
			a.epochs = map[string]uint64{}
		}
		a.epochs[peer] = epoch
	})
}

// look looks at all waiters again after a change.
func (a *acks) look(change func()) {
	var done []*waiter
	a.mu.Lock()
	change()
	for _, ws := range a.waiting {
		for _, w := range slices.Clone(ws) {
			if a.reached(w) {
				a.remove(w)
				done = append(done, w)
			}
		}
	}
	a.mu.Unlock()
	tell(done)
}

// forget drops what a peer acknowledged, also where it was not enough yet: it came back under another identity, perhaps
// with another disk.
func (a *acks) forget(peer string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.acked, peer)
	delete(a.epochs, peer)
	for _, ws := range a.waiting {
		for _, w := range ws {
			w.by = slices.DeleteFunc(w.by, func(node string) bool { return node == peer })
		}
	}
}

func (a *acks) close() {
	a.mu.Lock()
	a.closed = true
	var all []*waiter
	for _, ws := range a.waiting {
		all = append(all, ws...)
	}
	clear(a.waiting)
	a.mu.Unlock()
	for _, w := range all {
		w.timer.Stop()
		w.done(false)
	}
}

func tell(done []*waiter) {
	for _, w := range done {
		w.timer.Stop()
		w.done(true)
	}
}

// once makes a callback safe against the race of its end with its deadline.
func once(done func(bool)) func(bool) {
	var called atomic.Bool
	return func(ok bool) {
		if called.CompareAndSwap(false, true) {
			done(ok)
		}
	}
}

// Await calls done(true) once the write of a dot has reached its level, and done(false) at the deadline: what became of it
// is not known then. It must be called after Publish. Done may be called before Await returns, by any goroutine.
func (n *Node) Await(entityType string, slot uint32, dot crdt.Dot, w configv1.WriteLevel, deadline time.Time, done func(reached bool)) {
	n.metrics.awaited.Inc()
	n.acks.wait(&waiter{
		slot: settle.Slot{Type: entityType, Slot: slot},
		seen: func(c *crdt.Context) bool { return c.Has(dot) },
		need: func(l *layout) (int, bool) { return l.others(n.cfg.Node, entityType, slot, w) },
		done: func(reached bool) {
			if !reached {
				n.metrics.unreached.Inc()
			}
			done(reached)
		},
	}, deadline)
}

// missing lists the placed replicas that a waiter waits for.
func (a *acks) missing(w *waiter) (out []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, node := range a.layout.Load().replicas(w.slot.Type, w.slot.Slot) {
		if node != a.self && !slices.Contains(w.by, node) {
			out = append(out, node)
		}
	}
	return out
}
