package stateclient

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/holdfast-mesh/holdfast/internal/frame"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
)

// call is one request under way.
type call struct {
	req *storev1.Request
	// timeout is how long done may wait; 0 is for ever.
	timeout time.Duration
	// internal calls are the client's own; they may exceed MaxPending by a quarter.
	internal bool
	// settle, if set, is told the store's answer, however late, or that the call was never sent; not the loss of the
	// connection. It runs before done. late says that done has been told already.
	settle func(r *storev1.Response, err *Error, late bool)
	// done, if set, is told exactly once, by the deadline.
	done func(r *storev1.Response, err *Error)

	// The rest is guarded by session.mu.
	size    int
	written bool // the store may have it
	told    bool // done has run, or is about to
	over    bool // no longer pending
	timer   *time.Timer
	// givenUp is when the connection is given up for this call; zero before the call's own deadline.
	givenUp time.Time
}

func (k *call) commit() bool { return k.req.GetCommit() != nil }

// committed is the entity type that a commit is to.
func (k *call) committed() string { return k.req.GetCommit().GetEntity().GetType() }

// refuse ends a call that was not started.
func (k *call) refuse(c *Client, err *Error) {
	c.async(func() { k.finish(c, nil, err, false) })
}

func (k *call) finish(c *Client, r *storev1.Response, err *Error, late bool) {
	if k.settle != nil {
		c.guard(func() { k.settle(r, err, late) })
	}
	if k.done != nil && !late {
		c.guard(func() { k.done(r, err) })
	}
}

// session is one connection and everything that lives only as long as it.
type session struct {
	c     *Client
	conn  net.Conn
	cache *cache
	// raw writes without waiting; nil where the connection can't.
	raw syscall.RawConn
	// wake tells the writer that there is something to write.
	wake chan struct{}
	// gone is closed when the reader has ended.
	gone chan struct{}
	// lostErr is why the connection ended; set before run returns.
	lostErr error
	// reads counts what was read, for alive.
	reads atomic.Uint64

	// mu guards the fields below and the guarded ones of every call. No callback runs under it.
	mu      sync.Mutex
	dead    bool
	lastID  uint64
	pending map[uint64]*call
	commits map[string]int // pending commits, by entity type
	queue   []*call
	queued  int // bytes in queue
	// busy says that somebody is writing: the writer, or a call's own goroutine. rest is what the latter has left of its
	// frame; the writer goes on with that.
	busy bool
	rest []byte
}

func newSession(c *Client, conn net.Conn) *session {
	return &session{
		c: c, conn: conn, raw: rawConn(conn), cache: newCache(c.opts.CacheEntries, c.opts.CacheBytes, c.opts.MaxWatches),
		wake: make(chan struct{}, 1), gone: make(chan struct{}), pending: map[uint64]*call{},
		commits: map[string]int{},
	}
}

// start sends a call or queues it, or says why it can't. It never blocks.
func (s *session) start(k *call) *Error {
	direct, err := s.admit(k)
	if direct {
		s.direct(k)
	}
	return err
}

// admit takes a call in. direct says that it is the caller's to write, at once.
func (s *session) admit(k *call) (direct bool, _ *Error) {
	k.size = proto.Size(k.req) + 16 // with the id and the length
	if k.size > frame.Max {
		return false, notApplied(codeResourceExhausted, "request of %d bytes, at most %d", k.size, frame.Max)
	}
	limit := s.c.opts.MaxPending
	if k.internal {
		limit += limit/4 + 1
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.dead:
		return false, s.c.down(s.lostErr)
	case len(s.pending) >= limit:
		return false, notApplied(codeUnavailable, "%d calls wait for the store, at most %d may", len(s.pending), limit)
	case k.commit() && s.commits[k.committed()] >= limit-limit/commitShare:
		return false, notApplied(codeUnavailable, "%d commits to %s wait for the store, at most %d may", s.commits[k.committed()], k.committed(), limit-limit/commitShare)
	case s.queued+k.size > s.c.opts.MaxQueuedBytes:
		return false, notApplied(codeUnavailable, "%d bytes wait to be written to the store, at most %d may", s.queued, s.c.opts.MaxQueuedBytes)
	}
	s.lastID++
	k.req.Id = s.lastID
	s.pending[k.req.Id] = k
	if k.commit() {
		s.commits[k.committed()]++
	}
	if k.timeout > 0 {
		k.timer = time.AfterFunc(k.timeout, func() { s.expire(k) })
	}
	if s.raw != nil && !s.busy && len(s.queue) == 0 && k.size <= maxDirect && len(s.pending) <= maxDirectPending {
		s.busy, k.written = true, true
		return true, nil
	}
	s.queue = append(s.queue, k)
	s.queued += k.size
	if !s.busy {
		s.wakeWriter()
	}
	return false, nil
}

// end takes a call off the pending ones. s.mu is held.
func (s *session) end(k *call) (late bool) {
	delete(s.pending, k.req.Id)
	if k.commit() && !k.over {
		if s.commits[k.committed()]--; s.commits[k.committed()] == 0 {
			delete(s.commits, k.committed())
		}
	}
	k.over = true
	if k.timer != nil {
		k.timer.Stop()
	}
	late, k.told = k.told, true
	return late
}

// expire tells a call's done that its time is up. The call stays pending if the store has it, since its answer still
// matters to the cache; without one for long, the connection is given up.
func (s *session) expire(k *call) {
	s.mu.Lock()
	switch {
	case k.over || s.dead:
		s.mu.Unlock()
	case !k.written:
		s.queued -= k.size
		s.end(k)
		s.mu.Unlock()
		k.finish(s.c, nil, notApplied(codeDeadlineExceeded, "store is busy: timed out before the request was written"), false)
	case !k.told:
		k.told = true
		k.givenUp = time.Now().Add(grace)
		if k.timer == nil {
			k.timer = time.AfterFunc(grace, func() { s.expire(k) })
		} else {
			k.timer.Reset(grace)
		}
		s.mu.Unlock()
		if k.done != nil {
			err := &Error{Code: codeDeadlineExceeded, Message: "store did not answer in time", Outcome: lost(k.commit())}
			s.c.guard(func() { k.done(nil, err) })
		}
	default:
		// The deadline and its timer may both get here, so the time says which end this is.
		hung := !time.Now().Before(k.givenUp)
		s.mu.Unlock()
		if hung {
			s.conn.Close()
		}
	}
}

// run serves the connection until it is lost.
func (s *session) run() {
	var writer sync.WaitGroup
	writer.Go(func() {
		s.c.guard(s.write)
		// Whatever ended the writer ends the reader.
		s.conn.Close()
	})
	err := errors.New("reader failed")
	s.c.guard(func() { err = s.read() })
	s.conn.Close()
	close(s.gone)
	writer.Wait()
	s.mu.Lock()
	s.lostErr = err
	s.mu.Unlock()
}

// read takes responses off the connection until it is lost.
func (s *session) read() error {
	r := bufio.NewReaderSize(s.conn, 64<<10)
	var buf []byte
	for {
		payload, err := frame.Read(r, buf)
		if err != nil {
			return fmt.Errorf("read: %w", err)
		}
		s.reads.Add(1)
		resp := &storev1.Response{}
		if err := proto.Unmarshal(payload, resp); err != nil {
			return fmt.Errorf("decode response: %w", err)
		}
		s.response(resp)
		if buf = payload; cap(buf) > keptBuffer {
			buf = nil
		}
	}
}

// response handles one response.
func (s *session) response(r *storev1.Response) {
	if r.GetId() == 0 {
		if st := r.GetState(); st.GetEntity() != nil {
			s.follow(s.cache.pushed(st))
		}
		return
	}
	s.mu.Lock()
	k := s.pending[r.GetId()]
	// A store can't answer what it was not sent.
	if k == nil || !k.written {
		s.mu.Unlock()
		return
	}
	late := s.end(k)
	s.mu.Unlock()
	if r.GetError() != nil {
		k.finish(s.c, nil, fromStore(r.GetError(), k.commit()), late)
		return
	}
	if !answers(k.req, r) {
		err := &Error{Code: codeInternal, Message: "store answered something else than was asked", Outcome: lost(k.commit())}
		k.finish(s.c, nil, err, late)
		return
	}
	k.finish(s.c, r, nil, late)
}

// answers reports whether r holds the result that req asks for.
func answers(req *storev1.Request, r *storev1.Response) bool {
	switch req.GetCall().(type) {
	case *storev1.Request_Get:
		return r.GetState() != nil
	case *storev1.Request_Begin:
		return r.GetBegun() != nil
	case *storev1.Request_Commit:
		return r.GetCommitted() != nil
	case *storev1.Request_Inspect:
		return r.GetInspection() != nil
	case *storev1.Request_GetStatus:
		return r.GetStatus() != nil
	default:
		return r.GetDone() != nil
	}
}

// write sends what is queued until the connection is lost.
func (s *session) write() {
	var (
		buf   []byte
		batch []*call
		ends  []int // where in buf each call's frame ends
	)
	writing := false
	for {
		rest, some := s.take(batch[:0], writing)
		batch, writing = some, true
		if len(batch) == 0 && len(rest) == 0 {
			writing = false
			select {
			case <-s.wake:
				continue
			case <-s.gone:
				return
			}
		}
		buf, ends = append(buf[:0], rest...), ends[:0]
		for _, k := range batch {
			out, err := frame.Append(buf, k.req)
			if err != nil {
				s.mu.Lock()
				late := s.end(k)
				s.mu.Unlock()
				k.finish(s.c, nil, notApplied(codeInvalidArgument, "%v", err), late)
				out = buf
			}
			buf = out
			ends = append(ends, len(buf))
		}
		n, err := s.conn.Write(buf)
		if err != nil {
			s.mu.Lock()
			for i, k := range batch {
				// The store reads whole frames only.
				k.written = ends[i] <= n
			}
			s.mu.Unlock()
			return
		}
		clear(batch)
		if cap(buf) > keptBuffer {
			buf = nil
		}
	}
}

// take moves what makes one write from the queue to batch, behind what a call's own goroutine has left; it makes the
// session busy if there is something. wrote says that the writer has just ended a write.
func (s *session) take(batch []*call, wrote bool) (rest []byte, _ []*call) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy && !wrote && s.rest == nil {
		// Whoever is writing wakes the writer at its end.
		return nil, batch
	}
	rest, s.rest = s.rest, nil
	taken, bytes := 0, 0
	for _, k := range s.queue {
		if bytes > 0 && bytes+k.size > maxBatch {
			break
		}
		taken++
		if k.over { // timed out in the queue
			continue
		}
		k.written = true
		s.queued -= k.size
		bytes += k.size
		batch = append(batch, k)
	}
	clear(s.queue[:taken])
	if s.queue = s.queue[taken:]; len(s.queue) == 0 {
		s.queue = nil
	}
	// All may have timed out in the queue.
	s.busy = len(rest) > 0 || len(batch) > 0
	return rest, batch
}

// fail ends everything that is under way, once run has returned.
func (s *session) fail() {
	s.mu.Lock()
	s.dead = true
	pending := s.pending
	s.pending, s.queue, s.queued = nil, nil, 0
	type end struct {
		k   *call
		err *Error
	}
	ends := make([]end, 0, len(pending))
	for _, k := range pending {
		outcome := storev1.Outcome_OUTCOME_NOT_APPLIED
		if k.written {
			outcome = lost(k.commit())
		}
		if late := s.end(k); !late && k.done != nil {
			ends = append(ends, end{k, &Error{
				Code: codeUnavailable, Message: fmt.Sprintf("connection to the store lost: %v", s.lostErr), Outcome: outcome,
			}})
		}
	}
	s.mu.Unlock()
	for _, e := range ends {
		s.c.guard(func() { e.k.done(nil, e.err) })
	}
	for _, w := range s.cache.drop() {
		w.end(notApplied(codeUnavailable, "connection to the store lost: %v", s.lostErr))
	}
}
