package statestore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/holdfast-mesh/holdfast/internal/placement"
	replicationv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/replication/v1"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
	"github.com/holdfast-mesh/holdfast/statestore/crdt"
	"github.com/holdfast-mesh/holdfast/statestore/slots"
)

// Why a change from outside is refused, beside what package crdt says.
var (
	// ErrForged says that it claims to know changes of this store that this store did not make.
	ErrForged = errors.New("claims changes of this store that it never made")
	// ErrAhead says that its clock is too far in the future.
	ErrAhead = errors.New("hybrid time is too far ahead")
	// ErrDropped says that the slot was dropped while it was compared.
	ErrDropped = errors.New("slot was dropped meanwhile")
	// ErrSlot says that a key is not in the slot that it came with.
	ErrSlot = errors.New("key of another slot")
)

// merge is what other stores sent: deltas, or whole states of one slot.
type merge struct {
	deltas []incoming
	whole  *whole
	// errs are what was refused so far.
	errs   []error
	merged func(error)
}

type incoming struct {
	id      entityID
	state   crdt.State
	encoded []byte
	// fill is the sender's residue of a whole state.
	fill *crdt.Context
}

// whole are states of one slot.
type whole struct {
	typ    string
	slot   uint32
	fill   *crdt.Context
	absent []string
	done   *crdt.Comparison
}

// Merge joins changes that other stores sent, and returns when they are durable. Those that do not fit here are left out and
// reported; the others are merged all the same.
func (e *Engine) Merge(ctx context.Context, deltas []*replicationv1.Delta) error {
	var errs []error
	for len(deltas) > 0 {
		m, size := &merge{}, 0
		for len(deltas) > 0 && (size == 0 || size+len(deltas[0].GetState()) <= maxBatchBytes) {
			size += len(deltas[0].GetState())
			m.take(deltas[0])
			deltas = deltas[1:]
		}
		if err := e.merge(ctx, m); err != nil {
			errs = append(errs, err)
		}
		if ctx.Err() != nil {
			break
		}
	}
	return errors.Join(errs...)
}

// MergeStates joins whole states of a slot: what fill covers and a state does not hold was removed; absent keys have no live
// dot at the sender. A nil done says that more follow. Else a comparison ends with them: unless something was refused, this
// store has then seen all that the peer had. Durable when it returns.
func (e *Engine) MergeStates(ctx context.Context, typ string, slot uint32, fill *crdt.Context, states []*replicationv1.Delta, absent []string, done *crdt.Comparison) error {
	if fill == nil {
		fill = &crdt.Context{}
	}
	m := &merge{whole: &whole{typ: typ, slot: slot, fill: fill, absent: absent, done: done}}
	if slot >= placement.Slots {
		return fmt.Errorf("merge states: slot %d of %d", slot, placement.Slots)
	}
	for _, d := range states {
		m.take(d)
	}
	return e.merge(ctx, m)
}

func (e *Engine) merge(ctx context.Context, m *merge) error {
	merged := make(chan error, 1)
	m.merged = func(err error) { merged <- err }
	if err := e.enqueue(ctx, item{merge: m}); err != nil {
		return errors.Join(append(m.errs, err)...)
	}
	return <-merged
}

// take decodes, on the goroutine of who brings it.
func (m *merge) take(d *replicationv1.Delta) {
	in := incoming{id: entityID{d.GetType(), d.GetKey()}, encoded: d.GetState()}
	err := checkEntity(&storev1.Entity{Type: in.id.typ, Key: in.id.key})
	if err == nil {
		in.state, err = crdt.Decode(d.GetState())
	}
	if err == nil && len(d.GetFill()) > 0 {
		in.fill, err = crdt.DecodeContext(d.GetFill())
	}
	if err == nil && m.whole != nil && (in.id.typ != m.whole.typ || placement.Slot(in.id.typ, in.id.key) != m.whole.slot) {
		err = ErrSlot
	}
	if err != nil {
		m.refuse(in.id, err)
		return
	}
	m.deltas = append(m.deltas, in)
}

func (m *merge) refuse(id entityID, err error) {
	m.errs = append(m.errs, fmt.Errorf("merge %s: %w", id, err))
}

func (e *Engine) addMerge(b *batch, m *merge) {
	if err := e.log.Err(); err != nil {
		m.merged(err)
		return
	}
	now := e.cfg.Now()
	if m.whole == nil {
		for _, in := range m.deltas {
			if err := e.mergeDelta(b, in, now); err != nil {
				m.refuse(in.id, err)
			}
		}
	} else {
		e.mergeWhole(b, m, now)
	}
	e.counters.refused(len(m.errs))
	b.settle = append(b.settle, func(diskErr error) { m.merged(errors.Join(append(m.errs, diskErr)...)) })
}

// forged tells whether a context has what this store did not make yet, next being its next sequence in the slot.
func (e *Engine) forged(c *crdt.Context, next uint64) bool {
	n := c.Next(e.replica)
	return n == 0 || n > next || c.Retired().Has(e.replica)
}

// accept checks what came for an entity against this store.
func (e *Engine) accept(in incoming, slot *slots.Slot, now time.Time) error {
	typ, err := e.eventualType(in.id.typ)
	if err != nil {
		return err
	}
	if !in.state.Is(typ.shape) {
		return fmt.Errorf("%w: the type is a %s here", crdt.ErrModel, crdt.Describe(typ.shape))
	}
	if next := slot.Next(); e.forged(in.state.Context(), next) || e.forged(in.fill, next) {
		return ErrForged
	}
	latest := in.state.LatestTime()
	if limit := uint64(max(now.Add(maxAhead).UnixMilli(), 0)); latest>>16 > limit {
		return fmt.Errorf("%w: %d ms over the %s that clocks may differ", ErrAhead, latest>>16-limit, maxAhead)
	}
	e.lastTime = max(e.lastTime, latest)
	return nil
}

func (e *Engine) mergeDelta(b *batch, in incoming, now time.Time) error {
	if _, err := e.eventualType(in.id.typ); err != nil {
		return err
	}
	slot := e.slotOf(in.id)
	if err := e.accept(in, slot, now); err != nil {
		return err
	}
	draft := b.draft(slot)
	changed, err := draft.Join(in.id.key, in.state, nil, len(in.encoded))
	if errors.Is(err, crdt.ErrRetired) {
		// An old one: what it was about is seen.
		return nil
	}
	if err != nil || !changed {
		return err
	}
	record := slots.Delta{Type: in.id.typ, Key: in.id.key, At: now, State: in.encoded}
	b.log(record.Append(nil))
	return nil
}

func (e *Engine) mergeWhole(b *batch, m *merge, now time.Time) {
	w := m.whole
	typ, err := e.eventualType(w.typ)
	if err != nil {
		m.errs = append(m.errs, err)
		return
	}
	slot := e.index.Make(w.typ, w.slot)
	next := slot.Next()
	if e.forged(w.fill, next) || w.done != nil && e.forged(w.done.Complete, next) {
		m.errs = append(m.errs, fmt.Errorf("merge states of slot %d of %s: %w", w.slot, w.typ, ErrForged))
		return
	}
	draft := b.draft(slot)
	var kept []slots.Whole
	join := func(in incoming) {
		fill := w.fill
		if !in.fill.Empty() {
			fill = in.fill.Clone()
			fill.Merge(w.fill)
		}
		changed, err := draft.Join(in.id.key, in.state, fill, len(in.encoded))
		if err != nil {
			m.refuse(in.id, err)
		} else if changed {
			kept = append(kept, slots.Whole{Key: in.id.key, Live: in.encoded, Fill: in.fill})
		}
	}
	for _, in := range m.deltas {
		if err := e.accept(in, slot, now); err != nil {
			m.refuse(in.id, err)
			continue
		}
		join(in)
	}
	// A peer that has seen nothing of the slot removed nothing.
	if len(w.absent) > 0 && !(w.fill.Empty() && w.fill.Retired().Len() == 0) {
		none, err := crdt.New(typ.shape)
		if err != nil {
			m.errs = append(m.errs, err)
			return
		}
		encoded := none.AppendLive(nil)
		for _, key := range w.absent {
			if id := (entityID{w.typ, key}); placement.Slot(w.typ, key) != w.slot {
				m.refuse(id, ErrSlot)
			} else {
				join(incoming{id: id, state: none, encoded: encoded})
			}
		}
	}
	base := slot.Retired()
	if len(kept) > 0 {
		b.log(slots.AppendStates(nil, w.typ, w.slot, now, w.fill, kept))
	}
	if w.done != nil && len(m.errs) == 0 {
		e.complete(b, m, draft, now, base)
	}
}

// complete ends a comparison: from here on this store has seen all that the peer had.
func (e *Engine) complete(b *batch, m *merge, draft *slots.Draft, now time.Time, base *crdt.Retired) {
	w := m.whole
	if w.done.Turn != draft.Slot().Dropped() {
		m.errs = append(m.errs, fmt.Errorf("merge states of slot %d of %s: %w", w.slot, w.typ, ErrDropped))
		return
	}
	if draft.Seen().Covers(w.done.Complete) {
		draft.Strip()
		return
	}
	removed, err := draft.Complete(w.done, uint32(now.Add(-maxRound).Unix()))
	if err != nil {
		m.errs = append(m.errs, err)
		return
	}
	for key, delta := range removed {
		record := slots.Delta{Type: w.typ, Key: key, At: now, State: delta.Append(nil)}
		b.log(record.Append(nil))
	}
	b.log(slots.AppendSeen(nil, w.typ, w.slot, w.done.Complete, base))
}
