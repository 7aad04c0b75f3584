package strong

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	countersv1 "github.com/holdfast-mesh/holdfast/bench/counters/v1"
	"github.com/holdfast-mesh/holdfast/e2e/rig/stores"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
)

const (
	keyPrefix  = "counter-"
	entityType = "counters.Strong"
)

// Measured is one run of the load generator.
type Measured struct {
	Requests int     `json:"requests"`
	PerSec   float64 `json:"perSecond"`
	P50      float64 `json:"p50Micros"`
	P99      float64 `json:"p99Micros"`
	Failed   int     `json:"failed"`
	Problem  string  `json:"problem,omitempty"`
	// All are the calls of the run with its warm-up.
	All int `json:"all"`
}

// step is one call by a caller on a key.
type step func(ctx context.Context, caller, k int) error

// load is the load generator: so many callers, each of which calls again when it has its answer.
func load(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("bench strong load", flag.ContinueOnError)
	way := flags.String("way", "", "grpc, store, etcd-get-put, etcd-put, etcd-get or store-get")
	address := flags.String("address", "", "where to call")
	method := flags.String("method", "", "the call's path, for grpc")
	callers := flags.Int("c", 1, "callers")
	keys := flags.Int("keys", 1000, "keys")
	lasting := flags.Duration("d", time.Second, "how long to measure")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *keys < 1 || *keys > maxKeys {
		return fmt.Errorf("-keys %d: 1 to %d", *keys, maxKeys)
	}
	call, done, err := caller(*way, *address, *method, min(*callers, maxConnections), *keys)
	if err != nil {
		return err
	}
	defer done()
	before := run(ctx, call, *callers, *keys, warmUp)
	out := run(ctx, call, *callers, *keys, *lasting)
	if err := ctx.Err(); err != nil {
		return err
	}
	out.All = out.Requests + before.Requests
	return json.NewEncoder(os.Stdout).Encode(out)
}

// caller makes a step of the way.
func caller(way, address, method string, connections, keys int) (step, func(), error) {
	switch way {
	case "grpc":
		return grpcCaller(address, method, connections, keys)
	case "store", "store-get":
		return storeCaller(way, address, connections)
	}
	r, err := dialEtcd(address, "raw", connections, keys)
	if err != nil {
		return nil, nil, err
	}
	steps := map[string]step{"etcd-get-put": r.getAndPut, "etcd-put": r.compareAndPut, "etcd-get": func(ctx context.Context, caller, k int) error {
		_, _, err := r.get(ctx, caller, k)
		return err
	}}
	if steps[way] == nil {
		r.close()
		return nil, nil, fmt.Errorf("-way %q is not known", way)
	}
	return steps[way], r.close, nil
}

func grpcCaller(address, method string, connections, keys int) (step, func(), error) {
	conns := make([]*grpc.ClientConn, connections)
	for i := range conns {
		c, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return nil, nil, err
		}
		conns[i] = c
	}
	requests := make([]*countersv1.Request, keys)
	for i := range requests {
		requests[i] = &countersv1.Request{Counter: fmt.Sprintf("%s%04d", keyPrefix, i)}
	}
	call := func(ctx context.Context, caller, k int) error {
		return conns[caller%len(conns)].Invoke(ctx, method, requests[k], &countersv1.Count{})
	}
	return call, func() {
		for _, c := range conns {
			c.Close()
		}
	}, nil
}

// storeCaller increments as the filter does: begin, then commit with what the service made of the state.
func storeCaller(way, socket string, connections int) (step, func(), error) {
	conns := make([]*stores.Conn, connections)
	for i := range conns {
		c, err := stores.Dial(socket)
		if err != nil {
			return nil, nil, err
		}
		conns[i] = c
	}
	done := func() {
		for _, c := range conns {
			c.Close()
		}
	}
	// Ids are unique in the run, whatever process made them.
	run := time.Now().UnixNano()
	var sent atomic.Int64
	timeout := uint32(callDeadline.Milliseconds())
	key := func(k int) *storev1.Entity {
		return &storev1.Entity{Type: entityType, Key: fmt.Sprintf("store-%04d", k)}
	}
	if way == "store-get" {
		return func(ctx context.Context, caller, k int) error {
			_, err := conns[caller%len(conns)].Call(ctx, &storev1.Request{Call: &storev1.Request_Get{Get: &storev1.Get{Entity: key(k), TimeoutMs: timeout}}})
			return err
		}, done, nil
	}
	return func(ctx context.Context, caller, k int) error {
		conn, id := conns[caller%len(conns)], fmt.Sprintf("%x-%d", run, sent.Add(1))
		r, err := conn.Call(ctx, &storev1.Request{Call: &storev1.Request_Begin{Begin: &storev1.Begin{Entity: key(k), RequestId: id, TimeoutMs: timeout}}})
		if err != nil {
			return err
		}
		count, _ := binary.Uvarint(r.GetBegun().GetState().GetValue().GetValue())
		set := &holdfastv1.Operation{Operation: &holdfastv1.Operation_Set{Set: &holdfastv1.Set{Value: binary.AppendUvarint(nil, count+1)}}}
		_, err = conn.Call(ctx, &storev1.Request{Call: &storev1.Request_Commit{Commit: &storev1.Commit{
			Entity: key(k), RequestId: id, Token: r.GetBegun().GetToken(), TimeoutMs: timeout, Operations: []*holdfastv1.Operation{set},
		}}})
		return err
	}, done, nil
}

func run(ctx context.Context, call step, callers, keys int, lasting time.Duration) *Measured {
	var wg sync.WaitGroup
	var failed atomic.Int64
	var problem atomic.Pointer[string]
	latencies := make([][]time.Duration, callers)
	start := time.Now()
	end := start.Add(lasting)
	for w := range callers {
		wg.Go(func() {
			mine := make([]time.Duration, 0, 1<<13)
			// Callers begin at different keys and go through all of them.
			for i := w * keys / callers; ; i++ {
				began := time.Now()
				if began.After(end) || ctx.Err() != nil {
					break
				}
				one, cancel := context.WithTimeout(ctx, callDeadline)
				err := call(one, w, i%keys)
				cancel()
				mine = append(mine, time.Since(began))
				if err != nil && ctx.Err() == nil {
					failed.Add(1)
					text := err.Error()
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
	m := &Measured{Requests: len(all), Failed: int(failed.Load())}
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
