package statestore

import (
	"slices"
	"time"

	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
	"github.com/holdfast-mesh/holdfast/statestore/slots"
)

var deleteOperation = &operation{Operation: &holdfastv1.Operation_Delete{Delete: &holdfastv1.Delete{}}}

// expire deletes the slot's entities that nobody changed for their type's ttl, as far as this store has seen. It is a delete
// like any other: what another store changed meanwhile stays. Every placed replica does it in its turn, the first one at
// the ttl and each further one a little later, so that mostly one does; two that do it do no harm. On the committer.
func (e *Engine) expire(c *configuration, typ *entityType, s *slots.Slot) {
	if typ.ttl == 0 {
		return
	}
	turn := slices.Index(c.replicas(typ, s.Number), e.cfg.Node)
	if turn < 0 || e.log.Err() != nil {
		return
	}
	age := typ.ttl + time.Duration(turn)*min(max(typ.ttl/10, time.Second), time.Minute)
	before := e.cfg.Now().Add(-age).Unix()
	if before <= 0 {
		return
	}
	keys, err := s.Due(uint32(before))
	if err != nil {
		e.unreadable(err)
		return
	}
	b := newBatch()
	for _, key := range keys[:min(len(keys), maxBatch)] {
		ch := &change{
			id: entityID{s.Type(), key}, steps: []step{operationStep(0, deleteOperation)}, deadline: time.Now().Add(defaultDeadline),
			answer: func(_ *storev1.Committed, err error) {
				if err != nil {
					e.cfg.Logger.Warn("entity past its ttl not deleted everywhere", "type", s.Type(), "error", err)
				}
			},
		}
		if err := e.addChange(b, ch); err != nil {
			ch.answer(nil, err)
		}
	}
	if len(b.records) > 0 || len(b.settle) > 0 {
		e.finish(b, true)
	}
}
