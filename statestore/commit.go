package statestore

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc/codes"

	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	replicationv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/replication/v1"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
	"github.com/holdfast-mesh/holdfast/statestore/crdt"
	"github.com/holdfast-mesh/holdfast/statestore/refusal"
	"github.com/holdfast-mesh/holdfast/statestore/wal"
)

// item is what waits for the committer: one of a commit, a merge, a call.
type item struct {
	commit   *storev1.Commit
	deadline time.Time
	answer   func(*storev1.Committed, error)

	merge  []*replicationv1.Delta
	merged func(error)

	call func()
	done chan struct{}
}

// CommitAsync applies the operations to an eventual entity. answer runs exactly once, on the committer or before CommitAsync
// returns, and must not block. deadline (zero: none) is until when it may begin; what has begun is carried out.
func (e *Engine) CommitAsync(c *storev1.Commit, deadline time.Time, answer func(*storev1.Committed, error)) {
	if err := e.checkCommit(c); err != nil {
		answer(nil, err)
		return
	}
	e.queueMu.RLock()
	defer e.queueMu.RUnlock()
	if e.closed {
		answer(nil, errClosed)
		return
	}
	select {
	case e.queue <- item{commit: c, deadline: deadline, answer: answer}:
	default:
		answer(nil, refusal.NotApplied(codes.Unavailable, "%d commits are waiting for the disk already", maxQueue))
	}
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
	for it := range e.queue {
		b := &batch{touched: map[*entity]struct{}{}}
		for more := true; more; {
			if it.call != nil {
				break
			}
			e.apply(b, it)
			if b.items == maxBatch || b.bytes >= maxBatchBytes {
				break
			}
			select {
			case it, more = <-e.queue:
			default:
				more = false
			}
		}
		e.finish(b)
		if it.call != nil {
			it.call()
			close(it.done)
		}
	}
}

// batch is what shares one log batch.
type batch struct {
	items   int
	bytes   int
	records [][]byte
	deltas  []*replicationv1.Delta
	touched map[*entity]struct{}
	// settle is called in order when the batch is durable (nil), or is not.
	settle []func(err error)
}

func (b *batch) log(r record) {
	encoded := r.append(nil)
	b.records = append(b.records, encoded)
	b.bytes += len(encoded)
}

// apply changes the working states and adds to the batch what must be logged.
func (e *Engine) apply(b *batch, it item) {
	b.items++
	if it.merge != nil {
		err := e.applyMerge(b, it.merge)
		b.settle = append(b.settle, func(diskErr error) { it.merged(errors.Join(err, diskErr)) })
		return
	}
	if !it.deadline.IsZero() && e.cfg.Now().After(it.deadline) {
		it.answer(nil, refusal.NotApplied(codes.DeadlineExceeded, "deadline passed while the commit waited for the disk"))
		return
	}
	// A poisoned log never recovers in this process; the states may be ahead of the disk.
	if err := e.log.Err(); err != nil {
		it.answer(nil, diskRefusal(err))
		return
	}
	id := idOf(it.commit.Entity)
	duplicate, err := e.applyCommit(b, id, it.commit)
	if err != nil {
		it.answer(nil, err)
		return
	}
	b.settle = append(b.settle, func(diskErr error) {
		if diskErr != nil {
			it.answer(nil, diskRefusal(diskErr))
			return
		}
		if !duplicate {
			e.counters.committed(id.typ)
		}
		it.answer(&storev1.Committed{State: e.see(id), Duplicate: duplicate}, nil)
	})
}

func diskRefusal(err error) error {
	if errors.Is(err, wal.ErrUnknown) {
		return &Error{Code: codes.Unavailable, Outcome: storev1.Outcome_OUTCOME_UNKNOWN, Message: err.Error()}
	}
	return refusal.NotApplied(codes.Unavailable, "%v", err)
}

// applyCommit applies one commit's operations, all or none.
func (e *Engine) applyCommit(b *batch, id entityID, c *storev1.Commit) (duplicate bool, err error) {
	typ, err := e.eventualType(id.typ)
	if err != nil {
		return false, err
	}
	rid := appliedID{id, c.RequestId}
	if e.ids.has(rid) {
		return true, nil
	}
	ent := e.lookup(id)
	var base crdt.State
	if ent != nil {
		base = ent.state
	} else if base, err = newState(typ); err != nil {
		return false, refusal.NotApplied(codes.Internal, "%v", err)
	}
	if !sameModel(base, typ) {
		return false, refusal.NotApplied(codes.FailedPrecondition, "%s holds a state of another model than its type has now", id)
	}
	now := e.cfg.Now()
	delta, after, err := e.deltaOf(base, typ, c.Operations, now)
	if err != nil {
		return false, err
	}
	if delta.Bottom() {
		e.ids.add(rid, now, now)
		return false, nil
	}
	encoded := delta.Append(nil)
	size := len(encoded)
	if ent != nil {
		size += ent.size
	}
	if limit := int(typ.MaxStateBytes); size > limit {
		// The bound was too coarse, or it is over.
		if after == nil {
			after = base.Clone()
			if _, err := after.Merge(delta); err != nil {
				return false, refusal.NotApplied(codes.Internal, "%v", err)
			}
		}
		// Over it already, by what others wrote meanwhile: then it may still become smaller.
		if size = len(after.Append(nil)); size > limit && (ent == nil || size >= len(base.Append(nil))) {
			return false, refusal.NotApplied(codes.ResourceExhausted,
				"state of %s would take %d bytes, at most %d: raise maxStateBytes of the type, or spread the state over more keys", id, size, limit)
		}
	}
	e.ids.add(rid, now, now)
	if ent == nil {
		ent = e.newEntity(id, base)
		e.keep(ent)
	}
	if after != nil {
		ent.state = after
	} else if _, err := ent.state.Merge(delta); err != nil {
		return false, refusal.NotApplied(codes.Internal, "%v", err)
	}
	ent.size = size
	e.types[id.typ].touch(ent)
	b.touched[ent] = struct{}{}
	b.log(record{entityID: id, requestID: c.RequestId, at: now, state: encoded})
	b.deltas = append(b.deltas, &replicationv1.Delta{Type: id.typ, Key: id.key, State: encoded})
	return false, nil
}

// deltaOf computes the joint delta of a list of operations without changing base. after is base with the delta where it
// had to be computed anyway, else nil.
func (e *Engine) deltaOf(base crdt.State, typ *configv1.EntityType, ops []*operation, now time.Time) (delta, after crdt.State, err error) {
	if len(ops) == 1 {
		delta, err = base.Delta(ops[0], e.mutator(now))
		if err != nil {
			return nil, nil, operationRefusal(0, ops[0], typ, err)
		}
		return delta, nil, nil
	}
	delta, err = newState(typ)
	if err != nil {
		return nil, nil, refusal.NotApplied(codes.Internal, "%v", err)
	}
	after = base.Clone()
	for i, op := range ops {
		d, err := after.Delta(op, e.mutator(now))
		if err != nil {
			return nil, nil, operationRefusal(i, op, typ, err)
		}
		_, err = after.Merge(d)
		if err == nil {
			_, err = delta.Merge(d)
		}
		if err != nil {
			return nil, nil, refusal.NotApplied(codes.Internal, "%v", err)
		}
	}
	return delta, after, nil
}

func operationRefusal(i int, op *operation, typ *configv1.EntityType, err error) error {
	code := codes.InvalidArgument
	if errors.Is(err, crdt.ErrOverflow) {
		code = codes.FailedPrecondition
	}
	return refusal.NotApplied(code, "operation %d (%s) on %s, a %s: %v", i, crdt.OperationName(op), typ.Type, crdt.Name(typ.Model), err)
}

// mutator draws the next hybrid time: milliseconds, and 16 bits to count within one.
func (e *Engine) mutator(now time.Time) crdt.Mutator {
	e.lastTime = max(e.lastTime+1, uint64(max(now.UnixMilli(), 0))<<16, crdt.MinTime)
	return crdt.Mutator{Replica: e.replica, Now: e.lastTime}
}

// finish makes the batch durable, then visible.
func (e *Engine) finish(b *batch) {
	if b.items == 0 {
		return
	}
	var err error
	if len(b.records) > 0 {
		if err = e.log.Append(b.records); err != nil {
			e.cfg.Logger.Error("log failed: this store takes no more writes until it is restarted", "error", err)
		}
	} else {
		err = e.log.Err()
	}
	if err == nil {
		for ent := range b.touched {
			e.versions++
			// Pushed before it is answered: who has both never sees the older one last.
			e.subs.publish(ent, e.replica, e.versions)
		}
		if len(b.deltas) > 0 {
			e.links.Load().Publisher.Publish(b.deltas)
		}
	}
	for _, settle := range b.settle {
		settle(err)
	}
	if err == nil {
		e.maybeSnapshot()
	}
}
