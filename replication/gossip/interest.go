package gossip

import (
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
// returns. The interest lasts until Leave; a Leave of the slot that is under way ends, as not covered.
func (n *Node) Join(entityType string, slot uint32, deadline time.Time, done func(error)) {
	at := settle.Slot{Type: entityType, Slot: slot}
	x := n.extras
	x.mu.Lock()
	news := !x.wants(at)
	x.joined[at] = true
	delete(x.left, at)
	var back []*waiter
	for v := range x.leaves {
		if v.waiter.slot == at {
			back = append(back, v.waiter)
			delete(x.leaves, v)
		}
	}
	x.mu.Unlock()
	for _, w := range back {
		n.acks.end(w)
	}
	if news {
		n.declare([]settle.Slot{at})
	}
	n.fill(at, deadline, done)
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
			if _, under := x.leaves[v]; !under { // Join took it back.
				covered = false
			}
			delete(x.leaves, v)
			over := covered && x.wants(at)
			if over {
				delete(x.joined, at)
				delete(x.held, at)
				x.left[at] = time.Now()
			}
			x.mu.Unlock()
			if over {
				n.declare([]settle.Slot{at})
			}
			done(covered)
		},
	}
	x.mu.Lock()
	x.leaves[v] = struct{}{}
	x.mu.Unlock()
	// Everybody has seen nothing; and it could not be asked for, where the slot is not joined. What only retired identities
	// wrote is not nothing.
	if seen.Empty() && seen.Retired().Len() == 0 {
		v.waiter.done(true)
		return
	}
	// The placed replicas compare it only with who says to hold it; one that was left before and was not dropped, too.
	x.mu.Lock()
	delete(x.left, at)
	news := !x.wants(at)
	if news {
		x.held[at] = true
	}
	x.mu.Unlock()
	if news {
		n.declare([]settle.Slot{at})
	}
	n.acks.wait(v.waiter, deadline)
	signal(x.kick)
}

// declare tells all peers whether this store wants the deltas of some slots. What it wants is read under the lock that orders
// what peers are told, so that the last word is right.
func (n *Node) declare(slots []settle.Slot) {
	n.mu.Lock()
	defer n.mu.Unlock()
	x := n.extras
	x.mu.Lock()
	var on, off []settle.Slot
	for _, at := range slots {
		if x.wants(at) {
			on = append(on, at)
		} else {
			off = append(off, at)
		}
	}
	x.mu.Unlock()
	for s := range n.sessions {
		if s.dialed {
			declareOn(s, on, true)
			declareOn(s, off, false)
		}
	}
}

// wants says whether this store takes part in a slot without being placed.
//
// +checklocks:x.mu
func (x *extras) wants(at settle.Slot) bool { return x.joined[at] || x.held[at] }

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
	n.mu.Lock()
	defer n.mu.Unlock()
	x := n.extras
	x.mu.Lock()
	all := slices.Collect(maps.Keys(x.joined))
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
	var changed []settle.Slot
	for at := range held {
		if !x.wants(at) {
			changed = append(changed, at)
		}
	}
	for at := range x.held {
		if !held[at] && !x.joined[at] {
			changed = append(changed, at)
		}
	}
	x.held = held
	x.mu.Unlock()
	n.declare(changed)
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
	x := n.extras
	type task struct {
		at    settle.Slot
		peers []string
		done  func(bool)
	}
	var tasks []task
	for at, j := range n.openJoins() {
		names, later := n.sources(at)
		if len(names) == 0 {
			if !later {
				n.endJoin(at, nil, nil)
			}
			continue
		}
		x.mu.Lock()
		j.busy = true
		first := j.tries % len(names)
		j.tries++
		x.mu.Unlock()
		peers := append(slices.Clone(names[first:]), names[:first]...)
		tasks = append(tasks, task{at, peers, func(ok bool) { n.compared(at, j, ok) }})
	}
	x.mu.Lock()
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
