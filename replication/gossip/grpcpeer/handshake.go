package grpcpeer

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/credentials"
)

// A mesh that starts makes a handshake for each pair of stores, all at the same moment. If each process made all of its own
// at once, they would run out of time half done and begin anew, and never be through. So each does a few at a time. Who
// dials takes its turn before it connects: whoever has connected is not waiting for anything but the other side's turn,
// and that is never held by somebody who waits. So all get on.

// turns are for so many at a time.
type turns chan struct{}

func newTurns(n int) turns { return make(turns, n) }

// take waits for a turn.
func (t turns) take(ctx context.Context) error {
	select {
	case t <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (t turns) release() { <-t }

// dialTLS connects when it is this connection's turn, which ends with the handshake.
func (t turns) dialTLS(ctx context.Context, address string) (net.Conn, error) {
	if err := t.take(ctx); err != nil {
		return nil, err
	}
	d := net.Dialer{Timeout: connectTimeout}
	nc, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		t.release()
		return nil, err
	}
	return &turnConn{Conn: nc, release: sync.OnceFunc(t.release)}, nil
}

// turnConn is a connection that has a turn.
type turnConn struct {
	net.Conn
	release func()
}

func (c *turnConn) Close() error {
	c.release()
	return c.Conn.Close()
}

// clientHandshakes end the turn of the connection that they were for.
type clientHandshakes struct {
	credentials.TransportCredentials
}

func (h clientHandshakes) ClientHandshake(ctx context.Context, authority string, nc net.Conn) (net.Conn, credentials.AuthInfo, error) {
	if c, ok := nc.(*turnConn); ok {
		defer c.release()
		nc = c.Conn
	}
	return h.TransportCredentials.ClientHandshake(ctx, authority, nc)
}

func (h clientHandshakes) Clone() credentials.TransportCredentials {
	return clientHandshakes{h.TransportCredentials.Clone()}
}

// serverHandshakes take their turn, and tell in the log who was not let in: gRPC itself says nothing.
type serverHandshakes struct {
	credentials.TransportCredentials
	turns turns
	log   *slog.Logger
	// told is when something was told last, as UnixNano: whoever knocks all the time fills no log.
	told *atomic.Int64
}

func (h serverHandshakes) ServerHandshake(nc net.Conn) (net.Conn, credentials.AuthInfo, error) {
	ctx, cancel := context.WithTimeoutCause(context.Background(), handshakeTimeout, errors.New("too many handshakes at once"))
	defer cancel()
	// Who connects and says nothing takes no turn.
	first := make([]byte, 1)
	_, err := io.ReadFull(nc, first)
	if err == nil {
		err = h.turns.take(ctx)
	}
	if err != nil {
		h.tell(nc, err)
		return nil, nil, err
	}
	defer h.turns.release()
	out, info, err := h.TransportCredentials.ServerHandshake(&begunConn{nc, first})
	if err != nil {
		h.tell(nc, err)
	}
	return out, info, err
}

// begunConn is a connection whose first byte was read already.
type begunConn struct {
	net.Conn
	first []byte
}

func (c *begunConn) Read(p []byte) (int, error) {
	if len(c.first) > 0 && len(p) > 0 {
		n := copy(p, c.first)
		c.first = c.first[n:]
		return n, nil
	}
	return c.Conn.Read(p)
}

func (h serverHandshakes) tell(nc net.Conn, err error) {
	now, last := time.Now().UnixNano(), h.told.Load()
	if now-last > int64(tellEvery) && h.told.CompareAndSwap(last, now) {
		h.log.Warn("peer refused", "from", nc.RemoteAddr().String(), "error", err)
	}
}

func (h serverHandshakes) Clone() credentials.TransportCredentials {
	return serverHandshakes{h.TransportCredentials.Clone(), h.turns, h.log, h.told}
}
