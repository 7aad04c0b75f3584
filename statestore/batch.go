package statestore

import (
	"errors"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/holdfast-mesh/holdfast/internal/placement"
	"github.com/holdfast-mesh/holdfast/internal/planted"
	replicationv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/replication/v1"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
	"github.com/holdfast-mesh/holdfast/statestore/refusal"
	"github.com/holdfast-mesh/holdfast/statestore/slots"
	"github.com/holdfast-mesh/holdfast/statestore/wal"
)

// batch is what shares one sync. What its items make of the slots is in drafts, seen by nobody but later items of the batch,
// until the log has it.
type batch struct {
	items   int
	bytes   int
	records [][]byte
	deltas  []*replicationv1.Delta
	drafts  map[*slots.Slot]*slots.Draft
	order   []*slots.Draft
	ids     map[appliedID]applied
	// settle is called in order when the batch is durable (nil), or is not.
	settle []func(err error)
}

func newBatch() *batch {
	return &batch{drafts: map[*slots.Slot]*slots.Draft{}, ids: map[appliedID]applied{}}
}

func (b *batch) log(record []byte) {
	b.records = append(b.records, record)
	b.bytes += len(record)
}

// draft is the batch's of a slot.
func (b *batch) draft(s *slots.Slot) *slots.Draft {
	d := b.drafts[s]
	if d == nil {
		d = s.Draft()
		b.drafts[s] = d
		b.order = append(b.order, d)
	}
	return d
}

func (e *Engine) slotOf(id entityID) *slots.Slot {
	return e.index.Make(id.typ, placement.Slot(id.typ, id.key))
}

// backlog is what goes to the log with the next batch that is synced: the own identity's record, and changes of LOCAL_MEM. It
// stays when the log fails. The committer's.
type backlog struct {
	records [][]byte
	bytes   int
	deltas  []*replicationv1.Delta
	// due fires when it must not wait any longer; it is armed while there are changes.
	due   *time.Timer
	armed bool
}

func (k *backlog) init() {
	k.due = time.NewTimer(time.Hour)
	k.due.Stop()
}

func (k *backlog) add(record []byte, delta *replicationv1.Delta) {
	k.records = append(k.records, record)
	k.bytes += len(record)
	k.deltas = append(k.deltas, delta)
	if !k.armed {
		k.armed = true
		k.due.Reset(memoryDelay)
	}
}

// finish makes the batch durable, then visible.
func (e *Engine) finish(b *batch, now bool) {
	if len(b.records) == 0 && (len(e.backlog.deltas) == 0 || !now && e.backlog.bytes < memoryBytes) {
		err := e.log.Err()
		if err == nil {
			e.apply(b)
		}
		b.answer(err)
		return
	}
	records := append(e.backlog.records, b.records...)
	deltas := append(e.backlog.deltas, b.deltas...)
	if planted.On(planted.DeltaBeforeFsync) {
		e.publish(deltas)
	}
	e.backlog.armed = false
	if err := e.log.Append(records); err != nil {
		e.cfg.Logger.Error("log failed: no writes until it is recovered", "error", err)
		b.answer(err)
		return
	}
	e.backlog.records, e.backlog.deltas, e.backlog.bytes = nil, nil, 0
	e.apply(b)
	if !planted.On(planted.DeltaBeforeFsync) {
		e.publish(deltas)
	}
	b.answer(nil)
	e.maybeSnapshot(false)
}

// apply puts a durable batch in force and tells subscribers.
func (e *Engine) apply(b *batch) {
	now := e.cfg.Now()
	for id, a := range b.ids {
		e.ids.add(id, a)
	}
	for _, d := range b.order {
		for _, key := range d.Apply(e.replica, uint32(now.Unix())) {
			// Pushed before it is answered: who has both never sees the older one last.
			id := entityID{d.Slot().Type(), key}
			e.push(id)
			e.changed(id)
		}
	}
}

func (e *Engine) publish(deltas []*replicationv1.Delta) {
	if len(deltas) > 0 {
		e.links.Load().Publisher.Publish(deltas)
	}
}

func (b *batch) answer(err error) {
	for _, settle := range b.settle {
		settle(err)
	}
}

func diskRefusal(err error) error {
	switch {
	case errors.Is(err, wal.ErrUnknown):
		return &Error{Code: codes.Unavailable, Outcome: storev1.Outcome_OUTCOME_UNKNOWN, Message: err.Error()}
	case errors.Is(err, wal.ErrTooLarge):
		return refusal.NotApplied(codes.ResourceExhausted, "%v", err)
	}
	return refusal.NotApplied(codes.Unavailable, "%v", err)
}

// logNow makes records durable between batches, with what waits, and calls inForce (nil: nothing) then: before a log snapshot
// may be begun that stands for them.
func (e *Engine) logNow(inForce func(), records ...[]byte) error {
	if err := e.log.Err(); err != nil {
		return err
	}
	b := newBatch()
	var failed error
	for _, r := range records {
		b.log(r)
	}
	b.settle = append(b.settle, func(err error) {
		if failed = err; err == nil && inForce != nil {
			inForce()
		}
	})
	e.finish(b, true)
	return failed
}
