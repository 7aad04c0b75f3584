package strong

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"

	"github.com/holdfast-mesh/holdfast/internal/fenced"
	"github.com/holdfast-mesh/holdfast/internal/planted"
	"github.com/holdfast-mesh/holdfast/statestore/refusal"
	"github.com/holdfast-mesh/holdfast/statestore/strong/entity"
)

// fresh returns the entity's state as of now, and the claim under which it is. A *movedError says that the slot is
// another store's. Somebody uses e, or holds its turn.
func (c *Commands) fresh(ctx context.Context, s *slot, t Type, e *active) (*entity.Record, int64, error) {
	committer, _ := c.cfg.Links()
	for range attempts {
		owner, epoch, err := c.claim(ctx, s)
		if err != nil {
			return nil, 0, err
		}
		if owner != c.cfg.Node {
			return nil, 0, &movedError{owner: owner}
		}
		held := committer.Held(s.id.typ, s.id.number, epoch) || planted.On(planted.ReadWithoutLease)
		c.mu.Lock()
		if held && e.epoch == epoch && !e.unsettled(epoch, e.copy.Revision) {
			r := e.copy
			c.mu.Unlock()
			return r, epoch, nil
		}
		c.mu.Unlock()
		if !committer.Up() {
			return nil, 0, errEtcdGone
		}
		r, err := c.load(ctx, t, e.id)
		if err != nil {
			return nil, 0, err
		}
		if r, err = c.install(s, e, epoch, r); err != nil {
			continue
		}
		if committer.Held(s.id.typ, s.id.number, epoch) {
			return r, epoch, nil
		}
		if owner, err := committer.Owner(ctx, s.id.typ, s.id.number); err == nil && owner == c.cfg.Node && c.claimedAs(s, epoch) {
			return r, epoch, nil
		}
		c.unclaim(s, epoch)
	}
	return nil, 0, refusal.NotApplied(codes.Unavailable, "slot %d of %s changes hands", s.id.number, s.id.typ)
}

// load activates the entity: it reads the head and what belongs to it from etcd.
func (c *Commands) load(ctx context.Context, t Type, id entityID) (*entity.Record, error) {
	committer, _ := c.cfg.Links()
	slot := slotOf(id)
	for range attempts {
		head, rev, err := committer.Load(ctx, slot.typ, slot.number, id.key)
		if err != nil {
			return nil, readRefusal("load "+id.String(), err)
		}
		r, err := c.decode(ctx, t, id, head, rev)
		if !errors.Is(err, entity.ErrChanged) {
			return r, err
		}
	}
	return nil, refusal.NotApplied(codes.Aborted, "%s changes faster than it can be read", id)
}

// decode makes a record of a head, reading the cells that it needs.
func (c *Commands) decode(ctx context.Context, t Type, id entityID, head []byte, rev int64) (*entity.Record, error) {
	committer, _ := c.cfg.Links()
	slot := slotOf(id)
	r, err := entity.Decode(t.Type, head, rev, func(from, to string) ([]fenced.Cell, error) {
		var all []fenced.Cell
		for {
			cells, more, err := committer.Cells(ctx, slot.typ, slot.number, id.key, from, to, cellsPage)
			if err != nil {
				return nil, err
			}
			all = append(all, cells...)
			if !more || len(cells) == 0 {
				return all, nil
			}
			from = cells[len(cells)-1].Name + "\x00"
		}
	})
	var fromEtcd coder
	switch {
	case err == nil, errors.Is(err, entity.ErrChanged):
		return r, err
	case errors.As(err, new(*refusal.Error)), errors.As(err, &fromEtcd), ctx.Err() != nil:
		return nil, readRefusal("load "+id.String(), err)
	}
	return nil, refusal.NotApplied(codes.DataLoss, "%s: %v", id, err)
}

var errOlder = errors.New("a newer state was seen")

// install keeps what was loaded, unless there is something newer: then that is returned. errOlder: something newer was seen,
// and it is not here any more. Etcd may answer two loads in another order than it carried them out.
func (c *Commands) install(s *slot, e *active, epoch int64, r *entity.Record) (*entity.Record, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case s.epoch != epoch:
		return r, nil // The caller looks whose the slot is.
	case e.epoch == epoch && e.copy.Revision >= r.Revision:
		return e.copy, nil
	case e.floor.epoch == epoch && r.Revision < e.floor.rev:
		return nil, errOlder
	}
	c.keep(e, epoch, r)
	return r, nil
}

// Inspect reads the entity from etcd, whoever owns it: the owner may have it newer, by a commit that was not answered yet.
// No claim is made, and nothing is kept.
func (c *Commands) Inspect(ctx context.Context, typ, key string) (*entity.Record, *entity.Type, error) {
	t, err := c.cfg.Type(typ)
	if err != nil {
		return nil, nil, err
	}
	r, err := c.load(ctx, t, entityID{typ, key})
	return r, t.Type, err
}
