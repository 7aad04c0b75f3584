package store

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/holdfast-mesh/holdfast/e2e/rig/stores"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
)

// counter is the entity type of what memory and joins are measured with.
const counter = "gcounter"

// fill makes the counters from (included) to (not included) at the first store, each by one increment.
func fill(ctx context.Context, c *stores.Cluster, from, to int) error {
	conns := make([]*stores.Conn, maxConnections)
	for i := range conns {
		conn, err := c.Dial(0)
		if err != nil {
			return err
		}
		defer conn.Close()
		conns[i] = conn
	}
	var next atomic.Int64
	next.Store(int64(from))
	var problem atomic.Pointer[error]
	var wg sync.WaitGroup
	var step func(conn *stores.Conn)
	step = func(conn *stores.Conn) {
		n := int(next.Add(1)) - 1
		if n >= to || ctx.Err() != nil || problem.Load() != nil {
			wg.Done()
			return
		}
		conn.Go(stores.CommitRequest(counter, key(n), callDeadline, stores.Increment()), func(_ *storev1.Response, err error) {
			if err != nil {
				err = fmt.Errorf("counter %d: %w", n, err)
				problem.CompareAndSwap(nil, &err)
			}
			step(conn)
		})
	}
	for i := range fillers {
		wg.Add(1)
		step(conns[i%len(conns)])
	}
	wg.Wait()
	if err := problem.Load(); err != nil {
		return *err
	}
	return ctx.Err()
}
