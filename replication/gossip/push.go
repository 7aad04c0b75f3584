package gossip

import (
	"sync"

	replicationv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/replication/v1"
)

// pushQueue holds the deltas that wait for one peer's stream. It never blocks who fills it: when it is full, deltas are
// dropped, and said to be.
type pushQueue struct {
	// ready has an entry while there may be something to take.
	ready chan struct{}

	// mu guards what follows.
	mu sync.Mutex
	// +checklocks:mu
	open bool
	// +checklocks:mu
	waiting []*replicationv1.Delta
	// +checklocks:mu
	bytes int
	// +checklocks:mu
	overflowed bool
}

func newPushQueue() *pushQueue { return &pushQueue{ready: make(chan struct{}, 1)} }

// setOpen opens the queue for a new stream, or closes it: without a stream nothing waits, since the next stream starts
// with anti-entropy.
func (q *pushQueue) setOpen(open bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.open, q.waiting, q.bytes, q.overflowed = open, nil, 0, false
}

// add returns how many of the deltas were dropped.
func (q *pushQueue) add(deltas []*replicationv1.Delta) (dropped int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.open {
		return 0
	}
	for i, d := range deltas {
		size := deltaSize(d)
		if len(q.waiting) >= maxQueueDeltas || q.bytes+size > maxQueueBytes && len(q.waiting) > 0 {
			q.overflowed = true
			dropped = len(deltas) - i
			break
		}
		q.waiting = append(q.waiting, d)
		q.bytes += size
	}
	q.signal()
	return dropped
}

// take returns what waits, as much as goes in one message, and whether deltas were dropped and none wait any more.
func (q *pushQueue) take() (deltas []*replicationv1.Delta, repair bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	n, size := 0, 0
	for n < len(q.waiting) && (n == 0 || size+deltaSize(q.waiting[n]) <= maxMessageBytes) {
		size += deltaSize(q.waiting[n])
		n++
	}
	deltas = q.waiting[:n:n]
	q.waiting = q.waiting[n:]
	q.bytes -= size
	if len(q.waiting) > 0 {
		q.signal()
		return deltas, false
	}
	q.waiting = nil
	repair, q.overflowed = q.overflowed, false
	return deltas, repair
}

func (q *pushQueue) signal() {
	select {
	case q.ready <- struct{}{}:
	default:
	}
}
