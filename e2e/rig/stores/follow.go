package stores

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
)

// Increment adds 1 to a gcounter.
func Increment() *holdfastv1.Operation {
	return &holdfastv1.Operation{Operation: &holdfastv1.Operation_Increment{Increment: &holdfastv1.Increment{By: 1}}}
}

// Follow increments a new gcounter at each store in turn, and tells how long after each acknowledgement the last of the
// stores had pushed the change to a subscriber, sorted. Every increment waits until the one before is seen by all.
func (c *Cluster) Follow(ctx context.Context, typ, key string, writes int, every time.Duration) ([]time.Duration, error) {
	w := &arrivals{more: make(chan struct{}, 1), last: make([]uint64, len(c.stores)), at: make([]time.Time, len(c.stores))}
	conns := make([]*Conn, len(c.stores))
	for i := range conns {
		conn, err := c.Dial(i)
		if err != nil {
			return nil, err
		}
		defer conn.Close()
		conns[i] = conn
		conn.Pushed = func(state *storev1.State) { w.saw(i, state.GetValue().GetGcounter()) }
		if _, err := conn.Get(ctx, typ, key, true); err != nil {
			return nil, err
		}
	}
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	all := make([]time.Duration, writes)
	for i := range all {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if _, err := conns[i%len(conns)].Commit(ctx, typ, key, callTimeout, Increment()); err != nil {
			return nil, err
		}
		acked := time.Now()
		at, err := w.everywhere(ctx, uint64(i+1))
		if err != nil {
			return nil, err
		}
		all[i] = max(0, at.Sub(acked))
	}
	slices.Sort(all)
	return all, nil
}

// arrivals notes when each store showed which count.
type arrivals struct {
	// mu guards last and at.
	mu   sync.Mutex
	last []uint64
	at   []time.Time
	more chan struct{}
}

func (w *arrivals) saw(store int, n uint64) {
	w.mu.Lock()
	if n > w.last[store] {
		w.last[store], w.at[store] = n, time.Now()
	}
	w.mu.Unlock()
	select {
	case w.more <- struct{}{}:
	default:
	}
}

// everywhere waits until every store has shown n, and tells when the last did.
func (w *arrivals) everywhere(ctx context.Context, n uint64) (time.Time, error) {
	late := time.NewTimer(visibleWait)
	defer late.Stop()
	for {
		w.mu.Lock()
		behind := slices.IndexFunc(w.last, func(have uint64) bool { return have < n })
		last := slices.MaxFunc(w.at, time.Time.Compare)
		w.mu.Unlock()
		if behind < 0 {
			return last, nil
		}
		select {
		case <-w.more:
		case <-late.C:
			return last, fmt.Errorf("write %d was not visible at store %d after %v", n, behind+1, visibleWait)
		case <-ctx.Done():
			return last, ctx.Err()
		}
	}
}
