package gossip

import (
	"context"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	replicationv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/replication/v1"
	"github.com/holdfast-mesh/holdfast/replication/gossip/rounds"
)

// lane carries the rounds of a part of a stream's slots: the engine's disk is waited for in several lanes at a time.
type lane struct {
	session  *session
	machine  *rounds.Machine
	requests requestQueue
	// wake has an entry while there may be offers.
	wake chan struct{}
	// rounds asks the first lane to open a round; nil in others.
	rounds chan struct{}

	// mu guards the offers that wait.
	mu sync.Mutex
	// +checklocks:mu
	offers []rounds.Offer
	// +checklocks:mu
	closed bool
}

func (l *lane) run(ctx context.Context) error {
	defer l.close()
	expire := time.NewTicker(expireInterval)
	defer expire.Stop()
	for {
		for l.machine.Free() {
			o, ok := l.next()
			if !ok {
				break
			}
			l.machine.Ask(o, time.Now())
		}
		select {
		case <-l.requests.ready:
			if m := l.requests.take(); m != nil {
				l.session.answer(ctx, l, m)
			}
		case <-l.wake:
		case <-l.rounds:
			l.session.openRound()
		case <-expire.C:
			l.machine.Expire(time.Now())
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// offer queues a slot for comparison. Those that somebody waits for go first.
func (l *lane) offer(o rounds.Offer) {
	l.mu.Lock()
	closed := l.closed
	switch {
	case closed:
	case o.Survey.IsZero():
		l.offers = append([]rounds.Offer{o}, l.offers...)
	default:
		l.offers = append(l.offers, o)
	}
	l.mu.Unlock()
	if closed {
		if o.Done != nil {
			o.Done(false)
		}
		return
	}
	signal(l.wake)
}

func (l *lane) next() (o rounds.Offer, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.offers) == 0 {
		l.offers = nil
		return o, false
	}
	o = l.offers[0]
	l.offers = l.offers[1:]
	return o, true
}

func (l *lane) waiting() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.offers)
}

func (l *lane) close() {
	l.mu.Lock()
	l.closed = true
	offers := l.offers
	l.offers = nil
	l.mu.Unlock()
	l.machine.Close()
	for _, o := range offers {
		if o.Done != nil {
			o.Done(false)
		}
	}
}

// requestQueue holds the messages of anti-entropy that wait for a lane.
type requestQueue struct {
	// ready has an entry while there may be something to take.
	ready chan struct{}

	// mu guards what follows.
	mu sync.Mutex
	// +checklocks:mu
	waiting []*replicationv1.Message
	// +checklocks:mu
	bytes int
}

// add returns false where the queue is full.
func (q *requestQueue) add(m *replicationv1.Message) bool {
	size := proto.Size(m)
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) >= maxRequests || q.bytes+size > maxRequestBytes {
		return false
	}
	q.waiting = append(q.waiting, m)
	q.bytes += size
	signal(q.ready)
	return true
}

// take returns nil where nothing waits.
func (q *requestQueue) take() *replicationv1.Message {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) == 0 {
		return nil
	}
	m := q.waiting[0]
	q.waiting[0] = nil
	if q.waiting = q.waiting[1:]; len(q.waiting) > 0 {
		signal(q.ready)
	} else {
		q.waiting = nil
	}
	q.bytes -= proto.Size(m)
	return m
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
