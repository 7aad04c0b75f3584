package statestore

import (
	"context"
	"strconv"

	"google.golang.org/grpc/codes"

	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
	"github.com/holdfast-mesh/holdfast/statestore/refusal"
	"github.com/holdfast-mesh/holdfast/statestore/strong"
)

// Caller is who begins strong commands; see strong.Caller.
type Caller = strong.Caller

func newCommands(e *Engine) *strong.Commands {
	return strong.New(strong.Config{
		Node: e.cfg.Node,
		Links: func() (strong.Committer, strong.Forwarder) {
			l := e.links.Load()
			return l.Committer, l.Forwarder
		},
		Type:      e.strongType,
		Committed: e.counters.committed,
	})
}

func (e *Engine) strongType(name string) (strong.Type, error) {
	c := e.config.Load()
	if c == nil || c.types[name] == nil {
		return strong.Type{}, errType(name)
	}
	t := c.types[name]
	if t.shape != nil {
		return strong.Type{}, refusal.NotApplied(codes.FailedPrecondition, "entity type %q is %s: begin and abort are for strong types", name, consistencyName(t.Consistency))
	}
	return strong.Type{
		MaxStateBytes: int(t.MaxStateBytes),
		Replicas: func(slot uint32) []string {
			return c.replicas(t, slot)
		},
	}, nil
}

// NewCaller is for one connection of the API; Gone must follow.
func (e *Engine) NewCaller() *Caller { return strong.NewCaller() }

// Gone ends all turns of a caller, also those at other stores.
func (e *Engine) Gone(c *Caller) { e.strong.Gone(c) }

// StrongCall carries out a Get, Begin, Commit or Abort of a strong entity; it waits, at most as long as ctx and the
// request say. A forwarded call comes from another store and is not forwarded again. A commit goes on when ctx is
// cancelled, but not past its deadline.
func (e *Engine) StrongCall(ctx context.Context, caller *Caller, forwarded bool, req *storev1.Request) *storev1.Response {
	var ent *storev1.Entity
	switch call := req.GetCall().(type) {
	case *storev1.Request_Get:
		ent = call.Get.GetEntity()
	case *storev1.Request_Begin:
		ent = call.Begin.GetEntity()
	case *storev1.Request_Abort:
		ent = call.Abort.GetEntity()
	case *storev1.Request_Commit:
		ent = call.Commit.GetEntity()
		if err := e.checkCommit(call.Commit); err != nil {
			return refused(req, err)
		}
		deadline, bounded := ctx.Deadline()
		ctx = context.WithoutCancel(ctx)
		if bounded {
			var cancel context.CancelFunc
			ctx, cancel = context.WithDeadline(ctx, deadline)
			defer cancel()
		}
	}
	if err := checkEntity(ent); err != nil {
		return refused(req, err)
	}
	if n := len(req.GetBegin().GetRequestId()); n > maxRequestID {
		return refused(req, refusal.NotApplied(codes.InvalidArgument, "request id of %d bytes, at most %d", n, maxRequestID))
	}
	ctx, cancel := context.WithTimeout(ctx, strong.Timeout(req))
	defer cancel()
	return e.strong.Call(ctx, caller, forwarded, req)
}

func refused(req *storev1.Request, err error) *storev1.Response {
	return &storev1.Response{Id: req.GetId(), Error: refusal.From(err, storev1.Outcome_OUTCOME_NOT_APPLIED).Proto()}
}

// inspectStrong tells who owns the entity's slot and what memory, else etcd, has of it. Nothing is claimed.
func (e *Engine) inspectStrong(ctx context.Context, ent *storev1.Entity, in *storev1.Inspection) (*storev1.Inspection, error) {
	committer := e.links.Load().Committer
	owner, err := committer.Owner(ctx, ent.Type, in.Slot)
	if err != nil {
		return nil, refusal.NotApplied(codes.Unavailable, "owner of slot %d of %s: %v", in.Slot, ent.Type, err)
	}
	in.Owner = owner
	if owner == e.cfg.Node {
		if in.State, in.Active = e.strong.Peek(ent.Type, ent.Key); in.Active {
			return in, nil
		}
	}
	value, exists, rev, _, err := committer.Load(ctx, ent.Type, in.Slot, ent.Key)
	if err != nil {
		return nil, refusal.NotApplied(codes.Unavailable, "load %s %q: %v", ent.Type, ent.Key, err)
	}
	in.State = absent(idOf(ent))
	if rev != 0 {
		in.State.Version = strconv.FormatInt(rev, 36)
	}
	if in.State.Exists = exists; exists {
		in.State.Value = &holdfastv1.Value{Kind: &holdfastv1.Value_Value{Value: value}}
	}
	return in, nil
}
