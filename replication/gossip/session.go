package gossip

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	replicationv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/replication/v1"
	"github.com/holdfast-mesh/holdfast/replication/gossip/rounds"
	"github.com/holdfast-mesh/holdfast/statestore/crdt"
)

// Conn is a stream of messages between two stores. Send and Recv are called by one goroutine each; Close may come at any
// time and makes both return. A message that was sent is no longer the sender's to change, nor the receiver's.
type Conn interface {
	Send(m *replicationv1.Message) error
	Recv() (*replicationv1.Message, error)
	Close() error
}

// Dialer opens streams to other stores.
type Dialer interface {
	// Dial may return before the peer has agreed; Recv then says what became of it.
	Dial(ctx context.Context, address string) (Conn, error)
}

// session is one stream while it lives: a reader, a merger of deltas, a writer, and lanes that compare slots. The store
// that dialed pushes its deltas, opens rounds and declares its interest; the other one acknowledges and answers. The
// reader waits for the engine's disk only, when too many deltas wait to be merged, so two stores can't wait for each other.
type session struct {
	node    *Node
	conn    Conn
	peer    string
	replica uint64
	version uint32
	dialed  bool
	// stop ends the stream from outside.
	stop context.CancelCauseFunc
	// over is closed when the stream ends.
	over chan struct{}
	// push is nil on streams that the peer dialed: those carry its deltas.
	push *pushQueue

	deltas  chan *replicationv1.Deltas
	answers chan *replicationv1.Message
	acks    chan *replicationv1.Message
	notices notices
	lanes   [lanes]*lane
	survey  *rounds.Survey
	// differ takes the slots that a survey found; the first lane calls it.
	differ func(entityType string, slots []uint32, at time.Time)
	// again asks for a round when the offers of the last one are through.
	again  atomic.Bool
	budget rounds.Budget
	number atomic.Uint64

	// told has the retired identities that the peer was last told of; announced are the peer's, the newest last.
	told atomic.Pointer[crdt.Retired]
	mu   sync.Mutex
	// +checklocks:mu
	announced []*crdt.Retired
}

func (n *Node) newSession(conn Conn, hello *replicationv1.Hello, version uint32, push *pushQueue) *session {
	s := &session{
		node: n, conn: conn, peer: hello.GetNode(), replica: hello.GetReplica(), version: version, dialed: push != nil, push: push,
		stop: func(error) {}, over: make(chan struct{}),
		deltas: make(chan *replicationv1.Deltas, maxDeltas), answers: make(chan *replicationv1.Message, maxAnswers),
		acks:    make(chan *replicationv1.Message, maxAnswers),
		notices: notices{ready: make(chan struct{}, 1)},
	}
	s.differ = s.offerAll
	s.survey = rounds.NewSurvey(n.cfg.Engine, roundStream{s})
	for i := range s.lanes {
		s.lanes[i] = &lane{
			session: s, wake: make(chan struct{}, 1), requests: requestQueue{ready: make(chan struct{}, 1)},
			machine: rounds.New(n.cfg.Engine, roundStream{s}, &s.budget, func() uint64 { return s.number.Add(1) }),
		}
	}
	s.lanes[0].rounds = make(chan struct{}, 1)
	return s
}

// run carries messages until the stream fails or ctx ends, and closes it. It is called once; the error is never nil.
func (s *session) run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s.node.hear(s, true)
	defer s.node.hear(s, false)
	stop := context.AfterFunc(ctx, func() {
		close(s.over)
		_ = s.conn.Close()
	})
	var wg sync.WaitGroup
	parts := []func(context.Context) error{s.write, s.merge, s.read}
	for _, l := range s.lanes {
		parts = append(parts, l.run)
	}
	for _, part := range parts {
		wg.Go(func() { cancel(part(ctx)) })
	}
	wg.Wait()
	stop()
	_ = s.conn.Close()
	return context.Cause(ctx)
}

func (s *session) read(ctx context.Context) error {
	for {
		m, err := s.conn.Recv()
		if err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		switch k := m.GetKind().(type) {
		case *replicationv1.Message_Deltas:
			select {
			case s.deltas <- k.Deltas:
			case <-ctx.Done():
				return ctx.Err()
			}
		case *replicationv1.Message_Ack:
			s.node.acknowledged(s, k.Ack)
		case *replicationv1.Message_Identities:
			s.node.introduced(ctx, s, k.Identities)
		case *replicationv1.Message_Interest:
			s.node.interested(s, k.Interest)
		case *replicationv1.Message_Groups, *replicationv1.Message_SlotHashes, *replicationv1.Message_RightsRequest:
			err = s.queue(0, m)
		case *replicationv1.Message_SlotOffer:
			err = s.queue(k.SlotOffer.GetSlot(), m)
		case *replicationv1.Message_SlotKeys:
			err = s.queue(k.SlotKeys.GetSlot(), m)
		case *replicationv1.Message_SlotStates:
			err = s.queue(k.SlotStates.GetSlot(), m)
		}
		if err != nil {
			return err
		}
	}
}

func (s *session) queue(slot uint32, m *replicationv1.Message) error {
	if !s.lanes[slot%lanes].requests.add(m) {
		s.node.metrics.requestsDropped.Inc()
		return errOverflow
	}
	return nil
}

// answer answers a message of anti-entropy.
func (s *session) answer(ctx context.Context, l *lane, m *replicationv1.Message) {
	switch k := m.GetKind().(type) {
	case *replicationv1.Message_Groups:
		if !s.dialed {
			s.survey.Groups(k.Groups)
		}
	case *replicationv1.Message_SlotHashes:
		if differing, ok := s.survey.SlotHashes(k.SlotHashes); ok {
			s.differ(k.SlotHashes.GetType(), differing, time.Now())
		}
	case *replicationv1.Message_RightsRequest:
		s.node.grant(ctx, s, k.RightsRequest)
	case *replicationv1.Message_SlotOffer:
		if !s.dialed {
			l.machine.Take(ctx, m, time.Now())
		}
	default:
		l.machine.Take(ctx, m, time.Now())
	}
	if s.again.Load() && !s.offering() && s.again.CompareAndSwap(true, false) {
		s.round()
	}
}

// round asks for a round of anti-entropy; one that waits already counts for both.
func (s *session) round() { signal(s.lanes[0].rounds) }

func (s *session) openRound() {
	if s.offering() {
		s.again.Store(true) // What differs is on its way already.
		return
	}
	s.node.metrics.rounds.Inc()
	s.survey.Open()
}

func (s *session) offering() bool {
	for _, l := range s.lanes {
		if l.waiting() > 0 {
			return true
		}
	}
	return false
}

// offerAll offers slots from a place on that differs from stream to stream, so that a store that lacks much is filled by
// several peers.
func (s *session) offerAll(entityType string, slots []uint32, at time.Time) {
	if len(slots) == 0 {
		return
	}
	first := int(s.replica % uint64(len(slots)))
	for i := range slots {
		s.offer(rounds.Offer{Type: entityType, Slot: slots[(first+i)%len(slots)], Survey: at})
	}
}

func (s *session) offer(o rounds.Offer) { s.lanes[o.Slot%lanes].offer(o) }

// merge merges the peer's deltas, all that wait at a time, and acknowledges those that a commit waits for.
func (s *session) merge(ctx context.Context) error {
	for {
		var in []*replicationv1.Deltas
		select {
		case d := <-s.deltas:
			in = append(in, d)
		case <-ctx.Done():
			return ctx.Err()
		}
		for more := true; more && len(in) < maxDeltas; {
			select {
			case d := <-s.deltas:
				in = append(in, d)
			default:
				more = false
			}
		}
		for _, ack := range s.node.merge(ctx, s, in) {
			select {
			case s.acks <- ack:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

func (s *session) write(ctx context.Context) error {
	var pushes <-chan struct{}
	if s.push != nil {
		pushes = s.push.ready
	}
	if err := s.introduce(); err != nil {
		return err
	}
	for {
		var m *replicationv1.Message
		select {
		case m = <-s.answers:
		case m = <-s.acks:
		case <-s.notices.ready:
			if err := s.writeNotices(); err != nil {
				return err
			}
			continue
		case <-pushes:
			deltas, repair := s.push.take()
			if repair {
				s.round()
			}
			if len(deltas) == 0 {
				continue
			}
			s.node.metrics.pushed.Add(float64(len(deltas)))
			m = deltasMessage(deltas, s.version, s.node.wantsAck(deltas))
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := s.conn.Send(m); err != nil {
			return fmt.Errorf("send: %w", err)
		}
	}
}

// introduce sends this store's identities. Contexts that are sent later may leave out the retired ones.
func (s *session) introduce() error {
	m, retired := s.node.introduction()
	if err := s.conn.Send(m); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	s.told.Store(retired)
	return nil
}

func (s *session) writeNotices() error {
	identities, others, err := s.notices.take()
	if err != nil {
		return err
	}
	if identities {
		if err := s.introduce(); err != nil {
			return err
		}
	}
	for _, m := range others {
		if err := s.conn.Send(m); err != nil {
			return fmt.Errorf("send: %w", err)
		}
	}
	return nil
}

// notices are short messages from others than the stream's own goroutines, who must not wait.
type notices struct {
	// ready has an entry while there may be something to take.
	ready chan struct{}

	// mu guards what follows.
	mu sync.Mutex
	// +checklocks:mu
	identities bool
	// +checklocks:mu
	waiting []*replicationv1.Message
	// +checklocks:mu
	overflowed bool
}

// add queues a message; nil asks for this store's identities.
func (q *notices) add(m *replicationv1.Message) {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case m == nil:
		q.identities = true
	case len(q.waiting) >= maxNotices:
		q.overflowed = true
	default:
		q.waiting = append(q.waiting, m)
	}
	signal(q.ready)
}

func (q *notices) take() (identities bool, waiting []*replicationv1.Message, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	identities, waiting = q.identities, q.waiting
	q.identities, q.waiting = false, nil
	if q.overflowed { // The next stream starts with all of it.
		return false, nil, fmt.Errorf("more than %d notices wait for the stream", maxNotices)
	}
	return identities, waiting, nil
}

// pause waits for d or the end of ctx.
func pause(ctx context.Context, d time.Duration) { pauseUntil(ctx, d, nil) }

// pauseUntil waits for d, the end of ctx or early, and reports whether it was the latter.
func pauseUntil(ctx context.Context, d time.Duration, early <-chan struct{}) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	case <-early:
		return true
	}
	return false
}
