package store

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/holdfast-mesh/holdfast/e2e/rig"
	"github.com/holdfast-mesh/holdfast/e2e/rig/stores"
	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
)

// Memory is a store process's resident memory with so many counters that have keys of 16 bytes.
type Memory struct {
	When     string `json:"when"`
	Entities int    `json:"entities"`
	RSS      int64  `json:"rssBytes"`
	// PerEntity is of what is over the memory of the empty store.
	PerEntity float64 `json:"bytesPerEntity"`
	Note      string  `json:"note,omitempty"`
}

// memory fills one store and looks at it, then lets its entities go to the disk.
func memory(ctx context.Context, s *settings, r *Report) (err error) {
	m := choose([]string{counter})[0]
	typ := m.entityType(configv1.WriteLevel_WRITE_LEVEL_LOCAL)
	c, err := stores.Start(ctx, stores.Options{Count: 1, Binary: s.binary, TLS: s.tls, Types: []*configv1.EntityType{typ}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	empty, err := rig.RSS(c.Store(0).PID())
	if err != nil {
		return err
	}
	look := func(when string, entities int, note string) error {
		rss, err := rig.RSS(c.Store(0).PID())
		if err != nil {
			return err
		}
		one := Memory{When: when, Entities: entities, RSS: rss, Note: note}
		if entities > 0 {
			one.PerEntity = float64(rss-empty) / float64(entities)
		}
		r.Memory = append(r.Memory, one)
		progress("memory %s: %d entities, RSS %d MB, %.0f bytes each %s", when, entities, rss>>20, one.PerEntity, note)
		return nil
	}
	if err := look("empty", 0, ""); err != nil {
		return err
	}
	began := time.Now()
	if err := fill(ctx, c, 0, s.entities); err != nil {
		return err
	}
	rate := float64(s.entities) / time.Since(began).Seconds()
	if err := look("hot, right after they were made", s.entities, fmt.Sprintf("%.0f new entities/s", rate)); err != nil {
		return err
	}
	if err := pause(ctx, idle); err != nil {
		return err
	}
	if err := look("hot, "+idle.String()+" later", s.entities, ""); err != nil {
		return err
	}
	return passive(ctx, c, typ, s.entities, look)
}

// passive lets the entities go to the disk, looks, and reads some back.
func passive(ctx context.Context, c *stores.Cluster, typ *configv1.EntityType, entities int, look func(string, int, string) error) error {
	typ.PassivateAfter = durationpb.New(time.Second)
	if err := c.Configure(ctx); err != nil {
		return err
	}
	conn, err := c.Dial(0)
	if err != nil {
		return err
	}
	defer conn.Close()
	wait, cancel := context.WithTimeout(ctx, passiveWait)
	defer cancel()
	began := time.Now()
	problem := rig.Poll(wait, func() error {
		status, err := conn.Status(ctx)
		if err == nil && status.GetPassive() < uint64(entities) {
			err = fmt.Errorf("%d of %d entities are passive", status.GetPassive(), entities)
		}
		return err
	})
	note := fmt.Sprintf("%.1f s after passivateAfter was set to 1 s", time.Since(began).Seconds())
	if problem != nil {
		note = problem.Error()
	}
	if err := pause(ctx, idle); err != nil {
		return err
	}
	if err := look("passive, "+idle.String()+" later", entities, note); err != nil {
		return err
	}
	latencies := make([]time.Duration, recalls)
	for i := range latencies {
		began := time.Now()
		state, err := conn.Get(ctx, counter, key(rand.IntN(entities)), false)
		latencies[i] = time.Since(began)
		if err == nil && state.GetValue().GetGcounter() != 1 {
			err = fmt.Errorf("a passive counter came back as %v", state)
		}
		if err != nil {
			return err
		}
	}
	slices.Sort(latencies)
	return look("after reads of passive ones", entities, fmt.Sprintf("%d reads, p50 %.0f µs, p99 %.0f µs",
		recalls, micros(latencies[recalls/2]), micros(latencies[recalls*99/100])))
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
