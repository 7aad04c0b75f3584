package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/holdfast-mesh/holdfast/e2e/rig"
	"github.com/holdfast-mesh/holdfast/e2e/rig/stores"
	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
)

// rateStores is how many stores take part in the rates: what all of them do costs the machine that one is measured on.
const rateStores = 3

// Rate is what callers of one store, each of which calls again when it has its answer, get.
type Rate struct {
	Model   string  `json:"model"`
	Level   string  `json:"level"`
	Callers int     `json:"callers"`
	PerSec  float64 `json:"perSecond"`
	P50     float64 `json:"p50Micros"`
	P99     float64 `json:"p99Micros"`
	// Settled is how long after the end all stores had everything, in milliseconds.
	Settled float64 `json:"settledMillis"`
	Failed  int     `json:"failed"`
	Problem string  `json:"problem,omitempty"`
	Rounds  []Round `json:"rounds"`
}

// Round is one round's figures; those of its Rate are the medians.
type Round struct {
	Calls   int     `json:"calls"`
	PerSec  float64 `json:"perSecond"`
	P50     float64 `json:"p50Micros"`
	P99     float64 `json:"p99Micros"`
	Settled float64 `json:"settledMillis"`
}

var levels = []struct {
	name  string
	level configv1.WriteLevel
}{
	{"LOCAL", configv1.WriteLevel_WRITE_LEVEL_LOCAL},
	{"LOCAL_MEM", configv1.WriteLevel_WRITE_LEVEL_LOCAL_MEM},
	{"MAJORITY", configv1.WriteLevel_WRITE_LEVEL_MAJORITY},
	{"ALL", configv1.WriteLevel_WRITE_LEVEL_ALL},
}

// marker is the entity type whose one entity shows that the other stores have all that was written before.
const marker = "marker"

func markerType() *configv1.EntityType {
	return &configv1.EntityType{
		Type: marker, Model: configv1.Model_MODEL_GCOUNTER, Consistency: configv1.Consistency_CONSISTENCY_EVENTUAL,
		Write: configv1.WriteLevel_WRITE_LEVEL_LOCAL, Affinity: configv1.Affinity_AFFINITY_LOCAL,
	}
}

func types(some []*model, level configv1.WriteLevel) []*configv1.EntityType {
	out := []*configv1.EntityType{markerType()}
	for _, m := range some {
		out = append(out, m.entityType(level))
	}
	return out
}

// rates measures every model at every level, and Redis beside LOCAL, all in each round.
func rates(ctx context.Context, s *settings, r *Report) (err error) {
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
	solo, err := stores.Start(ctx, stores.Options{Count: 1, Binary: s.binary, TLS: s.tls, Types: types(some, configv1.WriteLevel_WRITE_LEVEL_LOCAL)})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, solo.Close()) }()
	soloConns, err := dialAll(solo)
	if err != nil {
		return err
	}
	streams := map[string]*stream{}
	for _, m := range some {
		streams[m.name] = newStream(m, s.keys)
	}
	rds, why := startRedis(ctx)
	r.Redis = why
	if rds != nil {
		defer func() { err = errors.Join(err, rds.close()) }()
	}

	// A cell is one row of the report.
	type cell struct {
		rate *Rate
		run  func() (*Round, error)
	}
	var cells [][]cell
	for _, l := range levels {
		if !chosen(s.levels, l.name) {
			continue
		}
		var group []cell
		for _, callers := range s.callers {
			for _, m := range some {
				rate := &Rate{Model: m.name, Level: l.name, Callers: callers}
				group = append(group, cell{rate, func() (*Round, error) {
					return rateOf(ctx, c, conns, streams[m.name], rate, s.lasting)
				}})
			}
			if l.level != configv1.WriteLevel_WRITE_LEVEL_LOCAL {
				continue
			}
			for _, m := range some {
				if m.name != "gcounter" && m.name != "lww" {
					continue
				}
				// As Redis is here: nobody to replicate to.
				rate, ops := &Rate{Model: m.name + ", one store alone", Level: l.name, Callers: callers}, newStream(m, s.keys)
				group = append(group, cell{rate, func() (*Round, error) { return rateOf(ctx, solo, soloConns, ops, rate, s.lasting) }})
			}
			if rds != nil {
				for _, command := range []string{"INCR", "SET"} {
					rate := &Rate{Model: "redis " + command, Level: "appendfsync always", Callers: callers}
					group = append(group, cell{rate, func() (*Round, error) { return rds.rate(ctx, command, s.keys, rate, s.lasting) }})
				}
			}
		}
		for _, g := range group {
			r.Rates = append(r.Rates, g.rate)
		}
		cells = append(cells, group)
	}
	order := levelsOf(s)
	for round := range s.rounds {
		for i := range cells {
			// Every other round goes backwards, so that no row always comes after the same one.
			at := i
			if round%2 == 1 {
				at = len(cells) - 1 - i
			}
			c.SetTypes(types(some, order[at]))
			if err := c.Configure(ctx); err != nil {
				return err
			}
			group := slices.Clone(cells[at])
			if round%2 == 1 {
				slices.Reverse(group)
			}
			for _, g := range group {
				one, err := g.run()
				if err != nil {
					return fmt.Errorf("%s %s c=%d: %w\n%s", g.rate.Model, g.rate.Level, g.rate.Callers, err, c.Logs(5))
				}
				g.rate.Rounds = append(g.rate.Rounds, *one)
				progress("round %d/%d %-10s %-18s c=%-3d %8.0f/s  p50 %6.0f µs  p99 %7.0f µs  settled %5.0f ms  failed %d %s",
					round+1, s.rounds, g.rate.Model, g.rate.Level, g.rate.Callers, one.PerSec, one.P50, one.P99, one.Settled, g.rate.Failed, g.rate.Problem)
			}
		}
	}
	for _, rate := range r.Rates {
		rate.median()
	}
	return nil
}

func levelsOf(s *settings) []configv1.WriteLevel {
	var out []configv1.WriteLevel
	for _, l := range levels {
		if chosen(s.levels, l.name) {
			out = append(out, l.level)
		}
	}
	return out
}

func (r *Rate) median() {
	over := func(get func(Round) float64) float64 {
		all := make([]float64, len(r.Rounds))
		for i, run := range r.Rounds {
			all[i] = get(run)
		}
		return median(all)
	}
	r.PerSec, r.P50, r.P99 = over(func(x Round) float64 { return x.PerSec }), over(func(x Round) float64 { return x.P50 }), over(func(x Round) float64 { return x.P99 })
	r.Settled = over(func(x Round) float64 { return x.Settled })
}

func median(all []float64) float64 {
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	mid := len(all) / 2
	if len(all)%2 == 0 {
		return (all[mid-1] + all[mid]) / 2
	}
	return all[mid]
}

func dialAll(c *stores.Cluster) ([]*stores.Conn, error) {
	conns := make([]*stores.Conn, c.Count())
	for i := range conns {
		conn, err := c.Dial(i)
		if err != nil {
			return nil, err
		}
		conns[i] = conn
	}
	return conns, nil
}

// rateOf lets callers call the first store, and waits until the others have what they wrote.
func rateOf(ctx context.Context, c *stores.Cluster, all []*stores.Conn, ops *stream, rate *Rate, lasting time.Duration) (*Round, error) {
	conns := make([]*stores.Conn, min(rate.Callers, maxConnections))
	for i := range conns {
		conn, err := c.Dial(0)
		if err != nil {
			return nil, err
		}
		defer conn.Close()
		conns[i] = conn
	}
	typ, keys := ops.model.name, len(ops.made)
	call := func(caller, n int, done func(error)) {
		k := (caller*keys/rate.Callers + n) % keys
		conns[caller%len(conns)].Go(stores.CommitRequest(typ, key(k), callDeadline, ops.next(k)), func(_ *storev1.Response, err error) { done(err) })
	}
	one := measure(ctx, rate, lasting, call)
	took, err := settle(ctx, all)
	one.Settled = float64(took) / float64(time.Millisecond)
	return one, err
}

// measure runs callers against call, which tells done the end of a call from any goroutine.
func measure(ctx context.Context, rate *Rate, lasting time.Duration, call func(caller, n int, done func(error))) *Round {
	chains := make([]*chain, rate.Callers)
	var wg sync.WaitGroup
	begin := time.Now()
	from, end := begin.Add(warmUp), begin.Add(warmUp+lasting)
	for i := range chains {
		c := &chain{caller: i, from: from, end: end, call: call, over: wg.Done, ctx: ctx, latencies: make([]time.Duration, 0, 1<<13)}
		chains[i] = c
		wg.Add(1)
		c.next()
	}
	wg.Wait()
	var latencies []time.Duration
	for _, c := range chains {
		latencies = append(latencies, c.latencies...)
		rate.Failed += c.failed
		if c.problem != nil {
			rate.Problem = c.problem.Error()
		}
	}
	if len(latencies) == 0 {
		if rate.Problem == "" {
			rate.Problem = "a round without one answered call"
		}
		return &Round{}
	}
	slices.Sort(latencies)
	return &Round{
		Calls: len(latencies), PerSec: float64(len(latencies)) / lasting.Seconds(),
		P50: micros(latencies[len(latencies)/2]), P99: micros(latencies[len(latencies)*99/100]),
	}
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// chain is one caller: each answer starts its next call, on the goroutine that brought the answer.
type chain struct {
	ctx       context.Context
	caller, n int
	from, end time.Time
	call      func(caller, n int, done func(error))
	over      func()
	latencies []time.Duration
	failed    int
	problem   error
}

func (c *chain) next() {
	began := time.Now()
	if began.After(c.end) || c.ctx.Err() != nil {
		c.over()
		return
	}
	n := c.n
	c.n++
	c.call(c.caller, n, func(err error) {
		now := time.Now()
		switch {
		case errors.Is(err, stores.ErrLost):
			c.failed++
			c.problem = err
			c.over()
			return
		case err != nil:
			c.failed++
			c.problem = err
		// What ends after the measurement is not counted, what began before it neither.
		case began.After(c.from) && now.Before(c.end):
			c.latencies = append(c.latencies, now.Sub(began))
		}
		c.next()
	})
}

// settle writes a mark at the first store and waits until the others show it: streams keep the order, and what was dropped
// on the way comes with the repair that brings the mark.
func settle(ctx context.Context, all []*stores.Conn) (time.Duration, error) {
	began := time.Now()
	state, err := all[0].Commit(ctx, marker, marker, callDeadline, stores.Increment())
	if err != nil {
		return 0, err
	}
	want := state.GetValue().GetGcounter()
	ctx, cancel := context.WithTimeout(ctx, settleWait)
	defer cancel()
	for i, conn := range all[1:] {
		err := rig.PollEvery(ctx, time.Millisecond, func() error {
			state, err := conn.Get(ctx, marker, marker, false)
			if err == nil && state.GetValue().GetGcounter() < want {
				err = fmt.Errorf("store %d lags behind", i+2)
			}
			return err
		})
		if err != nil {
			return 0, err
		}
	}
	return time.Since(began), nil
}
