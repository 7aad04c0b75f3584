package strong

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"
	"google.golang.org/genproto/googleapis/rpc/code"

	"github.com/holdfast-mesh/holdfast/internal/etcd"
)

// Config configures a Committer.
type Config struct {
	// Node is this node's name, the same after a restart.
	Node string
	// Home names the data directory whose exclusive lock this process holds, for example host and absolute path. A store
	// that starts with the lock knows that the process which held it before has exited, and revokes the lease which that
	// one left under the same node and home, so that its slots are free at once. Empty: never revoke, wait for expiry.
	Home string
	// Etcd is used, not closed.
	Etcd *etcd.Client
	// TTL of the lease, at least MinTTL (the default): how long a slot stays taken after its owner died with its machine.
	TTL     time.Duration
	Logger  *slog.Logger
	Metrics prometheus.Registerer
	// Now is CLOCK_BOOTTIME; tests replace it.
	Now func() time.Duration
}

type slotID struct {
	entityType string
	slot       uint32
}

// Committer owns slots and commits entities. It is safe for concurrent use.
type Committer struct {
	cfg     Config
	metrics *metrics
	cancel  context.CancelFunc
	done    sync.WaitGroup
	// work ends the transactions under way when Close has waited enough for them.
	work     context.Context
	stopWork context.CancelFunc
	// answering is false after a keep-alive that etcd did not answer.
	answering atomic.Bool

	// session: what the lease holds up. All of it goes when the lease goes.
	session sync.RWMutex
	// +checklocks:session
	lease int64
	// On the clock Now: until then this store may serve its slots from memory.
	// +checklocks:session
	deadline time.Duration
	// The epochs of the slots that were claimed under lease.
	// +checklocks:session
	claims map[slotID]int64
	// Closed and replaced when a lease was got.
	// +checklocks:session
	leased chan struct{}

	queue queue
}

// New makes a Committer and starts to get a lease; Close ends it.
func New(cfg Config) (*Committer, error) {
	if cfg.Node == "" || cfg.Etcd == nil {
		return nil, errors.New("strong: node name and etcd client are needed")
	}
	if cfg.TTL == 0 {
		cfg.TTL = MinTTL
	}
	if cfg.TTL < MinTTL {
		return nil, fmt.Errorf("strong: lease of %s, at least %s", cfg.TTL, MinTTL)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.Now == nil {
		cfg.Now = bootTime
	}
	ctx, cancel := context.WithCancel(context.Background())
	c := &Committer{
		cfg: cfg, metrics: newMetrics(cfg.Metrics), cancel: cancel,
		claims: map[slotID]int64{}, leased: make(chan struct{}),
	}
	c.work, c.stopWork = context.WithCancel(context.Background())
	c.answering.Store(true)
	c.done.Add(1)
	go func() {
		defer c.done.Done()
		c.keepLease(ctx)
	}()
	return c, nil
}

// bootTime also counts the time that the machine was suspended, which CLOCK_MONOTONIC does not.
func bootTime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic(fmt.Sprintf("strong: CLOCK_BOOTTIME: %v", err)) // Linux has had it since 2.6.39.
	}
	return time.Duration(ts.Nano())
}

// Close refuses new commits, waits a little for those under way, and gives the lease back so that others may claim at
// once.
func (c *Committer) Close() error {
	enough := time.AfterFunc(closeTimeout, c.stopWork)
	c.queue.close()
	enough.Stop()
	c.stopWork()
	c.cancel()
	c.done.Wait()
	lease := c.drop(0)
	if lease == 0 || !c.Up() {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	return c.cfg.Etcd.Revoke(ctx, lease)
}

// Up is false while etcd is known to be gone: no connection, or an unanswered keep-alive.
func (c *Committer) Up() bool { return c.cfg.Etcd.Up() && c.answering.Load() }

// Held reports whether this store may still serve reads of the slot from memory. Ask it after the read arrived.
func (c *Committer) Held(entityType string, slot uint32, epoch int64) bool {
	now := c.cfg.Now()
	c.session.RLock()
	defer c.session.RUnlock()
	held, ok := c.claims[slotID{entityType, slot}]
	return ok && held == epoch && now < c.deadline
}

// Claim returns the slot's owner, claiming it for this store where it is free. epoch is not 0 where that is this store.
func (c *Committer) Claim(ctx context.Context, entityType string, slot uint32) (owner string, epoch int64, err error) {
	id := slotID{entityType, slot}
	if epoch, ok := c.claimed(id); ok {
		return c.cfg.Node, epoch, nil
	}
	if !c.Up() {
		return "", 0, refused(code.Code_UNAVAILABLE, ErrDown)
	}
	lease, err := c.waitLease(ctx)
	if err != nil {
		return "", 0, err
	}
	key := slotKey(id)
	// A look first: a refused transaction goes through etcd's log all the same, and most slots are taken.
	kv, err := c.cfg.Etcd.Get(ctx, key)
	if err != nil {
		return "", 0, readError(err)
	}
	if kv.CreateRev == 0 {
		res, err := c.cfg.Etcd.Txn(ctx,
			[]etcd.Guard{etcd.CreatedAt(key, 0)},
			[]etcd.Op{etcd.Put(key, []byte(c.cfg.Node), lease)},
			[]etcd.Op{etcd.Read(key, false)})
		if err != nil {
			if errors.Is(err, etcd.ErrLeaseGone) {
				c.drop(lease)
			}
			return "", 0, readError(err)
		}
		if res.Held {
			kv = etcd.KV{Value: []byte(c.cfg.Node), CreateRev: res.Rev, Lease: lease}
		} else {
			kv = res.Reads[0]
		}
	}
	switch {
	case kv.CreateRev == 0: // Went between the guard and the read: cannot be, both are one step.
		return "", 0, refused(code.Code_UNAVAILABLE, ErrNotOwner)
	case string(kv.Value) != c.cfg.Node:
		return string(kv.Value), 0, nil
	case kv.Lease != lease:
		return "", 0, refused(code.Code_UNAVAILABLE, errFormer)
	}
	if !c.remember(lease, id, kv.CreateRev) {
		return "", 0, refused(code.Code_UNAVAILABLE, etcd.ErrLeaseGone)
	}
	return c.cfg.Node, kv.CreateRev, nil
}

// Owner tells the slot's owner without claiming it; "" where there is none.
func (c *Committer) Owner(ctx context.Context, entityType string, slot uint32) (string, error) {
	id := slotID{entityType, slot}
	if epoch, ok := c.claimed(id); ok && c.Held(entityType, slot, epoch) {
		return c.cfg.Node, nil
	}
	if !c.Up() {
		return "", refused(code.Code_UNAVAILABLE, ErrDown)
	}
	kv, err := c.cfg.Etcd.Get(ctx, slotKey(id))
	if err != nil {
		return "", readError(err)
	}
	return string(kv.Value), nil
}

// Load reads an entity, linearizably. rev is 0 and ids are empty where it was never written.
func (c *Committer) Load(ctx context.Context, entityType string, slot uint32, key string) (value []byte, exists bool, rev int64, ids []string, err error) {
	if !c.Up() {
		return nil, false, 0, nil, refused(code.Code_UNAVAILABLE, ErrDown)
	}
	kv, err := c.cfg.Etcd.Get(ctx, entityKey(slotID{entityType, slot}, key))
	if err != nil {
		return nil, false, 0, nil, readError(err)
	}
	if kv.ModRev == 0 {
		return nil, false, 0, nil, nil
	}
	r, err := decodeRecord(kv.Value)
	if err != nil {
		return nil, false, 0, nil, refused(code.Code_DATA_LOSS, fmt.Errorf("entity %s %q: %w", entityType, key, err))
	}
	return r.value, r.exists, kv.ModRev, r.ids, nil
}

// claimed returns the epoch of a slot that this store claimed and whose lease it has not seen go.
func (c *Committer) claimed(id slotID) (int64, bool) {
	c.session.RLock()
	defer c.session.RUnlock()
	epoch, ok := c.claims[id]
	return epoch, ok
}

func (c *Committer) remember(lease int64, id slotID, epoch int64) bool {
	c.session.Lock()
	defer c.session.Unlock()
	if c.lease != lease {
		return false
	}
	c.claims[id] = epoch
	c.metrics.claims.Set(float64(len(c.claims)))
	return true
}

// forget drops one claim that etcd showed to be gone.
func (c *Committer) forget(id slotID, epoch int64) {
	c.session.Lock()
	defer c.session.Unlock()
	if c.claims[id] == epoch {
		delete(c.claims, id)
		c.metrics.claims.Set(float64(len(c.claims)))
	}
}
