// Package serve is the store's API on a Unix socket: frames of Request and Response (proto/holdfast/store/v1).
//
// Each connection has a reader and a writer. Calls that cannot block (reads and commits of eventual entities) are handed on
// by the reader; the others wait in goroutines of their own. Answers and pushes go through a bounded outbox: a subscriber
// that does not keep up skips states, a caller that does not read at all is dropped. Only processes of the same user
// get in.
package serve

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"

	"github.com/holdfast-mesh/holdfast/internal/peercred"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
	"github.com/holdfast-mesh/holdfast/statestore"
	"github.com/holdfast-mesh/holdfast/statestore/refusal"
)

// Options of a server.
type Options struct {
	Engine *statestore.Engine
	// Socket is the path of the Unix socket. Its folder becomes 0700.
	Socket string
	// Logger; nil means the default one.
	Logger *slog.Logger
	// Registerer takes the metrics; nil means none.
	Registerer prometheus.Registerer
}

// Server is a listening server.
type Server struct {
	engine   *statestore.Engine
	log      *slog.Logger
	listener net.Listener
	metrics  *metrics
	// ctx ends when Close runs out of patience.
	ctx    context.Context
	cancel context.CancelFunc

	// mu guards conns, peers and closed.
	mu     sync.Mutex
	conns  map[*conn]struct{}
	peers  map[*Peer]struct{}
	closed bool
	wg     sync.WaitGroup
}

// New listens; Serve must follow.
func New(o Options) (*Server, error) {
	if o.Engine == nil {
		return nil, errors.New("serve: no engine")
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	m, err := newMetrics(o.Engine, o.Registerer)
	if err != nil {
		return nil, err
	}
	l, err := peercred.Listen(o.Socket, o.Logger)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &Server{
		ctx: ctx, cancel: cancel,
		engine: o.Engine, log: o.Logger, listener: l, metrics: m,
		conns: map[*conn]struct{}{}, peers: map[*Peer]struct{}{},
	}, nil
}

// Serve accepts connections until Close, then returns nil.
func (s *Server) Serve() error {
	for {
		nc, err := s.listener.Accept()
		if err != nil {
			if s.closing() {
				return nil
			}
			return err
		}
		c := &conn{server: s, net: nc, out: newOutbox(), caller: s.engine.NewCaller()}
		if !s.take(c) {
			nc.Close()
			continue
		}
		go func() {
			defer s.wg.Done()
			c.run()
			s.mu.Lock()
			delete(s.conns, c)
			s.mu.Unlock()
			s.metrics.connections.Dec()
		}()
	}
}

func (s *Server) take(c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	if len(s.conns) >= maxConnections {
		s.log.Warn("connection refused: too many", "limit", maxConnections)
		return false
	}
	s.conns[c] = struct{}{}
	s.wg.Add(1)
	s.metrics.connections.Inc()
	return true
}

func (s *Server) closing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// Close stops accepting and reading, lets calls under way be answered for a bounded time, and closes the connections. The
// engine is closed after this, by who opened it.
func (s *Server) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		s.wg.Wait()
		return nil
	}
	s.closed = true
	conns := make([]*conn, 0, len(s.conns))
	for c := range s.conns {
		conns = append(conns, c)
	}
	s.mu.Unlock()
	err := s.listener.Close()
	deadline := time.Now().Add(closeGrace)
	impatient := time.AfterFunc(closeGrace, s.cancel)
	defer impatient.Stop()
	defer s.cancel()
	for _, c := range conns {
		// Ends the reader; the writer may go on until the deadline.
		_ = c.net.SetReadDeadline(time.Unix(1, 0))
		_ = c.net.SetWriteDeadline(deadline)
	}
	s.wg.Wait()
	s.endPeers()
	return err
}

// admin answers the calls of the control plane and of tools.
func (s *Server) admin(ctx context.Context, req *storev1.Request) *storev1.Response {
	switch call := req.Call.(type) {
	case *storev1.Request_Configure:
		if err := s.engine.Configure(ctx, call.Configure); err != nil {
			return refused(req, err)
		}
		return done(req)
	case *storev1.Request_Inspect:
		in, err := s.engine.Inspect(ctx, call.Inspect.GetEntity())
		if err != nil {
			return refused(req, err)
		}
		return &storev1.Response{Id: req.Id, Result: &storev1.Response_Inspection{Inspection: in}}
	case *storev1.Request_GetStatus:
		return &storev1.Response{Id: req.Id, Result: &storev1.Response_Status{Status: s.engine.Status()}}
	}
	return refused(req, refusal.NotApplied(codes.Unimplemented, "this store does not know the call"))
}

func done(req *storev1.Request) *storev1.Response {
	return &storev1.Response{Id: req.Id, Result: &storev1.Response_Done{Done: &storev1.Done{}}}
}

func refused(req *storev1.Request, err error) *storev1.Response {
	return &storev1.Response{Id: req.GetId(), Error: refusal.From(err, storev1.Outcome_OUTCOME_NOT_APPLIED).Proto()}
}
