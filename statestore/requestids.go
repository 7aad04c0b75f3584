package statestore

import "time"

// requestIDs remembers which eventual commits this store applied, the last maxRequestIDs of the last requestIDAge. Only the
// committer touches it.
type requestIDs struct {
	at    map[appliedID]time.Time
	queue []appliedID // oldest first from head on
	head  int
}

// appliedID scopes a caller's request id to the entity.
type appliedID struct {
	entityID
	requestID string
}

func newRequestIDs() *requestIDs { return &requestIDs{at: map[appliedID]time.Time{}} }

func (r *requestIDs) has(id appliedID) bool {
	_, ok := r.at[id]
	return ok && id.requestID != ""
}

func (r *requestIDs) add(id appliedID, at, now time.Time) {
	if id.requestID == "" || now.Sub(at) > requestIDAge {
		return
	}
	if _, ok := r.at[id]; !ok {
		r.queue = append(r.queue, id)
	}
	r.at[id] = at
	r.expire(now)
}

func (r *requestIDs) expire(now time.Time) {
	for r.head < len(r.queue) {
		oldest := r.queue[r.head]
		if len(r.at) <= maxRequestIDs && now.Sub(r.at[oldest]) <= requestIDAge {
			break
		}
		delete(r.at, oldest)
		r.queue[r.head] = appliedID{}
		r.head++
	}
	if r.head > 1024 && r.head > len(r.queue)/2 {
		r.queue = append([]appliedID(nil), r.queue[r.head:]...)
		r.head = 0
	}
}
