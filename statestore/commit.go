package statestore

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/holdfast-mesh/holdfast/internal/placement"
	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	replicationv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/replication/v1"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
	"github.com/holdfast-mesh/holdfast/statestore/crdt"
	"github.com/holdfast-mesh/holdfast/statestore/refusal"
	"github.com/holdfast-mesh/holdfast/statestore/slots"
)

// item is what waits for the committer: one of a change, a merge, a call.
type item struct {
	change *change
	merge  *merge
	call   func()
	done   chan struct{}
}

// change is a local one of an entity that is not strong.
type change struct {
	id        entityID
	requestID string
	steps     []step
	// deadline is until when it may begin, and until when it waits for other stores; zero: none, and defaultDeadline.
	deadline time.Time
	answer   func(*storev1.Committed, error)
	// local: it is answered once it is durable here, whatever the type's level.
	local bool
}

// step is one operation of a change: the delta that it makes of the state.
type step struct {
	// name is for people: "operation 1 (set)".
	name  string
	delta func(state *crdt.State, m crdt.Mutator) (crdt.State, error)
}

// CommitAsync applies the operations to an entity that is not strong. answer runs exactly once, on any goroutine, and must not
// block. deadline (zero: none) is until when it may begin, and how long it waits for other stores; what has begun is
// carried out.
func (e *Engine) CommitAsync(c *storev1.Commit, deadline time.Time, answer func(*storev1.Committed, error)) {
	if err := e.checkCommit(c); err != nil {
		answer(nil, err)
		return
	}
	ch := &change{id: idOf(c.Entity), requestID: c.RequestId, deadline: deadline, answer: answer}
	for i, op := range c.Operations {
		ch.steps = append(ch.steps, operationStep(i, op))
	}
	e.change(ch)
}

// change carries one out where the slot is ready.
func (e *Engine) change(ch *change) {
	typ, err := e.eventualType(ch.id.typ)
	if err != nil {
		ch.answer(nil, err)
		return
	}
	e.ready(typ, placement.Slot(ch.id.typ, ch.id.key), ch.deadline, func(err error) {
		if err == nil {
			err = e.offer(item{change: ch})
		}
		if err != nil {
			ch.answer(nil, err)
		}
	})
}

// Commit is CommitAsync that waits. When ctx ends first the outcome is unknown.
func (e *Engine) Commit(ctx context.Context, c *storev1.Commit) (*storev1.Committed, error) {
	type result struct {
		committed *storev1.Committed
		err       error
	}
	results := make(chan result, 1)
	deadline, _ := ctx.Deadline()
	e.CommitAsync(c, deadline, func(committed *storev1.Committed, err error) { results <- result{committed, err} })
	select {
	case r := <-results:
		return r.committed, r.err
	case <-ctx.Done():
		return nil, refusal.Unknown("commit: %v", ctx.Err())
	}
}

func (e *Engine) checkCommit(c *storev1.Commit) error {
	if err := checkEntity(c.GetEntity()); err != nil {
		return err
	}
	switch {
	case len(c.GetRequestId()) > maxRequestID:
		return refusal.NotApplied(codes.InvalidArgument, "request id of %d bytes, at most %d", len(c.RequestId), maxRequestID)
	case len(c.GetOperations()) > maxOperations:
		return refusal.NotApplied(codes.InvalidArgument, "%d operations in one commit, at most %d", len(c.Operations), maxOperations)
	}
	return nil
}

func checkEntity(ent *storev1.Entity) error {
	switch {
	case ent.GetType() == "":
		return refusal.NotApplied(codes.InvalidArgument, "entity type is empty")
	case ent.GetKey() == "":
		return refusal.NotApplied(codes.InvalidArgument, "entity key is empty")
	case len(ent.Key) > maxKey:
		return refusal.NotApplied(codes.InvalidArgument, "entity key of %d bytes, at most %d", len(ent.Key), maxKey)
	}
	return nil
}

// commitLoop is the committer.
func (e *Engine) commitLoop() {
	defer close(e.done)
	defer e.backlog.due.Stop()
	tick := time.NewTicker(tickInterval)
	defer tick.Stop()
	for {
		select {
		case it, open := <-e.queue:
			if !open {
				e.finish(newBatch(), true)
				e.closeParking()
				return
			}
			e.take(it)
		case <-e.backlog.due.C:
			e.finish(newBatch(), true)
		case <-tick.C:
			e.tick()
		}
		e.tryAgain()
	}
}

// take carries out an item, and what else waits.
func (e *Engine) take(it item) {
	b := newBatch()
	for more := true; more; {
		if it.call != nil {
			break
		}
		e.add(b, it)
		if b.items >= maxBatch || b.bytes+e.backlog.bytes >= maxBatchBytes {
			break
		}
		select {
		case it, more = <-e.queue:
		default:
			more = false
		}
	}
	if b.items > 0 {
		e.finish(b, false)
	}
	if it.call != nil {
		it.call()
		close(it.done)
	}
}

// add drafts an item, and leaves in the batch what must be logged.
func (e *Engine) add(b *batch, it item) {
	b.items++
	if it.merge != nil {
		e.addMerge(b, it.merge)
		return
	}
	ch := it.change
	if !ch.deadline.IsZero() && time.Now().After(ch.deadline) {
		ch.answer(nil, refusal.NotApplied(codes.DeadlineExceeded, "deadline passed while the commit waited for the disk"))
		return
	}
	if err := e.log.Err(); err != nil {
		ch.answer(nil, diskRefusal(err))
		return
	}
	if err := e.addChange(b, ch); err != nil && !errors.Is(err, errParked) {
		ch.answer(nil, err)
	}
}

// addChange drafts a change: all of its steps, or none. Where it returns nil the change is answered later.
func (e *Engine) addChange(b *batch, ch *change) error {
	typ, err := e.eventualType(ch.id.typ)
	if err != nil {
		return err
	}
	if number := placement.Slot(ch.id.typ, ch.id.key); !e.serves(e.config.Load(), typ, number) {
		return refusal.NotApplied(codes.Unavailable, "slot %d of %s was let go while the commit waited: try again", number, typ.Type)
	}
	rid := appliedID{ch.id, ch.requestID}
	dot, duplicate := e.ids.get(rid)
	if a, ok := b.ids[rid]; ok && ch.requestID != "" {
		dot, duplicate = a.dot, true
	}
	if duplicate {
		b.settle = append(b.settle, func(err error) { e.settle(ch, typ, dot, true, err) })
		return nil
	}
	now := e.cfg.Now()
	draft := b.draft(e.slotOf(ch.id))
	inMemory := typ.Write == configv1.WriteLevel_WRITE_LEVEL_LOCAL_MEM && draft.Next() == draft.Slot().Next()
	state := draft.State
	if inMemory {
		state = draft.Durable
	}
	base, size, found, err := state(ch.id.key)
	if err == nil && !found {
		base, err = crdt.New(typ.shape)
	}
	if err != nil {
		return refusal.NotApplied(codes.Unavailable, "%v", err)
	}
	if !base.Is(typ.shape) {
		return refusal.NotApplied(codes.FailedPrecondition, "%s holds a state of another model than its type has now", ch.id)
	}
	r, err := e.carryOut(typ, ch, draft, base, now)
	if err != nil {
		return err
	}
	dot = r.dot
	if dot.Seq != 0 {
		if size, err = e.checkSize(typ, ch.id, base, r, size); err != nil {
			return err
		}
		record := &slots.Delta{Type: ch.id.typ, Key: ch.id.key, RequestID: ch.requestID, Dot: dot, At: now, State: r.encoded}
		delta := &replicationv1.Delta{Type: ch.id.typ, Key: ch.id.key, State: r.encoded}
		if inMemory {
			if _, err := draft.OwnNow(e.replica, ch.id.key, r.after, r.delta, size, dot.Seq+1, uint32(now.Unix())); err != nil {
				return refusal.NotApplied(codes.Internal, "%v", err)
			}
			e.backlog.add(record.Append(nil), delta)
			e.ids.add(rid, applied{now, dot, time.Now()})
			e.push(ch.id)
			e.settle(ch, typ, dot, false, nil)
			return nil
		}
		draft.Own(e.replica, ch.id.key, r.after, size, dot.Seq+1)
		b.log(record.Append(nil))
		b.deltas = append(b.deltas, delta)
	}
	b.ids[rid] = applied{now, dot, time.Now()}
	b.settle = append(b.settle, func(err error) { e.settle(ch, typ, dot, false, err) })
	return nil
}

// result is what the steps of a change make together.
type result struct {
	after, delta crdt.State
	encoded      []byte
	// dot is the last one; without a sequence where nothing changes.
	dot crdt.Dot
}

func (e *Engine) carryOut(typ *entityType, ch *change, draft *slots.Draft, base crdt.State, now time.Time) (result, error) {
	r := result{after: base}
	next := draft.Next()
	for i, step := range ch.steps {
		m := e.mutator(typ, draft, now)
		m.Seq = next
		d, err := step.delta(&r.after, m)
		if err != nil {
			return r, e.operationRefusal(i, step, typ, ch, err)
		}
		if d.Bottom() {
			continue
		}
		next = d.Context().Next(e.replica)
		_, err = r.after.Join(&d, draft.Peek(), nil)
		if err == nil && r.dot.Seq != 0 {
			_, err = r.delta.Merge(&d)
		} else {
			r.delta = d
		}
		if err != nil {
			return r, refusal.NotApplied(codes.Internal, "%v", err)
		}
		r.dot = crdt.Dot{Replica: e.replica, Seq: next - 1}
	}
	if r.dot.Seq != 0 {
		r.encoded = r.delta.Append(nil)
		// The state's context beyond the slot's are the new dots, which the slot's will have.
		r.after.Strip(r.delta.Context())
	}
	return r, nil
}

// checkSize returns at least how large the state will be, encoded.
func (e *Engine) checkSize(typ *entityType, id entityID, base crdt.State, r result, size int) (int, error) {
	size += len(r.encoded)
	if limit := int(typ.MaxStateBytes); size > limit {
		// The bound was too coarse, or it is over. Over it already, by what others wrote meanwhile: it may still become
		// smaller.
		if size = len(r.after.AppendLive(nil)); size > limit && size >= len(base.AppendLive(nil)) {
			return 0, refusal.NotApplied(codes.ResourceExhausted,
				"state of %s would take %d bytes, at most %d: raise maxStateBytes of the type, or spread the state over more keys", id, size, limit)
		}
	}
	return size, nil
}

// mutator draws the next hybrid time: milliseconds, and 16 bits to count within one (Kulkarni et al., "Logical Physical
// Clocks", OPODIS 2014).
func (e *Engine) mutator(typ *entityType, draft *slots.Draft, now time.Time) crdt.Mutator {
	e.lastTime = max(e.lastTime+1, uint64(max(now.UnixMilli(), 0))<<16, crdt.MinTime)
	retired := draft.Peek().Retired()
	return crdt.Mutator{
		Replica: e.replica, Now: e.lastTime, Node: e.cfg.Node, Floor: typ.Floor,
		Absorb: e.absorb(retired),
		Heir:   func(replica uint64) bool { return retired.Has(replica) && e.identities.here(replica) },
	}
}

// settle answers a change whose batch is durable, or is not; where its level asks for more, once other stores have it, too.
func (e *Engine) settle(ch *change, typ *entityType, dot crdt.Dot, duplicate bool, diskErr error) {
	if diskErr != nil {
		ch.answer(nil, diskRefusal(diskErr))
		return
	}
	if !duplicate {
		e.counters.committed(ch.id.typ)
	}
	state, err := e.see(ch.id)
	if err != nil {
		ch.answer(nil, refusal.Unknown("committed, but not readable: %v", err))
		return
	}
	committed := &storev1.Committed{State: state, Duplicate: duplicate}
	slot := placement.Slot(ch.id.typ, ch.id.key)
	if dot.Seq == 0 || ch.local || !e.needsOthers(typ, slot) {
		ch.answer(committed, nil)
		return
	}
	deadline := ch.deadline
	if deadline.IsZero() {
		deadline = time.Now().Add(defaultDeadline)
	}
	e.links.Load().Replicas.Await(ch.id.typ, slot, dot, typ.Write, deadline, func(reached bool) {
		if reached {
			ch.answer(committed, nil)
			return
		}
		ch.answer(nil, refusal.Unknown("this store has the change on its disk, but not enough others have (%s)", levelName(typ.Write)))
	})
}

// needsOthers tells whether the level asks for more stores than this one.
func (e *Engine) needsOthers(typ *entityType, slot uint32) bool {
	switch typ.Write {
	case configv1.WriteLevel_WRITE_LEVEL_MAJORITY, configv1.WriteLevel_WRITE_LEVEL_ALL:
		c := e.config.Load()
		placed := c.replicas(typ, slot)
		return len(placed) > 1 || len(placed) == 1 && placed[0] != e.cfg.Node
	}
	return false
}

func levelName(l configv1.WriteLevel) string {
	if l == configv1.WriteLevel_WRITE_LEVEL_ALL {
		return "ALL"
	}
	return "MAJORITY"
}

func operationStep(i int, op *operation) step {
	return step{
		name:  crdt.OperationName(op),
		delta: func(state *crdt.State, m crdt.Mutator) (crdt.State, error) { return state.Delta(op, m) },
	}
}

func (e *Engine) operationRefusal(i int, step step, typ *entityType, ch *change, err error) error {
	code := codes.InvalidArgument
	var rights *crdt.RightsError
	switch {
	case errors.As(err, &rights):
		return e.lacksRights(ch, rights)
	case errors.Is(err, crdt.ErrOverflow):
		code = codes.FailedPrecondition
	}
	return refusal.NotApplied(code, "operation %d (%s) on %s, a %s: %v", i, step.name, typ.Type, crdt.Describe(typ.shape), err)
}
