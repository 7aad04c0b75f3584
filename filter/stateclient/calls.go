package stateclient

import (
	"context"
	"time"

	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
)

// Cached returns the entity's state if the cache has it. It never blocks. The state is shared: nobody may change it.
func (c *Client) Cached(typ, key string) (*storev1.State, bool) {
	s := c.cur.Load()
	if s == nil {
		return nil, false
	}
	return s.cache.get(entityKey{typ, key})
}

// Get reads entities' states: that of the entity, and those of others of its type in their order. With subscribe, which
// only entity types that the store pushes may ask for, it is cached from now on. The request is the client's from now on:
// it sets a timeout that is 0, and nobody may change it.
func (c *Client) Get(get *storev1.Get, timeout time.Duration, done func(st *storev1.State, others []*storev1.State, err error)) {
	if get.GetTimeoutMs() == 0 {
		get.TimeoutMs = ms(timeout)
	}
	k := &call{
		req:     &storev1.Request{Call: &storev1.Request_Get{Get: get}},
		timeout: timeout,
		done: func(r *storev1.Response, err *Error) {
			if err != nil {
				done(nil, nil, err)
				return
			}
			done(r.GetState(), r.GetOthers(), nil)
		},
	}
	s := c.cur.Load()
	if !c.timely(k) {
		return
	}
	if s != nil && get.GetSubscribe() {
		var m mark
		m, get.Subscribe = s.cache.reading(keyOf(get.GetEntity()))
		k.settle = func(r *storev1.Response, err *Error, _ bool) {
			if get.Subscribe {
				s.follow(s.cache.subscribed(m, r.GetState(), err))
			} else if err == nil {
				s.follow(s.cache.read(m, r.GetState()))
			}
		}
	}
	c.start(s, k)
}

// Begin takes the turns of strong entities. Those that are given after done was told of the timeout are given back. The
// request is the client's, as Get's is.
func (c *Client) Begin(begin *storev1.Begin, timeout time.Duration, done func(*storev1.Begun, error)) {
	if begin.GetTimeoutMs() == 0 {
		begin.TimeoutMs = ms(timeout)
	}
	k := &call{
		req:     &storev1.Request{Call: &storev1.Request_Begin{Begin: begin}},
		timeout: timeout,
		settle: func(r *storev1.Response, _ *Error, late bool) {
			if token := r.GetBegun().GetToken(); late && token != "" {
				c.Abort(begin.GetEntity().GetType(), begin.GetEntity().GetKey(), token)
			}
		},
		done: func(r *storev1.Response, err *Error) {
			if err != nil {
				done(nil, err)
				return
			}
			done(r.GetBegun(), nil)
		},
	}
	if c.timely(k) {
		c.start(c.cur.Load(), k)
	}
}

// Commit applies operations. Where the entity is cached, its new state is before done runs. The request is the client's
// from now on: it sets a timeout that is 0, and nobody may change it.
func (c *Client) Commit(req *storev1.Commit, timeout time.Duration, done func(*storev1.Committed, error)) {
	if req.GetTimeoutMs() == 0 {
		req.TimeoutMs = ms(timeout)
	}
	k := &call{
		req:     &storev1.Request{Call: &storev1.Request_Commit{Commit: req}},
		timeout: timeout,
		done: func(r *storev1.Response, err *Error) {
			if err != nil {
				done(nil, err)
				return
			}
			done(r.GetCommitted(), nil)
		},
	}
	if !c.timely(k) {
		return
	}
	s := c.cur.Load()
	if s != nil {
		m := s.cache.mark(keyOf(req.GetEntity()))
		k.settle = func(r *storev1.Response, err *Error, _ bool) {
			if st := r.GetCommitted().GetState(); err == nil && st != nil {
				s.follow(s.cache.committed(m, st))
			}
		}
	}
	c.start(s, k)
}

// Abort gives back the turn that token stands for. Without a connection there is nothing to do: the store releases the
// turns of a connection with it.
func (c *Client) Abort(typ, key, token string) {
	s := c.cur.Load()
	if s == nil {
		return
	}
	c.start(s, &call{
		req: &storev1.Request{Call: &storev1.Request_Abort{Abort: &storev1.Abort{
			Entity: entity(typ, key), Token: token,
		}}},
		timeout: watchTimeout, internal: true,
	})
}

// timely refuses a call whose time is up already.
func (c *Client) timely(k *call) bool {
	if k.timeout > 0 {
		return true
	}
	k.refuse(c, notApplied(codeDeadlineExceeded, "no time left to ask the store"))
	return false
}

// Call sends any request but a subscription and waits for the answer; it waits for the connection too. It is for tools;
// ctx should have a deadline. The request's id is set by the client.
func (c *Client) Call(ctx context.Context, req *storev1.Request) (*storev1.Response, error) {
	if req.GetUnsubscribe() != nil || req.GetGet().GetSubscribe() {
		return nil, notApplied(codeInvalidArgument, "subscriptions are the client's own")
	}
	s, err := c.wait(ctx)
	if err != nil {
		return nil, err
	}
	type answer struct {
		r   *storev1.Response
		err *Error
	}
	got := make(chan answer, 1)
	k := &call{
		req:  &storev1.Request{Call: req.GetCall()},
		done: func(r *storev1.Response, err *Error) { got <- answer{r, err} },
	}
	if d, ok := ctx.Deadline(); ok {
		k.timeout = max(time.Until(d), time.Nanosecond)
	}
	c.start(s, k)
	select {
	case a := <-got:
		if a.err != nil {
			return nil, a.err
		}
		return a.r, nil
	case <-ctx.Done():
		s.expire(k)
		a := <-got
		if a.err != nil {
			return nil, a.err
		}
		return a.r, nil
	}
}
