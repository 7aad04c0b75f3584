// Package rounds compares the state of two stores over a stream, and makes both complete: anti-entropy, one slot at a time.
//
// It is driven from outside (package gossip): messages come in by Take, go out by Stream.Send; it starts no goroutine. A
// round, opener left; 3, 5 and 0, 1 are the times at which each side read its slot:
//
//	Groups of each type   ->               hashes of 64 groups of 64 slots
//	                      <- SlotHashes    of the groups that differ
//	SlotOffer             ->               of a slot that differs: context at 3, hashes of 64 buckets
//	                      <- SlotKeys      keys of the buckets that differ (at 0), with hashes, context at 1
//	SlotStates            ->               of the opener's keys (at 5) that the answerer lacks or has otherwise; names of
//	                                       those that it lacks itself, and of those that it wants
//	                      <- SlotStates    those that were wanted, or an empty part
//	…                                      until the opener's last part is answered by the answerer's last part
//
// A whole state says what it does not hold: what its fill covers was removed. After the last part a side takes over the
// peer's context of the slot (complete, read at 3 and at 0: not later than anything that was sent under it), and drops
// what arrived by other ways since it compared and was removed at the peer by then (crdt.Comparison). An opener that has
// nothing says so and is sent everything, in parts without questions.
//
// A message may be lost only together with the stream; a part that is out of turn ends its round without harm, and a
// later round repairs. What a round keeps is bounded (limits.go); a slot with more differing keys than that is compared
// some buckets at a time, in rounds without completion, until the last one.
//
// After Gonçalves, Almeida, Baquero, Fonte, "DottedDB: Anti-Entropy without Merkle Trees, Deletes without Tombstones"
// (SRDS 2017), with hashes of groups and buckets for the way to the keys.
package rounds

import (
	"context"
	"sync/atomic"
	"time"

	replicationv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/replication/v1"
	"github.com/holdfast-mesh/holdfast/statestore/crdt"
)

// Engine is the state that is compared. All methods may be called concurrently; contexts are the caller's, or immutable.
type Engine interface {
	// Types lists the entity types that are replicated here.
	Types() []string
	// SlotHashes lists the slots of a type with a hash each: equal entities and contexts, equal hashes; none: 0.
	SlotHashes(entityType string) []*replicationv1.SlotHash
	// SlotSummary, SlotKeys and SlotStates read a slot atomically: its context, and hashes of its buckets; its keys in
	// some buckets (nil: all); the states of those keys that exist.
	SlotSummary(entityType string, slot uint32) (*crdt.Context, []*replicationv1.BucketHash)
	SlotKeys(entityType string, slot uint32, buckets []uint32) (*crdt.Context, []*replicationv1.KeyHash)
	SlotStates(entityType string, slot uint32, keys []string) (*crdt.Context, []*replicationv1.Delta)
	// MergeStates joins whole states (of absent keys: empty ones) that fill goes with; done ends a comparison where all
	// that it delivered was merged. Durable when it returns.
	MergeStates(ctx context.Context, entityType string, slot uint32, fill *crdt.Context, states []*replicationv1.Delta, absent []string, done *crdt.Comparison) error
}

// Turner is an Engine that drops slots, and counts how often it dropped each: a comparison that began before a drop is
// refused at its end.
type Turner interface {
	SlotTurn(entityType string, slot uint32) uint64
}

// Event is something to count.
type Event int

const (
	// Opened counts rounds that this store opened, Completed those (opened or answered) after which it had all that the
	// peer had, Declined the peer's that it did not take, Failed those that ended otherwise.
	Opened Event = iota
	Completed
	Declined
	Failed
	// States counts whole states sent.
	States
	// Refused counts parts that the engine refused.
	Refused
)

// Stream is what a comparison needs of the stream it is on. Its methods may be called by several goroutines.
type Stream interface {
	// Send waits until the message is on its way to the writer; false means that the stream is over.
	Send(m *replicationv1.Message) bool
	// Common tells the slots of a type that both stores should have; nil where there is none.
	Common(entityType string) func(slot uint32) bool
	Epoch() uint64
	// Told splits the retired identities of a context in what this store announced on the stream (by hash) and others;
	// Retired puts together what the peer's message says.
	Told(set *crdt.Retired) (announced uint64, others []uint64)
	Retired(announced uint64, others []uint64) (*crdt.Retired, error)
	// Claim asks whether a slot may be compared now. Of the slots that this store opens (survey is when it saw that they
	// differ) only one comparison is under way in the whole store, so that it is not sent the same by many. Behind says
	// that the peer, who opened, has something that this store lacks. Release follows each Claim that was granted.
	Claim(entityType string, slot uint32, survey time.Time) bool
	ClaimAnswer(entityType string, slot uint32, behind bool) bool
	Release(entityType string, slot uint32, asked, completed bool)
	// Saw is told what the peer has seen of a slot. Mark is a moment; Same names slots, in order, of which the peer had just
	// what this store had at some time after it.
	Saw(entityType string, slot uint32, seen *crdt.Context)
	Mark(entityType string) any
	Same(entityType string, slots []uint32, mark any)
	Count(e Event, n int)
}

// Offer is a slot to compare.
type Offer struct {
	Type string
	Slot uint32
	// Survey is when the slot was seen to differ; zero where the comparison was asked for.
	Survey time.Time
	// GiveOnly says what this store has and takes nothing: it is about to end.
	GiveOnly bool
	// Done, if set, is called at the end: completed says that the peer has taken over all that this store had, and, but
	// for GiveOnly, the other way round.
	Done func(completed bool)
}

// Budget bounds what the rounds of one stream keep together.
type Budget struct{ bytes atomic.Int64 }

func (b *Budget) take(n int) bool {
	if b.bytes.Add(int64(n)) <= maxStreamBytes {
		return true
	}
	b.bytes.Add(int64(-n))
	return false
}

func (b *Budget) give(n int) { b.bytes.Add(int64(-n)) }

// Machine carries the rounds of some of a stream's slots. It is not safe for concurrent use.
type Machine struct {
	engine Engine
	stream Stream
	budget *Budget
	number func() uint64
	asked  map[uint64]*asked
	// answered has the rounds that the peer opened; the newest one's number is newest.
	answered map[uint64]*answered
	newest   uint64
}

// New makes a machine. Number draws the numbers of rounds, each greater than the one before.
func New(engine Engine, stream Stream, budget *Budget, number func() uint64) *Machine {
	return &Machine{
		engine: engine, stream: stream, budget: budget, number: number,
		asked: map[uint64]*asked{}, answered: map[uint64]*answered{},
	}
}

// Free reports whether another slot may be offered.
func (m *Machine) Free() bool { return len(m.asked) < maxRounds }

// Idle reports whether no round is under way.
func (m *Machine) Idle() bool { return len(m.asked)+len(m.answered) == 0 }

// Take takes a message of a round.
func (m *Machine) Take(ctx context.Context, in *replicationv1.Message, now time.Time) {
	switch k := in.GetKind().(type) {
	case *replicationv1.Message_SlotOffer:
		m.offered(k.SlotOffer, now)
	case *replicationv1.Message_SlotKeys:
		m.keys(ctx, k.SlotKeys, now)
	case *replicationv1.Message_SlotStates:
		// The opener's numbers are its own, so a number may name a round in either direction.
		if a := m.asked[k.SlotStates.GetRound()]; a != nil && a.is(k.SlotStates.GetType(), k.SlotStates.GetSlot()) {
			m.brought(ctx, a, k.SlotStates, now)
		} else if r := m.answered[k.SlotStates.GetRound()]; r != nil && r.is(k.SlotStates.GetType(), k.SlotStates.GetSlot()) {
			m.given(ctx, r, k.SlotStates, now)
		}
	}
}

// Expire ends the rounds in which nothing happened for long.
func (m *Machine) Expire(now time.Time) {
	for _, a := range m.asked {
		if now.Sub(a.touched) > roundTimeout {
			m.giveUp(a)
		}
	}
	for _, r := range m.answered {
		if now.Sub(r.touched) > roundTimeout {
			m.endAnswered(r, false)
			m.over(&r.side)
		}
	}
}

// Close ends all rounds: the stream is over.
func (m *Machine) Close() {
	for _, a := range m.asked {
		m.endAsked(a, false)
	}
	for _, r := range m.answered {
		m.endAnswered(r, false)
	}
}

// turn reads a slot's turn; it must be read before the slot's context.
func (m *Machine) turn(entityType string, slot uint32) uint64 {
	if t, ok := m.engine.(Turner); ok {
		return t.SlotTurn(entityType, slot)
	}
	return 0
}

// dropped reports whether the slot was dropped since the round began. It is asked after each reading and before what was
// read is sent: what is no longer there must not be taken for removed.
func (m *Machine) dropped(s *side) bool { return m.turn(s.entityType, s.slot) != s.turn }

// side is what both sides of a round keep.
type side struct {
	entityType string
	slot       uint32
	round      uint64
	touched    time.Time
	// compared is this store's context as of the hashes of the buckets, comparedKeys as of the keys of those that differ.
	compared, comparedKeys *crdt.Context
	buckets                []uint32
	// turn is the slot's before all that.
	turn uint64
	// delivered has the keys whose states the peer gave, absent ones included.
	delivered map[string]struct{}
	// failed says that something was refused, or left out: no completion.
	failed bool
	// part is the next one to send, expected the next one to come.
	part, expected uint32
	// kept is what the budget was asked for.
	kept int
	// fill was decoded from fillBytes; most parts of a round have the same.
	fill      *crdt.Context
	fillBytes string
	fillSet   uint64
}

func (s *side) is(entityType string, slot uint32) bool {
	return s.entityType == entityType && s.slot == slot
}

// deliver remembers the keys of a part.
func (m *Machine) deliver(s *side, in *replicationv1.SlotStates) {
	note := func(key string) {
		if _, ok := s.delivered[key]; ok {
			return
		}
		if n := len(key) + keyOverhead; m.budget.take(n) {
			s.kept += n
			s.delivered[key] = struct{}{}
		} else {
			s.failed = true
		}
	}
	for _, d := range in.GetStates() {
		note(d.GetKey())
	}
	for _, key := range in.GetAbsent() {
		note(key)
	}
}

// read decodes the contexts of a part.
func (m *Machine) read(s *side, in *replicationv1.SlotStates) (fill, complete *crdt.Context, err error) {
	set, err := m.stream.Retired(in.GetAnnounced(), in.GetRetired())
	if err != nil {
		return nil, nil, err
	}
	if s.fill == nil || s.fillBytes != string(in.GetFill()) || s.fillSet != set.Hash() {
		if s.fill, err = decode(in.GetFill(), set); err != nil {
			return nil, nil, err
		}
		s.fillBytes, s.fillSet = string(in.GetFill()), set.Hash()
	}
	if in.Complete != nil {
		if complete, err = decode(in.Complete, set); err != nil {
			return nil, nil, err
		}
	}
	return s.fill, complete, nil
}

// merge merges a part; done ends the comparison with it.
func (m *Machine) merge(ctx context.Context, s *side, in *replicationv1.SlotStates, fill *crdt.Context, done *crdt.Comparison) {
	if done == nil && len(in.GetStates()) == 0 && len(in.GetAbsent()) == 0 {
		return
	}
	for _, d := range in.GetStates() {
		d.Type = s.entityType
	}
	if err := m.engine.MergeStates(ctx, s.entityType, s.slot, fill, in.GetStates(), in.GetAbsent(), done); err != nil {
		m.stream.Count(Refused, 1)
		s.failed = true
	}
}

func (s *side) comparison(complete *crdt.Context) *crdt.Comparison {
	return &crdt.Comparison{
		Complete: complete, Compared: s.compared, ComparedKeys: s.comparedKeys, Buckets: s.buckets, Delivered: s.delivered,
		Turn: s.turn,
	}
}

// statesMessage makes a part with this store's contexts.
func (m *Machine) statesMessage(s *side, part *replicationv1.SlotStates, fill, complete *crdt.Context) *replicationv1.Message {
	part.Type, part.Slot, part.Round, part.Part = s.entityType, s.slot, s.round, s.part
	s.part++
	part.Fill = fill.Append(nil)
	part.Announced, part.Retired = m.stream.Told(fill.Retired())
	// One message has one set of retired identities. Where another one was taken over meanwhile, a later round completes.
	if complete != nil && complete.Retired().Hash() == fill.Retired().Hash() {
		part.Complete = complete.Append([]byte{})
	}
	m.stream.Count(States, len(part.States))
	return &replicationv1.Message{Kind: &replicationv1.Message_SlotStates{SlotStates: part}}
}

func decode(b []byte, set *crdt.Retired) (*crdt.Context, error) {
	c, err := crdt.DecodeContext(b)
	if err != nil {
		return nil, err
	}
	if set.Len() > 0 {
		c.Retire(set)
	}
	return c, nil
}

// outbox is the states, in whole messages, of keys that are sent one after another.
type outbox struct {
	keys   []string
	states []*replicationv1.Delta
}

func (o *outbox) empty() bool { return len(o.keys)+len(o.states) == 0 }

// next takes what goes in one message; absent are the keys that no longer exist.
func (o *outbox) next(e Engine, s *side) (states []*replicationv1.Delta, absent []string) {
	size := 0
	for {
		for len(o.states) > 0 {
			if n := stateSize(o.states[0]); len(states) > 0 && size+n > maxMessageBytes {
				return states, absent
			} else {
				size += n
			}
			states = append(states, o.states[0])
			o.states = o.states[1:]
		}
		if len(o.keys) == 0 || size >= maxMessageBytes || len(absent) >= maxNames {
			return states, absent
		}
		n := min(len(o.keys), maxStates)
		_, o.states = e.SlotStates(s.entityType, s.slot, o.keys[:n])
		if len(o.states) < n {
			have := make(map[string]struct{}, len(o.states))
			for _, d := range o.states {
				have[d.GetKey()] = struct{}{}
			}
			for _, key := range o.keys[:n] {
				if _, ok := have[key]; !ok {
					absent = append(absent, key)
				}
			}
		}
		o.keys = o.keys[n:]
	}
}

// stateSize is at least the state's size in a message.
func stateSize(d *replicationv1.Delta) int {
	return len(d.GetType()) + len(d.GetKey()) + len(d.GetState()) + len(d.GetFill()) + 32
}

// names takes from the front of keys what goes in one message.
func names(keys *[]string, limit int) []string {
	n, size := 0, 0
	for n < len(*keys) && n < limit && (n == 0 || size+len((*keys)[n])+8 <= maxMessageBytes/4) {
		size += len((*keys)[n]) + 8
		n++
	}
	out := (*keys)[:n:n]
	*keys = (*keys)[n:]
	return out
}
