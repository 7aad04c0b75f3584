package statestore

import (
	"context"

	"google.golang.org/grpc/codes"

	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
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
		Types:     e.strongTypes,
		Committed: e.counters.committed,
		Now:       e.cfg.Now,
	})
}

// strongTypes lists the strong types that are configured.
func (e *Engine) strongTypes() []string {
	var names []string
	if c := e.config.Load(); c != nil {
		for name, t := range c.types {
			if t.strong != nil {
				names = append(names, name)
			}
		}
	}
	return names
}

func (e *Engine) strongType(name string) (strong.Type, error) {
	c := e.config.Load()
	if c == nil || c.types[name] == nil {
		return strong.Type{}, errType(name)
	}
	t := c.types[name]
	if t.strong == nil {
		return strong.Type{}, refusal.NotApplied(codes.FailedPrecondition, "entity type %q is %s: begin and abort are for strong types", name, consistencyName(t.Consistency))
	}
	return strong.Type{
		Type: t.strong,
		Replicas: func(slot uint32) []string {
			return c.replicas(t, slot)
		},
	}, nil
}

// NewCaller is for one connection of the API; Gone must follow.
func (e *Engine) NewCaller() *Caller { return strong.NewCaller() }

// Gone ends all turns of a caller, also those at other stores.
func (e *Engine) Gone(c *Caller) { e.strong.Gone(c) }

// StrongCall carries out a Get, Begin, Commit, Abort or Settle of a strong entity; it waits, at most as long as ctx and the
// request say. A forwarded call comes from another store and is not forwarded again. A commit goes on when ctx is
// cancelled, but not past its deadline.
func (e *Engine) StrongCall(ctx context.Context, caller *Caller, forwarded bool, req *storev1.Request) *storev1.Response {
	if err := e.checkStrong(req); err != nil {
		return refused(req, err)
	}
	if req.GetCommit() != nil {
		deadline, bounded := ctx.Deadline()
		ctx = context.WithoutCancel(ctx)
		if bounded {
			var cancel context.CancelFunc
			ctx, cancel = context.WithDeadline(ctx, deadline)
			defer cancel()
		}
	}
	ctx, cancel := context.WithTimeout(ctx, strong.Timeout(req))
	defer cancel()
	return e.strong.Call(ctx, caller, forwarded, req)
}

// checkStrong checks what a request names.
func (e *Engine) checkStrong(req *storev1.Request) error {
	var ent *storev1.Entity
	var others []string
	switch call := req.GetCall().(type) {
	case *storev1.Request_Get:
		ent, others = call.Get.GetEntity(), call.Get.GetOthers()
	case *storev1.Request_Begin:
		ent, others = call.Begin.GetEntity(), call.Begin.GetOthers()
	case *storev1.Request_Abort:
		ent = call.Abort.GetEntity()
	case *storev1.Request_Settle:
		ent = call.Settle.GetEntity()
	case *storev1.Request_Commit:
		ent = call.Commit.GetEntity()
		if err := e.checkCommit(call.Commit); err != nil {
			return err
		}
		operations := len(call.Commit.GetOperations())
		for _, o := range call.Commit.GetOthers() {
			others = append(others, o.GetKey())
			operations += len(o.GetOperations())
		}
		if operations > maxOperations {
			return refusal.NotApplied(codes.InvalidArgument, "%d operations in one commit, at most %d", operations, maxOperations)
		}
	}
	if err := checkEntity(ent); err != nil {
		return err
	}
	for _, key := range others {
		if err := checkEntity(&storev1.Entity{Type: ent.Type, Key: key}); err != nil {
			return err
		}
	}
	if n := len(req.GetBegin().GetRequestId()); n > maxRequestID {
		return refusal.NotApplied(codes.InvalidArgument, "request id of %d bytes, at most %d", n, maxRequestID)
	}
	return nil
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
	r, t, err := e.strong.Inspect(ctx, ent.Type, ent.Key)
	if err != nil {
		return nil, err
	}
	in.State = absent(idOf(ent))
	in.State.Exists, in.State.Version, in.State.Value, in.State.Revision = r.Exists(), r.Version(), t.Value(r), r.Revision
	return in, nil
}
