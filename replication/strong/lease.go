package strong

import (
	"context"
	"errors"
	"time"

	"github.com/holdfast-mesh/holdfast/internal/etcd"
	"github.com/holdfast-mesh/holdfast/replication/strong/ownership"
)

// keepLease carries out the machine's requests for the lease until ctx ends.
func (c *Committer) keepLease(ctx context.Context) {
	failures := 0
	for ctx.Err() == nil {
		changed := c.cfg.Etcd.Changed()
		// A lease outlives a restart of etcd; what it holds is ours again with the next answered keep-alive.
		pause := c.cfg.TTL
		if c.cfg.Etcd.Up() {
			var req ownership.Request
			if req, pause = c.next(); req.Kind != ownership.None {
				a := c.carryOut(ctx, req, leaseTimeout)
				if ctx.Err() != nil {
					return
				}
				failures = c.judge(a.Err, failures)
				c.answered(req, a)
				continue
			}
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-changed:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// judge tells from a request for the lease whether etcd answers. One that ended early may only have lost its member.
func (c *Committer) judge(err error, failures int) int {
	if err == nil || errors.Is(err, ownership.ErrLeaseGone) {
		if !c.answering.Swap(true) {
			c.cfg.Logger.Info("etcd answers again", "node", c.cfg.Node)
		}
		return 0
	}
	if failures++; failures > 1 || errors.Is(err, context.DeadlineExceeded) {
		if c.answering.Swap(false) {
			c.cfg.Logger.Warn("etcd does not answer", "node", c.cfg.Node, "error", err)
		}
	}
	return failures
}

func (c *Committer) next() (ownership.Request, time.Duration) {
	c.owning.Lock()
	defer c.owning.Unlock()
	return c.machine.Next(c.cfg.Now())
}

// answered hands the answer to the machine.
func (c *Committer) answered(req ownership.Request, a ownership.Answer) {
	c.owning.Lock()
	defer c.owning.Unlock()
	before := c.machine.Lease()
	c.lost(c.machine.Done(c.cfg.Now(), req, a))
	if now := c.machine.Lease(); now != 0 && now != before {
		close(c.leased)
		c.leased = make(chan struct{})
		c.metrics.leases.Inc()
	}
	if req.Kind == ownership.Revoke && a.Err == nil {
		c.cfg.Logger.Info("revoked the lease of this node's former process", "node", c.cfg.Node)
	}
}

// lost tells of claims that went with their lease.
//
// +checklocks:c.owning
func (c *Committer) lost(claims int) {
	if claims > 0 {
		c.cfg.Logger.Warn("claims dropped with their lease", "node", c.cfg.Node, "claims", claims)
		c.metrics.claims.Set(0)
	}
}

// leave gives the lease back, as far as etcd is there. Nothing is held from before it is revoked.
func (c *Committer) leave() error {
	c.owning.Lock()
	c.machine.Leave(c.cfg.Now())
	c.metrics.claims.Set(0)
	c.owning.Unlock()
	req, _ := c.next()
	if req.Kind == ownership.None || !c.Up() {
		return nil
	}
	return c.carryOut(context.Background(), req, closeTimeout).Err
}

// carryOut asks etcd.
func (c *Committer) carryOut(ctx context.Context, req ownership.Request, timeout time.Duration) (a ownership.Answer) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	client := c.cfg.Etcd
	switch req.Kind {
	case ownership.Grant:
		a.Lease, a.TTL, a.Err = client.Grant(ctx, req.TTL)
	case ownership.ReadFormer:
		var kv etcd.KV
		kv, a.Err = client.Get(ctx, storeKey(c.cfg.Node))
		a.Key = keyOf(kv)
	case ownership.Revoke:
		a.Err = client.Revoke(ctx, req.Lease)
	case ownership.Register:
		_, a.Err = client.Txn(ctx, nil, []etcd.Op{etcd.Put(storeKey(c.cfg.Node), []byte(c.cfg.Home), req.Lease)}, nil)
	case ownership.KeepAlive:
		a.TTL, a.Err = client.KeepAlive(ctx, req.Lease)
	case ownership.Probe:
		_, a.Err = client.Get(ctx, storeKey(c.cfg.Node))
	case ownership.Look:
		var kv etcd.KV
		kv, a.Err = client.Get(ctx, slotKey(req.Slot))
		a.Key = keyOf(kv)
	case ownership.Take:
		a.Key, a.Err = c.take(ctx, req)
	}
	if errors.Is(a.Err, etcd.ErrLeaseGone) {
		a.Err = errors.Join(ownership.ErrLeaseGone, a.Err)
	}
	return a
}

func (c *Committer) take(ctx context.Context, req ownership.Request) (ownership.Key, error) {
	key := slotKey(req.Slot)
	res, err := c.cfg.Etcd.Txn(ctx,
		[]etcd.Guard{etcd.CreatedAt(key, 0)},
		[]etcd.Op{etcd.Put(key, []byte(c.cfg.Node), req.Lease)},
		[]etcd.Op{etcd.Read(key, false)})
	switch {
	case err != nil:
		return ownership.Key{}, err
	case res.Held:
		return ownership.Key{Value: c.cfg.Node, Created: res.Rev, Lease: req.Lease}, nil
	}
	return keyOf(res.Reads[0]), nil
}

func keyOf(kv etcd.KV) ownership.Key {
	return ownership.Key{Value: string(kv.Value), Created: kv.CreateRev, Lease: kv.Lease}
}
