package strong

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"

	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
	"github.com/holdfast-mesh/holdfast/statestore/crdt"
	"github.com/holdfast-mesh/holdfast/statestore/refusal"
)

// commit carries a Commit out here, or at the store that gave the token.
func (c *Commands) commit(ctx context.Context, caller *Caller, forwarded bool, req *storev1.Request, cm *storev1.Commit) (*storev1.Response, error) {
	id := idOf(cm.Entity)
	t, err := c.cfg.Type(id.typ)
	if err != nil {
		return nil, err
	}
	node := nodeOf(cm.Token)
	switch {
	case node == "":
		return nil, refusal.NotApplied(codes.InvalidArgument, "commit to %s: a strong entity needs the token of begin", id)
	case node != c.cfg.Node && forwarded:
		return nil, refusal.NotApplied(codes.Aborted, "ownership moved: the turn of %s was given by %s", id, node)
	case node != c.cfg.Node:
		c.untrack(caller, cm.Token)
		r, err := c.forward(ctx, node, req)
		if err != nil {
			return nil, writeRefusal("commit at "+node, err)
		}
		return r, nil
	}
	committed, err := c.commitHere(ctx, id, t, cm)
	if err != nil {
		return nil, err
	}
	return &storev1.Response{Result: &storev1.Response_Committed{Committed: committed}}, nil
}

func (c *Commands) commitHere(ctx context.Context, id entityID, typ Type, cm *storev1.Commit) (*storev1.Committed, error) {
	c.mu.Lock()
	e := c.entities[id]
	if e == nil || e.turn == nil || e.turn.token != cm.Token || e.turn.base == nil {
		c.mu.Unlock()
		return c.late(ctx, id, cm)
	}
	t := e.turn
	if under := t.committing; under != nil {
		// The same command, committed twice.
		c.mu.Unlock()
		select {
		case <-under.done:
		case <-ctx.Done():
			return nil, refusal.Unknown("commit to %s: %v", id, ctx.Err())
		}
		if under.err != nil {
			return nil, under.err
		}
		return &storev1.Committed{State: under.committed.State, Duplicate: true}, nil
	}
	run := &commit{done: make(chan struct{})}
	t.committing = run
	c.mu.Unlock()

	requestID := cm.RequestId
	if requestID == "" {
		requestID = t.requestID
	}
	after, outcome, err := c.write(ctx, e, t, typ, requestID, cm.Operations)

	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case err == nil:
		if s := e.slot; s.epoch == t.epoch && (e.epoch != t.epoch || e.copy.rev < after.rev) {
			e.epoch, e.copy = t.epoch, after
		}
		run.committed = &storev1.Committed{State: stateOf(id, after)}
	case outcome == keepCopy:
		run.err = err
	default:
		e.drop()
		run.err = err
	}
	if outcome == lostSlot && e.slot.epoch == t.epoch {
		c.reset(e.slot)
		e.slot.owner, e.slot.epoch = "", 0
	}
	t.committing = nil
	c.end(e, t)
	close(run.done)
	if err == nil && len(cm.Operations) > 0 {
		c.cfg.Committed(id.typ)
	}
	return run.committed, run.err
}

// late answers a commit whose turn is over: it may be one that was applied, and asked for again.
func (c *Commands) late(ctx context.Context, id entityID, cm *storev1.Commit) (*storev1.Committed, error) {
	if cm.RequestId != "" {
		s := c.slot(slotOf(id))
		c.mu.Lock()
		e := c.entity(s, id)
		c.mu.Unlock()
		if r, _, err := c.fresh(ctx, s, e); err == nil && r.applied(cm.RequestId) {
			return &storev1.Committed{State: stateOf(id, r), Duplicate: true}, nil
		}
	}
	return nil, refusal.NotApplied(codes.Aborted, "the turn of %s is over: its deadline passed, its connection was lost, or the slot moved", id)
}

// What a failed commit says about the copy in memory, beside its error.
type aftermath int

const (
	// keepCopy: nothing was written, and nothing new is known.
	keepCopy aftermath = iota
	// dropCopy: the entity is not what the copy says, or may not be.
	dropCopy
	// lostSlot: the claim is gone.
	lostSlot
)

// write computes the state after the operations and writes it to etcd.
func (c *Commands) write(ctx context.Context, e *entity, t *turn, typ Type, requestID string, ops []*holdfastv1.Operation) (record, aftermath, error) {
	after := *t.base
	for i, op := range ops {
		switch o := op.GetOperation().(type) {
		case *holdfastv1.Operation_Set:
			after.value, after.exists = o.Set.GetValue(), true
		case *holdfastv1.Operation_Delete:
			after.value, after.exists = nil, false
		default:
			return record{}, keepCopy, refusal.NotApplied(codes.InvalidArgument,
				"operation %d (%s) on %s: a value takes set and delete", i, crdt.OperationName(op), e.id.typ)
		}
	}
	if len(ops) == 0 {
		return after, keepCopy, nil
	}
	if n := len(after.value); n > typ.MaxStateBytes {
		return record{}, keepCopy, refusal.NotApplied(codes.ResourceExhausted,
			"state of %s would take %d bytes, at most %d: raise maxStateBytes of the type, or spread the state over more keys", e.id, n, typ.MaxStateBytes)
	}
	committer, _ := c.cfg.Links()
	if !committer.Up() {
		return record{}, keepCopy, errEtcdGone
	}
	if requestID != "" {
		ids := t.base.ids
		if len(ids) >= maxIDs {
			ids = ids[len(ids)-maxIDs+1:]
		}
		after.ids = append(append([]string(nil), ids...), requestID)
	}
	slot := e.slot.id
	rev, err := committer.Commit(ctx, slot.typ, slot.number, t.epoch, e.id.key, t.base.rev, after.value, after.exists, after.ids)
	if err == nil {
		after.rev = rev
		return after, keepCopy, nil
	}
	refused := writeRefusal("commit to "+e.id.String(), err)
	switch {
	case refused.Outcome != storev1.Outcome_OUTCOME_NOT_APPLIED:
		return record{}, dropCopy, refused
	case notOwner(err):
		refused.Code = codes.Aborted
		return record{}, lostSlot, refused
	case conflict(err):
		return c.settle(ctx, committer, e, requestID)
	}
	return record{}, keepCopy, refused
}

// settle finds out what a failed guard means: another's change, or an earlier attempt of this very commit.
func (c *Commands) settle(ctx context.Context, committer Committer, e *entity, requestID string) (record, aftermath, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
	defer cancel()
	r := record{}
	var err error
	r.value, r.exists, r.rev, r.ids, err = committer.Load(ctx, e.slot.id.typ, e.slot.id.number, e.id.key)
	if err != nil {
		return record{}, dropCopy, refusal.Unknown("commit to %s: its guard failed, and why can't be read: %v", e.id, err)
	}
	if r.applied(requestID) {
		return r, keepCopy, nil
	}
	return record{}, dropCopy, refusal.NotApplied(codes.Aborted, "%s was changed meanwhile", e.id)
}

// The Committer's and the Forwarder's errors are known by their methods, since neither side imports the other.
type (
	outcomer interface{ Outcome() storev1.Outcome }
	coder    interface{ Code() int32 }
)

func notOwner(err error) bool {
	var e interface{ NotOwner() bool }
	return errors.As(err, &e) && e.NotOwner()
}

func conflict(err error) bool {
	var e interface{ Conflict() bool }
	return errors.As(err, &e) && e.Conflict()
}

// writeRefusal is a failed write's refusal: not applied where the error says so, else unknown.
func writeRefusal(op string, err error) *refusal.Error {
	var known *refusal.Error
	if errors.As(err, &known) {
		return known
	}
	var o outcomer
	if !errors.As(err, &o) || o.Outcome() != storev1.Outcome_OUTCOME_NOT_APPLIED {
		return refusal.Unknown("%s: %v", op, err)
	}
	return refusal.NotApplied(codeOf(err), "%s: %v", op, err)
}

// readRefusal is a failed read's refusal.
func readRefusal(op string, err error) *refusal.Error {
	var known *refusal.Error
	if errors.As(err, &known) {
		return known
	}
	return refusal.NotApplied(codeOf(err), "%s: %v", op, err)
}

func codeOf(err error) codes.Code {
	var c coder
	switch {
	case errors.As(err, &c):
		return codes.Code(c.Code())
	case errors.Is(err, context.DeadlineExceeded):
		return codes.DeadlineExceeded
	case errors.Is(err, context.Canceled):
		return codes.Canceled
	}
	return codes.Unavailable
}
