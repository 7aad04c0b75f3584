package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/holdfast-mesh/holdfast/e2e/rig/stores"
	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
)

// Wire is what one of the other stores reads from its sockets for one update: gRPC, HTTP/2 and TLS included, gossip's
// datagrams not. It is counted by the kernel (/proc/PID/io); what the store reads while nothing happens is taken off.
type Wire struct {
	Model string `json:"model"`
	// Single is per update where one caller writes, Bulk where 32 do.
	Single float64 `json:"bytesPerUpdate"`
	Bulk   float64 `json:"bytesPerUpdateAmong32"`
}

func wire(ctx context.Context, s *settings, r *Report) (err error) {
	some := choose(s.types)
	c, err := stores.Start(ctx, stores.Options{Count: rateStores, Binary: s.binary, TLS: s.tls, Types: types(some, configv1.WriteLevel_WRITE_LEVEL_LOCAL)})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	conns, err := dialAll(c)
	if err != nil {
		return err
	}
	const receiver = 1
	read := func() (int64, error) { return c.Read(receiver) }
	idle, err := idleRate(ctx, read)
	if err != nil {
		return err
	}
	for _, m := range some {
		one := Wire{Model: m.name}
		for _, part := range []struct {
			callers, updates int
			into             *float64
		}{{1, wireUpdates, &one.Single}, {wireCallers, wireBulk, &one.Bulk}} {
			if _, err := settle(ctx, conns); err != nil {
				return err
			}
			before, err := read()
			if err != nil {
				return err
			}
			began := time.Now()
			if err := update(ctx, c, newStream(m, s.keys), part.callers, part.updates); err != nil {
				return fmt.Errorf("%s: %w", m.name, err)
			}
			if _, err := settle(ctx, conns); err != nil {
				return err
			}
			after, err := read()
			if err != nil {
				return err
			}
			*part.into = (float64(after-before) - idle*time.Since(began).Seconds()) / float64(part.updates)
		}
		r.Wire = append(r.Wire, one)
		progress("wire %-10s %.0f bytes an update, %.0f among %d callers", m.name, one.Single, one.Bulk, wireCallers)
	}
	return nil
}

// idleRate is what a store reads in a second in which nothing is written.
func idleRate(ctx context.Context, read func() (int64, error)) (float64, error) {
	const lasting = 3 * time.Second
	before, err := read()
	if err != nil {
		return 0, err
	}
	if err := pause(ctx, lasting); err != nil {
		return 0, err
	}
	after, err := read()
	progress("wire: %.0f bytes/s while nothing is written", float64(after-before)/lasting.Seconds())
	return float64(after-before) / lasting.Seconds(), err
}

// update makes so many updates at the first store.
func update(ctx context.Context, c *stores.Cluster, ops *stream, callers, updates int) error {
	conn, err := c.Dial(0)
	if err != nil {
		return err
	}
	defer conn.Close()
	problems := make(chan error, callers)
	for caller := range callers {
		go func() {
			var problem error
			for n := caller; n < updates && problem == nil; n += callers {
				k := n % len(ops.made)
				_, problem = conn.Commit(ctx, ops.model.name, key(k), callDeadline, ops.next(k))
			}
			problems <- problem
		}()
	}
	for range callers {
		err = errors.Join(err, <-problems)
	}
	return err
}
