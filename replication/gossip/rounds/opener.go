package rounds

import (
	"context"
	"time"

	replicationv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/replication/v1"
)

// asked is a round that this store opened.
type asked struct {
	side
	offer Offer
	empty bool
	// theirs has the peer's keys as they come; compared is over when they are complete.
	theirs map[string]uint64
	// telling is true from the last of them on.
	telling bool
	give    outbox
	absent  []string
	want    []string
	// waiting has what was wanted and did not come yet.
	waiting map[string]struct{}
	// last is true once the last part was sent.
	last bool
}

// Ask opens a round, if the slot is not compared by others; Offer.Done tells the end.
func (m *Machine) Ask(o Offer, now time.Time) {
	over := func(completed bool) {
		if o.Done != nil {
			o.Done(completed)
		}
	}
	turn := m.turn(o.Type, o.Slot)
	seen, hashes := m.engine.SlotSummary(o.Type, o.Slot)
	empty := len(hashes) == 0 && seen.Empty()
	if empty && o.GiveOnly {
		over(true)
		return
	}
	if !m.stream.Claim(o.Type, o.Slot, o.Survey) {
		over(false)
		return
	}
	a := &asked{offer: o, empty: empty, side: side{
		entityType: o.Type, slot: o.Slot, round: m.number(), touched: now, delivered: map[string]struct{}{},
		compared: seen, comparedKeys: seen, turn: turn,
	}}
	so := &replicationv1.SlotOffer{
		Type: o.Type, Slot: o.Slot, Round: a.round, Context: seen.Append(nil), Empty: a.empty, Buckets: hashes,
	}
	so.Announced, so.Retired = m.stream.Told(seen.Retired())
	m.asked[a.round] = a
	m.stream.Count(Opened, 1)
	m.stream.Send(&replicationv1.Message{Kind: &replicationv1.Message_SlotOffer{SlotOffer: so}})
}

func (m *Machine) endAsked(a *asked, completed bool) {
	delete(m.asked, a.round)
	m.end(&a.side, true, completed)
	if a.offer.Done != nil {
		a.offer.Done(completed)
	}
}

// giveUp ends a round before its time, and tells the peer: it holds the slot for this round.
func (m *Machine) giveUp(a *asked) {
	m.endAsked(a, false)
	m.over(&a.side)
}

// over tells the peer that no more follows in a round.
func (m *Machine) over(s *side) {
	m.stream.Send(&replicationv1.Message{Kind: &replicationv1.Message_SlotStates{SlotStates: &replicationv1.SlotStates{
		Type: s.entityType, Slot: s.slot, Round: s.round, Part: s.part, Done: true,
	}}})
}

func (m *Machine) end(s *side, asked, completed bool) {
	m.budget.give(s.kept)
	m.stream.Release(s.entityType, s.slot, asked, completed)
	if completed {
		m.stream.Count(Completed, 1)
	} else {
		m.stream.Count(Failed, 1)
	}
}

// keys takes the answerer's keys, and compares when they are complete.
func (m *Machine) keys(ctx context.Context, in *replicationv1.SlotKeys, now time.Time) {
	a := m.asked[in.GetRound()]
	if a == nil || !a.is(in.GetType(), in.GetSlot()) || a.telling || a.empty {
		return
	}
	a.touched = now
	if a.theirs == nil {
		a.theirs = make(map[string]uint64, len(in.GetKeys()))
		var named [buckets]bool
		for _, b := range in.GetBuckets() {
			if b < buckets && !named[b] {
				named[b] = true
				a.buckets = append(a.buckets, b)
			}
		}
	}
	for _, k := range in.GetKeys() {
		n := len(k.GetKey()) + keyOverhead
		if !m.budget.take(n) {
			m.giveUp(a)
			return
		}
		a.kept += n
		a.theirs[k.GetKey()] = k.GetHash()
	}
	if in.GetMore() {
		return
	}
	set, err := m.stream.Retired(in.GetAnnounced(), in.GetRetired())
	if err != nil {
		m.giveUp(a)
		return
	}
	theirs, err := decode(in.GetContext(), set)
	if err != nil {
		m.giveUp(a)
		return
	}
	m.stream.Saw(a.entityType, a.slot, theirs)
	a.telling = true
	var only []string // Keys that the peer lacks.
	if len(a.buckets) > 0 {
		seen, mine := m.engine.SlotKeys(a.entityType, a.slot, a.buckets)
		a.comparedKeys = seen
		for _, k := range mine {
			hash, ok := a.theirs[k.GetKey()]
			switch {
			case !ok:
				only = append(only, k.GetKey())
				a.give.keys = append(a.give.keys, k.GetKey())
			case hash != k.GetHash():
				a.give.keys = append(a.give.keys, k.GetKey())
				a.want = append(a.want, k.GetKey())
			}
			delete(a.theirs, k.GetKey())
		}
		for key := range a.theirs {
			a.absent = append(a.absent, key)
			a.want = append(a.want, key)
		}
	}
	a.theirs = map[string]uint64{}
	if a.offer.GiveOnly {
		a.want = nil
	} else if len(only) > 0 && (!theirs.Empty() || theirs.Retired().Len() > 0) {
		gone := &replicationv1.SlotStates{Absent: only}
		m.deliver(&a.side, gone)
		m.merge(ctx, &a.side, gone, theirs, nil)
	}
	m.tell(a)
}

// tell sends the opener's next part.
func (m *Machine) tell(a *asked) {
	p := &replicationv1.SlotStates{}
	var gone []string
	p.States, gone = a.give.next(m.engine, &a.side)
	if m.dropped(&a.side) {
		m.giveUp(a)
		return
	}
	p.Absent = append(names(&a.absent, maxNames), gone...)
	p.Want = names(&a.want, maxWant)
	a.waiting = make(map[string]struct{}, len(p.Want))
	for _, key := range p.Want {
		a.waiting[key] = struct{}{}
	}
	complete := a.compared
	a.last = a.give.empty() && len(a.absent) == 0 && len(a.want) == 0
	if p.Done = a.last; !a.last || a.failed {
		complete = nil
	}
	m.stream.Send(m.statesMessage(&a.side, p, a.comparedKeys, complete))
}

// brought takes the answerer's next part.
func (m *Machine) brought(ctx context.Context, a *asked, in *replicationv1.SlotStates, now time.Time) {
	fill, complete, err := m.read(&a.side, in)
	switch {
	case in.GetPart() < a.expected:
		return // A part that came twice.
	case in.GetPart() > a.expected, err != nil, in.GetDone() && in.Complete == nil, len(in.GetWant()) > 0, !a.telling && !a.empty:
		if err == nil && in.GetPart() == a.expected && (a.telling || a.empty) && !a.offer.GiveOnly {
			m.merge(ctx, &a.side, in, fill, nil) // The peer did not complete, but what it has is welcome.
		}
		if in.GetDone() {
			m.endAsked(a, false)
		} else {
			m.giveUp(a)
		}
		return
	}
	a.touched = now
	a.expected++
	for _, d := range in.GetStates() {
		delete(a.waiting, d.GetKey())
	}
	for _, key := range in.GetAbsent() {
		delete(a.waiting, key)
	}
	if a.offer.GiveOnly {
		if in.GetDone() {
			m.endAsked(a, a.last)
		} else if !a.last {
			m.tell(a)
		}
		return
	}
	m.deliver(&a.side, in)
	if !in.GetDone() {
		m.merge(ctx, &a.side, in, fill, nil)
		if len(a.waiting) == 0 && !a.empty && !a.last {
			m.tell(a)
		}
		return
	}
	if a.failed || len(a.waiting) > 0 || !a.last && !a.empty {
		m.merge(ctx, &a.side, in, fill, nil)
		m.endAsked(a, false)
		return
	}
	m.merge(ctx, &a.side, in, fill, a.comparison(complete))
	if !a.failed {
		m.stream.Saw(a.entityType, a.slot, complete)
		if !a.empty {
			m.stream.Saw(a.entityType, a.slot, a.compared)
		}
	}
	m.endAsked(a, !a.failed)
}
