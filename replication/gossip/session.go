package gossip

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	replicationv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/replication/v1"
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

var (
	errSelf     = errors.New("the peer is this store itself")
	errWrong    = errors.New("another member answers at the peer's address")
	errProtocol = errors.New("the peer does not speak the protocol")
	errReplaced = errors.New("the peer opened a newer stream")
)

// session is one stream while it lives: a reader that merges, a writer, and a worker that answers. The reader waits for
// nobody but the engine, so two sessions can't wait for each other.
type session struct {
	exchange *exchange
	conn     Conn
	// stop ends an accepted stream from outside.
	stop context.CancelCauseFunc
	// rounds asks the worker to open a round.
	rounds chan struct{}
	// requests wait for the worker, answers for the writer.
	requests requestQueue
	answers  chan *replicationv1.Message
	// push is nil on streams that the peer dialed: those carry its deltas.
	push *pushQueue
}

func newSession(x *exchange, conn Conn, push *pushQueue) *session {
	return &session{
		exchange: x, conn: conn, push: push,
		rounds:   make(chan struct{}, 1),
		requests: requestQueue{ready: make(chan struct{}, 1)},
		answers:  make(chan *replicationv1.Message, maxAnswers),
	}
}

// greet exchanges the first messages.
func greet(ctx context.Context, conn Conn, self *replicationv1.Hello) (*replicationv1.Hello, error) {
	ctx, cancel := context.WithTimeout(ctx, helloTimeout)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	if err := conn.Send(&replicationv1.Message{Kind: &replicationv1.Message_Hello{Hello: self}}); err != nil {
		return nil, fmt.Errorf("say hello: %w", err)
	}
	m, err := conn.Recv()
	if err != nil {
		return nil, fmt.Errorf("wait for hello: %w", err)
	}
	hello := m.GetHello()
	switch {
	case hello == nil, hello.GetVersion() == 0, hello.GetNode() == "":
		return nil, errProtocol
	case hello.GetNode() == self.GetNode(), hello.GetReplica() == self.GetReplica():
		return nil, errSelf
	}
	return hello, nil
}

// run carries messages until the stream fails or ctx ends, and closes it. The error is never nil.
func (s *session) run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(ctx, func() { _ = s.conn.Close() })
	var wg sync.WaitGroup
	for _, part := range []func(context.Context) error{s.write, s.work, s.read} {
		wg.Go(func() { cancel(part(ctx)) })
	}
	wg.Wait()
	stop()
	_ = s.conn.Close()
	return context.Cause(ctx)
}

// round asks for a round of anti-entropy; one that waits already counts for both.
func (s *session) round() {
	select {
	case s.rounds <- struct{}{}:
	default:
	}
}

func (s *session) read(ctx context.Context) error {
	for {
		m, err := s.conn.Recv()
		if err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		if d := m.GetDeltas(); d != nil {
			if err := s.exchange.merge(ctx, d.GetDeltas()); err != nil && ctx.Err() != nil {
				return err
			}
			continue
		}
		if !s.requests.add(m) {
			s.exchange.metrics.requestsDropped.Inc()
		}
	}
}

func (s *session) work(ctx context.Context) error {
	send := func(m *replicationv1.Message) bool {
		select {
		case s.answers <- m:
			return true
		case <-ctx.Done():
			return false
		}
	}
	for {
		select {
		case <-s.requests.ready:
			if m := s.requests.take(); m != nil {
				s.exchange.answer(m, send)
			}
		case <-s.rounds:
			s.exchange.open(send)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *session) write(ctx context.Context) error {
	var pushes <-chan struct{}
	if s.push != nil {
		pushes = s.push.ready
	}
	for {
		var m *replicationv1.Message
		select {
		case m = <-s.answers:
		case <-pushes:
			deltas, repair := s.push.take()
			if repair {
				s.round()
			}
			if len(deltas) == 0 {
				continue
			}
			s.exchange.metrics.pushed.Add(float64(len(deltas)))
			m = deltasMessage(deltas)
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := s.conn.Send(m); err != nil {
			return fmt.Errorf("send: %w", err)
		}
	}
}

// requestQueue holds the messages of anti-entropy that wait to be answered.
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
	q.signal()
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
		q.signal()
	} else {
		q.waiting = nil
	}
	q.bytes -= proto.Size(m)
	return m
}

func (q *requestQueue) signal() {
	select {
	case q.ready <- struct{}{}:
	default:
	}
}

// pause waits for d or the end of ctx.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
