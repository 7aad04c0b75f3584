package simnet

import (
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	replicationv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/replication/v1"
)

// DialStream opens a byte stream. A cut swallows what is written, so that the reader waits for its deadline.
func (h *Host) DialStream(to string, timeout time.Duration) (net.Conn, error) {
	peer, err := h.dial(to, timeout)
	if err != nil {
		return nil, err
	}
	a, b := net.Pipe()
	mine := &byteStream{Conn: a, host: h, peer: peer}
	theirs := &byteStream{Conn: b, host: peer, peer: h}
	select {
	case peer.streams <- theirs:
		return mine, nil
	case <-peer.over:
	default:
	}
	_ = a.Close()
	return nil, fmt.Errorf("dial %s: %w", to, ErrRefused)
}

type byteStream struct {
	net.Conn
	host, peer *Host
	lost       bool // Once bytes were swallowed no later ones may arrive. Used by the one writer.
}

func (s *byteStream) Write(b []byte) (int, error) {
	f := s.host.net.plan(s.host.name, s.peer.name)
	select {
	case <-s.peer.over:
		return 0, io.ErrClosedPipe
	case <-s.host.over:
		return 0, io.ErrClosedPipe
	default:
	}
	s.host.net.mu.Lock()
	cut := s.host.net.cut[[2]string{s.host.name, s.peer.name}]
	s.host.net.mu.Unlock()
	if s.lost = s.lost || cut; s.lost {
		return len(b), nil
	}
	time.Sleep(f.delay)
	return s.Conn.Write(b)
}

func (s *byteStream) LocalAddr() net.Addr  { return s.host.addr }
func (s *byteStream) RemoteAddr() net.Addr { return s.peer.addr }

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

// DialMessages opens a message stream.
func (h *Host) DialMessages(to string, timeout time.Duration) (*MessageConn, error) {
	peer, err := h.dial(to, timeout)
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
	f := c.host.net.plan(c.host.name, c.peer.name)
	if f.reset {
		_ = c.Close()
	}
	w := wire{data: data, at: time.Now().Add(f.delay)}
	for range 1 + map[bool]int{true: 1}[f.replayed && m.GetHello() == nil] {
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
