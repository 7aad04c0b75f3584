package grpcpeer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/holdfast-mesh/holdfast/internal/identity"
	"github.com/holdfast-mesh/holdfast/internal/peercred"
	replicationv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/replication/v1"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
	"github.com/holdfast-mesh/holdfast/replication/gossip"
)

// ClientConfig configures a Client.
type ClientConfig struct {
	// Resolve finds a node's store; Node.PeerAddress of package gossip does, or the placement.
	Resolve func(node string) (address string, ok bool)
	// Identity secures connections to "host:port"; without it only Unix sockets are dialed.
	Identity *identity.Source
}

// Client reaches other stores. It is safe for concurrent use.
type Client struct {
	cfg   ClientConfig
	turns turns

	// mu guards what follows.
	mu sync.Mutex
	// +checklocks:mu
	closed bool
	// conns are the connections for calls, by node. Streams have connections of their own, so that bulk never delays a call.
	// +checklocks:mu
	conns map[string]conn
}

type conn struct {
	address string
	*grpc.ClientConn
}

var _ gossip.Dialer = (*Client)(nil)

// NewClient makes a client; it connects when it is first asked to.
func NewClient(cfg ClientConfig) *Client {
	return &Client{cfg: cfg, turns: newTurns(clientTurns), conns: map[string]conn{}}
}

// Close ends all connections for calls; streams end by their own Close.
func (c *Client) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for _, cc := range c.conns {
		_ = cc.Close()
	}
	clear(c.conns)
}

// connect makes a connection to an address of node's store; an empty node is one that its Hello will name.
func (c *Client) connect(address, node string) (*grpc.ClientConn, error) {
	creds, dial := insecure.NewCredentials(), dialUnix
	path, isUnix := strings.CutPrefix(address, "unix:")
	if !isUnix && !strings.HasPrefix(address, "/") {
		if c.cfg.Identity == nil {
			return nil, fmt.Errorf("peer %s: this store has no certificate, and that is not a Unix socket", address)
		}
		creds, dial = clientHandshakes{credentials.NewTLS(c.cfg.Identity.Client(node))}, c.turns.dialTLS
	}
	return grpc.NewClient("passthrough:///"+path,
		grpc.WithTransportCredentials(creds),
		grpc.WithContextDialer(dial),
		grpc.WithAuthority("store"),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: reconnectMin, Multiplier: 1.6, Jitter: 0.2, MaxDelay: reconnectMax},
			MinConnectTimeout: handshakeTimeout,
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: pingAfter, Timeout: pingTimeout, PermitWithoutStream: true}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessageBytes), grpc.MaxCallSendMsgSize(maxMessageBytes)),
		grpc.WithDisableRetry(), grpc.WithDisableServiceConfig(),
	)
}

func dialUnix(ctx context.Context, path string) (net.Conn, error) {
	var d net.Dialer
	nc, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	if err := peercred.Check(nc); err != nil {
		_ = nc.Close()
		return nil, err
	}
	return nc, nil
}

// Dial implements gossip.Dialer.
func (c *Client) Dial(ctx context.Context, address string) (gossip.Conn, error) {
	cc, err := c.connect(address, "")
	if err != nil {
		return nil, err
	}
	// The stream outlives ctx, which bounds only the dialing.
	streamCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, cancel)
	stream, err := replicationv1.NewReplicationClient(cc).Exchange(streamCtx)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		cancel()
		_ = cc.Close()
		return nil, fmt.Errorf("dial %s: %w", address, err)
	}
	return &clientConn{stream, func() {
		cancel()
		_ = cc.Close()
	}}, nil
}

type clientConn struct {
	replicationv1.Replication_ExchangeClient
	end func()
}

func (c *clientConn) Recv() (*replicationv1.Message, error) {
	m, err := c.Replication_ExchangeClient.Recv()
	if err == nil {
		// Only now it is sure which connection the stream got.
		err = named(c.Context(), m)
	}
	if err != nil {
		return nil, err
	}
	return m, nil
}

func (c *clientConn) Close() error {
	c.end()
	return nil
}

// Call carries a call out at another node's store. Errors are *Error.
func (c *Client) Call(ctx context.Context, node string, req *storev1.Request) (*storev1.Response, error) {
	cc, err := c.to(node)
	if err != nil {
		return nil, &Error{code.Code_UNAVAILABLE, storev1.Outcome_OUTCOME_NOT_APPLIED, fmt.Errorf("store of %s: %w", node, err)}
	}
	ctx, stop := c.whileLive(ctx, node)
	defer stop()
	var p peer.Peer
	resp, err := replicationv1.NewReplicationClient(cc).Call(ctx, req, grpc.Peer(&p))
	if err != nil {
		return nil, callError(node, req, p.Addr != nil, err)
	}
	return resp, nil
}

// whileLive is ctx until node is no longer a live member: a stopped process keeps its connections, and would keep its
// callers as long as they want to wait.
func (c *Client) whileLive(ctx context.Context, node string) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	var check *time.Timer
	armed := make(chan struct{})
	check = time.AfterFunc(liveEvery, func() {
		<-armed
		if _, ok := c.cfg.Resolve(node); !ok {
			cancel()
			return
		}
		if ctx.Err() == nil {
			check.Reset(liveEvery)
		}
	})
	close(armed)
	return ctx, func() {
		cancel()
		check.Stop()
	}
}

func (c *Client) to(node string) (*grpc.ClientConn, error) {
	address, ok := c.cfg.Resolve(node)
	if !ok {
		return nil, errors.New("not a live member")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, errors.New("closed")
	}
	if cc, ok := c.conns[node]; ok {
		if cc.address == address {
			return cc.ClientConn, nil
		}
		_ = cc.Close()
		delete(c.conns, node)
	}
	cc, err := c.connect(address, node)
	if err != nil {
		return nil, err
	}
	c.conns[node] = conn{address, cc}
	return cc, nil
}

// Error is a call that brought no answer.
type Error struct {
	code    code.Code
	outcome storev1.Outcome
	err     error
}

func (e *Error) Error() string { return e.err.Error() }

func (e *Error) Unwrap() error { return e.err }

// Code is the google.rpc.Code to answer with.
func (e *Error) Code() int32 { return int32(e.code) }

// Outcome of the write: not applied, or unknown.
func (e *Error) Outcome() storev1.Outcome { return e.outcome }

// callError classifies: a call that no connection took was not carried out, and only a commit changes anything.
func callError(node string, req *storev1.Request, sent bool, err error) *Error {
	e := &Error{code.Code_UNAVAILABLE, storev1.Outcome_OUTCOME_NOT_APPLIED, fmt.Errorf("store of %s: %w", node, err)}
	switch status.Code(err) {
	case codes.DeadlineExceeded:
		e.code = code.Code_DEADLINE_EXCEEDED
	case codes.Unimplemented, codes.ResourceExhausted, codes.InvalidArgument:
		// The server refused it before its handler ran.
		e.code = code.Code(status.Code(err))
		return e
	}
	if sent && req.GetCommit() != nil {
		e.code, e.outcome = code.Code_DEADLINE_EXCEEDED, storev1.Outcome_OUTCOME_UNKNOWN
	}
	return e
}
