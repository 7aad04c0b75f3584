package strong

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/holdfast-mesh/holdfast/internal/fenced"
	"github.com/holdfast-mesh/holdfast/internal/planted"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
	"github.com/holdfast-mesh/holdfast/statestore/refusal"
	"github.com/holdfast-mesh/holdfast/statestore/strong/entity"
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
			return c.outlive(ctx, t, id, node, cm, writeRefusal("commit at "+node, err))
		}
		return r, nil
	}
	committed, err := c.commitHere(ctx, t, id, cm)
	if err != nil {
		return nil, err
	}
	return &storev1.Response{Result: &storev1.Response_Committed{Committed: committed}}, nil
}

// outlive finds out what became of a commit at an owner that did not answer. Once the slot is not the owner's any more,
// nothing of it can be carried out, and nobody has an older state in memory: then what the entity remembers is the truth.
// Before that it is not: the owner may live, and not know yet what was carried out.
func (c *Commands) outlive(ctx context.Context, t Type, id entityID, node string, cm *storev1.Commit, refused *refusal.Error) (*storev1.Response, error) {
	s := c.slot(slotOf(id))
	c.doubt(s, node, false)
	deadline, ok := ctx.Deadline()
	if !ok || refused.Outcome == storev1.Outcome_OUTCOME_NOT_APPLIED || cm.RequestId == "" || len(cm.Others) > 0 {
		return nil, refused
	}
	ctx, cancel := context.WithDeadline(ctx, deadline.Add(-lastWord))
	defer cancel()
	committer, _ := c.cfg.Links()
	if committer.Vacated(ctx, s.id.typ, s.id.number, node) != nil {
		return nil, refused
	}
	r, err := c.load(ctx, t, id)
	switch {
	case err != nil:
		return nil, refused
	case r.Applied(cm.RequestId) && !c.shown(ctx, id, r.Revision):
		return nil, refused
	case r.Applied(cm.RequestId):
		return &storev1.Response{Result: &storev1.Response_Committed{Committed: duplicate([]*storev1.State{stateOf(t, id, r)})}}, nil
	}
	return nil, refusal.NotApplied(codes.Unavailable, "the owner of %s was lost before the commit", id)
}

// shown waits until the slot's owner shows a state as new as this one, and reports whether it does. It may be carrying out
// the same command, asked for again there: etcd has it then before the owner's readers have.
func (c *Commands) shown(ctx context.Context, id entityID, rev int64) bool {
	get := &storev1.Get{Entity: &storev1.Entity{Type: id.typ, Key: id.key}}
	for {
		r, err := c.get(ctx, false, &storev1.Request{Id: 1, Call: &storev1.Request_Get{Get: get}}, get)
		if err == nil && r.GetState().GetRevision() >= rev {
			return true
		}
		select {
		case <-time.After(atLeast):
		case <-ctx.Done():
			return false
		}
	}
}

func (c *Commands) commitHere(ctx context.Context, t Type, id entityID, cm *storev1.Commit) (*storev1.Committed, error) {
	c.mu.Lock()
	if cmd := c.commands[cm.Token]; cmd != nil && cmd.keys[0] == id.key && cmd.typ == id.typ {
		return c.commitSeveral(ctx, t, cmd, cm)
	}
	e := c.entities[id]
	if e == nil || e.turn == nil || e.turn.token != cm.Token || e.turn.base == nil {
		c.mu.Unlock()
		return c.late(ctx, t, id, cm)
	}
	tn := e.turn
	if tn.parts > 0 || len(cm.Others) > 0 {
		c.mu.Unlock()
		return nil, refusal.NotApplied(codes.InvalidArgument, "commit to %s: the turn was begun for other entities than are changed", id)
	}
	if tn.committing != nil {
		return c.again(ctx, id, tn.committing)
	}
	run := &commit{done: make(chan struct{})}
	tn.committing = run
	c.mu.Unlock()

	after, before, err := c.carryOut(ctx, t, e, tn, requestIDOf(cm, tn.requestID), cm.Operations)
	switch {
	case err != nil:
		run.err = err
	case before:
		run.committed = duplicate([]*storev1.State{stateOf(t, id, after)})
	default:
		run.committed = &storev1.Committed{State: stateOf(t, id, after)}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	tn.committing = nil
	c.end(e, tn)
	close(run.done)
	if err == nil && len(cm.Operations) > 0 {
		c.cfg.Committed(id.typ)
	}
	return run.committed, run.err
}

// again answers the same command's second commit with what becomes of the first. mu is held, and given back.
func (c *Commands) again(ctx context.Context, id entityID, under *commit) (*storev1.Committed, error) {
	c.mu.Unlock()
	select {
	case <-under.done:
	case <-ctx.Done():
		return nil, refusal.Unknown("commit to %s: %v", id, ctx.Err())
	}
	if under.err != nil {
		return nil, under.err
	}
	return &storev1.Committed{State: under.committed.State, Others: under.committed.Others, Duplicate: true}, nil
}

// requestIDOf is the id under which a commit is remembered. A command without one gets its own, which tells what became of it.
func requestIDOf(cm *storev1.Commit, begun string) string {
	switch {
	case planted.On(planted.RetryWithoutID):
		return ""
	case cm.RequestId != "":
		return cm.RequestId
	case begun != "":
		return begun
	}
	var b [16]byte
	_, _ = rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// late answers a commit whose turn is over: it may be one that was applied, and asked for again.
func (c *Commands) late(ctx context.Context, t Type, id entityID, cm *storev1.Commit) (*storev1.Committed, error) {
	over := refusal.NotApplied(codes.Aborted, "the turn of %s is over: its deadline passed, its connection was lost, or the slot moved", id)
	if cm.RequestId == "" {
		return nil, over
	}
	if len(cm.Others) > 0 {
		keys := []string{id.key}
		for _, o := range cm.Others {
			keys = append(keys, o.Key)
		}
		if states := c.applied(ctx, t, keys, cm.RequestId); states != nil {
			return duplicate(states), nil
		}
		return nil, over
	}
	s := c.slot(slotOf(id))
	e := c.use(s, id)
	defer c.release(e)
	if r, _, err := c.fresh(ctx, s, t, e); err == nil && r.Applied(cm.RequestId) {
		return duplicate([]*storev1.State{stateOf(t, id, r)}), nil
	}
	return nil, over
}

// applied returns the entities' states where one of them remembers the command in etcd. nil where it was not applied, or
// that can't be known.
func (c *Commands) applied(ctx context.Context, t Type, keys []string, requestID string) []*storev1.State {
	found := false
	for _, key := range keys {
		r, err := c.load(ctx, t, entityID{t.Name, key})
		if err != nil {
			return nil
		}
		found = found || r.Applied(requestID)
	}
	if !found {
		return nil
	}
	// The states are the owners' to tell: theirs may be a commit behind, which nobody must have seen before them.
	states, err := c.readEach(ctx, t.Name, keys, "")
	if err != nil {
		return nil
	}
	return states
}

// duplicate answers a command that was applied before. Its entities may have been changed since: whoever took their versions
// for those that the command made would overwrite that, so they have none.
func duplicate(states []*storev1.State) *storev1.Committed {
	for _, s := range states {
		s.Version = ""
	}
	return &storev1.Committed{State: states[0], Others: states[1:], Duplicate: true}
}

// carryOut commits what the operations make of the turn's base. before is as write's.
func (c *Commands) carryOut(ctx context.Context, t Type, e *active, tn *turn, requestID string, ops []*holdfastv1.Operation) (after *entity.Record, before bool, err error) {
	base := tn.base
	next, w, err := t.Apply(base, requestID, ops, c.cfg.Now())
	if err != nil {
		return nil, false, err
	}
	if len(ops) == 0 {
		if touched, w, changed := t.Touch(base, c.cfg.Now()); changed {
			if r, _, err := c.write(ctx, t, e, tn.epoch, "", base, touched, w); err == nil {
				return r, false, nil
			}
		}
		return base, false, nil
	}
	if planted.On(planted.AckBeforeCommit) {
		go c.write(context.WithoutCancel(ctx), t, e, tn.epoch, requestID, base, next, w)
		return next.At(base.Revision + 1), false, nil
	}
	return c.write(ctx, t, e, tn.epoch, requestID, base, next, w)
}

// write commits one entity's Write, and keeps what comes of it. The turn is held, and nothing else ends it meanwhile. The
// record is what the entity is then: next; or, before, what etcd has since an earlier attempt was applied.
func (c *Commands) write(ctx context.Context, t Type, e *active, epoch int64, requestID string, base, next *entity.Record, w fenced.Write) (after *entity.Record, before bool, err error) {
	committer, _ := c.cfg.Links()
	if !committer.Up() {
		return nil, false, errEtcdGone
	}
	w.Slot, w.Epoch, w.Key = fenced.Slot{Type: e.slot.id.typ, Number: e.slot.id.number}, epoch, e.id.key
	rev, err := committer.Commit(ctx, []fenced.Write{w})
	if err == nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		switch {
		case w.Keep:
		case w.Head != nil:
			next = next.At(rev)
			c.keep(e, epoch, next)
		case e.slot.epoch == epoch:
			// It is gone, and its revisions begin anew.
			c.hold(e, epoch, next)
			e.floor = at{}
		}
		return next, false, nil
	}
	refused := writeRefusal("commit to "+e.id.String(), err)
	_, moved, failed := guardFailed(err)
	if !failed {
		if refused.Outcome != storev1.Outcome_OUTCOME_NOT_APPLIED {
			c.mu.Lock()
			e.unsettle(epoch, base.Revision)
			c.mu.Unlock()
		}
		return nil, false, refused
	}
	c.mu.Lock()
	if e.epoch == epoch && e.copy.Revision == base.Revision {
		c.drop(e)
	}
	c.mu.Unlock()
	if moved {
		c.unclaim(e.slot, epoch)
		if refused.Outcome == storev1.Outcome_OUTCOME_NOT_APPLIED {
			return nil, false, refusal.NotApplied(codes.Aborted, "%s", refused.Message)
		}
	}
	after, err = c.settle(ctx, t, e, epoch, requestID, moved, refused)
	return after, true, err
}

// settle finds out what a failed guard means: another's change, or an earlier attempt of this very commit. Nothing of it
// can be carried out any more.
func (c *Commands) settle(ctx context.Context, t Type, e *active, epoch int64, requestID string, moved bool, refused *refusal.Error) (*entity.Record, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
	defer cancel()
	r, err := c.load(ctx, t, e.id)
	switch {
	case err != nil:
		return nil, refusal.Unknown("commit to %s: its guard failed, and why can't be read: %v", e.id, err)
	case requestID != "" && r.Applied(requestID):
		if moved && !c.shown(ctx, e.id, r.Revision) {
			return nil, refusal.Unknown("commit to %s: another store owns it now, and does not show it yet", e.id)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.keep(e, epoch, r)
		return r, nil
	case requestID == "" && refused.Outcome != storev1.Outcome_OUTCOME_NOT_APPLIED:
		return nil, refused
	}
	return nil, refusal.NotApplied(codes.Aborted, "%s was changed meanwhile", e.id)
}
