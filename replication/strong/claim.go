package strong

import (
	"context"
	"errors"

	"google.golang.org/genproto/googleapis/rpc/code"

	"github.com/holdfast-mesh/holdfast/internal/fenced"
	"github.com/holdfast-mesh/holdfast/replication/strong/ownership"
)

// Held reports whether this store may still serve reads of the slot from memory. Ask it after the read arrived.
func (c *Committer) Held(entityType string, slot uint32, epoch int64) bool {
	now := c.cfg.Now()
	c.owning.RLock()
	defer c.owning.RUnlock()
	return c.machine.Held(now, fenced.Slot{Type: entityType, Number: slot}, epoch)
}

// Claim returns the slot's owner, claiming it for this store where it is free. epoch is not 0 where that is this store.
// Errors are *Error.
func (c *Committer) Claim(ctx context.Context, entityType string, slot uint32) (owner string, epoch int64, err error) {
	step, err := c.begin(ctx, fenced.Slot{Type: entityType, Number: slot})
	for err == nil && step.Request.Kind != ownership.None {
		a := c.carryOut(ctx, step.Request, claimTimeout)
		if a.Err != nil && !errors.Is(a.Err, ownership.ErrLeaseGone) {
			return "", 0, readError(a.Err)
		}
		c.owning.Lock()
		step = c.machine.Claimed(c.cfg.Now(), step.Request, a)
		c.lost(step.Lost)
		c.metrics.claims.Set(float64(c.machine.Claims()))
		c.owning.Unlock()
		err = claimError(step.Err)
	}
	return step.Owner, step.Epoch, err
}

// begin asks the machine for a claim's first step, waiting a little for the first lease.
func (c *Committer) begin(ctx context.Context, id fenced.Slot) (ownership.Step, error) {
	ctx, cancel := context.WithTimeout(ctx, leaseWait)
	defer cancel()
	for {
		c.owning.RLock()
		step, leased := c.machine.Claim(id), c.leased
		c.owning.RUnlock()
		changed := c.cfg.Etcd.Changed()
		switch {
		case step.Epoch != 0:
			return step, nil
		case !c.Up():
			return ownership.Step{}, refused(code.Code_UNAVAILABLE, ErrDown)
		case !errors.Is(step.Err, ownership.ErrNoLease):
			return step, claimError(step.Err)
		}
		select {
		case <-leased:
		case <-changed:
		case <-ctx.Done():
			return step, claimError(step.Err)
		}
	}
}

func claimError(err error) error {
	if err == nil {
		return nil
	}
	return refused(code.Code_UNAVAILABLE, err)
}

// Owner tells the slot's owner without claiming it; "" where there is none. Errors are *Error.
func (c *Committer) Owner(ctx context.Context, entityType string, slot uint32) (string, error) {
	id := fenced.Slot{Type: entityType, Number: slot}
	if epoch := c.epoch(id); epoch != 0 && c.Held(entityType, slot, epoch) {
		return c.cfg.Node, nil
	}
	kv, err := c.get(ctx, slotKey(id))
	return string(kv.Value), err
}

func (c *Committer) epoch(id fenced.Slot) int64 {
	c.owning.RLock()
	defer c.owning.RUnlock()
	return c.machine.Epoch(id)
}

// disown drops the claim of a slot that etcd showed to be another's.
func (c *Committer) disown(id fenced.Slot, epoch int64) {
	c.owning.Lock()
	defer c.owning.Unlock()
	c.machine.Disown(id, epoch)
	c.metrics.claims.Set(float64(c.machine.Claims()))
}
