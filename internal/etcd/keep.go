package etcd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// KeepConfig configures Keep.
type KeepConfig struct {
	// Name says who compacted, for people.
	Name string
	// Own is for one process of a mesh with an etcd of its own: Keep then also defragments it where that is worth it, and
	// lets it take writes again after it was over its quota.
	Own bool
	// CompactEvery is the time between two compactions, and the least age of history that is forgotten; 0 is the default.
	CompactEvery time.Duration
}

// Compaction is what is known of the last one that began.
type Compaction struct {
	// At is when it began on the clock of By, Rev below which history was forgotten then.
	At  time.Time `json:"at"`
	By  string    `json:"by"`
	Rev int64     `json:"rev"`
}

// LastCompaction reads what is known of the last compaction; zero where there was none.
func (c *Client) LastCompaction(ctx context.Context) (Compaction, error) {
	kv, err := c.Get(ctx, compactionKey)
	if err != nil || kv.ModRev == 0 {
		return Compaction{}, err
	}
	var out Compaction
	if err := json.Unmarshal(kv.Value, &out); err != nil {
		return Compaction{}, fmt.Errorf("%s in etcd: %w", compactionKey, err)
	}
	return out, nil
}

// Keep looks after etcd's history and its quota until ctx ends. Any number of clients may do so: a key of etcd says whose
// turn it is. Room follows the quota.
func (c *Client) Keep(ctx context.Context, cfg KeepConfig) {
	if cfg.CompactEvery == 0 {
		cfg.CompactEvery = compactEvery
	}
	k := keeper{client: c, cfg: cfg}
	// Not a ticker, whose ticks come closer to each other after a delay.
	compaction := time.NewTimer(cfg.CompactEvery)
	defer compaction.Stop()
	look := time.NewTimer(0)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-look.C:
			look.Reset(k.look(ctx))
		case <-compaction.C:
			k.turn(ctx)
			compaction.Reset(cfg.CompactEvery)
		}
	}
}

type keeper struct {
	client *Client
	cfg    KeepConfig
	// last is the revision of the last turn that was seen, whoever's it was; 0: none yet. It is at least CompactEvery old at
	// the next.
	last int64
	// settled is true while all is compacted that there is, in an etcd that is full.
	settled bool
	// defragmented is when this keeper did so last, defragmentedAt what last was then.
	defragmented   time.Time
	defragmentedAt int64
	// failing is true after a step that failed, so that it is logged once.
	failing bool
}

// look brings Room up to date, and returns the time until the next look.
func (k *keeper) look(ctx context.Context) time.Duration {
	ctx, cancel := context.WithTimeout(ctx, keepTimeout)
	defer cancel()
	c := k.client
	u, err := c.Usage(ctx)
	if err != nil {
		// Etcd refuses by itself what is too much meanwhile; what is known of it stays.
		return lookEvery
	}
	c.metrics.usage(u)
	were := c.Room() != nil
	crowded := u.crowded(were)
	c.metrics.refusing.Set(float64(btoi(crowded)))
	switch {
	case crowded:
		why := u.refusal()
		c.room.Store(&why)
		if !were {
			c.cfg.Logger.Warn("writes that need more room are refused", "reason", why)
		}
	case were:
		c.room.Store(nil)
		c.cfg.Logger.Info("writes are taken again", "inUse", u.InUse, "quota", u.Quota)
	}
	if u.Share() >= watchFrom {
		return lookOften
	}
	return lookEvery
}

// turn compacts where nobody else did since the last look: the history before the last turn, which was CompactEvery ago.
func (k *keeper) turn(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, keepTimeout)
	defer cancel()
	err := k.take(ctx)
	if err == nil && k.cfg.Own {
		err = k.maintain()
	}
	if err != nil && ctx.Err() == nil && k.client.Up() {
		if !k.failing {
			k.client.cfg.Logger.Warn("looking after etcd failed", "error", err)
		}
		k.failing = true
		return
	}
	k.failing = false
}

// take compacts if it is this one's turn.
func (k *keeper) take(ctx context.Context) error {
	c := k.client
	value, err := json.Marshal(Compaction{At: time.Now().UTC(), By: k.cfg.Name, Rev: k.last})
	if err != nil {
		return err
	}
	r, err := c.Txn(ctx, []Guard{ModifiedAt(compactionKey, k.last)}, []Op{Put(compactionKey, value, 0)}, []Op{Read(compactionKey, true)})
	before := k.last
	if errors.Is(err, ErrFull) {
		// Nothing can be written, not even this: every turn is everybody's then, which costs more and harms nobody.
		page, err := c.Range(ctx, compactionKey, "", 1)
		if err != nil {
			return err
		}
		k.last, k.settled = page.Rev, before == page.Rev
		if before == 0 {
			return nil
		}
		return c.compact(ctx, before)
	}
	if err != nil {
		return err
	}
	k.settled = false
	if !r.Held {
		k.last = r.Reads[0].ModRev
		return nil
	}
	k.last = r.Rev
	if before == 0 {
		return nil
	}
	c.metrics.compactions.Inc()
	return c.compact(ctx, before)
}

// maintain makes room in the files of the mesh's own etcd.
func (k *keeper) maintain() error {
	ctx, cancel := context.WithTimeout(context.Background(), defragmentTimeout)
	defer cancel()
	c := k.client
	u, err := c.Usage(ctx)
	if err != nil {
		return err
	}
	switch {
	case u.Full && k.settled && k.defragmentedAt != k.last:
		// What was deleted since it is full may be seen only now: a member that writes nothing does not count anew.
	case !u.Full && u.shrink() && time.Since(k.defragmented) >= defragmentPause:
	default:
		return nil
	}
	k.defragmented, k.defragmentedAt = time.Now(), k.last
	if err := c.defragment(ctx); err != nil {
		return err
	}
	now, err := c.Usage(ctx)
	if err != nil {
		return err
	}
	c.cfg.Logger.Info("defragmented etcd", "sizeBefore", u.Size, "size", now.Size, "quota", now.Quota)
	if now.Full && float64(now.Size) < admitBelow*float64(now.Quota) {
		if err := c.disarm(ctx); err != nil {
			return err
		}
		c.cfg.Logger.Info("etcd takes writes again: its alarm was disarmed", "size", now.Size, "quota", now.Quota)
	}
	return nil
}
