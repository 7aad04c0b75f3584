package etcd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
)

// ClientConfig configures a Client.
type ClientConfig struct {
	// Endpoints are the members: "http://host:port", "https://host:port", or "host:port" for http. Nothing but these is ever
	// used: the members are not asked for others.
	Endpoints []string
	// TLS is for https endpoints: the CA of the members' certificates (none: the system's), and what is shown to them.
	TLS TLS
	// User logs in with the password that is PasswordFile's first line; the file is read at each login.
	User, PasswordFile string
	// Prefix is put before every key, and cut from those that are read. It may not be empty where several users share an
	// etcd. See Key.
	Prefix  string
	Logger  *slog.Logger
	Metrics prometheus.Registerer
}

// Client talks to one etcd cluster. It is safe for concurrent use.
//
// It uses one member at a time, and another one as soon as that one's connection breaks, or as it was silent for
// silentAfter and another one answers, which includes that it has a leader. Calls that were under way at the member that
// was given up end at once.
type Client struct {
	cfg     ClientConfig
	targets []target
	login   *login
	metrics *metrics
	cancel  context.CancelFunc
	done    sync.WaitGroup

	// current is nil while no member is known to answer.
	current atomic.Pointer[member]
	// up stays true for a little while without a current member: a fail-over may be so quick that nobody needs to know.
	up atomic.Bool
	// room is why writes that need more room are refused; nil: they are not.
	room atomic.Pointer[error]

	// mu guards what follows.
	mu sync.Mutex
	// changed is closed and replaced at each change of up or current.
	// +checklocks:mu
	changed chan struct{}
	// why is why the last member that was tried did not answer.
	// +checklocks:mu
	why error
}

// Dial makes a client; it connects in the background and reconnects for ever, until Close. An error is one of the
// configuration.
func Dial(cfg ClientConfig) (*Client, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	c := &Client{cfg: cfg, changed: make(chan struct{}), metrics: newMetrics(cfg.Metrics)}
	var err error
	if c.targets, err = targets(cfg); err != nil {
		return nil, fmt.Errorf("dial etcd: %w", err)
	}
	if c.login, err = newLogin(cfg.User, cfg.PasswordFile); err != nil {
		return nil, fmt.Errorf("dial etcd: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	c.cancel = cancel
	c.done.Go(func() { c.run(ctx) })
	return c, nil
}

// Close ends the client's connection and goroutines; calls that are under way end.
func (c *Client) Close() error {
	c.cancel()
	c.done.Wait()
	return nil
}

// Up is false while no member answers: etcd is known to be gone, or was not reached yet.
func (c *Client) Up() bool { return c.up.Load() }

// Changed returns a channel that is closed when Up changes after this call, or another member is used.
func (c *Client) Changed() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changed
}

// Endpoint is the member that is used, "" while there is none.
func (c *Client) Endpoint() string {
	if m := c.current.Load(); m != nil {
		return m.target.name
	}
	return ""
}

// run keeps a member in use, until ctx ends.
func (c *Client) run(ctx context.Context) {
	var m *member
	for {
		next := c.seek(ctx, m)
		if ctx.Err() != nil {
			break
		}
		if next != m {
			if m != nil {
				c.metrics.failovers.Inc()
				c.cfg.Logger.Info("using another member of etcd", "endpoint", next.target.name, "instead of", m.target.name)
			}
			c.use(next)
			if m != nil {
				m.end()
			}
			m = next
		}
		m.trouble(ctx)
		if ctx.Err() != nil {
			break
		}
	}
	c.use(nil)
	if m != nil {
		m.end()
	}
}

// seek returns the first member that answers. m, where it is not nil, is the one in use, and stays it when it answers
// again before another one does.
func (c *Client) seek(ctx context.Context, m *member) *member {
	ctx, cancel := context.WithCancel(ctx)
	var tries sync.WaitGroup
	defer tries.Wait()
	defer cancel()
	found := make(chan *member)
	for _, i := range rand.Perm(len(c.targets)) {
		tries.Go(func() {
			candidate := c.try(ctx, c.targets[i])
			if candidate == nil {
				return
			}
			select {
			case found <- candidate:
			case <-ctx.Done():
				candidate.end()
			}
		})
	}
	var lost, back <-chan struct{}
	if m != nil {
		lost, back = m.lost, m.nextAnswer()
		tries.Go(func() { m.probeUntil(ctx, func(error) {}) })
	}
	// The grace of a member that broke.
	var over <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case candidate := <-found:
			return candidate
		case <-back:
			return m
		case <-lost:
			c.mu.Lock()
			c.current.Store(nil)
			c.mu.Unlock()
			lost, back = nil, nil
			grace := time.NewTimer(failOverGrace)
			defer grace.Stop()
			over = grace.C
		case <-over:
			c.use(nil)
			over = nil
			c.mu.Lock()
			why := c.why
			c.mu.Unlock()
			c.cfg.Logger.Warn("no member of etcd answers", "error", why)
		}
	}
}

// try returns a member at t once it answers; nil when ctx ended before.
func (c *Client) try(ctx context.Context, t target) *member {
	m, err := c.newMember(t)
	if err != nil { // The target was checked when the client was made.
		c.noteWhy(t, err)
		return nil
	}
	if !m.probeUntil(ctx, func(err error) { c.noteWhy(t, err) }) {
		m.end()
		return nil
	}
	return m
}

func (c *Client) noteWhy(t target, err error) {
	if errors.Is(err, context.Canceled) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.why = fmt.Errorf("%s: %w", t.name, err)
}

// use makes m the member that calls go to; nil: none.
func (c *Client) use(m *member) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.current.Store(m)
	c.up.Store(m != nil)
	c.metrics.up.Set(map[bool]float64{true: 1}[m != nil])
	close(c.changed)
	c.changed = make(chan struct{})
}

// member returns the member in use, waiting a little where one broke just now; nil: there is none.
func (c *Client) member(ctx context.Context) *member {
	for {
		if m := c.current.Load(); m != nil || !c.up.Load() {
			return m
		}
		changed := c.Changed()
		if c.current.Load() != nil || !c.up.Load() {
			continue
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// do makes one call at the member in use. long says that the call may wait for ever, as a watch does.
func (c *Client) do(ctx context.Context, op string, long bool, call callFunc) error {
	for attempt := 1; ; attempt++ {
		m := c.member(ctx)
		if m == nil {
			return c.down(ctx, op)
		}
		token := c.login.current()
		err := m.do(ctx, op, token, long, call)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, errGivenUp) && !sent(err) && attempt < maxAttempts:
			continue // It was given up before it got the call.
		case !errors.Is(err, ErrLogin) || attempt == maxAttempts:
			return err
		}
		// Etcd did nothing but refuse.
		if err := c.login.renew(ctx, m, token); err != nil {
			return &Error{Op: op, Err: err}
		}
	}
}

func (c *Client) down(ctx context.Context, op string) error {
	if ctx.Err() != nil {
		return &Error{Op: op, Err: ctx.Err()}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.why != nil {
		return &Error{Op: op, Err: fmt.Errorf("%w: %w", ErrDown, c.why)}
	}
	return &Error{Op: op, Err: ErrDown}
}

// callFunc makes a call and returns the answer's header. opts say where the request went.
type callFunc func(ctx context.Context, m *member, opts ...grpc.CallOption) (header, error)
