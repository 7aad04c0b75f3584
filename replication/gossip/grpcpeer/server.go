package grpcpeer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime/debug"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"

	"github.com/holdfast-mesh/holdfast/internal/identity"
	replicationv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/replication/v1"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
	"github.com/holdfast-mesh/holdfast/replication/gossip"
)

// ServerConfig configures a Server.
type ServerConfig struct {
	// Accept serves a stream until it ends: Node.Accept of package gossip.
	Accept func(ctx context.Context, conn gossip.Conn) error
	// Call carries a forwarded call out. The context of a commit ends by its deadline only, never because who forwarded it
	// went away.
	Call func(ctx context.Context, req *storev1.Request) *storev1.Response
	// Peer takes each connection; where it is set, its calls go there and not to Call.
	Peer func() Peer
	// Identity secures TCP listeners; nil for Unix sockets, whose listener checks the peer (internal/peercred).
	Identity *identity.Source
	Logger   *slog.Logger
}

// Peer is a connection of another store, and what was begun on it.
type Peer interface {
	// Handle is ServerConfig.Call.
	Handle(ctx context.Context, req *storev1.Request) *storev1.Response
	// Gone follows the end of the connection, with calls perhaps still under way.
	Gone()
}

// Server answers other stores.
type Server struct {
	replicationv1.UnimplementedReplicationServer
	cfg   ServerConfig
	grpc  *grpc.Server
	pumps sync.WaitGroup
}

// NewServer makes a server; Serve starts it.
func NewServer(cfg ServerConfig) *Server {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	opts := []grpc.ServerOption{
		grpc.MaxRecvMsgSize(maxMessageBytes), grpc.MaxSendMsgSize(maxMessageBytes), grpc.MaxConcurrentStreams(maxStreams),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: pingAfter, Timeout: pingTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: pingMin, PermitWithoutStream: true}),
		grpc.WaitForHandlers(true),
	}
	if cfg.Peer != nil {
		opts = append(opts, grpc.StatsHandler(connections{cfg.Peer}))
	}
	if cfg.Identity != nil {
		creds := serverHandshakes{credentials.NewTLS(cfg.Identity.Server()), newTurns(serverTurns), cfg.Logger, new(atomic.Int64)}
		opts = append(opts, grpc.Creds(creds), grpc.ConnectionTimeout(handshakeTimeout))
	}
	s := &Server{cfg: cfg, grpc: grpc.NewServer(opts...)}
	replicationv1.RegisterReplicationServer(s.grpc, s)
	return s
}

// Serve answers on l until Stop; it closes l. It returns nil after Stop.
func (s *Server) Serve(l net.Listener) error {
	if err := s.grpc.Serve(l); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("serve peers: %w", err)
	}
	return nil
}

// Stop ends all streams and calls and waits for them. End the gossip node before, so that others learn of the leave first.
func (s *Server) Stop() {
	s.grpc.Stop()
	s.pumps.Wait()
}

// Call implements the service.
func (s *Server) Call(ctx context.Context, req *storev1.Request) (resp *storev1.Response, err error) {
	defer s.guard("call", &err)
	if req.GetCommit() != nil {
		deadline, ok := ctx.Deadline()
		ctx = context.WithoutCancel(ctx)
		if ok {
			var cancel context.CancelFunc
			ctx, cancel = context.WithDeadline(ctx, deadline)
			defer cancel()
		}
	}
	if p, ok := ctx.Value(peerKey{}).(Peer); ok {
		return p.Handle(ctx, req), nil
	}
	return s.cfg.Call(ctx, req), nil
}

type peerKey struct{}

// connections gives each connection's calls their Peer: gRPC tells of the end of a connection nowhere else.
type connections struct{ peer func() Peer }

func (c connections) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context {
	return context.WithValue(ctx, peerKey{}, c.peer())
}

func (c connections) HandleConn(ctx context.Context, s stats.ConnStats) {
	if _, over := s.(*stats.ConnEnd); !over {
		return
	}
	if p, ok := ctx.Value(peerKey{}).(Peer); ok {
		p.Gone()
	}
}

func (c connections) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }
func (c connections) HandleRPC(context.Context, stats.RPCStats)                       {}

// Exchange implements the service.
func (s *Server) Exchange(stream replicationv1.Replication_ExchangeServer) (err error) {
	defer s.guard("exchange", &err)
	c := &serverConn{
		in: make(chan received), out: make(chan *replicationv1.Message), sent: make(chan error, 1), over: make(chan struct{}),
	}
	s.pumps.Go(func() { c.receive(stream) })
	s.pumps.Go(func() { c.send(stream) })
	defer c.Close()
	if err := s.cfg.Accept(stream.Context(), c); err != nil {
		return status.Error(codes.Unavailable, err.Error())
	}
	return nil
}

// guard turns a panic into an error of this one call: another store's bytes never end this process.
func (s *Server) guard(what string, err *error) {
	if r := recover(); r != nil {
		s.cfg.Logger.Error("panic while answering a peer", "call", what, "panic", r, "stack", string(debug.Stack()))
		*err = status.Error(codes.Internal, "internal error")
	}
}

// serverConn makes a server's stream closable: gRPC ends it only when its handler returns, and the handler returns when
// reading and writing ended. So two goroutines read and write; they end with the handler.
type serverConn struct {
	in   chan received
	out  chan *replicationv1.Message
	sent chan error
	over chan struct{}
	once sync.Once
}

type received struct {
	m   *replicationv1.Message
	err error
}

func (c *serverConn) receive(stream replicationv1.Replication_ExchangeServer) {
	for {
		m, err := stream.Recv()
		if err == nil {
			err = named(stream.Context(), m)
		}
		select {
		case c.in <- received{m, err}:
		case <-c.over:
			return
		}
		if err != nil {
			return
		}
	}
}

func (c *serverConn) send(stream replicationv1.Replication_ExchangeServer) {
	for {
		select {
		case m := <-c.out:
			c.sent <- stream.Send(m)
		case <-c.over:
			return
		}
	}
}

func (c *serverConn) Send(m *replicationv1.Message) error {
	select {
	case c.out <- m:
	case <-c.over:
		return io.ErrClosedPipe
	}
	select {
	case err := <-c.sent:
		return err
	case <-c.over:
		return io.ErrClosedPipe
	}
}

func (c *serverConn) Recv() (*replicationv1.Message, error) {
	select {
	case r := <-c.in:
		return r.m, r.err
	case <-c.over:
		return nil, io.EOF
	}
}

func (c *serverConn) Close() error {
	c.once.Do(func() { close(c.over) })
	return nil
}
