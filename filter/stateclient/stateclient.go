// Package stateclient asks a node's store over its Unix socket, and keeps what it answered fresh.
//
// The filter calls it from all of Envoy's worker threads and never waits: every call takes a function that is told the
// end. The package never blocks a caller, never retries (the filter knows what may be tried again) and never imports
// grpc.
//
// One connection carries everything: frames (internal/frame) of holdfast.store.v1 Request and Response, multiplexed by
// id. One goroutine writes, and joins what is queued into one write; one reads, and runs the callbacks of answered calls
// itself, so a callback must not block, nor call [Client.Close].
//
// The cache rests on the store's promise that a connection which subscribed to an entity is pushed every later change
// (or, of several, the last one). An entity is in the cache only while it is subscribed, and everything is forgotten
// with the connection. A commit's own state enters the cache before its callback runs, so a caller reads its writes; where a
// push may have overtaken that reply the cached state is dropped instead, and the next read asks the store.
package stateclient

import (
	"context"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
)

// Options bounds a client. The zero value means the defaults of limits.go.
type Options struct {
	// MaxPending bounds the calls that wait for an answer; one more fails at once.
	MaxPending int
	// MaxQueuedBytes bounds the requests that wait to be written; one more fails at once.
	MaxQueuedBytes int
	// CacheEntries and CacheBytes bound the cache; the least recently used are unsubscribed.
	CacheEntries int
	CacheBytes   int
	// MaxWatches bounds the watches; one more fails at once.
	MaxWatches int
	// Jitter returns a number in [0,1) that spreads reconnects.
	Jitter func() float64
	// Panicked is told what a callback panicked with. The client goes on: in Envoy an unrecovered panic would end every
	// request of the process.
	Panicked func(recovered any)
	// StateChanged is told each time the connection comes (true) or goes (false), on a client goroutine; it must not
	// block.
	StateChanged func(up bool)
}

func (o Options) withDefaults() Options {
	set := func(v *int, def int) {
		if *v <= 0 {
			*v = def
		}
	}
	set(&o.MaxPending, DefaultMaxPending)
	set(&o.MaxQueuedBytes, DefaultMaxQueuedBytes)
	set(&o.CacheEntries, DefaultCacheEntries)
	set(&o.CacheBytes, DefaultCacheBytes)
	set(&o.MaxWatches, DefaultMaxWatches)
	if o.Jitter == nil {
		o.Jitter = rand.Float64
	}
	if o.Panicked == nil {
		o.Panicked = func(any) {}
	}
	if o.StateChanged == nil {
		o.StateChanged = func(bool) {}
	}
	return o
}

// Client is a connection to one store that is made again when it is lost. It is safe for concurrent use.
type Client struct {
	socket string
	opts   Options
	ctx    context.Context
	stop   context.CancelFunc
	// cur is the session of the connection that is up, or nil.
	cur atomic.Pointer[session]

	// mu guards closed, the adding to wg, came and lastErr.
	mu     sync.Mutex
	closed bool
	wg     sync.WaitGroup
	// came is closed when a connection comes up, and replaced when it is lost.
	came    chan struct{}
	lastErr error
}

// New starts a client of the store at the socket. It connects in the background; the caller must Close it.
func New(socket string, opts Options) *Client {
	ctx, stop := context.WithCancel(context.Background())
	c := &Client{socket: socket, opts: opts.withDefaults(), ctx: ctx, stop: stop, came: make(chan struct{})}
	c.wg.Go(c.connect)
	return c
}

// Close ends the connection, fails what is under way and waits for the client's goroutines. It must not be called from
// a callback.
func (c *Client) Close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.stop()
	c.wg.Wait()
}

// Up reports whether the store is connected, and answers.
func (c *Client) Up() bool { return c.cur.Load() != nil }

// connect keeps a connection up until Close.
func (c *Client) connect() {
	backoff := backoffMin
	for c.ctx.Err() == nil {
		conn, err := (&net.Dialer{Timeout: dialTimeout}).DialContext(c.ctx, "unix", c.socket)
		if err != nil {
			c.mu.Lock()
			c.lastErr = err
			c.mu.Unlock()
		} else {
			began := time.Now()
			c.session(conn)
			if time.Since(began) >= settled {
				backoff = backoffMin
			}
		}
		pause := time.NewTimer(backoff/2 + time.Duration(c.opts.Jitter()*float64(backoff/2)))
		select {
		case <-c.ctx.Done():
		case <-pause.C:
		}
		pause.Stop()
		backoff = min(2*backoff, backoffMax)
	}
}

// session serves one connection to its end.
func (c *Client) session(conn net.Conn) {
	s := newSession(c, conn)
	// Close ends the connection whether or not the store has answered on it.
	defer context.AfterFunc(c.ctx, func() { conn.Close() })()

	var alive sync.WaitGroup
	alive.Go(func() { c.guard(s.alive) })
	s.greet()
	s.run()
	alive.Wait()

	c.mu.Lock()
	up := c.cur.CompareAndSwap(s, nil)
	if up {
		c.came = make(chan struct{})
	}
	c.lastErr = s.lostErr
	c.mu.Unlock()
	s.fail()
	if up {
		c.guard(func() { c.opts.StateChanged(false) })
	}
}

// adopt makes s the session of all calls: the store has answered on it. It runs on the reader's goroutine, so before the
// session's end.
func (c *Client) adopt(s *session) {
	c.mu.Lock()
	c.cur.Store(s)
	close(c.came)
	c.mu.Unlock()
	c.guard(func() { c.opts.StateChanged(true) })
}

// guard runs f and keeps a panic from ending the process.
func (c *Client) guard(f func()) {
	defer func() {
		if r := recover(); r != nil {
			defer func() { _ = recover() }()
			c.opts.Panicked(r)
		}
	}()
	f()
}

// async runs f on a client goroutine, so that no callback runs within the call that it belongs to.
func (c *Client) async(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		// Close may be waiting already and must not be added to. f does not block, so this ends by itself.
		go c.guard(f)
		return
	}
	c.wg.Go(func() { c.guard(f) })
}

// wait returns the session, which it waits for until ctx ends.
func (c *Client) wait(ctx context.Context) (*session, error) {
	for {
		if s := c.cur.Load(); s != nil {
			return s, nil
		}
		c.mu.Lock()
		came := c.came
		c.mu.Unlock()
		select {
		case <-came:
			// Up, or lost again already; came is another channel then.
		case <-ctx.Done():
			c.mu.Lock()
			defer c.mu.Unlock()
			return nil, c.down(c.lastErr)
		case <-c.ctx.Done():
			return nil, notApplied(codeUnavailable, "client closed")
		}
	}
}

func (c *Client) down(err error) *Error {
	if err == nil {
		return notApplied(codeUnavailable, "not connected to %s", c.socket)
	}
	return notApplied(codeUnavailable, "not connected to %s: %v", c.socket, err)
}

// start begins a call on the session that is up. The call's settle and done are told when that can't be.
func (c *Client) start(s *session, k *call) {
	if s == nil {
		k.refuse(c, c.down(nil))
		return
	}
	if err := s.start(k); err != nil {
		k.refuse(c, err)
	}
}

// ms is a timeout as the store takes it: at least 1, because 0 means none.
func ms(d time.Duration) uint32 {
	n := (d + time.Millisecond - 1) / time.Millisecond
	return uint32(min(max(n, 1), 1<<31))
}

func entity(typ, key string) *storev1.Entity { return &storev1.Entity{Type: typ, Key: key} }
