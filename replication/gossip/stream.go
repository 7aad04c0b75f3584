package gossip

import (
	"errors"
	"slices"
	"time"

	replicationv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/replication/v1"
	"github.com/holdfast-mesh/holdfast/replication/gossip/rounds"
	"github.com/holdfast-mesh/holdfast/replication/gossip/settle"
	"github.com/holdfast-mesh/holdfast/statestore/crdt"
)

// roundStream is a session as package rounds sees it.
type roundStream struct{ *session }

var _ rounds.Stream = roundStream{}

// Send implements rounds.Stream. Close of the session unblocks it: its lanes' context ends with the stream's.
func (s roundStream) Send(m *replicationv1.Message) bool {
	select {
	case s.answers <- m:
		return true
	case <-s.over:
		return false
	}
}

// Epoch implements rounds.Stream.
func (s roundStream) Epoch() uint64 {
	if l := s.node.layout.Load(); l != nil {
		return l.epoch
	}
	return 0
}

// Common implements rounds.Stream: the slots that both are placed for, and those that one is placed for and the other
// holds, or asked for, all the same.
func (s roundStream) Common(entityType string) func(slot uint32) bool {
	l := s.node.layout.Load()
	t := l.of(entityType)
	if t == nil {
		return nil
	}
	self, peer := s.node.cfg.Node, s.peer
	if t.placed == nil && l.isMember(self) && l.isMember(peer) {
		return func(uint32) bool { return true }
	}
	var common [slots]bool
	some := false
	mine, theirs := s.node.extraSlots(entityType, peer)
	for slot := range uint32(slots) {
		placed := l.at(t, slot)
		here, there := slices.Contains(placed, self), slices.Contains(placed, peer)
		common[slot] = here && there || there && mine[slot] || here && theirs[slot]
		some = some || common[slot]
	}
	if !some {
		return nil
	}
	return func(slot uint32) bool { return slot < slots && common[slot] }
}

// Told implements rounds.Stream.
func (s roundStream) Told(set *crdt.Retired) (announced uint64, others []uint64) {
	if set.Len() == 0 {
		return 0, nil
	}
	told := s.told.Load()
	if told.Len() == 0 || set.Union(told).Len() != set.Len() {
		return 0, set.IDs()
	}
	if told.Len() < set.Len() {
		for _, id := range set.IDs() {
			if !told.Has(id) {
				others = append(others, id)
			}
		}
	}
	return told.Hash(), others
}

var errUnannounced = errors.New("the peer's context is about retired identities that it did not announce")

// Retired implements rounds.Stream.
func (s roundStream) Retired(announced uint64, others []uint64) (*crdt.Retired, error) {
	var set *crdt.Retired
	if announced != 0 {
		s.mu.Lock()
		i := slices.IndexFunc(s.announced, func(r *crdt.Retired) bool { return r.Hash() == announced })
		if i >= 0 {
			set = s.announced[i]
		}
		s.mu.Unlock()
		if i < 0 {
			return nil, errUnannounced
		}
	}
	if len(others) == 0 {
		return set, nil
	}
	// A set that this store has already is not held a second time.
	return s.node.shared(set.Union(crdt.NewRetired(others...))), nil
}

// announce remembers the retired identities that the peer named. Contexts on their way may refer to earlier ones.
func (s *session) announce(set *crdt.Retired) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.announced); n > 0 && s.announced[n-1].Hash() == set.Hash() {
		return
	}
	s.announced = append(s.announced, set)
	if len(s.announced) > maxAnnounced {
		s.announced = slices.Delete(s.announced, 0, 1)
	}
}

// Claim implements rounds.Stream.
func (s roundStream) Claim(entityType string, slot uint32, survey time.Time) bool {
	return s.node.claims.open(s.session, settle.Slot{Type: entityType, Slot: slot}, survey)
}

// ClaimAnswer implements rounds.Stream.
func (s roundStream) ClaimAnswer(entityType string, slot uint32, behind bool) bool {
	return s.node.claims.answer(s.session, settle.Slot{Type: entityType, Slot: slot}, behind)
}

// Release implements rounds.Stream.
func (s roundStream) Release(entityType string, slot uint32, asked, completed bool) {
	s.node.claims.release(s.session, settle.Slot{Type: entityType, Slot: slot}, asked, completed)
}

// Saw implements rounds.Stream.
func (s roundStream) Saw(entityType string, slot uint32, seen *crdt.Context) {
	at := settle.Slot{Type: entityType, Slot: slot}
	s.node.acks.saw(s.peer, at, seen, false)
	s.node.identities.saw(s.session, at, seen)
}

// Mark implements rounds.Stream.
func (s roundStream) Mark(entityType string) any {
	return mark{s.node.acks.mark(), s.node.identities.mark(entityType)}
}

// Same implements rounds.Stream.
func (s roundStream) Same(entityType string, slots []uint32, at any) {
	m := at.(mark)
	s.node.acks.same(s.peer, entityType, slots, m.acks)
	s.node.identities.same(s.session, entityType, slots, m.identities)
}

// mark is what this store had before it read its hashes.
type mark struct {
	acks       uint64
	identities *identitiesMark
}

// Count implements rounds.Stream.
func (s roundStream) Count(e rounds.Event, n int) { s.node.metrics.events[e].Add(float64(n)) }
