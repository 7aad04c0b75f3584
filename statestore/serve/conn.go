package serve

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/holdfast-mesh/holdfast/internal/frame"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
	"github.com/holdfast-mesh/holdfast/statestore"
	"github.com/holdfast-mesh/holdfast/statestore/refusal"
)

// conn is one connection. run owns its goroutines.
type conn struct {
	server   *Server
	net      net.Conn
	out      *outbox
	caller   *statestore.Caller
	inFlight atomic.Int64
	// calls are those under way that will be answered from another goroutine.
	calls sync.WaitGroup
}

// run serves until the peer hangs up, breaks the protocol, or the server closes.
func (c *conn) run() {
	ctx, cancel := context.WithCancel(c.server.ctx)
	written := make(chan struct{})
	go func() {
		defer close(written)
		c.write()
	}()
	c.read(ctx)
	// The peer is gone, or must go: its turns end and what it waits for is given up; commits under way go on.
	cancel()
	c.server.engine.Gone(c.caller)
	c.calls.Wait()
	for _, id := range c.out.close() {
		c.server.engine.Unsubscribe(&storev1.Entity{Type: id.typ, Key: id.key}, c.out)
	}
	<-written
	c.net.Close()
}

func (c *conn) read(ctx context.Context) {
	r := bufio.NewReaderSize(c.net, writeBatch)
	var buf []byte
	for {
		payload, err := frame.Read(r, buf)
		if err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) && !c.server.closing() {
				c.server.log.Debug("connection ended", "error", err)
			}
			return
		}
		if buf = payload; cap(buf) > writeBatch {
			buf = nil
		}
		req := &storev1.Request{}
		if err := proto.Unmarshal(payload, req); err != nil {
			c.server.log.Warn("connection dropped: not a request", "error", err)
			return
		}
		if c.inFlight.Add(1) > maxInFlight {
			c.refuse(req, refusal.NotApplied(codes.ResourceExhausted, "%d calls are under way on this connection", maxInFlight))
			continue
		}
		c.dispatch(ctx, req)
	}
}

// dispatch answers at once what can't block, and the rest from goroutines, at most maxInFlight.
func (c *conn) dispatch(ctx context.Context, req *storev1.Request) {
	engine := c.server.engine
	switch call := req.Call.(type) {
	case *storev1.Request_Get:
		if engine.Strong(call.Get.GetEntity().GetType()) {
			c.strong(ctx, req, call.Get.TimeoutMs)
			return
		}
		c.get(req, call.Get)
	case *storev1.Request_Unsubscribe:
		c.unsubscribe(call.Unsubscribe.GetEntity())
		c.answer(req, done(req))
	case *storev1.Request_Commit:
		if engine.Strong(call.Commit.GetEntity().GetType()) {
			// A caller that goes away never cancels a commit under way.
			c.strong(c.server.ctx, req, call.Commit.TimeoutMs)
			return
		}
		c.calls.Add(1)
		engine.CommitAsync(call.Commit, time.Now().Add(timeout(call.Commit.TimeoutMs)), func(committed *storev1.Committed, err error) {
			defer c.calls.Done()
			if err != nil {
				c.refuse(req, err)
				return
			}
			c.answer(req, &storev1.Response{Id: req.Id, Result: &storev1.Response_Committed{Committed: committed}})
		})
	case *storev1.Request_Begin:
		c.strong(ctx, req, call.Begin.TimeoutMs)
	case *storev1.Request_Abort:
		c.strong(c.server.ctx, req, 0)
	default:
		c.async(ctx, req, 0, func(ctx context.Context) *storev1.Response { return c.server.admin(ctx, req) })
	}
}

func (c *conn) unsubscribe(ent *storev1.Entity) {
	c.out.unsubscribe(idOf(ent))
	c.server.engine.Unsubscribe(ent, c.out)
}

func (c *conn) get(req *storev1.Request, get *storev1.Get) {
	var sub statestore.Subscriber
	id := idOf(get.GetEntity())
	if get.Subscribe {
		if !c.out.subscribe(id) {
			c.refuse(req, refusal.NotApplied(codes.ResourceExhausted, "%d subscriptions on this connection", maxSubscriptions))
			return
		}
		sub = c.out
	}
	c.calls.Add(1)
	c.server.engine.View(get.GetEntity(), time.Now().Add(timeout(get.TimeoutMs)), sub, func(s *storev1.State, err error) {
		defer c.calls.Done()
		if err != nil {
			if get.Subscribe {
				c.out.unsubscribe(id)
			}
			c.refuse(req, err)
			return
		}
		c.answer(req, &storev1.Response{Id: req.Id, Result: &storev1.Response_State{State: s}})
		if get.Subscribe && !c.out.has(id) {
			// Unsubscribed while it waited. Not from here, where the subscription is made.
			c.calls.Add(1)
			go func() {
				defer c.calls.Done()
				c.server.engine.Unsubscribe(get.GetEntity(), c.out)
			}()
		}
	})
}

func (c *conn) strong(ctx context.Context, req *storev1.Request, ms uint32) {
	c.async(ctx, req, ms, func(ctx context.Context) *storev1.Response {
		return c.server.engine.StrongCall(ctx, c.caller, false, req)
	})
}

func (c *conn) async(ctx context.Context, req *storev1.Request, ms uint32, call func(context.Context) *storev1.Response) {
	c.calls.Add(1)
	go func() {
		defer c.calls.Done()
		ctx, cancel := context.WithTimeout(ctx, timeout(ms))
		defer cancel()
		c.answer(req, call(ctx))
	}()
}

func (c *conn) refuse(req *storev1.Request, err error) {
	c.answer(req, refused(req, err))
}

// answer queues the one answer of a request.
func (c *conn) answer(req *storev1.Request, r *storev1.Response) {
	c.server.metrics.answered(req, r)
	if !c.out.answer(r) {
		c.server.log.Warn("connection dropped: it does not read its answers")
		c.net.Close()
	}
}

func (c *conn) write() {
	var buf []byte
	for range c.out.wake {
		for {
			out, answers, closed := c.out.take()
			if closed {
				return
			}
			if len(out) == 0 {
				break
			}
			buf = buf[:0]
			stale := false
			for _, r := range out {
				var err error
				if buf, err = frame.Append(buf, r); err == nil {
					continue
				}
				c.server.log.Error("answer does not fit a frame", "error", err)
				// Nor would later pushes: who is subscribed would keep an old state for ever, so nobody is.
				c.unsubscribe(r.GetState().GetEntity())
				if r.Id == 0 {
					// The only way to tell that what was pushed before is no longer true.
					stale = true
					continue
				}
				buf, _ = frame.Append(buf, &storev1.Response{Id: r.Id, Error: refusal.From(err, outcomeOf(r)).Proto()})
			}
			_, err := c.net.Write(buf)
			c.inFlight.Add(-int64(answers))
			if err != nil || stale {
				// The reader notices too; what else is queued is dropped by take.
				c.net.Close()
				c.drain()
				return
			}
			if cap(buf) > 4*writeBatch {
				buf = nil
			}
		}
	}
}

// drain drops what is queued until the outbox is closed. It looks before it waits: the outbox may have been closed in the
// moment of the wake that the writer took.
func (c *conn) drain() {
	for {
		out, answers, closed := c.out.take()
		switch {
		case closed:
			return
		case len(out) == 0:
			<-c.out.wake
		default:
			c.inFlight.Add(-int64(answers))
		}
	}
}

func outcomeOf(r *storev1.Response) storev1.Outcome {
	if r.GetCommitted() != nil {
		return storev1.Outcome_OUTCOME_APPLIED
	}
	return storev1.Outcome_OUTCOME_NOT_APPLIED
}

func timeout(ms uint32) time.Duration {
	if ms == 0 {
		return defaultTimeout
	}
	return min(time.Duration(ms)*time.Millisecond, maxTimeout)
}
