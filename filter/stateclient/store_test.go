package stateclient

import (
	"errors"
	"io"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/holdfast-mesh/holdfast/internal/frame"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
)

// store is the other side of the socket: a test takes each request off it and decides what is answered, and when.
type store struct {
	t      *testing.T
	socket string
	ln     net.Listener
	// auto, if set, handles a request itself; returning false hands it to next.
	auto func(c *conn, r *storev1.Request) bool
	reqs chan request
	// mute makes the store take everything and answer no probe.
	mute atomic.Bool

	mu     sync.Mutex
	conns  []*conn
	wg     sync.WaitGroup
	closed bool
}

type request struct {
	*storev1.Request
	conn *conn
}

type conn struct {
	net.Conn
	mu sync.Mutex
}

func newStore(t *testing.T, auto func(c *conn, r *storev1.Request) bool) *store {
	t.Helper()
	s := &store{t: t, socket: filepath.Join(t.TempDir(), "s"), auto: auto, reqs: make(chan request, 10000)}
	s.listen()
	t.Cleanup(s.stop)
	return s
}

func (s *store) listen() {
	ln, err := net.Listen("unix", s.socket)
	if err != nil {
		s.t.Fatal(err)
	}
	s.mu.Lock()
	s.ln, s.closed = ln, false
	s.mu.Unlock()
	s.wg.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			c := &conn{Conn: nc}
			s.mu.Lock()
			if s.closed {
				nc.Close()
			}
			s.conns = append(s.conns, c)
			s.mu.Unlock()
			s.wg.Go(func() { s.serve(c) })
		}
	})
}

func (s *store) serve(c *conn) {
	var buf []byte
	for {
		p, err := frame.Read(c, buf)
		if err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
				s.t.Logf("test store: %v", err)
			}
			c.Close()
			return
		}
		buf = p
		r := &storev1.Request{}
		if err := proto.Unmarshal(p, r); err != nil {
			s.t.Errorf("test store: %v", err)
			return
		}
		if r.GetGetStatus() != nil && !s.mute.Load() {
			// The client's probe.
			c.send(&storev1.Response{Id: r.Id, Result: &storev1.Response_Status{Status: &storev1.StoreStatus{Node: "node-1"}}})
			continue
		}
		if s.auto == nil || !s.auto(c, r) {
			s.reqs <- request{r, c}
		}
	}
}

// stop ends the listener and every connection.
func (s *store) stop() {
	s.mu.Lock()
	s.closed = true
	s.ln.Close()
	conns := s.conns
	s.conns = nil
	s.mu.Unlock()
	for _, c := range conns {
		c.Close()
	}
	s.wg.Wait()
}

// next is the next request that auto did not handle.
func (s *store) next() request {
	s.t.Helper()
	select {
	case r := <-s.reqs:
		return r
	case <-time.After(10 * time.Second):
		s.t.Fatal("no request came")
		return request{}
	}
}

func (c *conn) send(rs ...*storev1.Response) {
	var buf []byte
	for _, r := range rs {
		var err error
		if buf, err = frame.Append(buf, r); err != nil {
			panic(err)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	_, _ = c.Write(buf)
}

// The answers that tests give.

func (r request) state(version string) {
	r.conn.send(&storev1.Response{Id: r.Id, Result: &storev1.Response_State{State: stateOf(r.GetGet().GetEntity(), version)}})
}

func (r request) committed(version string) {
	r.conn.send(&storev1.Response{Id: r.Id, Result: &storev1.Response_Committed{
		Committed: &storev1.Committed{State: stateOf(r.GetCommit().GetEntity(), version)},
	}})
}

func (r request) ok() {
	r.conn.send(&storev1.Response{Id: r.Id, Result: &storev1.Response_Done{Done: &storev1.Done{}}})
}

func (r request) fail(e *storev1.Error) { r.conn.send(&storev1.Response{Id: r.Id, Error: e}) }

func (c *conn) push(key, version string) {
	c.send(&storev1.Response{Result: &storev1.Response_State{State: stateOf(entity("t", key), version)}})
}

func stateOf(e *storev1.Entity, version string) *storev1.State {
	return &storev1.State{Entity: e, Exists: true, Version: version}
}

// eventually waits for cond.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
		if cond() {
			return
		}
		<-time.After(time.Millisecond)
	}
	t.Fatalf("never: %s", what)
}
