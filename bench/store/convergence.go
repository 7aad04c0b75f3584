package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/holdfast-mesh/holdfast/e2e/rig/stores"
	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
)

// Convergence is how long after a write's acknowledgement every store had pushed it to its subscribers.
type Convergence struct {
	Stores int     `json:"stores"`
	Writes int     `json:"writes"`
	P50    float64 `json:"p50Millis"`
	P99    float64 `json:"p99Millis"`
	Max    float64 `json:"maxMillis"`
	// Ready is the time from the first process's start until all were connected with each other.
	Ready float64 `json:"readySeconds"`
	// RSS is the resident memory of one of the stores, in bytes.
	RSS int64 `json:"rssBytes"`
}

func convergence(ctx context.Context, s *settings, r *Report) error {
	for _, n := range s.convergence {
		one, err := converge(ctx, s, n)
		if err != nil {
			return fmt.Errorf("%d stores: %w", n, err)
		}
		r.Convergence = append(r.Convergence, *one)
		progress("convergence at %d stores: p50 %.1f ms, p99 %.1f ms, max %.1f ms; ready in %.1f s", n, one.P50, one.P99, one.Max, one.Ready)
	}
	return nil
}

func converge(ctx context.Context, s *settings, n int) (_ *Convergence, err error) {
	typ := choose([]string{counter})[0].entityType(configv1.WriteLevel_WRITE_LEVEL_LOCAL)
	began := time.Now()
	c, err := stores.Start(ctx, stores.Options{Count: n, Binary: s.binary, TLS: s.tls, Types: []*configv1.EntityType{typ}})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	one := &Convergence{Stores: n, Writes: s.writes, Ready: time.Since(began).Seconds()}
	all, err := c.Follow(ctx, counter, "probed", s.writes, s.every)
	if err != nil {
		return nil, err
	}
	one.P50, one.P99, one.Max = millis(all[len(all)/2]), millis(all[len(all)*99/100]), millis(all[len(all)-1])
	one.RSS, err = rss(c)
	return one, err
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
