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

	"github.com/holdfast-mesh/holdfast/internal/etcd"
	"github.com/holdfast-mesh/holdfast/replication/strong/ownership"
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
	// TTL of the lease, at least ownership.MinTTL (the default): how long a slot stays taken after its owner died with its machine.
	TTL time.Duration
	// Admit, where set, is asked before each commit that may need more room; its error refuses the commit. It must not block.
	Admit   func() error
	Logger  *slog.Logger
	Metrics prometheus.Registerer
	// Now is CLOCK_BOOTTIME; tests replace it.
	Now func() time.Duration
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
	// answering is false after a request for the lease that etcd did not answer.
	answering atomic.Bool

	// owning guards what decides on ownership.
	owning sync.RWMutex
	// +checklocks:owning
	machine *ownership.Machine
	// Closed and replaced when a lease was got.
	// +checklocks:owning
	leased chan struct{}

	queue queue
}

// New makes a Committer and starts to get a lease; Close ends it.
func New(cfg Config) (*Committer, error) {
	if cfg.Node == "" || cfg.Etcd == nil {
		return nil, errors.New("strong: node name and etcd client are needed")
	}
	if cfg.TTL == 0 {
		cfg.TTL = ownership.MinTTL
	}
	if cfg.TTL < ownership.MinTTL {
		return nil, fmt.Errorf("strong: lease of %s, at least %s", cfg.TTL, ownership.MinTTL)
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
		machine: ownership.New(ownership.Config{Node: cfg.Node, Home: cfg.Home, TTL: cfg.TTL}),
		leased:  make(chan struct{}),
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

// Close is the orderly end: it claims no more slots and takes no more commits, waits a little for those under way, and
// gives the lease back so that others may claim at once.
func (c *Committer) Close() error {
	c.owning.Lock()
	c.machine.Close()
	c.owning.Unlock()
	enough := time.AfterFunc(closeTimeout, c.stopWork)
	c.queue.close()
	enough.Stop()
	c.stopWork()
	c.cancel()
	c.done.Wait()
	return c.leave()
}

// Up is false while etcd is known to be gone: no connection, or an unanswered keep-alive.
func (c *Committer) Up() bool { return c.cfg.Etcd.Up() && c.answering.Load() }
