package gossip

import (
	"sync"

	"github.com/holdfast-mesh/holdfast/internal/placement"
	replicationv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/replication/v1"
	"github.com/holdfast-mesh/holdfast/replication/gossip/settle"
)

// Publish pushes deltas to the placed replicas of their slots, and to the peers that declared interest. It never blocks;
// what a peer's queue can't take anti-entropy brings.
func (n *Node) Publish(deltas []*replicationv1.Delta) {
	l := n.layout.Load()
	if l == nil || len(deltas) == 0 {
		return
	}
	everywhere := true
	for _, d := range deltas {
		t := l.of(d.GetType())
		everywhere = everywhere && t != nil && t.placed == nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for name, m := range n.members {
		if m.peer == nil || n.isCut(name) {
			continue
		}
		interest := n.interests[name]
		if everywhere && (len(interest) == 0 || l.isMember(name)) {
			if l.isMember(name) {
				n.metrics.dropped.Add(float64(m.peer.queue.add(deltas)))
			}
			continue
		}
		var mine []*replicationv1.Delta
		for _, d := range deltas {
			slot := placement.Slot(d.GetType(), d.GetKey())
			if _, asked := interest[settle.Slot{Type: d.GetType(), Slot: slot}]; asked || l.isPlaced(name, d.GetType(), slot) {
				mine = append(mine, d)
			}
		}
		n.metrics.dropped.Add(float64(m.peer.queue.add(mine)))
	}
}

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
	if len(deltas) == 0 {
		return 0
	}
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

// deltasMessage makes the message of pushes in a version of the wire form.
func deltasMessage(deltas []*replicationv1.Delta, version uint32, ack bool) *replicationv1.Message {
	out := &replicationv1.Deltas{Ack: ack}
	if version < 3 {
		out.Deltas = deltas
		return &replicationv1.Message{Kind: &replicationv1.Message_Deltas{Deltas: out}}
	}
	var last *replicationv1.PackedDeltas
	for _, d := range deltas {
		if len(d.GetFill()) > 0 {
			out.Deltas = append(out.Deltas, d)
			continue
		}
		if last == nil || last.Type != d.GetType() {
			last = &replicationv1.PackedDeltas{Type: d.GetType()}
			out.Packed = append(out.Packed, last)
		}
		last.Deltas = append(last.Deltas, &replicationv1.PackedDelta{Key: d.GetKey(), State: d.GetState()})
	}
	return &replicationv1.Message{Kind: &replicationv1.Message_Deltas{Deltas: out}}
}

// unpack lists the deltas of a message of any version.
func unpack(in *replicationv1.Deltas) []*replicationv1.Delta {
	out := make([]*replicationv1.Delta, 0, len(in.GetDeltas()))
	for _, d := range in.GetDeltas() {
		if d != nil {
			out = append(out, d)
		}
	}
	for _, p := range in.GetPacked() {
		for _, d := range p.GetDeltas() {
			out = append(out, &replicationv1.Delta{Type: p.GetType(), Key: d.GetKey(), State: d.GetState()})
		}
	}
	return out
}

// deltaSize is at least the delta's size in a message.
func deltaSize(d *replicationv1.Delta) int {
	return len(d.GetType()) + len(d.GetKey()) + len(d.GetState()) + len(d.GetFill()) + 32
}
