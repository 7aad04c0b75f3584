package store

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/holdfast-mesh/holdfast/e2e/rig"
	"github.com/holdfast-mesh/holdfast/e2e/rig/stores"
	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
)

// Join is how long an empty store took to get what two others have, from the start of its process.
type Join struct {
	Entities int     `json:"entities"`
	Seconds  float64 `json:"seconds"`
	// Bytes is what it read meanwhile.
	Bytes int64 `json:"bytesRead"`
	// RSS is its resident memory at the end.
	RSS int64 `json:"rssBytes"`
}

const joinStores = 3

func joins(ctx context.Context, s *settings, r *Report) (err error) {
	typ := choose([]string{counter})[0].entityType(configv1.WriteLevel_WRITE_LEVEL_LOCAL)
	c, err := stores.New(stores.Options{Count: joinStores, Binary: s.binary, TLS: s.tls, Types: []*configv1.EntityType{typ}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	c.Place(joinStores - 1)
	if err := c.StartAll(ctx); err != nil {
		return err
	}
	have := 0
	for _, n := range s.joins {
		if err := fill(ctx, c, have, n); err != nil {
			return err
		}
		have = n
		if _, err := has(ctx, c, 1, n); err != nil {
			return err
		}
		one, err := join(ctx, c, n)
		if err != nil {
			return fmt.Errorf("%d entities: %w\n%s", n, err, c.Logs(5))
		}
		r.Joins = append(r.Joins, *one)
		progress("join of %d entities: %.1f s, %d MB read, RSS %d MB", n, one.Seconds, one.Bytes>>20, one.RSS>>20)
	}
	return nil
}

// join lets the last store come empty, and go again.
func join(ctx context.Context, c *stores.Cluster, entities int) (*Join, error) {
	const newcomer = joinStores - 1
	one := &Join{Entities: entities}
	began := time.Now()
	c.Place(joinStores)
	if err := c.Configure(ctx); err != nil {
		return nil, err
	}
	if err := c.StartStore(ctx, newcomer); err != nil {
		return nil, err
	}
	all, err := has(ctx, c, newcomer, entities)
	if err != nil {
		return nil, err
	}
	one.Seconds = all.Sub(began).Seconds()
	if one.Bytes, err = c.Read(newcomer); err != nil {
		return nil, err
	}
	if one.RSS, err = rig.RSS(c.Store(newcomer).PID()); err != nil {
		return nil, err
	}
	if err := c.Kill(newcomer); err != nil {
		return nil, err
	}
	if err := c.Wipe(newcomer); err != nil {
		return nil, err
	}
	c.Place(joinStores - 1)
	return one, c.Configure(ctx)
}

// has waits until store i has so many counters, checks some of them and tells when it had them.
func has(ctx context.Context, c *stores.Cluster, i, entities int) (at time.Time, err error) {
	ctx, cancel := context.WithTimeout(ctx, joinWait)
	defer cancel()
	conn, err := c.Dial(i)
	if err != nil {
		return at, err
	}
	defer conn.Close()
	if err := rig.PollEvery(ctx, 10*time.Millisecond, func() error {
		status, err := conn.Status(ctx)
		at = time.Now()
		if err == nil && status.GetEntities() < uint64(entities) {
			err = fmt.Errorf("store %d has %d of %d entities", i+1, status.GetEntities(), entities)
		}
		return err
	}); err != nil {
		return at, err
	}
	for range recalls {
		k := key(rand.IntN(entities))
		state, err := conn.Get(ctx, counter, k, false)
		if err == nil && state.GetValue().GetGcounter() != 1 {
			err = fmt.Errorf("store %d has %s as %v", i+1, k, state)
		}
		if err != nil {
			return at, err
		}
	}
	return at, nil
}

func rss(c *stores.Cluster) (int64, error) { return rig.RSS(c.Store(0).PID()) }
