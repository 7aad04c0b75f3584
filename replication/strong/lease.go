package strong

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/genproto/googleapis/rpc/code"

	"github.com/holdfast-mesh/holdfast/internal/etcd"
)

// keepLease gets a lease, keeps it alive, and gets another when it is gone, until ctx ends.
func (c *Committer) keepLease(ctx context.Context) {
	for ctx.Err() == nil {
		changed := c.cfg.Etcd.Changed()
		pause := c.cfg.TTL / keepAlivesPerTTL
		if !c.cfg.Etcd.Up() {
			// A lease outlives a restart of etcd; what it holds is ours again with the next answered keep-alive.
			pause = c.cfg.TTL
		} else if err := c.renew(ctx); err != nil && ctx.Err() == nil {
			if !errors.Is(err, etcd.ErrLeaseGone) {
				if c.answering.Swap(false) {
					c.cfg.Logger.Warn("etcd does not answer", "node", c.cfg.Node, "error", err)
				}
			}
			pause = leaseRetry
		} else if !c.answering.Swap(true) {
			c.cfg.Logger.Info("etcd answers again", "node", c.cfg.Node)
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

// renew keeps the lease alive, or gets one.
func (c *Committer) renew(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, keepAliveTimeout)
	defer cancel()
	c.session.RLock()
	lease := c.lease
	c.session.RUnlock()
	if lease == 0 {
		return c.acquire(ctx)
	}
	// Before it is sent: etcd counts the TTL from a later moment.
	sent := c.cfg.Now()
	ttl, err := c.cfg.Etcd.KeepAlive(ctx, lease)
	if err != nil {
		if errors.Is(err, etcd.ErrLeaseGone) {
			c.drop(lease)
		}
		return err
	}
	c.session.Lock()
	defer c.session.Unlock()
	if c.lease == lease {
		c.deadline = max(c.deadline, sent+ttl-ttl/marginPart)
	}
	return nil
}

// acquire gets a lease, frees what this node's former process left, and says whose lease it is.
func (c *Committer) acquire(ctx context.Context) error {
	sent := c.cfg.Now()
	lease, ttl, err := c.cfg.Etcd.Grant(ctx, c.cfg.TTL)
	if err != nil {
		return err
	}
	key := storeKey(c.cfg.Node)
	former, err := c.cfg.Etcd.Get(ctx, key)
	if err != nil {
		return fmt.Errorf("read the former process's lease: %w", err)
	}
	if former.Lease != 0 && c.cfg.Home != "" && string(former.Value) == c.cfg.Home {
		if err := c.cfg.Etcd.Revoke(ctx, former.Lease); err != nil {
			return fmt.Errorf("revoke the former process's lease: %w", err)
		}
		c.cfg.Logger.Info("revoked the lease of this node's former process", "node", c.cfg.Node)
	}
	if _, err := c.cfg.Etcd.Txn(ctx, nil, []etcd.Op{etcd.Put(key, []byte(c.cfg.Home), lease)}, nil); err != nil {
		return fmt.Errorf("register the lease: %w", err)
	}
	c.session.Lock()
	defer c.session.Unlock()
	c.lease, c.deadline = lease, sent+ttl-ttl/marginPart
	close(c.leased)
	c.leased = make(chan struct{})
	c.metrics.leases.Inc()
	return nil
}

// drop forgets the lease and all that it held. 0 means whichever there is. It returns the lease that it dropped.
func (c *Committer) drop(lease int64) int64 {
	c.session.Lock()
	defer c.session.Unlock()
	if c.lease == 0 || lease != 0 && c.lease != lease {
		return 0
	}
	lease = c.lease
	if n := len(c.claims); n > 0 {
		c.cfg.Logger.Info("claims dropped with their lease", "node", c.cfg.Node, "claims", n)
	}
	c.lease, c.deadline = 0, 0
	clear(c.claims)
	c.metrics.claims.Set(0)
	return lease
}

// waitLease returns the lease, waiting a little for the first one.
func (c *Committer) waitLease(ctx context.Context) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, leaseWait)
	defer cancel()
	for {
		c.session.RLock()
		lease, leased := c.lease, c.leased
		c.session.RUnlock()
		if lease != 0 {
			return lease, nil
		}
		changed := c.cfg.Etcd.Changed()
		if !c.Up() {
			return 0, refused(code.Code_UNAVAILABLE, ErrDown)
		}
		select {
		case <-leased:
		case <-changed:
		case <-ctx.Done():
			return 0, refused(code.Code_UNAVAILABLE, errNoLease)
		}
	}
}
