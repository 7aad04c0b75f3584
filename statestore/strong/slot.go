package strong

import (
	"context"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/holdfast-mesh/holdfast/internal/planted"
	"github.com/holdfast-mesh/holdfast/statestore/refusal"
)

// slot is what this store knows of a slot's ownership.
type slot struct {
	id slotID
	// owner is a hint where it is another store, "" where nothing is known. epoch is not 0 where it is this one.
	owner    string
	epoch    int64
	entities map[string]*active
	// unreached counts owners that could not be reached, so that another placed store is tried for a slot that is free.
	unreached int
	// asking lets one call at a time ask etcd. Not under mu.
	asking chan struct{}
}

// movedError says whose the slot is.
type movedError struct{ owner string }

func (m *movedError) Error() string {
	return fmt.Sprintf("ownership moved to %s", m.owner)
}

func (c *Commands) slot(id slotID) *slot {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.slots[id]
	if s == nil {
		s = &slot{id: id, entities: map[string]*active{}, asking: make(chan struct{}, 1)}
		c.slots[id] = s
	}
	return s
}

// known is the owner as far as memory tells.
func (c *Commands) known(s *slot) (owner string, epoch int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return s.owner, s.epoch
}

func (c *Commands) claimedAs(s *slot, epoch int64) bool {
	_, now := c.known(s)
	return now == epoch
}

// claim returns the slot's owner; a placed store takes a slot that is free.
func (c *Commands) claim(ctx context.Context, s *slot) (owner string, epoch int64, err error) {
	committer, _ := c.cfg.Links()
	settled := func() bool {
		owner, epoch = c.known(s)
		return owner != "" && (owner != c.cfg.Node || committer.Held(s.id.typ, s.id.number, epoch) || planted.On(planted.ReadWithoutLease))
	}
	if settled() {
		return owner, epoch, nil
	}
	select {
	case s.asking <- struct{}{}:
		defer func() { <-s.asking }()
	case <-ctx.Done():
		return "", 0, refusal.NotApplied(codes.DeadlineExceeded, "ask for the owner of %s's slot %d: %v", s.id.typ, s.id.number, ctx.Err())
	}
	if settled() {
		return owner, epoch, nil
	}
	if !committer.Up() {
		return "", 0, errEtcdGone
	}
	t, err := c.cfg.Type(s.id.typ)
	if err != nil {
		return "", 0, err
	}
	placed := t.Replicas(s.id.number)
	if slices.Contains(placed, c.cfg.Node) {
		owner, epoch, err = committer.Claim(ctx, s.id.typ, s.id.number)
	} else {
		owner, err = committer.Owner(ctx, s.id.typ, s.id.number)
		if err == nil && owner == "" && len(placed) > 0 {
			// Free, and not ours to take: a placed store claims it when we forward, the first one that can be reached.
			c.mu.Lock()
			owner = placed[s.unreached%len(placed)]
			c.mu.Unlock()
		}
	}
	if err != nil {
		return "", 0, readRefusal(fmt.Sprintf("claim slot %d of %s", s.id.number, s.id.typ), err)
	}
	c.learn(s, owner, epoch)
	return owner, epoch, nil
}

// learn keeps an answer of etcd. Another claim than before ends what was built on the old one.
func (c *Commands) learn(s *slot, owner string, epoch int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if epoch != s.epoch {
		c.reset(s)
	}
	for _, e := range s.entities {
		if e.open.epoch != epoch {
			// What was sent under another claim can't be carried out any more.
			e.open = at{}
		}
	}
	s.owner, s.epoch = owner, epoch
}

// unclaim forgets who owns the slot, if it is still the claim that was found wanting.
func (c *Commands) unclaim(s *slot, epoch int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.epoch == epoch {
		c.reset(s)
		s.owner, s.epoch = "", 0
	}
}

// doubt forgets a hint that another store owns the slot.
func (c *Commands) doubt(s *slot, owner string, reached bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.owner == owner && s.epoch == 0 {
		s.owner = ""
	}
	if !reached {
		s.unreached++
	}
}

// vacated waits until the slot is not owner's any more, but not for long: the owner may only have been out of reach. false:
// the call's time is up, or there is no sense in waiting.
func (c *Commands) vacated(ctx context.Context, s *slot, owner string) bool {
	committer, _ := c.cfg.Links()
	patience := askAgain
	if deadline, ok := ctx.Deadline(); ok {
		patience = min(patience, time.Until(deadline)-lastWord)
	}
	if patience <= 0 || !committer.Up() {
		return false
	}
	wait, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	start := time.Now()
	_ = committer.Vacated(wait, s.id.typ, s.id.number, owner)
	if early := atLeast - time.Since(start); early > 0 {
		// It was so all the time.
		select {
		case <-time.After(early):
		case <-wait.Done():
		}
	}
	return ctx.Err() == nil && committer.Up()
}

// reset drops what was built on the slot's claim: copies, and turns; those who wait go on and see for themselves. mu is held.
func (c *Commands) reset(s *slot) {
	for _, e := range s.entities {
		c.drop(e)
		if e.turn != nil && e.turn.committing == nil && e.turn.base != nil {
			c.end(e, e.turn)
		}
	}
}
