package strong

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/holdfast-mesh/holdfast/internal/fenced"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
	"github.com/holdfast-mesh/holdfast/statestore/refusal"
	"github.com/holdfast-mesh/holdfast/statestore/strong/entity"
)

// command is a command on several entities, which this store coordinates: it has the turn of each, its own or lent by the
// owner, and commits them in one transaction.
type command struct {
	token, requestID string
	typ              string
	// keys are as the caller named them, the command's own entity first; parts are in the order of the keys' bytes, in which
	// everybody takes turns: so nobody waits in a circle.
	keys  []string
	parts []*part
	// caller began it; holder holds the turns that are this store's.
	caller, holder *Caller
	timer          *time.Timer
	// committing is the commit under way. Nothing but its end ends the command then.
	committing *commit
	over       bool
	// found are the states where the command turned out to have been applied before.
	found []*storev1.State
}

// part is one entity of a command: the turn, and the state that the command was given.
type part struct {
	id    entityID
	token string
	epoch int64
	base  *entity.Record
	// unsettled: a transaction that was given up may still change the base.
	unsettled bool
	// next is what the command makes of it; base where it changes nothing.
	next *entity.Record
}

// checkKeys refuses entities that can't be one command's.
func checkKeys(typ string, keys []string) error {
	guards := map[any]struct{}{}
	for _, key := range keys {
		id := entityID{typ, key}
		if _, twice := guards[id]; twice {
			return refusal.NotApplied(codes.InvalidArgument, "%s is named twice", id)
		}
		guards[id], guards[slotOf(id)] = struct{}{}, struct{}{}
	}
	if len(guards) > maxGuards {
		return refusal.NotApplied(codes.ResourceExhausted,
			"a command on %d entities of %s in %d slots: each counts, and at most %d fit one transaction", len(keys), typ, len(guards)-len(keys), maxGuards)
	}
	return nil
}

// beginSeveral takes the turns of all entities that the call names.
func (c *Commands) beginSeveral(ctx context.Context, caller *Caller, call *storev1.Begin) (*storev1.Response, error) {
	t, err := c.cfg.Type(call.Entity.Type)
	if err != nil {
		return nil, err
	}
	cmd := &command{
		requestID: call.RequestId, typ: t.Name, keys: append([]string{call.Entity.Key}, call.Others...), caller: caller, holder: NewCaller(),
	}
	if err := checkKeys(cmd.typ, cmd.keys); err != nil {
		return nil, err
	}
	begun, err := c.takeParts(ctx, t, cmd, call)
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case err == nil && (c.closed || caller.gone):
		err = errClosed
		fallthrough
	case err != nil, begun.AlreadyApplied:
		c.abandon(cmd)
	default:
		cmd.token = c.newToken()
		begun.Token = cmd.token
		c.commands[cmd.token] = cmd
		caller.commands[cmd] = struct{}{}
		deadline, ok := ctx.Deadline()
		if !ok {
			deadline = time.Now().Add(defaultTimeout)
		}
		cmd.timer = time.AfterFunc(time.Until(deadline), func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.abandon(cmd)
		})
	}
	if err != nil {
		return nil, err
	}
	return &storev1.Response{Result: &storev1.Response_Begun{Begun: begun}}, nil
}

// takeParts takes the turns one after the other.
func (c *Commands) takeParts(ctx context.Context, t Type, cmd *command, call *storev1.Begin) (*storev1.Begun, error) {
	for _, key := range slices.Sorted(slices.Values(cmd.keys)) {
		id := entityID{cmd.typ, key}
		begin := &storev1.Begin{Entity: &storev1.Entity{Type: id.typ, Key: id.key}, RequestId: call.RequestId, Part: true}
		if key == cmd.keys[0] {
			begin.IfMatch, begin.IfNoneMatch = call.IfMatch, call.IfNoneMatch
		}
		// The answer is still worth something when the owner has given the turn: without it, the turn lasts until its deadline.
		r, base, err := c.beginOne(ctx, cmd.holder, false, &storev1.Request{Id: 1, Call: &storev1.Request_Begin{Begin: begin}}, begin)
		if err != nil {
			return nil, err
		}
		begun := r.GetBegun()
		if begun.GetAlreadyApplied() {
			if states := c.applied(ctx, t, cmd.keys, call.RequestId); states != nil {
				return &storev1.Begun{AlreadyApplied: true, State: states[0], Others: states[1:]}, nil
			}
			return nil, refusal.NotApplied(codes.Unavailable, "%s was changed by this command before, and its state can't be read", id)
		}
		p := &part{id: id, token: begun.GetToken(), epoch: begun.GetBase().GetEpoch(), unsettled: begun.GetBase().GetUnsettled(), base: base}
		cmd.parts = append(cmd.parts, p)
		if p.base == nil {
			p.base, err = c.decode(ctx, t, id, begun.GetBase().GetHead(), begun.GetBase().GetRevision())
			if err != nil {
				return nil, refusal.NotApplied(codes.Aborted, "begin a part: %v", err)
			}
		}
	}
	if err := c.together(ctx, cmd); err != nil {
		return nil, err
	}
	begun := &storev1.Begun{}
	for i, s := range cmd.states(t) {
		if i == 0 {
			begun.State = s
		} else {
			begun.Others = append(begun.Others, s)
		}
	}
	return begun, tooLarge(t, len(cmd.keys), proto.Size(begun))
}

// together makes sure that the bases were all there at one moment, the one at which the last turn was taken: a command that
// changes nothing in the end, or refuses its caller by what it saw, is not guarded otherwise. A turn that this store has
// under its lease is as good as a look at etcd, unless a transaction that was given up may still change the entity.
func (c *Commands) together(ctx context.Context, cmd *command) error {
	errs := make([]error, len(cmd.parts))
	var wg sync.WaitGroup
	for i, p := range cmd.parts {
		if c.sure(p) {
			continue
		}
		wg.Go(func() {
			committer, _ := c.cfg.Links()
			slot := slotOf(p.id)
			_, rev, err := committer.Load(ctx, slot.typ, slot.number, p.id.key)
			switch {
			case err != nil:
				errs[i] = readRefusal("load "+p.id.String(), err)
			case rev != p.base.Revision:
				errs[i] = refusal.NotApplied(codes.Aborted, "%s was changed meanwhile", p.id)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// sure reports whether nobody can have changed the part's entity since its turn was taken.
func (c *Commands) sure(p *part) bool {
	committer, _ := c.cfg.Links()
	slot := slotOf(p.id)
	if nodeOf(p.token) != c.cfg.Node || p.unsettled || !committer.Held(slot.typ, slot.number, p.epoch) {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.entities[p.id]
	return e != nil && e.turn != nil && e.turn.token == p.token
}

// states are the entities' states before the commit, or after it, in the caller's order.
func (cmd *command) states(t Type) []*storev1.State {
	states := make([]*storev1.State, len(cmd.keys))
	for _, p := range cmd.parts {
		r := p.base
		if p.next != nil {
			r = p.next
		}
		states[slices.Index(cmd.keys, p.id.key)] = stateOf(t, p.id, r)
	}
	return states
}

// abandon gives up a command that is not committing: nothing of it was sent, and nothing will be. mu is held.
func (c *Commands) abandon(cmd *command) {
	if cmd.over || cmd.committing != nil {
		return
	}
	c.finish(cmd, unchanged, true)
}

// finish ends a command and its turns. revision says what a part's entity has become, 0 where the command did not change
// it. Where the outcome is not known, nobody is told anything but that the turns are free. mu is held.
func (c *Commands) finish(cmd *command, revision func(*part) int64, known bool) {
	cmd.over = true
	if cmd.timer != nil {
		cmd.timer.Stop()
	}
	delete(c.commands, cmd.token)
	delete(cmd.caller.commands, cmd)
	for _, p := range cmd.parts {
		rev, ent := revision(p), &storev1.Entity{Type: p.id.typ, Key: p.id.key}
		node := nodeOf(p.token)
		switch {
		case node == c.cfg.Node && known:
			c.settlePart(cmd.holder, p.id, p.token, rev, p.next)
		case node == c.cfg.Node:
			if e := c.entities[p.id]; e != nil && e.turn != nil && e.turn.token == p.token {
				c.leave(e, e.turn, cmd.holder)
			}
		case known:
			c.aside(func(ctx context.Context) {
				_, forwarder := c.cfg.Links()
				// Who does not hear of it reads etcd until it sees a newer revision.
				_, _ = forwarder.Call(ctx, node, &storev1.Request{Id: 1, Call: &storev1.Request_Settle{
					Settle: &storev1.Settle{Entity: ent, Token: p.token, Revision: rev},
				}})
			})
		default:
			c.aside(func(ctx context.Context) { c.abortRemote(ctx, p.token, remoteTurn{node: node, entity: ent}) })
		}
	}
}

// lend notes that another store may commit the turn's base from now on. mu is held.
func (c *Commands) lend(e *active, tn *turn) { e.unsettle(tn.epoch, tn.base.Revision) }

// settlePart ends a part: its command has made the entity next, which may be nil for another store's, at revision rev; or,
// where rev is 0, it has not changed it, and never will. mu is held.
func (c *Commands) settlePart(holder *Caller, id entityID, token string, rev int64, next *entity.Record) {
	e := c.entities[id]
	if e == nil {
		return
	}
	if rev != 0 && e.epoch != 0 && e.copy.Revision < rev {
		c.drop(e)
	}
	tn := e.turn
	if tn == nil || tn.token != token || tn.base == nil || tn.holders[holder] == 0 {
		return
	}
	if rev != 0 {
		if next != nil {
			c.keep(e, tn.epoch, next)
		}
		c.end(e, tn)
		return
	}
	if tn.parts--; tn.parts == 0 && !tn.unsettled && e.unsettled(tn.epoch, tn.base.Revision) {
		e.open = at{}
	}
	c.leave(e, tn, holder)
}

// commitSeveral commits a command on several entities. mu is held, and given back.
func (c *Commands) commitSeveral(ctx context.Context, t Type, cmd *command, cm *storev1.Commit) (*storev1.Committed, error) {
	if cmd.committing != nil {
		return c.again(ctx, entityID{cmd.typ, cmd.keys[0]}, cmd.committing)
	}
	run := &commit{done: make(chan struct{})}
	cmd.committing = run
	c.mu.Unlock()

	revision, known, before, err := c.writeSeveral(ctx, t, cmd, cm)
	switch states := cmd.states(t); {
	case err != nil:
		run.err = err
	case cmd.found != nil:
		run.committed = duplicate(cmd.found)
	case before:
		run.committed = duplicate(states)
	default:
		run.committed = &storev1.Committed{State: states[0], Others: states[1:]}
	}
	if err == nil && proto.Size(run.committed) > maxAnswer {
		// Who committed them has them. The versions are news.
		for _, s := range append([]*storev1.State{run.committed.State}, run.committed.Others...) {
			s.Value = nil
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	cmd.committing = nil
	c.finish(cmd, revision, known)
	close(run.done)
	if err == nil && !before {
		c.cfg.Committed(cmd.typ)
	}
	return run.committed, run.err
}

// writeSeveral commits what the operations make of the parts. revision and known are for finish.
func (c *Commands) writeSeveral(ctx context.Context, t Type, cmd *command, cm *storev1.Commit) (revision func(*part) int64, known, before bool, err error) {
	id := requestIDOf(cm, cmd.requestID)
	writes, changed, err := c.draft(t, cmd, cm, id)
	if err != nil || !changed {
		return unchanged, true, false, err
	}
	committer, _ := c.cfg.Links()
	if !committer.Up() {
		return unchanged, true, false, errEtcdGone
	}
	if err := c.expose(cmd); err != nil {
		// The turns may have ended because the same command, begun twice, was committed.
		cmd.found = c.applied(ctx, t, cmd.keys, id)
		if cmd.found != nil {
			return unchanged, true, true, nil
		}
		return unchanged, true, false, err
	}
	rev, err := committer.Commit(ctx, writes)
	if err == nil {
		for i, p := range cmd.parts {
			if !writes[i].Keep {
				p.next = p.next.At(rev)
			}
		}
		return func(p *part) int64 {
			if p.next == p.base {
				return 0
			}
			return rev
		}, true, false, nil
	}
	for _, p := range cmd.parts {
		p.next = nil
	}
	refused := writeRefusal("commit to several entities of "+cmd.typ, err)
	write, moved, failed := guardFailed(err)
	if !failed {
		return unchanged, refused.Outcome == storev1.Outcome_OUTCOME_NOT_APPLIED, false, refused
	}
	if moved && write < len(cmd.parts) {
		c.lost(cmd.parts[write])
	}
	return c.settleSeveral(ctx, t, cmd, id, refused)
}

// draft computes the writes, one for each part: of those that the command does not change only the guards count, so that
// what it decided is true of them at the commit.
func (c *Commands) draft(t Type, cmd *command, cm *storev1.Commit, requestID string) (writes []fenced.Write, changed bool, err error) {
	ops := map[string][]*holdfastv1.Operation{cmd.keys[0]: cm.Operations}
	for _, o := range cm.Others {
		if _, twice := ops[o.Key]; twice || !slices.Contains(cmd.keys, o.Key) {
			return nil, false, refusal.NotApplied(codes.InvalidArgument, "commit to several entities of %s: the command has not begun with %q, or changes it twice", cmd.typ, o.Key)
		}
		ops[o.Key] = o.Operations
	}
	now := c.cfg.Now()
	for _, p := range cmd.parts {
		w := fenced.Write{Revision: p.base.Revision, Keep: true, Frees: true}
		p.next = p.base
		if len(ops[p.id.key]) > 0 {
			changed = true
			if p.next, w, err = t.Apply(p.base, requestID, ops[p.id.key], now); err != nil {
				p.next = nil
				refused := refusal.From(err, storev1.Outcome_OUTCOME_NOT_APPLIED)
				return nil, false, refusal.NotApplied(refused.Code, "%s: %s", p.id, refused.Message)
			}
		}
		slot := slotOf(p.id)
		w.Slot, w.Epoch, w.Key = fenced.Slot{Type: slot.typ, Number: slot.number}, p.epoch, p.id.key
		writes = append(writes, w)
	}
	return writes, changed, nil
}

// expose takes this store's own parts from memory while the transaction is under way: all entities change at once, and
// whoever reads several must not see one changed and the other not. A part whose turn is over refuses the command.
func (c *Commands) expose(cmd *command) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, lend := range []bool{false, true} {
		for _, p := range cmd.parts {
			if nodeOf(p.token) != c.cfg.Node {
				continue
			}
			e := c.entities[p.id]
			switch {
			case e == nil || e.turn == nil || e.turn.token != p.token:
				return refusal.NotApplied(codes.Aborted, "the turn of %s is over: its deadline passed, or the slot moved", p.id)
			case lend:
				c.lend(e, e.turn)
			}
		}
	}
	return nil
}

// lost forgets a claim that a guard found gone, or a hint.
func (c *Commands) lost(p *part) {
	s := c.slot(slotOf(p.id))
	if node := nodeOf(p.token); node != c.cfg.Node {
		c.doubt(s, node, true)
		return
	}
	c.unclaim(s, p.epoch)
}

// settleSeveral finds out what a failed guard means, as settle does.
func (c *Commands) settleSeveral(ctx context.Context, t Type, cmd *command, requestID string, refused *refusal.Error) (revision func(*part) int64, known, before bool, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
	defer cancel()
	found := false
	now := map[*part]*entity.Record{}
	for _, p := range cmd.parts {
		r, err := c.load(ctx, t, p.id)
		if err != nil {
			return unchanged, false, false, refusal.Unknown("commit to several entities of %s: a guard failed, and why can't be read: %v", cmd.typ, err)
		}
		now[p] = r
		found = found || requestID != "" && r.Applied(requestID)
	}
	switch {
	case found:
		for p, r := range now {
			p.next = r
		}
		return func(p *part) int64 { return p.next.Revision }, true, true, nil
	case requestID == "" && refused.Outcome != storev1.Outcome_OUTCOME_NOT_APPLIED:
		return unchanged, true, false, refused
	}
	return unchanged, true, false, refusal.NotApplied(codes.Aborted, "an entity of the command was changed meanwhile: %s", refused.Message)
}

// unchanged says that the command changed none of its parts.
func unchanged(*part) int64 { return 0 }
