package strong

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
	"github.com/holdfast-mesh/holdfast/statestore/refusal"
)

// Call carries out a Get, Begin, Commit or Abort for caller. A forwarded call came from another store: where the slot is not
// this store's it is refused, never forwarded again. ctx bounds waiting; a Commit's must not end because its caller left.
func (c *Commands) Call(ctx context.Context, caller *Caller, forwarded bool, req *storev1.Request) *storev1.Response {
	r := &storev1.Response{}
	var err error
	switch call := req.GetCall().(type) {
	case *storev1.Request_Get:
		if call.Get.Subscribe {
			err = refusal.NotApplied(codes.Unimplemented, "subscribe to %s: a strong type can't be subscribed to", idOf(call.Get.Entity))
			break
		}
		r, err = c.routed(ctx, forwarded, req, call.Get.GetEntity(), func(s *slot, id entityID) (*storev1.Response, error) {
			state, err := c.read(ctx, s, id)
			return &storev1.Response{Result: &storev1.Response_State{State: state}}, err
		})
	case *storev1.Request_Begin:
		if committer, _ := c.cfg.Links(); !committer.Up() {
			err = errEtcdGone
			break
		}
		r, err = c.routed(ctx, forwarded, req, call.Begin.GetEntity(), func(s *slot, id entityID) (*storev1.Response, error) {
			begun, err := c.begin(ctx, s, id, caller, call.Begin.RequestId)
			return &storev1.Response{Result: &storev1.Response_Begun{Begun: begun}}, err
		})
		if err == nil {
			err = c.track(ctx, caller, call.Begin, r.GetBegun())
		}
	case *storev1.Request_Commit:
		r, err = c.commit(ctx, caller, forwarded, req, call.Commit)
	case *storev1.Request_Abort:
		r, err = c.abort(ctx, caller, forwarded, call.Abort)
	default:
		err = refusal.NotApplied(codes.Unimplemented, "not a call of strong entities")
	}
	if err != nil {
		r = &storev1.Response{Error: refusal.From(err, storev1.Outcome_OUTCOME_NOT_APPLIED).Proto()}
	}
	r.Id = req.GetId()
	return r
}

// routed carries a Get or Begin out here or at the slot's owner.
func (c *Commands) routed(ctx context.Context, forwarded bool, req *storev1.Request, ent *storev1.Entity,
	here func(*slot, entityID) (*storev1.Response, error),
) (*storev1.Response, error) {
	id := idOf(ent)
	if _, err := c.cfg.Type(id.typ); err != nil {
		return nil, err
	}
	s := c.slot(slotOf(id))
	for range attempts {
		owner, _, err := c.claim(ctx, s)
		if err != nil {
			return nil, err
		}
		if owner == c.cfg.Node {
			r, err := here(s, id)
			if moved := (*movedError)(nil); !errors.As(err, &moved) {
				return r, err
			}
			continue
		}
		if forwarded {
			// The hint may be old; the next call asks etcd.
			c.doubt(s, owner)
			return nil, refusal.NotApplied(codes.Aborted, "ownership moved: %s belongs to %s now", id, owner)
		}
		r, err := c.forward(ctx, owner, req)
		if err != nil {
			c.doubt(s, owner)
			return nil, refusal.NotApplied(codes.Unavailable, "owner %s of %s can't be reached: %v", owner, id, err)
		}
		if codes.Code(r.GetError().GetCode()) == codes.Aborted {
			c.doubt(s, owner)
			continue
		}
		return r, nil
	}
	return nil, refusal.NotApplied(codes.Unavailable, "the slot of %s changes hands", id)
}

// forward calls the owner with what is left of the time.
func (c *Commands) forward(ctx context.Context, node string, req *storev1.Request) (*storev1.Response, error) {
	req = proto.Clone(req).(*storev1.Request)
	left := uint32(defaultTimeout.Milliseconds())
	if deadline, ok := ctx.Deadline(); ok {
		left = uint32(max(time.Until(deadline).Milliseconds(), 1))
	}
	switch call := req.Call.(type) {
	case *storev1.Request_Get:
		call.Get.TimeoutMs = left
	case *storev1.Request_Begin:
		call.Begin.TimeoutMs = left
	case *storev1.Request_Commit:
		call.Commit.TimeoutMs = left
	}
	_, forwarder := c.cfg.Links()
	r, err := forwarder.Call(ctx, node, req)
	if err != nil {
		return nil, err
	}
	if r == nil {
		return nil, errors.New("no answer")
	}
	return r, nil
}

// begin takes the turn and loads the state.
func (c *Commands) begin(ctx context.Context, s *slot, id entityID, caller *Caller, requestID string) (*storev1.Begun, error) {
	e, t, err := c.acquire(ctx, s, id, caller, requestID)
	if err != nil {
		return nil, err
	}
	r, epoch, err := c.fresh(ctx, s, e)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.leave(e, t, caller)
		return nil, err
	}
	if r.applied(requestID) {
		c.leave(e, t, caller)
		return &storev1.Begun{State: stateOf(id, r), AlreadyApplied: true}, nil
	}
	if t.over {
		return nil, refusal.NotApplied(codes.Aborted, "the turn of %s ended while its state was loaded", id)
	}
	if t.base == nil {
		t.base, t.epoch = &r, epoch
	}
	return &storev1.Begun{Token: t.token, State: stateOf(id, *t.base)}, nil
}

// track remembers a turn at another store, to give it back when the caller goes.
func (c *Commands) track(ctx context.Context, caller *Caller, begin *storev1.Begin, begun *storev1.Begun) error {
	node := nodeOf(begun.GetToken())
	if node == "" || node == c.cfg.Node {
		return nil
	}
	remote := remoteTurn{node: node, entity: begin.Entity}
	c.mu.Lock()
	gone := caller.gone
	if !gone {
		caller.remote[begun.Token] = remote
	}
	c.mu.Unlock()
	if gone {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
		defer cancel()
		c.abortRemote(ctx, begun.Token, remote)
		return errClosed
	}
	return nil
}

func (c *Commands) untrack(caller *Caller, token string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(caller.remote, token)
}

func (c *Commands) abort(ctx context.Context, caller *Caller, forwarded bool, a *storev1.Abort) (*storev1.Response, error) {
	done := &storev1.Response{Result: &storev1.Response_Done{Done: &storev1.Done{}}}
	if node := nodeOf(a.Token); node != c.cfg.Node {
		if !forwarded && node != "" {
			c.untrack(caller, a.Token)
			c.abortRemote(ctx, a.Token, remoteTurn{node: node, entity: a.Entity})
		}
		return done, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.entities[idOf(a.Entity)]; e != nil && e.turn != nil && e.turn.token == a.Token {
		c.leave(e, e.turn, caller)
	}
	return done, nil
}

// Timeout is how long a call may take by its own word.
func Timeout(req *storev1.Request) time.Duration {
	ms := max(req.GetGet().GetTimeoutMs(), req.GetBegin().GetTimeoutMs(), req.GetCommit().GetTimeoutMs())
	if ms == 0 {
		return defaultTimeout
	}
	return min(time.Duration(ms)*time.Millisecond, maxTimeout)
}

func idOf(e *storev1.Entity) entityID { return entityID{e.GetType(), e.GetKey()} }

func (id entityID) String() string { return fmt.Sprintf("%s %q", id.typ, id.key) }

func stateOf(id entityID, r record) *storev1.State {
	s := &storev1.State{Entity: &storev1.Entity{Type: id.typ, Key: id.key}, Exists: r.exists}
	if r.rev != 0 {
		s.Version = strconv.FormatInt(r.rev, 36)
	}
	if r.exists {
		s.Value = &holdfastv1.Value{Kind: &holdfastv1.Value_Value{Value: r.value}}
	}
	return s
}
