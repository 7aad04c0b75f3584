package strong

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/holdfast-mesh/holdfast/internal/fenced"
	"github.com/holdfast-mesh/holdfast/statestore/refusal"
	"github.com/holdfast-mesh/holdfast/statestore/strong/entity"
)

// read returns the entity's state, linearizably. What is found to be past its TTL is deleted first, and a use that moves
// the TTL's end is committed before the answer; unless a command has the turn: then the entity lives until that is over.
func (c *Commands) read(ctx context.Context, t Type, s *slot, id entityID) (*entity.Record, error) {
	e := c.use(s, id)
	defer c.release(e)
	r, _, err := c.fresh(ctx, s, t, e)
	if err != nil || t.TTL == 0 {
		return r, err
	}
	now := c.cfg.Now()
	if _, _, touch := t.Touch(r, now); !touch && !t.Expired(r, now) {
		return r, nil
	}
	tn := c.takeFree(e)
	if tn == nil {
		return r, nil
	}
	defer c.giveFree(e, tn)
	r, _, err = c.living(ctx, t, s, e, tn, true)
	return r, err
}

// living is fresh for the holder of the turn: what is past its TTL is deleted first, and what is used by a reader lives on.
func (c *Commands) living(ctx context.Context, t Type, s *slot, e *active, tn *turn, use bool) (*entity.Record, int64, error) {
	for range attempts {
		r, epoch, err := c.fresh(ctx, s, t, e)
		if err != nil {
			return nil, 0, err
		}
		now := c.cfg.Now()
		next, w, expired := t.Expire(r, now)
		changed := expired
		if use && !expired {
			next, w, changed = t.Touch(r, now)
		}
		if !changed {
			return r, epoch, nil
		}
		after, err := c.housekeep(ctx, t, e, tn, epoch, r, next, w)
		refused := (*refusal.Error)(nil)
		switch {
		case err == nil:
			return after, epoch, nil
		case errors.Is(err, errTaken):
			return r, epoch, nil
		case errors.As(err, &refused) && refused.Code == codes.Aborted:
			// It has changed, or moved.
		case !expired:
			// The state is the same with and without.
			return r, epoch, nil
		default:
			return nil, 0, refusal.NotApplied(codes.Unavailable, "%s is past its ttl, and can't be deleted: %v", e.id, err)
		}
	}
	return nil, 0, refusal.NotApplied(codes.Aborted, "%s changes too fast", e.id)
}

// errTaken: the turn's state was given to a command, or the turn is over. Then its base must stay.
var errTaken = errors.New("the turn is not the store's own")

// housekeep writes a change that no command asked for, under a turn whose state nobody was given yet.
func (c *Commands) housekeep(ctx context.Context, t Type, e *active, tn *turn, epoch int64, base, next *entity.Record, w fenced.Write) (*entity.Record, error) {
	run := &commit{done: make(chan struct{})}
	c.mu.Lock()
	if tn.over || tn.base != nil || tn.committing != nil {
		c.mu.Unlock()
		return nil, errTaken
	}
	tn.committing = run
	c.mu.Unlock()
	after, _, err := c.write(ctx, t, e, epoch, "", base, next, w)
	c.mu.Lock()
	defer c.mu.Unlock()
	tn.committing = nil
	close(run.done)
	if len(tn.holders) == 0 || time.Now().After(tn.deadline) {
		c.end(e, tn)
	}
	return after, err
}

// takeFree takes the entity's turn for the store itself, where nobody has it or waits for it; else nil.
func (c *Commands) takeFree(e *active) *turn {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || e.turn != nil || len(e.waiting) > 0 {
		return nil
	}
	return c.give(e, &waiter{caller: c.own, deadline: time.Now().Add(maxTimeout)})
}

func (c *Commands) giveFree(e *active, tn *turn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leave(e, tn, c.own)
}

// Start begins to look for entities that are past their TTL, or deleted long enough ago to be forgotten. Later calls do
// nothing.
func (c *Commands) Start() {
	c.started.Do(func() { c.work.Go(c.sweepAlways) })
}

func (c *Commands) sweepAlways() {
	for {
		// Not all stores at once.
		timer := time.NewTimer(sweepEvery + rand.N(sweepEvery/4))
		select {
		case <-timer.C:
		case <-c.ctx.Done():
			timer.Stop()
			return
		}
		for c.Sweep(c.ctx) {
		}
	}
}

// Sweep sees to the marks that are due now, a batch of each type. more says that it did some, and there may be others.
func (c *Commands) Sweep(ctx context.Context) (more bool) {
	ctx, cancel := context.WithTimeout(ctx, sweepTimeout)
	defer cancel()
	committer, _ := c.cfg.Links()
	for _, name := range c.cfg.Types() {
		t, err := c.cfg.Type(name)
		if err != nil || !committer.Up() {
			continue
		}
		now := c.cfg.Now()
		skipped := c.skipped(name)
		listed, err := committer.Due(ctx, name, now, sweepBatch+len(skipped))
		if err != nil {
			continue
		}
		marks := slices.DeleteFunc(slices.Clone(listed), func(m fenced.Mark) bool {
			_, skip := skipped[m.Key]
			return skip
		})
		var done atomic.Int64
		var wg sync.WaitGroup
		places := make(chan struct{}, sweepers)
		for _, m := range marks {
			places <- struct{}{}
			wg.Go(func() {
				defer func() { <-places }()
				if ctx.Err() == nil && c.due(ctx, t, m, now) {
					done.Add(1)
				}
			})
		}
		wg.Wait()
		more = more || len(marks) >= sweepBatch && done.Load() > 0
	}
	return more && ctx.Err() == nil
}

// due does what a mark asks for, where the slot is this store's, or falls to it. false: not now, or not here.
func (c *Commands) due(ctx context.Context, t Type, m fenced.Mark, now time.Time) bool {
	id := entityID{t.Name, m.Key}
	s := c.slot(slotID{t.Name, m.Slot})
	if !c.mine(ctx, t, s, now.Sub(time.Unix(m.At, 0))) {
		return false
	}
	e := c.use(s, id)
	defer c.release(e)
	tn := c.takeFree(e)
	if tn == nil {
		return false
	}
	defer c.giveFree(e, tn)
	r, epoch, err := c.fresh(ctx, s, t, e)
	if err != nil {
		c.skipMark(id, err)
		return false
	}
	next, w, changed := t.Due(r, m.At, now)
	if !changed {
		return false
	}
	_, err = c.housekeep(ctx, t, e, tn, epoch, r, next, w)
	return err == nil
}

// skipMark leaves an entity's mark alone for a while, where it can't be read at all, as one that was written when the type had
// another model: else such marks, being the oldest, would be all that a batch has.
func (c *Commands) skipMark(id entityID, err error) {
	refused := (*refusal.Error)(nil)
	if !errors.As(err, &refused) || refused.Code != codes.FailedPrecondition && refused.Code != codes.DataLoss {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.skip) < maxSkipped {
		c.skip[id] = time.Now().Add(skipFor)
	}
}

// skipped are the keys of a type that are left alone.
func (c *Commands) skipped(typ string) map[string]struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	keys := map[string]struct{}{}
	for id, until := range c.skip {
		switch {
		case time.Now().After(until):
			delete(c.skip, id)
		case id.typ == typ:
			keys[id.key] = struct{}{}
		}
	}
	return keys
}

// mine reports whether the slot is this store's. One that is free is claimed, by the first placed store that is there.
func (c *Commands) mine(ctx context.Context, t Type, s *slot, overdue time.Duration) bool {
	committer, _ := c.cfg.Links()
	hint, epoch := c.known(s)
	if hint == c.cfg.Node && committer.Held(s.id.typ, s.id.number, epoch) {
		return true
	}
	owner, err := committer.Owner(ctx, s.id.typ, s.id.number)
	if err != nil {
		return false
	}
	if owner == "" {
		rank := slices.Index(t.Replicas(s.id.number), c.cfg.Node)
		if rank < 0 || overdue < time.Duration(rank)*sweepPatience {
			return false
		}
		c.doubt(s, hint, true)
	} else if owner != c.cfg.Node {
		return false
	}
	owner, _, err = c.claim(ctx, s)
	return err == nil && owner == c.cfg.Node
}
