package strong

import (
	"context"
	"fmt"
	"slices"

	"google.golang.org/grpc/codes"

	"github.com/holdfast-mesh/holdfast/statestore/refusal"
)

// slot is what this store knows of a slot's ownership.
type slot struct {
	id slotID
	// owner is a hint where it is another store, "" where nothing is known. epoch is not 0 where it is this one.
	owner    string
	epoch    int64
	entities map[string]*entity
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
		s = &slot{id: id, entities: map[string]*entity{}, asking: make(chan struct{}, 1)}
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
		return owner != "" && (owner != c.cfg.Node || committer.Held(s.id.typ, s.id.number, epoch))
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
			// Free, and not ours to take: the first placed store claims it when we forward.
			owner = placed[0]
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
func (c *Commands) doubt(s *slot, owner string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.owner == owner && s.epoch == 0 {
		s.owner = ""
	}
}

// reset drops the slot's copies and ends its turns; those who wait go on and see for themselves.
func (c *Commands) reset(s *slot) {
	for _, e := range s.entities {
		e.drop()
		if e.turn != nil && e.turn.committing == nil && e.turn.base != nil {
			c.end(e, e.turn)
		}
	}
}
