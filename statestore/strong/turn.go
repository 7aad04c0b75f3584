package strong

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
	"github.com/holdfast-mesh/holdfast/statestore/refusal"
	"github.com/holdfast-mesh/holdfast/statestore/strong/entity"
)

// turn is one command's exclusive hold of an entity.
type turn struct {
	token     string
	requestID string
	// holders counts who began it, by caller: the turn ends when the last is gone or has aborted.
	holders  map[*Caller]int
	deadline time.Time
	timer    *time.Timer
	// base is the state that the command was given, under the claim epoch; nil until it was loaded.
	base  *entity.Record
	epoch int64
	// parts counts the commands on several entities that have this turn as a part and may still commit it; 0 for a turn of
	// one entity's command. unsettled says that the base was so before any of them.
	parts     int
	unsettled bool
	// committing is the commit under way. Nothing but its end ends the turn then.
	committing *commit
	over       bool
}

// commit is a commit under way; its result is there when done is closed.
type commit struct {
	done      chan struct{}
	committed *storev1.Committed
	err       error
}

// waiter waits in an entity's queue.
type waiter struct {
	requestID string
	caller    *Caller
	deadline  time.Time
	// ready gets exactly one answer, unless the waiter took itself out of the queue. One slot.
	ready chan granted
}

type granted struct {
	turn *turn
	err  error
}

// Caller is who takes turns: a connection of the API, or all other stores together. Its turns end when it goes.
type Caller struct {
	gone  bool
	turns map[*turn]*active
	// remote are turns at other stores, by token.
	remote map[string]remoteTurn
	// commands are those on several entities that it began here.
	commands map[*command]struct{}
}

type remoteTurn struct {
	node   string
	entity *storev1.Entity
}

// NewCaller returns a caller; Gone ends it.
func NewCaller() *Caller {
	return &Caller{turns: map[*turn]*active{}, remote: map[string]remoteTurn{}, commands: map[*command]struct{}{}}
}

// A token names the store that gave it, so that commit and abort find their way back.
func (c *Commands) newToken() string {
	var b [16]byte
	_, _ = rand.Read(b[:])
	return hex.EncodeToString(b[:]) + "." + c.cfg.Node
}

// nodeOf is the store that gave the token, "" where it is none of ours.
func nodeOf(token string) string {
	_, node, _ := strings.Cut(token, ".")
	return node
}

// acquire takes or joins the entity's turn, or waits for it.
func (c *Commands) acquire(ctx context.Context, s *slot, id entityID, caller *Caller, requestID string) (*active, *turn, error) {
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(defaultTimeout)
	}
	for {
		c.mu.Lock()
		if c.closed || caller.gone {
			c.mu.Unlock()
			return nil, nil, errClosed
		}
		e := c.entity(s, id)
		t := e.turn
		switch {
		case t == nil:
			t = c.give(e, &waiter{requestID: requestID, caller: caller, deadline: deadline})
			c.mu.Unlock()
			return e, t, nil
		case requestID != "" && t.requestID == requestID && t.committing == nil:
			c.join(e, t, caller, deadline)
			c.mu.Unlock()
			return e, t, nil
		case requestID != "" && t.requestID == requestID:
			// Its service ran already: what becomes of that commit decides.
			under := t.committing
			c.mu.Unlock()
			select {
			case <-under.done:
				continue
			case <-ctx.Done():
				return nil, nil, waitedTooLong(id, ctx)
			}
		case len(e.waiting) >= maxWaiting:
			c.mu.Unlock()
			return nil, nil, refusal.NotApplied(codes.ResourceExhausted, "%d commands wait for %s already", maxWaiting, id)
		}
		w := &waiter{requestID: requestID, caller: caller, deadline: deadline, ready: make(chan granted, 1)}
		e.waiting = append(e.waiting, w)
		c.mu.Unlock()
		select {
		case g := <-w.ready:
			return e, g.turn, g.err
		case <-ctx.Done():
		}
		c.mu.Lock()
		if i := slices.Index(e.waiting, w); i >= 0 {
			e.waiting = slices.Delete(e.waiting, i, i+1)
		} else if g := <-w.ready; g.turn != nil {
			// Granted in the same moment. Sends happen under mu, so it is there.
			c.leave(e, g.turn, caller)
		}
		c.mu.Unlock()
		return nil, nil, waitedTooLong(id, ctx)
	}
}

func waitedTooLong(id entityID, ctx context.Context) error {
	code := codes.DeadlineExceeded
	if ctx.Err() == context.Canceled {
		code = codes.Canceled
	}
	return refusal.NotApplied(code, "wait for the turn of %s: %v", id, ctx.Err())
}

// give makes w's turn. mu is held, and e has none.
func (c *Commands) give(e *active, w *waiter) *turn {
	t := &turn{token: c.newToken(), requestID: w.requestID, holders: map[*Caller]int{}, deadline: w.deadline}
	t.timer = time.AfterFunc(time.Until(w.deadline), func() { c.expire(e, t) })
	e.turn = t
	c.join(e, t, w.caller, w.deadline)
	return t
}

func (c *Commands) join(e *active, t *turn, caller *Caller, deadline time.Time) {
	t.holders[caller]++
	caller.turns[t] = e
	if deadline.After(t.deadline) {
		t.deadline = deadline
		t.timer.Reset(time.Until(deadline))
	}
}

// leave takes back one hold of a caller. A caller without one changes nothing.
func (c *Commands) leave(e *active, t *turn, caller *Caller) {
	if t.over || t.holders[caller] == 0 {
		return
	}
	if t.holders[caller]--; t.holders[caller] > 0 {
		return
	}
	delete(t.holders, caller)
	delete(caller.turns, t)
	if len(t.holders) == 0 && t.committing == nil {
		c.end(e, t)
	}
}

func (c *Commands) expire(e *active, t *turn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	// A deadline that was moved while the timer fired.
	if t.over || t.committing != nil {
		return
	}
	if left := time.Until(t.deadline); left > 0 {
		t.timer.Reset(left)
		return
	}
	c.end(e, t)
}

// end ends the turn and gives the next. mu is held.
func (c *Commands) end(e *active, t *turn) {
	t.over = true
	t.timer.Stop()
	for caller := range t.holders {
		delete(caller.turns, t)
	}
	clear(t.holders)
	e.turn = nil
	for len(e.waiting) > 0 && e.turn == nil {
		w := e.waiting[0]
		e.waiting = e.waiting[1:]
		if w.caller.gone {
			w.ready <- granted{err: errClosed}
			continue
		}
		next := c.give(e, w)
		w.ready <- granted{turn: next}
		if w.requestID == "" {
			break
		}
		// The same command, come in twice: both have the turn.
		rest := e.waiting[:0]
		for _, other := range e.waiting {
			if other.requestID == w.requestID && !other.caller.gone {
				c.join(e, next, other.caller, other.deadline)
				other.ready <- granted{turn: next}
				continue
			}
			rest = append(rest, other)
		}
		clear(e.waiting[len(rest):])
		e.waiting = rest
	}
	if e.turn == nil && e.epoch == 0 {
		c.forget(e)
	}
}

// Gone ends the turns of a caller whose connection was lost, at other stores too.
func (c *Commands) Gone(caller *Caller) {
	c.mu.Lock()
	caller.gone = true
	for t, e := range caller.turns {
		t.holders[caller] = 1
		c.leave(e, t, caller)
	}
	for cmd := range caller.commands {
		c.abandon(cmd)
	}
	remote := caller.remote
	caller.remote = nil
	c.mu.Unlock()
	if len(remote) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), settleTimeout)
	defer cancel()
	for token, r := range remote {
		c.abortRemote(ctx, token, r)
	}
}

func (c *Commands) abortRemote(ctx context.Context, token string, r remoteTurn) {
	_, forwarder := c.cfg.Links()
	// Best effort: the deadline ends it otherwise.
	_, _ = forwarder.Call(ctx, r.node, &storev1.Request{Id: 1, Call: &storev1.Request_Abort{
		Abort: &storev1.Abort{Entity: r.entity, Token: token},
	}})
}
