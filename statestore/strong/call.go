package strong

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
	"github.com/holdfast-mesh/holdfast/statestore/refusal"
	"github.com/holdfast-mesh/holdfast/statestore/strong/entity"
)

// Call carries out a Get, Begin, Commit, Abort or Settle for caller. A forwarded call came from another store: where the slot
// is not this store's it is refused, never forwarded again. ctx bounds waiting; a Commit's must not end because its caller
// left.
func (c *Commands) Call(ctx context.Context, caller *Caller, forwarded bool, req *storev1.Request) *storev1.Response {
	r, err := c.call(ctx, caller, forwarded, req)
	if err != nil {
		r = &storev1.Response{Error: refusal.From(err, storev1.Outcome_OUTCOME_NOT_APPLIED).Proto()}
	}
	r.Id = req.GetId()
	return r
}

func (c *Commands) call(ctx context.Context, caller *Caller, forwarded bool, req *storev1.Request) (*storev1.Response, error) {
	switch call := req.GetCall().(type) {
	case *storev1.Request_Get:
		get := call.Get
		if get.Subscribe {
			return nil, refusal.NotApplied(codes.Unimplemented, "subscribe to %s: a strong type can't be subscribed to", idOf(get.Entity))
		}
		if len(get.Others) > 0 && !forwarded {
			return c.readSeveral(ctx, get)
		}
		return c.get(ctx, forwarded, req, get)
	case *storev1.Request_Begin:
		begin := call.Begin
		switch {
		case begin.Part && (!forwarded || len(begin.Others) > 0):
			return nil, refusal.NotApplied(codes.InvalidArgument, "begin a part of a command: only another store may ask for it")
		case len(begin.Others) > 0 && forwarded:
			return nil, refusal.NotApplied(codes.InvalidArgument, "begin on several entities: other stores take their turns one by one")
		case len(begin.Others) > 0:
			return c.beginSeveral(ctx, caller, begin)
		}
		r, _, err := c.beginOne(ctx, caller, forwarded, req, begin)
		if err == nil && !begin.Part {
			err = c.track(ctx, caller, begin, r.GetBegun())
		}
		return r, err
	case *storev1.Request_Commit:
		return c.commit(ctx, caller, forwarded, req, call.Commit)
	case *storev1.Request_Abort:
		return c.abort(ctx, caller, forwarded, call.Abort)
	case *storev1.Request_Settle:
		if !forwarded {
			return nil, refusal.NotApplied(codes.InvalidArgument, "settle: only another store may ask for it")
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.settlePart(caller, idOf(call.Settle.Entity), call.Settle.Token, call.Settle.Revision, nil)
		return &storev1.Response{Result: &storev1.Response_Done{Done: &storev1.Done{}}}, nil
	}
	return nil, refusal.NotApplied(codes.Unimplemented, "not a call of strong entities")
}

func (c *Commands) get(ctx context.Context, forwarded bool, req *storev1.Request, get *storev1.Get) (*storev1.Response, error) {
	return c.routed(ctx, forwarded, req, get.Entity, func(t Type, s *slot, id entityID) (*storev1.Response, error) {
		r, err := c.read(ctx, t, s, id)
		if err == nil {
			err = mismatch(id, r, get.IfMatch, false)
		}
		if err != nil {
			return nil, err
		}
		return &storev1.Response{Result: &storev1.Response_State{State: stateOf(t, id, r)}}, nil
	})
}

// beginOne takes one entity's turn. base is set where the turn is this store's, and was given.
func (c *Commands) beginOne(ctx context.Context, caller *Caller, forwarded bool, req *storev1.Request, begin *storev1.Begin) (r *storev1.Response, base *entity.Record, err error) {
	r, err = c.routed(ctx, forwarded, req, begin.Entity, func(t Type, s *slot, id entityID) (*storev1.Response, error) {
		begun, given, err := c.begin(ctx, t, s, id, caller, forwarded, begin)
		base = given
		return &storev1.Response{Result: &storev1.Response_Begun{Begun: begun}}, err
	})
	if err == nil && r.GetError() != nil {
		return nil, nil, refusal.FromProto(r.GetError())
	}
	return r, base, err
}

// routed carries a Get or Begin out here or at the slot's owner. An owner that can't be reached is waited for, as long as
// the call's time allows: until it is back, or its lease is over and the slot is claimed anew.
func (c *Commands) routed(ctx context.Context, forwarded bool, req *storev1.Request, ent *storev1.Entity,
	here func(Type, *slot, entityID) (*storev1.Response, error),
) (*storev1.Response, error) {
	id := idOf(ent)
	t, err := c.cfg.Type(id.typ)
	if err != nil {
		return nil, err
	}
	s := c.slot(slotOf(id))
	for moves := 0; moves < attempts; {
		owner, _, err := c.claim(ctx, s)
		if err != nil {
			// Its former process may have the slot, or there is no lease yet.
			if refusal.From(err, storev1.Outcome_OUTCOME_NOT_APPLIED).Code == codes.Unavailable && c.vacated(ctx, s, c.cfg.Node) {
				continue
			}
			return nil, err
		}
		if owner == c.cfg.Node {
			r, err := here(t, s, id)
			if moved := (*movedError)(nil); !errors.As(err, &moved) {
				return r, err
			}
			moves++
			continue
		}
		if forwarded {
			// The hint may be old; the next call asks etcd.
			c.doubt(s, owner, true)
			return nil, refusal.NotApplied(codes.Aborted, "ownership moved: %s belongs to %s now", id, owner)
		}
		r, err := c.ask(ctx, s, owner, req)
		switch {
		case err != nil:
			c.doubt(s, owner, false)
			if !c.vacated(ctx, s, owner) {
				return nil, refusal.NotApplied(codes.Unavailable, "owner %s of %s can't be reached: %v", owner, id, err)
			}
		case codes.Code(r.GetError().GetCode()) == codes.Aborted:
			c.doubt(s, owner, true)
			moves++
		case unavailable(r.GetError()):
			// It is cut off from etcd, or closing: what it owns is another's once its lease is over.
			c.doubt(s, owner, false)
			if !c.vacated(ctx, s, owner) {
				return r, nil
			}
		default:
			return r, nil
		}
	}
	return nil, refusal.NotApplied(codes.Unavailable, "the slot of %s changes hands", id)
}

func unavailable(e *storev1.Error) bool {
	return codes.Code(e.GetCode()) == codes.Unavailable && e.GetOutcome() == storev1.Outcome_OUTCOME_NOT_APPLIED
}

// ask calls a slot's owner. When the answer is slow in coming the slot is watched: an owner that lost it answers for nothing.
func (c *Commands) ask(ctx context.Context, s *slot, owner string, req *storev1.Request) (*storev1.Response, error) {
	ctx, cancel := context.WithCancel(ctx)
	committer, _ := c.cfg.Links()
	var watch sync.WaitGroup
	watch.Add(1)
	timer := time.AfterFunc(slowAnswer, func() {
		defer watch.Done()
		if committer.Vacated(ctx, s.id.typ, s.id.number, owner) == nil {
			cancel()
		}
	})
	defer func() {
		cancel()
		if timer.Stop() {
			watch.Done()
		}
		watch.Wait()
	}()
	return c.forward(ctx, owner, req)
}

// forward calls another store with what is left of the time.
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

// begin takes the turn and loads the state, which it returns too where it gives the turn. away: for another store.
func (c *Commands) begin(ctx context.Context, t Type, s *slot, id entityID, caller *Caller, away bool, call *storev1.Begin) (*storev1.Begun, *entity.Record, error) {
	if committer, _ := c.cfg.Links(); !committer.Up() {
		return nil, nil, errEtcdGone
	}
	e, tn, err := c.acquire(ctx, s, id, caller, call.RequestId)
	if err != nil {
		return nil, nil, err
	}
	r, epoch, err := c.living(ctx, t, s, e, tn, false)
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case err != nil:
	case call.RequestId != "" && r.Applied(call.RequestId):
		c.leave(e, tn, caller)
		return &storev1.Begun{State: stateOf(t, id, r), AlreadyApplied: true}, nil, nil
	case tn.over:
		return nil, nil, refusal.NotApplied(codes.Aborted, "the turn of %s ended while its state was loaded", id)
	case tn.base != nil && call.Part != (tn.parts > 0):
		err = refusal.NotApplied(codes.Aborted, "the turn of %s is another command's with the same request id", id)
	default:
		err = mismatch(id, r, call.IfMatch, call.IfNoneMatch)
	}
	if err != nil {
		c.leave(e, tn, caller)
		return nil, nil, err
	}
	if tn.base == nil {
		tn.base, tn.epoch, tn.unsettled = r, epoch, e.unsettled(epoch, r.Revision)
	}
	begun := &storev1.Begun{Token: tn.token, State: stateOf(t, id, tn.base)}
	if call.Part {
		if tn.parts++; away {
			c.lend(e, tn)
		}
		begun.Base = &storev1.TurnBase{Epoch: tn.epoch, Revision: tn.base.Revision, Head: tn.base.Head(), Unsettled: tn.unsettled}
	}
	return begun, tn.base, nil
}

// mismatch refuses where the entity is not what the caller knows it to be.
func mismatch(id entityID, r *entity.Record, ifMatch string, ifNoneMatch bool) error {
	switch version := r.Version(); {
	case ifNoneMatch && r.Exists():
		return refusal.Unmatched("%s exists, as version %q", id, version)
	case ifMatch == "":
		return nil
	case !r.Exists():
		return refusal.Unmatched("%s does not exist, version %q was expected", id, ifMatch)
	case ifMatch != "*" && ifMatch != version:
		return refusal.Unmatched("%s has version %q, %q was expected", id, version, ifMatch)
	}
	return nil
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
	if cmd := c.commands[a.Token]; cmd != nil {
		c.abandon(cmd)
	}
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

func stateOf(t Type, id entityID, r *entity.Record) *storev1.State {
	return &storev1.State{
		Entity: &storev1.Entity{Type: id.typ, Key: id.key},
		Exists: r.Exists(), Version: r.Version(), Value: t.Value(r), Revision: r.Revision,
	}
}
