package rounds

import (
	"context"
	"time"

	"google.golang.org/protobuf/proto"

	replicationv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/replication/v1"
	"github.com/holdfast-mesh/holdfast/statestore/crdt"
)

// answered is a round that the peer opened.
type answered struct {
	side
	// partial says that not all buckets that differ are in the round.
	partial bool
}

func (m *Machine) endAnswered(r *answered, completed bool) {
	delete(m.answered, r.round)
	m.end(&r.side, false, completed)
}

// decline ends a round of the peer's before it began.
func (m *Machine) decline(o *replicationv1.SlotOffer) {
	m.stream.Count(Declined, 1)
	s := &replicationv1.SlotStates{Type: o.GetType(), Slot: o.GetSlot(), Round: o.GetRound(), Done: true}
	m.stream.Send(&replicationv1.Message{Kind: &replicationv1.Message_SlotStates{SlotStates: s}})
}

// offered answers the opener's first message of a round.
func (m *Machine) offered(o *replicationv1.SlotOffer, now time.Time) {
	if o.GetRound() <= m.newest {
		return // It came twice.
	}
	m.newest = o.GetRound()
	common := m.stream.Common(o.GetType())
	if common == nil || o.GetSlot() >= slots || !common(o.GetSlot()) || len(m.answered) >= maxRounds {
		m.decline(o)
		return
	}
	set, err := m.stream.Retired(o.GetAnnounced(), o.GetRetired())
	if err != nil {
		m.decline(o)
		return
	}
	theirs, err := decode(o.GetContext(), set)
	if err != nil {
		m.decline(o)
		return
	}
	m.stream.Saw(o.GetType(), o.GetSlot(), theirs)
	turn := m.turn(o.GetType(), o.GetSlot())
	seen, hashes := m.engine.SlotSummary(o.GetType(), o.GetSlot())
	if !m.stream.ClaimAnswer(o.GetType(), o.GetSlot(), !seen.Covers(theirs)) {
		m.decline(o)
		return
	}
	r := &answered{side: side{
		entityType: o.GetType(), slot: o.GetSlot(), round: o.GetRound(), touched: now, delivered: map[string]struct{}{},
		compared: seen, comparedKeys: seen, turn: turn,
	}}
	m.answered[r.round] = r
	if o.GetEmpty() {
		m.endAnswered(r, m.everything(r))
		return
	}
	r.buckets = differing(o.GetBuckets(), hashes)
	var keys []*replicationv1.KeyHash
	for n := len(r.buckets); n > 0; n = len(r.buckets) / 2 {
		r.partial = r.partial || n < len(r.buckets)
		r.buckets = r.buckets[:n]
		r.comparedKeys, keys = m.engine.SlotKeys(r.entityType, r.slot, r.buckets)
		if n == 1 || keysSize(keys) <= maxKeysBytes {
			break
		}
	}
	if m.dropped(&r.side) {
		m.endAnswered(r, false)
		m.decline(o)
		return
	}
	m.sendKeys(r, keys)
}

// everything sends all of a slot to a store that has nothing of it. It reports whether that was all.
func (m *Machine) everything(r *answered) bool {
	seen, keys := m.engine.SlotKeys(r.entityType, r.slot, nil)
	out := outbox{keys: make([]string, 0, len(keys))}
	for _, k := range keys {
		out.keys = append(out.keys, k.GetKey())
	}
	for sent := 0; ; {
		p := &replicationv1.SlotStates{}
		p.States, p.Absent = out.next(m.engine, &r.side)
		for _, d := range p.States {
			sent += stateSize(d)
		}
		if m.dropped(&r.side) {
			p.States, p.Absent, p.Done = nil, nil, true
			m.stream.Send(m.statesMessage(&r.side, p, &crdt.Context{}, nil))
			return false
		}
		complete := (*crdt.Context)(nil)
		if out.empty() {
			complete = seen
		}
		p.Done = out.empty() || sent > maxEmptyBytes
		if !m.stream.Send(m.statesMessage(&r.side, p, seen, complete)) {
			return false
		}
		if p.Done {
			return out.empty()
		}
	}
}

func (m *Machine) sendKeys(r *answered, keys []*replicationv1.KeyHash) {
	for more := true; more; {
		n, size := 0, 0
		for n < len(keys) && size < maxMessageBytes {
			size += keySize(keys[n])
			n++
		}
		k := &replicationv1.SlotKeys{
			Type: r.entityType, Slot: r.slot, Round: r.round, Buckets: r.buckets, Keys: keys[:n],
		}
		keys = keys[n:]
		if more = len(keys) > 0; more {
			k.More = true
		} else {
			k.Context = r.comparedKeys.Append(nil)
			k.Announced, k.Retired = m.stream.Told(r.comparedKeys.Retired())
		}
		if !m.stream.Send(&replicationv1.Message{Kind: &replicationv1.Message_SlotKeys{SlotKeys: k}}) {
			return
		}
	}
}

// given takes the opener's next part and answers it.
func (m *Machine) given(ctx context.Context, r *answered, in *replicationv1.SlotStates, now time.Time) {
	if in.GetPart() < r.expected {
		return // It came twice.
	}
	fill, complete, err := m.read(&r.side, in)
	if in.GetPart() > r.expected || err != nil || len(in.GetWant()) > maxWant {
		m.endAnswered(r, false)
		m.over(&r.side)
		return
	}
	r.touched = now
	r.expected++
	m.deliver(&r.side, in)
	completed := false
	if in.GetDone() && complete != nil && !r.failed && !r.partial {
		m.merge(ctx, &r.side, in, fill, r.comparison(complete))
		if completed = !r.failed; completed {
			m.stream.Saw(r.entityType, r.slot, complete)
		}
	} else {
		m.merge(ctx, &r.side, in, fill, nil)
	}
	out := outbox{keys: in.GetWant()}
	for {
		p := &replicationv1.SlotStates{}
		p.States, p.Absent = out.next(m.engine, &r.side)
		if m.dropped(&r.side) {
			m.endAnswered(r, false)
			m.over(&r.side)
			return
		}
		mine := (*crdt.Context)(nil)
		if p.Done = in.GetDone() && out.empty(); p.Done && completed {
			mine = r.compared
		}
		if !m.stream.Send(m.statesMessage(&r.side, p, r.comparedKeys, mine)) || out.empty() {
			break
		}
	}
	if in.GetDone() {
		m.endAnswered(r, completed)
	}
}

// differing lists the buckets whose hashes are not equal.
func differing(theirs, mine []*replicationv1.BucketHash) []uint32 {
	var hashes [buckets]uint64
	for _, b := range mine {
		hashes[b.GetBucket()%buckets] = b.GetHash()
	}
	for _, b := range theirs {
		if b.GetBucket() < buckets {
			hashes[b.GetBucket()] -= b.GetHash()
		}
	}
	var out []uint32
	for i, h := range hashes {
		if h != 0 {
			out = append(out, uint32(i))
		}
	}
	return out
}

func keySize(k *replicationv1.KeyHash) int { return proto.Size(k) + 4 }

func keysSize(keys []*replicationv1.KeyHash) (size int) {
	for _, k := range keys {
		size += keySize(k)
	}
	return size
}
