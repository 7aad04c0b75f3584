package etcd

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// header is what all of etcd's answers carry.
type header interface{ GetRaftTerm() uint64 }

// member is one connection to one member of etcd, used until it breaks or is given up.
type member struct {
	target      target
	client      *Client
	conn        *grpc.ClientConn
	kv          pb.KVClient
	lease       pb.LeaseClient
	watch       pb.WatchClient
	auth        pb.AuthClient
	maintenance pb.MaintenanceClient

	life context.Context
	stop context.CancelFunc
	done sync.WaitGroup
	// lost is closed when the connection, having been there, breaks.
	lost chan struct{}
	// answeredAt is when the last answer came, in nanoseconds since began.
	answeredAt atomic.Int64
	began      time.Time
	// term is the highest that an answer told.
	term atomic.Uint64

	// mu guards what follows.
	mu sync.Mutex
	// calls are those under way, with their beginning.
	// +checklocks:mu
	calls map[*underWay]struct{}
	// +checklocks:mu
	ended bool
	// answer is closed at the next answer, where somebody asked for it.
	// +checklocks:mu
	answer chan struct{}
}

type underWay struct {
	began time.Time
	long  bool
	end   context.CancelCauseFunc
}

var (
	// errGivenUp ends the calls that are under way at a member that is given up.
	errGivenUp = errors.New("the member was given up")
	// errNewLeader ends the calls that may have been lost with a former leader.
	errNewLeader = errors.New("etcd has another leader")
)

// newMember begins to connect.
func (c *Client) newMember(t target) (*member, error) {
	conn, err := grpc.NewClient(t.address,
		grpc.WithTransportCredentials(t.credentials),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: pingAfter, Timeout: pingTimeout}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: reconnectMin, Multiplier: 1.6, Jitter: 0.2, MaxDelay: reconnectMax},
			MinConnectTimeout: connectTimeout,
		}),
		grpc.WithDefaultCallOptions(grpc.MaxCallSendMsgSize(maxSendBytes), grpc.MaxCallRecvMsgSize(maxReceiveBytes)),
		grpc.WithDisableServiceConfig(),
	)
	if err != nil {
		return nil, err
	}
	m := &member{
		target: t, client: c, conn: conn, kv: pb.NewKVClient(conn), lease: pb.NewLeaseClient(conn), watch: pb.NewWatchClient(conn),
		auth: pb.NewAuthClient(conn), maintenance: pb.NewMaintenanceClient(conn),
		lost: make(chan struct{}), began: time.Now(), calls: map[*underWay]struct{}{},
	}
	m.life, m.stop = context.WithCancel(context.Background())
	m.done.Go(m.observe)
	conn.Connect()
	return m, nil
}

// observe closes lost when a connection that was ready is not any more.
func (m *member) observe() {
	ready := false
	for {
		state := m.conn.GetState()
		if ready && state != connectivity.Ready {
			close(m.lost)
			return
		}
		ready = state == connectivity.Ready
		if state == connectivity.Idle {
			m.conn.Connect()
		}
		if !m.conn.WaitForStateChange(m.life, state) {
			return
		}
	}
}

// end gives the member up: its calls end now, as unknown where they were sent.
func (m *member) end() {
	m.mu.Lock()
	m.ended = true
	m.mu.Unlock()
	m.endCalls(func(*underWay) bool { return true }, errGivenUp)
	m.stop()
	_ = m.conn.Close()
	m.done.Wait()
}

func (m *member) endCalls(which func(*underWay) bool, why error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for u := range m.calls {
		if which(u) {
			u.end(why)
		}
	}
}

// do makes one call. The error is an *Error.
func (m *member) do(ctx context.Context, op, token string, long bool, call callFunc) error {
	// A member without a leader says so at once instead of waiting for one, and ends watches.
	ctx = metadata.AppendToOutgoingContext(ctx, rpctypes.MetadataRequireLeaderKey, rpctypes.MetadataHasLeader)
	if token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, rpctypes.TokenFieldNameGRPC, token)
	}
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	u := &underWay{began: time.Now(), long: long, end: end}
	m.mu.Lock()
	if m.ended {
		m.mu.Unlock()
		return &Error{Op: op, Err: errGivenUp}
	}
	m.calls[u] = struct{}{}
	m.mu.Unlock()
	var p peer.Peer
	h, err := call(ctx, m, grpc.Peer(&p))
	m.mu.Lock()
	delete(m.calls, u)
	m.mu.Unlock()
	if err == nil {
		m.answered()
		m.sawTerm(h.GetRaftTerm())
		return nil
	}
	e := wrap(op, p.Addr != nil, err)
	if token == "" && m.client.login != nil && status.Code(err) == codes.PermissionDenied {
		// Without a token the certificate's name counts as the user's, and that one may not.
		e.Err = fmt.Errorf("%w: %w", ErrLogin, err)
	}
	if cause := context.Cause(ctx); cause == errGivenUp || cause == errNewLeader {
		e.Err = fmt.Errorf("%w: %w", cause, err)
	} else if refused(err) {
		m.answered()
	}
	return e
}

// refused says that etcd itself answered, and for another reason than that it can't serve now.
func refused(err error) bool {
	var e rpctypes.EtcdError
	return errors.As(rpctypes.Error(err), &e) && e.Code() != codes.Unavailable && e.Code() != codes.DeadlineExceeded && e.Code() != codes.Canceled
}

func (m *member) answered() {
	m.answeredAt.Store(int64(time.Since(m.began)))
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.answer != nil {
		close(m.answer)
		m.answer = nil
	}
}

// nextAnswer returns a channel that is closed at the next answer.
func (m *member) nextAnswer() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.answer == nil {
		m.answer = make(chan struct{})
	}
	return m.answer
}

// sawTerm ends the calls that were sent before a new leader was elected and are not answered soon: a request that the
// former leader took with it is answered by nobody for etcd's own time-out of 7 s.
func (m *member) sawTerm(term uint64) {
	for {
		old := m.term.Load()
		if term <= old {
			return
		}
		if !m.term.CompareAndSwap(old, term) {
			continue
		}
		if old != 0 {
			now := time.Now()
			time.AfterFunc(termGrace, func() {
				m.endCalls(func(u *underWay) bool { return !u.long && u.began.Before(now) }, errNewLeader)
			})
		}
		return
	}
}

// probe asks for an answer that only a member with a leader and a majority can give.
func (m *member) probe(ctx context.Context, timeout time.Duration) error {
	for attempt := 1; ; attempt++ {
		token := m.client.login.current()
		once, cancel := context.WithTimeout(ctx, timeout)
		err := m.do(once, "probe", token, false, func(ctx context.Context, m *member, opts ...grpc.CallOption) (header, error) {
			req := &pb.RangeRequest{Key: []byte(m.client.cfg.Prefix + probeKey), CountOnly: true}
			resp, err := m.kv.Range(ctx, req, append(opts, grpc.WaitForReady(true))...)
			return resp.GetHeader(), err
		})
		cancel()
		var e *Error
		switch {
		case err == nil:
			return nil
		case errors.Is(err, ErrLogin) && attempt < maxAttempts:
			if err := m.client.login.renew(ctx, m, token); err != nil {
				return err
			}
		case errors.As(err, &e) && refused(e.Err):
			return nil // It is there, whatever it thinks of the question.
		default:
			return err
		}
	}
}

// probeUntil probes until the member answers or ctx ends; why is told of each failure.
func (m *member) probeUntil(ctx context.Context, why func(error)) bool {
	for {
		err := m.probe(ctx, tryTimeout)
		if err == nil {
			return true
		}
		why(err)
		pause := time.NewTimer(tryPause)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return false
		}
	}
}

// trouble returns when the member's connection broke, it has no leader, or did not answer anything for silentAfter.
func (m *member) trouble(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	var probing sync.WaitGroup
	defer probing.Wait()
	defer cancel()
	m.answered() // It was chosen because it did.
	failed := make(chan error, 1)
	// waiting since then for the answer to a probe; zero: not waiting.
	var since time.Time
	busy, last := false, time.Now()
	tick := time.NewTicker(probeTick)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.lost:
			return
		case err := <-failed:
			busy = false
			if errors.Is(err, ErrNoLeader) {
				return
			}
			continue
		case <-tick.C:
		}
		now := time.Now()
		answered := m.began.Add(time.Duration(m.answeredAt.Load()))
		if !since.IsZero() && (answered.After(since) || now.Sub(last) > probeEvery) {
			// The latter: this process was stopped or starved itself. What it did not hear meanwhile proves nothing.
			since = time.Time{}
		}
		last = now
		if !since.IsZero() && now.Sub(since) >= silentAfter-probeEvery {
			return
		}
		if now.Sub(answered) >= probeEvery && !busy {
			busy = true
			if since.IsZero() {
				since = now
			}
			probing.Go(func() { failed <- m.probe(ctx, silentAfter) })
		}
	}
}
