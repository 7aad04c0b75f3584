package statestore

import (
	"time"

	"github.com/holdfast-mesh/holdfast/statestore/crdt"
)

// requestIDs remembers which eventual commits this store applied, the last maxRequestIDs of the last requestIDAge. Only the
// committer touches it.
type requestIDs struct {
	applied map[appliedID]applied
	queue   []appliedID // oldest first from head on
	head    int
}

// appliedID scopes a caller's request id to the entity.
type appliedID struct {
	entityID
	requestID string
}

// applied is when, by the wall clock, and the commit's last dot; without a sequence where it changed nothing.
type applied struct {
	at  time.Time
	dot crdt.Dot
	// since is when by the clock that nobody sets: a store whose wall clock jumps must not forget, and apply a retry.
	since time.Time
}

func newRequestIDs() *requestIDs { return &requestIDs{applied: map[appliedID]applied{}} }

func (r *requestIDs) get(id appliedID) (crdt.Dot, bool) {
	a, ok := r.applied[id]
	return a.dot, ok && id.requestID != ""
}

// replay adds one of the log. Its age begins anew: a wall clock that was set forward before the restart must not make a store
// forget, and apply a retry.
func (r *requestIDs) replay(id appliedID, a applied) {
	a.since = time.Now()
	r.add(id, a)
}

func (r *requestIDs) add(id appliedID, a applied) {
	if id.requestID == "" || time.Since(a.since) > requestIDAge {
		return
	}
	if _, ok := r.applied[id]; !ok {
		r.queue = append(r.queue, id)
	}
	r.applied[id] = a
	r.expire()
}

func (r *requestIDs) expire() {
	for r.head < len(r.queue) {
		oldest := r.queue[r.head]
		if len(r.applied) <= maxRequestIDs && time.Since(r.applied[oldest].since) <= requestIDAge {
			break
		}
		delete(r.applied, oldest)
		r.queue[r.head] = appliedID{}
		r.head++
	}
	if r.head > 1024 && r.head > len(r.queue)/2 {
		r.queue = append([]appliedID(nil), r.queue[r.head:]...)
		r.head = 0
	}
}

// each calls f for those that are remembered, oldest first.
func (r *requestIDs) each(f func(appliedID, applied)) {
	for _, id := range r.queue[r.head:] {
		if a, ok := r.applied[id]; ok {
			f(id, a)
		}
	}
}
