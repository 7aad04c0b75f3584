package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	countersv1 "github.com/holdfast-mesh/holdfast/bench/counters/v1"
)

// measured is one run of the load generator.
type measured struct {
	Requests int     `json:"requests"`
	PerSec   float64 `json:"perSecond"`
	P50      float64 `json:"p50Micros"`
	P99      float64 `json:"p99Micros"`
	Failed   int     `json:"failed"`
	Problem  string  `json:"problem,omitempty"`
}

// load is the load generator: c callers, each of which calls again when it has its answer.
func load(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("load", flag.ContinueOnError)
	address := flags.String("address", "", "where to call")
	method := flags.String("method", "", "the call's path")
	callers := flags.Int("c", 1, "callers")
	keys := flags.Int("keys", 1000, "keys")
	warm := flags.Duration("warm", warmUp, "calls before the measurement")
	lasting := flags.Duration("d", time.Second, "how long to measure")
	deadline := flags.Duration("deadline", callDeadline, "the callers' deadline, sent as grpc-timeout; 0 for none")
	if err := flags.Parse(args); err != nil {
		return err
	}
	conns, err := connect(*address, min(*callers, maxConnections))
	if err != nil {
		return err
	}
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	g := &generator{method: *method, deadline: *deadline, keys: make([]*countersv1.Request, *keys)}
	for i := range g.keys {
		g.keys[i] = &countersv1.Request{Counter: fmt.Sprintf("counter-%04d", i)}
	}
	g.run(ctx, conns, *callers, *warm)
	out := g.run(ctx, conns, *callers, *lasting)
	if err := ctx.Err(); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(out)
}

func connect(address string, n int) ([]*grpc.ClientConn, error) {
	conns := make([]*grpc.ClientConn, n)
	for i := range conns {
		c, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return nil, err
		}
		conns[i] = c
	}
	return conns, nil
}

type generator struct {
	method string
	// deadline of each call; 0 for none.
	deadline time.Duration
	keys     []*countersv1.Request
}

func (g *generator) run(ctx context.Context, conns []*grpc.ClientConn, callers int, lasting time.Duration) *measured {
	var wg sync.WaitGroup
	var failed atomic.Int64
	var problem atomic.Pointer[string]
	latencies := make([][]time.Duration, callers)
	start := time.Now()
	end := start.Add(lasting)
	for w := range callers {
		wg.Go(func() {
			mine := make([]time.Duration, 0, 1<<14)
			reply := &countersv1.Count{}
			// Callers begin at different keys and go through all of them.
			for i := w * len(g.keys) / callers; ; i++ {
				began := time.Now()
				if began.After(end) || ctx.Err() != nil {
					break
				}
				call, cancel := ctx, context.CancelFunc(func() {})
				if g.deadline > 0 {
					call, cancel = context.WithTimeout(ctx, g.deadline)
				}
				err := conns[w%len(conns)].Invoke(call, g.method, g.keys[i%len(g.keys)], reply)
				cancel()
				mine = append(mine, time.Since(began))
				if err != nil && !errors.Is(ctx.Err(), context.Canceled) {
					failed.Add(1)
					text := status.Convert(err).String()
					problem.CompareAndSwap(nil, &text)
				}
			}
			latencies[w] = mine
		})
	}
	wg.Wait()
	took := time.Since(start)
	all := slices.Concat(latencies...)
	slices.Sort(all)
	m := &measured{Requests: len(all), Failed: int(failed.Load())}
	if p := problem.Load(); p != nil {
		m.Problem = *p
	}
	if len(all) > 0 {
		m.PerSec = float64(len(all)-m.Failed) / took.Seconds()
		m.P50, m.P99 = micros(all[len(all)/2]), micros(all[len(all)*99/100])
	}
	return m
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
