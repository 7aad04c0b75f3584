package gossip

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	replicationv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/replication/v1"
	"github.com/holdfast-mesh/holdfast/replication/gossip/rounds"
	"github.com/holdfast-mesh/holdfast/replication/gossip/settle"
	"github.com/holdfast-mesh/holdfast/statestore/crdt"
)

// extras are the slots that this store is not placed for and takes part in all the same: those that the engine joined, and
// those that it holds still, or already, by another placement.
type extras struct {
	kick chan struct{}

	mu sync.Mutex
	// +checklocks:mu
	joined map[settle.Slot]bool
	// +checklocks:mu
	held map[settle.Slot]bool
	// left has when slots were left: the engine may be about to drop what it holds of them.
	// +checklocks:mu
	left map[settle.Slot]time.Time
	// joins and leaves wait for comparisons.
	// +checklocks:mu
	joins map[settle.Slot]*join
	// +checklocks:mu
	leaves map[*leave]struct{}
}

type join struct {
	waiting []*joiner
	// busy while a comparison is under way; tries counts them.
	busy  bool
	tries int
}

type joiner struct {
	done  func(error)
	timer *time.Timer
}

type leave struct {
	waiter *waiter
	busy   bool
}

func newExtras() *extras {
	return &extras{
		kick: make(chan struct{}, 1), joined: map[settle.Slot]bool{}, held: map[settle.Slot]bool{},
		left:  map[settle.Slot]time.Time{},
		joins: map[settle.Slot]*join{}, leaves: map[*leave]struct{}{},
	}
}

// Join asks all placed replicas of a slot for its deltas and fills it from one of them. Done may be called before Join
// returns. The interest lasts until Leave.
func (n *Node) Join(entityType string, slot uint32, deadline time.Time, done func(error)) {
	at := settle.Slot{Type: entityType, Slot: slot}
	w := &joiner{done: done}
	x := n.extras
	x.mu.Lock()
	if err := n.ctx.Err(); err != nil {
		x.mu.Unlock()
		done(err)
		return
	}
	news := !x.joined[at] && !x.held[at]
	x.joined[at] = true
	delete(x.left, at)
	j := x.joins[at]
	if j == nil {
		j = &join{}
		x.joins[at] = j
	}
	j.waiting = append(j.waiting, w)
	w.timer = time.AfterFunc(time.Until(deadline), func() {
		n.endJoin(at, w, fmt.Errorf("join slot %d of %s: none of its replicas was reached in time", slot, entityType))
	})
	x.mu.Unlock()
	if news {
		n.declare([]settle.Slot{at}, true)
	}
	signal(x.kick)
}

// endJoin ends the wait of one, or with nil of all, for a slot.
func (n *Node) endJoin(at settle.Slot, one *joiner, err error) {
	x := n.extras
	x.mu.Lock()
	var over []*joiner
	if j := x.joins[at]; j != nil {
		j.waiting = slices.DeleteFunc(j.waiting, func(w *joiner) bool {
			if one != nil && w != one {
				return false
			}
			over = append(over, w)
			return true
		})
		if len(j.waiting) == 0 {
			delete(x.joins, at)
		}
	}
	x.mu.Unlock()
	for _, w := range over {
		w.timer.Stop()
		w.done(err)
	}
}

// Leave calls done(true) once all placed replicas of a slot were seen to have seen what is given; its interest ends then.
// Done(false) follows the deadline, and changes nothing. Done may be called before Leave returns.
func (n *Node) Leave(entityType string, slot uint32, seen *crdt.Context, deadline time.Time, done func(covered bool)) {
	at := settle.Slot{Type: entityType, Slot: slot}
	x := n.extras
	v := &leave{}
	v.waiter = &waiter{
		slot: at, agreed: true,
		seen: func(c *crdt.Context) bool { return c.Covers(seen) },
		need: func(l *layout) (int, bool) {
			others := slices.DeleteFunc(slices.Clone(l.replicas(entityType, slot)), func(node string) bool { return node == n.cfg.Node })
			return len(others), len(others) > 0
		},
		done: func(covered bool) {
			x.mu.Lock()
			delete(x.leaves, v)
			over := covered && (x.joined[at] || x.held[at])
			if over {
				delete(x.joined, at)
				delete(x.held, at)
				x.left[at] = time.Now()
			}
			x.mu.Unlock()
			if over {
				n.declare([]settle.Slot{at}, false)
			}
			done(covered)
		},
	}
	// Everybody has seen nothing; and it could not be asked for, where the slot is not joined. What only retired identities
	// wrote is not nothing.
	if seen.Empty() && seen.Retired().Len() == 0 {
		v.waiter.done(true)
		return
	}
	x.mu.Lock()
	x.leaves[v] = struct{}{}
	x.mu.Unlock()
	n.acks.wait(v.waiter, deadline)
	signal(x.kick)
}

// declare tells all peers that this store wants, or no longer wants, the deltas of some slots.
func (n *Node) declare(in []settle.Slot, on bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for s := range n.sessions {
		if s.dialed {
			declareOn(s, in, on)
		}
	}
}

// declareEpoch tells a peer which placement this store has.
func (n *Node) declareEpoch(s *session) {
	if l := n.layout.Load(); l != nil {
		s.notices.add(&replicationv1.Message{Kind: &replicationv1.Message_Interest{Interest: &replicationv1.Interest{On: true, Epoch: l.epoch}}})
	}
}

func declareOn(s *session, in []settle.Slot, on bool) {
	byType := map[string][]uint32{}
	for _, at := range in {
		byType[at.Type] = append(byType[at.Type], at.Slot)
	}
	for t, slots := range byType {
		s.notices.add(&replicationv1.Message{Kind: &replicationv1.Message_Interest{Interest: &replicationv1.Interest{Type: t, Slots: slots, On: on}}})
	}
}

// declareAll tells a new stream's peer.
func (n *Node) declareAll(s *session) {
	x := n.extras
	x.mu.Lock()
	var all []settle.Slot
	for at := range x.joined {
		all = append(all, at)
	}
	for at := range x.held {
		if !x.joined[at] {
			all = append(all, at)
		}
	}
	x.mu.Unlock()
	n.declareEpoch(s)
	declareOn(s, all, true)
	signal(x.kick)
}

// interested takes a peer's interest in.
func (n *Node) interested(s *session, in *replicationv1.Interest) {
	n.mu.Lock()
	current := n.accepted[s.peer] == s
	n.mu.Unlock()
	if !current {
		return
	}
	if in.GetEpoch() > 0 {
		n.acks.placed(s.peer, in.GetEpoch())
	}
	if len(in.GetSlots()) == 0 {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.accepted[s.peer] != s {
		return
	}
	set := n.interests[s.peer]
	if set == nil {
		set = map[settle.Slot]struct{}{}
		n.interests[s.peer] = set
	}
	for _, slot := range in.GetSlots() {
		at := settle.Slot{Type: in.GetType(), Slot: slot}
		switch {
		case !in.GetOn():
			delete(set, at)
		case slot < slots && len(set) < maxInterest:
			set[at] = struct{}{}
		}
	}
}

// extraSlots are a type's slots that this store, and a peer, take part in without being placed.
func (n *Node) extraSlots(entityType, peer string) (mine, theirs [slots]bool) {
	x := n.extras
	x.mu.Lock()
	for at := range x.joined {
		if at.Type == entityType {
			mine[at.Slot%slots] = true
		}
	}
	for at := range x.held {
		if at.Type == entityType {
			mine[at.Slot%slots] = true
		}
	}
	x.mu.Unlock()
	n.mu.Lock()
	defer n.mu.Unlock()
	for at := range n.interests[peer] {
		if at.Type == entityType {
			theirs[at.Slot%slots] = true
		}
	}
	return mine, theirs
}

// hold finds the slots that this store holds without being placed.
func (n *Node) hold() {
	l := n.layout.Load()
	if l == nil {
		return
	}
	held := map[settle.Slot]bool{}
	for _, t := range n.cfg.Engine.Types() {
		if tl := l.of(t); tl == nil || tl.placed == nil && l.isMember(n.cfg.Node) {
			continue
		}
		for _, h := range n.cfg.Engine.SlotHashes(t) {
			if h.GetHash() != 0 && h.GetSlot() < slots && !l.isPlaced(n.cfg.Node, t, h.GetSlot()) {
				held[settle.Slot{Type: t, Slot: h.GetSlot()}] = true
			}
		}
	}
	x := n.extras
	x.mu.Lock()
	for at, since := range x.left {
		if time.Since(since) > dropTime {
			delete(x.left, at)
		} else {
			delete(held, at)
		}
	}
	var on, off []settle.Slot
	for at := range held {
		if !x.held[at] && !x.joined[at] {
			on = append(on, at)
		}
	}
	for at := range x.held {
		if !held[at] && !x.joined[at] {
			off = append(off, at)
		}
	}
	x.held = held
	x.mu.Unlock()
	n.declare(on, true)
	n.declare(off, false)
}

// compareExtras opens the comparisons that joins and leaves wait for.
func (n *Node) compareExtras() {
	x := n.extras
	for n.ctx.Err() == nil {
		x.mu.Lock()
		pending := len(x.joins)+len(x.leaves) > 0
		x.mu.Unlock()
		if pending {
			n.compareSome()
			pause(n.ctx, compareInterval)
			continue
		}
		select {
		case <-x.kick:
		case <-n.ctx.Done():
		}
	}
	x.mu.Lock()
	open := slices.Collect(maps.Keys(x.joins))
	x.mu.Unlock()
	for _, at := range open {
		n.endJoin(at, nil, n.ctx.Err())
	}
}

func (n *Node) compareSome() {
	l := n.layout.Load()
	x := n.extras
	type task struct {
		at    settle.Slot
		peers []string
		done  func(bool)
	}
	var tasks []task
	x.mu.Lock()
	for at, j := range x.joins {
		placed := slices.Clone(l.replicas(at.Type, at.Slot))
		if j.busy || len(placed) == 0 {
			continue
		}
		j.busy = true
		first := j.tries % len(placed)
		j.tries++
		tasks = append(tasks, task{at, append(placed[first:], placed[:first]...), func(ok bool) { n.compared(at, j, ok) }})
	}
	for v := range x.leaves {
		if v.busy {
			continue
		}
		v.busy = true
		tasks = append(tasks, task{v.waiter.slot, n.acks.missing(v.waiter), func(bool) {
			x.mu.Lock()
			defer x.mu.Unlock()
			v.busy = false
		}})
	}
	x.mu.Unlock()
	for _, t := range tasks {
		if s := n.streamTo(t.peers); s != nil {
			s.offer(rounds.Offer{Type: t.at.Type, Slot: t.at.Slot, Done: t.done})
		} else {
			t.done(false)
		}
	}
}

// compared ends a comparison that a join asked for.
func (n *Node) compared(at settle.Slot, j *join, ok bool) {
	n.extras.mu.Lock()
	j.busy = false
	n.extras.mu.Unlock()
	if ok {
		n.endJoin(at, nil, nil)
	}
}

// streamTo returns the stream to the first of some nodes that there is one to.
func (n *Node) streamTo(nodes []string) *session {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, name := range nodes {
		if m := n.members[name]; m != nil && m.peer != nil {
			if s := m.peer.current(); s != nil {
				return s
			}
		}
	}
	return nil
}
