package statestore

import (
	"context"
	"errors"
	"math"
	"time"

	"google.golang.org/grpc/codes"

	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
	"github.com/holdfast-mesh/holdfast/statestore/crdt"
	"github.com/holdfast-mesh/holdfast/statestore/refusal"
)

// errParked says that a change waits for rights, and is answered later.
var errParked = errors.New("waits for rights")

// parking holds changes of bounded counters that other stores have the rights for. The committer's.
type parking struct {
	waiting map[entityID][]*parked
	count   int
	// again are to be tried again: something of their entity changed.
	again []*change
}

type parked struct {
	change *change
	err    *crdt.RightsError
	timer  *time.Timer
}

func (p *parking) init() { p.waiting = map[entityID][]*parked{} }

// lacksRights refuses a change, or lets it wait until rights arrive.
func (e *Engine) lacksRights(ch *change, r *crdt.RightsError) error {
	switch {
	case r.Total < r.Need:
		return refusal.NotApplied(codes.FailedPrecondition, "%s: %v", ch.id, r)
	case e.parking.count >= maxParked:
		return refusal.NotApplied(codes.ResourceExhausted, "%s: %d changes wait for rights of bounded counters already", ch.id, maxParked)
	}
	deadline := ch.deadline
	if deadline.IsZero() {
		deadline = time.Now().Add(defaultDeadline)
	}
	ch.deadline = deadline
	p := &parked{change: ch, err: r}
	p.timer = time.AfterFunc(min(rightsRetry, time.Until(deadline)), func() {
		// Where the queue is full the next tick finds it.
		_ = e.offer(item{call: func() { e.lookAtParked(ch.id) }, done: make(chan struct{})})
	})
	e.parking.waiting[ch.id] = append(e.parking.waiting[ch.id], p)
	e.parking.count++
	e.askRights(p)
	return errParked
}

func (e *Engine) askRights(p *parked) {
	e.links.Load().Replicas.AskRights(p.change.id.typ, p.change.id.key, p.err.Need-p.err.Have)
}

// changed tells those who wait for rights that something of the entity changed.
func (e *Engine) changed(id entityID) {
	for _, p := range e.unpark(id, func(*parked) bool { return true }) {
		e.parking.again = append(e.parking.again, p.change)
	}
}

func (e *Engine) unpark(id entityID, which func(*parked) bool) []*parked {
	list := e.parking.waiting[id]
	if len(list) == 0 {
		return nil
	}
	var out, left []*parked
	for _, p := range list {
		if which(p) {
			p.timer.Stop()
			out = append(out, p)
		} else {
			left = append(left, p)
		}
	}
	e.parking.count -= len(out)
	if e.parking.waiting[id] = left; len(left) == 0 {
		delete(e.parking.waiting, id)
	}
	return out
}

// lookAtParked answers those whose deadline is over, and asks again for the others: questions may get lost.
func (e *Engine) lookAtParked(id entityID) {
	now := time.Now()
	for _, p := range e.unpark(id, func(p *parked) bool { return !p.change.deadline.After(now) }) {
		p.change.answer(nil, refusal.NotApplied(codes.Unavailable, "%s: %v; no other store gave enough of them in time", id, p.err))
	}
	for _, p := range e.parking.waiting[id] {
		e.askRights(p)
		p.timer.Reset(min(rightsRetry, time.Until(p.change.deadline)))
	}
}

// tickParked is for those whose timer found the queue full.
func (e *Engine) tickParked() {
	for id := range e.parking.waiting {
		e.lookAtParked(id)
	}
}

// tryAgain carries out the changes that may have got their rights. On the committer, between batches.
func (e *Engine) tryAgain() {
	for len(e.parking.again) > 0 {
		b := newBatch()
		list := e.parking.again
		e.parking.again = nil
		for _, ch := range list {
			e.add(b, item{change: ch})
		}
		e.finish(b, false)
	}
}

// closeParking refuses all who wait.
func (e *Engine) closeParking() {
	for id := range e.parking.waiting {
		for _, p := range e.unpark(id, func(*parked) bool { return true }) {
			p.change.answer(nil, errClosed)
		}
	}
}

// GrantRights moves rights of a bounded counter from this store to another store's identity: what it needs and half of what
// is left here, so that who asks once need not ask for each change; less where this store has less. It is nothing where
// this store has none. The transfer goes out as a delta once it is durable.
func (e *Engine) GrantRights(ctx context.Context, typ, key string, to, amount uint64) error {
	t, err := e.eventualType(typ)
	if err != nil {
		return err
	}
	if err := checkEntity(&storev1.Entity{Type: typ, Key: key}); err != nil {
		return err
	}
	if t.Model != configv1.Model_MODEL_BCOUNTER || to == 0 || to == e.replica {
		return refusal.NotApplied(codes.InvalidArgument, "rights of %s %q to replica %x: only a bcounter's move, and to another replica", typ, key, to)
	}
	results := make(chan error, 1)
	deadline, _ := ctx.Deadline()
	e.change(&change{
		id: entityID{typ, key}, deadline: deadline, local: true,
		steps: []step{{name: "transfer of rights", delta: func(state *crdt.State, m crdt.Mutator) (crdt.State, error) {
			// More than anybody has: the error tells what there is.
			_, err := state.Transfer(to, math.MaxUint64, m)
			var r *crdt.RightsError
			if !errors.As(err, &r) {
				return crdt.State{}, err
			}
			grant := r.Have
			if grant > amount {
				grant = amount + (grant-amount)/2
			}
			d, err := state.Transfer(to, grant, m)
			if errors.As(err, &r) { // Never wait for rights to give away.
				return state.Transfer(to, 0, m)
			}
			return d, err
		}}},
		answer: func(_ *storev1.Committed, err error) { results <- err },
	})
	select {
	case err := <-results:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
