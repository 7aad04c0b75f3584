package simnet

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	replicationv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/replication/v1"
)

// DialStream opens a byte stream. As with TCP, writing does not wait for the reader, and closing delivers what was written
// before. A cut swallows what is written, so that the reader waits for its deadline.
func (h *Host) DialStream(to string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	peer, err := h.dial(ctx, to)
	if err != nil {
		return nil, err
	}
	a, b := net.Pipe()
	mine, theirs := newByteStream(a, h, peer), newByteStream(b, peer, h)
	select {
	case peer.streams <- theirs:
		return mine, nil
	case <-peer.over:
	default:
	}
	_ = mine.Close()
	_ = theirs.Close()
	return nil, fmt.Errorf("dial %s: %w", to, ErrRefused)
}

type byteStream struct {
	net.Conn
	host, peer *Host
	// queue carries what was written; closing ends it.
	queue   chan []byte
	closing chan struct{}
	once    sync.Once
}

func newByteStream(c net.Conn, host, peer *Host) *byteStream {
	s := &byteStream{Conn: c, host: host, peer: peer, queue: make(chan []byte, queued), closing: make(chan struct{})}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.pump()
	}()
	go func() { // A host that goes down resets its streams.
		select {
		case <-host.over:
		case <-peer.over:
		case <-ended:
		}
		_ = c.Close()
	}()
	return s
}

// pump delivers what was written, until the stream is closed and empty, or broken.
func (s *byteStream) pump() {
	lost := false // Once bytes were swallowed no later ones may arrive.
	for {
		var b []byte
		select {
		case b = <-s.queue:
		default:
			select {
			case b = <-s.queue:
			case <-s.closing:
				return
			case <-s.host.over:
				return
			case <-s.peer.over:
				return
			}
		}
		time.Sleep(s.host.net.plan(s.host.name, s.peer.name, nil, nil).delay)
		if !s.host.net.Thawed(s.host.name, s.host.over) || !s.host.net.Thawed(s.peer.name, s.peer.over) {
			return
		}
		if lost = lost || s.host.net.isCut(s.host.name, s.peer.name); lost {
			continue
		}
		if _, err := s.Conn.Write(b); err != nil {
			return
		}
	}
}

func (s *byteStream) Write(b []byte) (int, error) {
	select {
	case <-s.closing:
		return 0, io.ErrClosedPipe
	case <-s.host.over:
		return 0, io.ErrClosedPipe
	case <-s.peer.over:
		return 0, io.ErrClosedPipe
	case s.queue <- append([]byte(nil), b...):
		return len(b), nil
	}
}

func (s *byteStream) Close() error {
	s.once.Do(func() { close(s.closing) })
	return nil
}

func (s *byteStream) SetDeadline(t time.Time) error    { return s.Conn.SetReadDeadline(t) }
func (s *byteStream) SetWriteDeadline(time.Time) error { return nil }
func (s *byteStream) LocalAddr() net.Addr              { return s.host.addr }
func (s *byteStream) RemoteAddr() net.Addr             { return s.peer.addr }

// MessageConn is one end of a stream of messages.
type MessageConn struct {
	host, peer *Host
	in, out    chan wire
	// over closes when either end closes or breaks.
	over *sync.Once
	done chan struct{}
}

// wire is a message under way, as bytes: the ends share nothing.
type wire struct {
	data []byte
	at   time.Time
}

// DialMessages opens a message stream; ctx bounds only that.
func (h *Host) DialMessages(ctx context.Context, to string) (*MessageConn, error) {
	peer, err := h.dial(ctx, to)
	if err != nil {
		return nil, err
	}
	const window = 64 // Messages under way; more make the sender wait.
	there, back := make(chan wire, window), make(chan wire, window)
	over, done := &sync.Once{}, make(chan struct{})
	mine := &MessageConn{host: h, peer: peer, in: back, out: there, over: over, done: done}
	theirs := &MessageConn{host: peer, peer: h, in: there, out: back, over: over, done: done}
	select {
	case peer.calls <- theirs:
		return mine, nil
	case <-peer.over:
	default:
	}
	return nil, fmt.Errorf("dial %s: %w", to, ErrRefused)
}

// Send sends a message; it waits while too many are under way.
func (c *MessageConn) Send(m *replicationv1.Message) error {
	data, err := proto.Marshal(m)
	if err != nil {
		return fmt.Errorf("send: %w", err)
	}
	var which func(*link) *kept
	if m.GetDeltas() != nil {
		which = deltas
	}
	f := c.host.net.plan(c.host.name, c.peer.name, data, which)
	if f.reset {
		_ = c.Close()
	}
	at := time.Now().Add(f.delay)
	send := []wire{{data, at}}
	if f.replayed && m.GetHello() == nil {
		send = append(send, wire{data, at})
	}
	if f.late != nil {
		send = append(send, wire{f.late, at})
	}
	for _, w := range send {
		select {
		case <-c.done:
			return io.ErrClosedPipe
		case <-c.peer.over:
			_ = c.Close()
			return io.ErrClosedPipe
		case c.out <- w:
		}
	}
	return nil
}

// Recv returns the next message.
func (c *MessageConn) Recv() (*replicationv1.Message, error) {
	var w wire
	select {
	case <-c.done:
		return nil, io.EOF
	case <-c.peer.over:
		_ = c.Close()
		return nil, io.EOF
	case <-c.host.over:
		_ = c.Close()
		return nil, io.EOF
	case w = <-c.in:
	}
	if wait := time.Until(w.at); wait > 0 {
		time.Sleep(wait)
	}
	if !c.host.net.passable(c.peer.name, c.host.name, c.done) {
		return nil, io.EOF
	}
	m := &replicationv1.Message{}
	if err := proto.Unmarshal(w.data, m); err != nil {
		return nil, fmt.Errorf("receive: %w", err)
	}
	return m, nil
}

// Close breaks the stream for both ends; what is under way is lost.
func (c *MessageConn) Close() error {
	c.over.Do(func() { close(c.done) })
	return nil
}
