package serve

import (
	"sync"

	"google.golang.org/protobuf/proto"

	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
)

type entityID struct{ typ, key string }

func idOf(e *storev1.Entity) entityID { return entityID{e.GetType(), e.GetKey()} }

// outbox is what waits to be written to one connection. Answers all go out, in order; of the pushes of one entity only
// the latest waits, so a slow subscriber costs one state per subscription. Answers go before pushes: a push that waits is
// never older than an answer that was put in before it was written.
type outbox struct {
	// mu guards all fields below.
	mu      sync.Mutex
	answers []*storev1.Response
	bytes   int
	pushes  map[entityID]*storev1.State
	order   []entityID
	closed  bool
	// subscribed holds what may still be pushed; a push after Unsubscribe's answer would confuse the caller.
	subscribed map[entityID]struct{}
	wake       chan struct{}
}

func newOutbox() *outbox {
	return &outbox{pushes: map[entityID]*storev1.State{}, subscribed: map[entityID]struct{}{}, wake: make(chan struct{}, 1)}
}

func (o *outbox) signal() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// answer queues a response. It reports false where the connection must be closed: it does not read.
func (o *outbox) answer(r *storev1.Response) bool {
	size := proto.Size(r)
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return true
	}
	if o.bytes+size > maxOutgoing {
		return false
	}
	o.bytes += size
	o.answers = append(o.answers, r)
	o.signal()
	return true
}

// Push implements statestore.Subscriber.
func (o *outbox) Push(s *storev1.State) {
	id := idOf(s.Entity)
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, ok := o.subscribed[id]; !ok || o.closed {
		return
	}
	if _, ok := o.pushes[id]; !ok {
		o.order = append(o.order, id)
	}
	o.pushes[id] = s
	o.signal()
}

// has tells whether the entity may be pushed.
func (o *outbox) has(id entityID) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	_, ok := o.subscribed[id]
	return ok
}

// subscribe reports false where there are too many.
func (o *outbox) subscribe(id entityID) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, ok := o.subscribed[id]; !ok && len(o.subscribed) >= maxSubscriptions {
		return false
	}
	o.subscribed[id] = struct{}{}
	return true
}

func (o *outbox) unsubscribe(id entityID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.subscribed, id)
	delete(o.pushes, id)
}

// take returns what to write next, about writeBatch bytes of it, and how many of them are answers.
func (o *outbox) take() (out []*storev1.Response, answers int, closed bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	size := 0
	for answers < len(o.answers) && size < writeBatch {
		r := o.answers[answers]
		n := proto.Size(r)
		size += n
		o.bytes -= n
		out = append(out, r)
		o.answers[answers] = nil
		answers++
	}
	if o.answers = o.answers[answers:]; len(o.answers) > 0 {
		return out, answers, false
	}
	o.answers = nil
	taken := 0
	for taken < len(o.order) && size < writeBatch {
		id := o.order[taken]
		taken++
		s, ok := o.pushes[id]
		if !ok {
			continue
		}
		delete(o.pushes, id)
		size += proto.Size(s)
		out = append(out, &storev1.Response{Result: &storev1.Response_State{State: s}})
	}
	if o.order = o.order[taken:]; len(o.order) == 0 {
		o.order = nil
	}
	return out, answers, o.closed && len(out) == 0
}

// close lets the writer finish what is queued and end; nothing more is taken.
func (o *outbox) close() []entityID {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	ids := make([]entityID, 0, len(o.subscribed))
	for id := range o.subscribed {
		ids = append(ids, id)
	}
	clear(o.subscribed)
	o.signal()
	return ids
}
