package gossip

import (
	"context"
	"slices"
	"sync"
	"time"

	replicationv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/replication/v1"
	"github.com/holdfast-mesh/holdfast/replication/gossip/settle"
	"github.com/holdfast-mesh/holdfast/statestore/crdt"
)

// identities is package settle's table with what happens on the streams: see there.
type identities struct {
	engine Engine
	// kick asks for a decision.
	kick chan struct{}

	mu sync.Mutex
	// +checklocks:mu
	table *settle.Table
	// retired has those that are retired here: what introductions tell.
	// +checklocks:mu
	retired *crdt.Retired
	// settled is what this store attests.
	// +checklocks:mu
	settled []uint64
	// marks has the last mark of each type, while an identity is dead.
	// +checklocks:mu
	marks map[string]*identitiesMark
}

func newIdentities(node string, self uint64, e Engine) *identities {
	i := &identities{engine: e, kick: make(chan struct{}, 1), table: settle.New(node, self), marks: map[string]*identitiesMark{}}
	for _, id := range e.Identities() {
		i.table.Learn(id.GetReplica(), id.GetNode(), id.GetRetired())
	}
	i.recount()
	return i
}

// +checklocksignore: called at the start, or with mu held.
func (i *identities) recount() {
	var ids []uint64
	i.table.Known(func(id uint64, _ string, retired bool) {
		if retired {
			ids = append(ids, id)
		}
	})
	if len(ids) != i.retired.Len() {
		i.retired = crdt.NewRetired(ids...)
	}
}

// moved notes another layout. A retirement that was decided by the one before is not carried out by this store: it takes the
// identities over slot by slot, or attests again.
func (i *identities) moved() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.table.Moved()
}

// saw takes a peer's context of a slot in.
func (i *identities) saw(s *session, slot settle.Slot, c *crdt.Context) {
	i.mu.Lock()
	dead, round := i.table.Dead()
	i.mu.Unlock()
	if len(dead) == 0 {
		return
	}
	seen := c.Only(dead...)
	seen.Retire(c.Retired())
	i.mu.Lock()
	defer i.mu.Unlock()
	i.table.Saw(s.peer, slot, round, seen)
}

// identitiesMark has what this store had seen of the dead identities, in a type's slots, at a moment; nil where none is
// dead.
type identitiesMark struct {
	at    time.Time
	round uint64
	seen  [slots]*crdt.Context
}

// mark reads a type's slots, or takes an earlier mark: what this store had seen by then may be less than what a peer has
// that it finds to be equal; then this store has more now, too, and it will not be taken for agreement.
func (i *identities) mark(entityType string) *identitiesMark {
	i.mu.Lock()
	dead, round := i.table.Dead()
	m := i.marks[entityType]
	if len(dead) == 0 {
		clear(i.marks)
	}
	i.mu.Unlock()
	if len(dead) == 0 {
		return nil
	}
	if m != nil && m.round == round && time.Since(m.at) < markTime {
		return m
	}
	m = &identitiesMark{at: time.Now(), round: round}
	for slot := range m.seen {
		m.seen[slot] = i.engine.Seen(entityType, uint32(slot), dead...)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.marks[entityType] = m
	return m
}

// same takes that a peer had just what this store had, after a mark.
func (i *identities) same(s *session, entityType string, in []uint32, m *identitiesMark) {
	if m == nil || len(in) == 0 {
		return
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, slot := range in {
		i.table.Saw(s.peer, settle.Slot{Type: entityType, Slot: slot}, m.round, m.seen[slot%slots])
	}
}

// hear notes that a stream begins, or ended.
func (n *Node) hear(s *session, begins bool) {
	n.mu.Lock()
	if begins {
		n.sessions[s] = struct{}{}
	} else {
		delete(n.sessions, s)
	}
	n.mu.Unlock()
	if begins && s.dialed {
		n.declareAll(s)
	}
	i := n.identities
	i.mu.Lock()
	news, changed := false, false
	if begins {
		news = i.table.Learn(s.replica, s.peer, false)
		changed = i.table.Live(s.peer, s.replica)
		i.table.Busy(s.replica, 1)
	} else {
		i.table.Busy(s.replica, -1)
		i.table.Attested(s.peer, nil)
	}
	i.mu.Unlock()
	if changed {
		n.acks.forget(s.peer)
	}
	if news {
		n.remember(n.ctx, []*replicationv1.Identity{{Replica: s.replica, Node: s.peer}})
	}
	signal(i.kick)
}

// remember makes identities durable and tells the peers.
func (n *Node) remember(ctx context.Context, news []*replicationv1.Identity) {
	if err := n.cfg.Engine.LearnIdentities(ctx, news); err != nil && ctx.Err() == nil {
		n.cfg.Logger.Error("identities not kept", "error", err)
	}
	n.announce()
}

// announce sends this store's identities on all streams.
func (n *Node) announce() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for s := range n.sessions {
		s.notices.add(nil)
	}
}

// introduced takes what a peer knows of identities.
func (n *Node) introduced(ctx context.Context, s *session, in *replicationv1.Identities) {
	if len(in.GetKnown())+len(in.GetSettled()) > maxIdentities {
		n.metrics.requestsDropped.Inc()
		return
	}
	var news []*replicationv1.Identity
	var retired []uint64
	i := n.identities
	i.mu.Lock()
	for _, id := range in.GetKnown() {
		if i.table.Learn(id.GetReplica(), id.GetNode(), false) {
			news = append(news, &replicationv1.Identity{Replica: id.GetReplica(), Node: id.GetNode()})
		}
		if id.GetRetired() {
			retired = append(retired, id.GetReplica())
			i.table.Elsewhere(id.GetReplica())
		}
	}
	i.table.Attested(s.peer, in.GetSettled())
	i.mu.Unlock()
	s.announce(n.shared(crdt.NewRetired(retired...)))
	if len(news) > 0 {
		n.remember(ctx, news)
	}
	signal(i.kick)
}

// introduction is what this store tells of identities, and the set of those that its contexts may leave out from then on.
func (n *Node) introduction() (*replicationv1.Message, *crdt.Retired) {
	i := n.identities
	i.mu.Lock()
	defer i.mu.Unlock()
	m := &replicationv1.Identities{Settled: slices.Clone(i.settled)}
	i.table.Known(func(id uint64, node string, retired bool) {
		m.Known = append(m.Known, &replicationv1.Identity{Replica: id, Node: node, Retired: retired})
	})
	return &replicationv1.Message{Kind: &replicationv1.Message_Identities{Identities: m}}, i.retired
}

// shared returns this store's own set where it equals one.
func (n *Node) shared(set *crdt.Retired) *crdt.Retired {
	i := n.identities
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.retired.Len() == set.Len() && i.retired.Hash() == set.Hash() {
		return i.retired
	}
	return set
}

// settleDown decides, again and again, which identities are settled and which are to be retired.
func (n *Node) settleDown() {
	for n.ctx.Err() == nil {
		select {
		case <-n.identities.kick:
		case <-time.After(settleInterval):
		case <-n.ctx.Done():
			return
		}
		n.decide()
		pause(n.ctx, settlePause)
	}
}

func (n *Node) decide() {
	l := n.layout.Load()
	i := n.identities
	if l == nil {
		return
	}
	i.mu.Lock()
	dead, _ := i.table.Dead()
	open := i.table.Open()
	i.mu.Unlock()
	for at, placed := range n.ownSlots(l) {
		if len(open) == 0 {
			break
		}
		mine := n.cfg.Engine.Seen(at.Type, at.Slot, dead...)
		i.mu.Lock()
		open = i.table.Agree(open, at, placed, mine)
		i.mu.Unlock()
	}
	i.mu.Lock()
	if n.layout.Load() != l {
		i.mu.Unlock()
		return // Another decision was asked for.
	}
	settled, retire := i.table.Decide(open, l.members)
	changed := !slices.Equal(settled, i.settled)
	i.settled = settled
	i.mu.Unlock()
	if len(retire) > 0 {
		if err := n.cfg.Engine.Retire(n.ctx, retire); err != nil {
			if n.ctx.Err() == nil {
				n.cfg.Logger.Error("identities not retired", "error", err)
			}
			return
		}
		i.mu.Lock()
		for _, id := range retire {
			i.table.Learn(id, i.table.Node(id), true)
		}
		i.recount()
		i.mu.Unlock()
		n.metrics.retired.Add(float64(len(retire)))
		changed = true
	}
	if changed {
		n.announce()
	}
}

// ownSlots yields the slots that this store is placed for, or holds all the same.
func (n *Node) ownSlots(l *layout) func(yield func(settle.Slot, []string) bool) {
	return func(yield func(settle.Slot, []string) bool) {
		for _, t := range n.cfg.Engine.Types() {
			if l.of(t) == nil {
				continue
			}
			var held [slots]bool
			for _, h := range n.cfg.Engine.SlotHashes(t) {
				held[h.GetSlot()%slots] = h.GetHash() != 0
			}
			for slot := range uint32(slots) {
				placed := l.replicas(t, slot)
				if (held[slot] || slices.Contains(placed, n.cfg.Node)) && !yield(settle.Slot{Type: t, Slot: slot}, placed) {
					return
				}
			}
		}
	}
}
