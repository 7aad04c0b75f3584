package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
)

// row is a call on a target. Its ratios are to the direct and the plain run of the same kind in the same round.
type row struct {
	Name   string `json:"name"`
	target *target
	method string
	// direct and plain are the rows that this one is compared with, by name; empty where it is the control itself.
	direct, plain string
}

// result is a row at one number of callers.
type result struct {
	Row     string    `json:"row"`
	Callers int       `json:"callers"`
	Runs    []ran     `json:"runs"`
	Direct  []float64 `json:"toDirect,omitempty"`
	Plain   []float64 `json:"toPlain,omitempty"`
}

// ran is one run with the CPU time it cost, in seconds per 1,000 requests.
type ran struct {
	measured
	CPU      float64 `json:"cpuPerThousand"`
	EnvoyCPU float64 `json:"envoyCPUPerThousand"`
}

// table runs all rows in turns and prints them.
func table(ctx context.Context, args []string) (err error) {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	rounds := flags.Int("rounds", 5, "interleaved rounds")
	lasting := flags.Duration("d", 1500*time.Millisecond, "duration of one run")
	keys := flags.Int("keys", 1000, "keys")
	callers := flags.String("c", "1,32", "numbers of callers")
	out := flags.String("json", "bench.json", "file for the figures as JSON; empty for none")
	only := flags.String("only", "", "only rows whose name contains this (their controls run too)")
	if err := flags.Parse(args); err != nil {
		return err
	}
	began := time.Now()
	t, err := startTargets(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.close()) }()
	rows := chosen([]row{
		{Name: "read: direct", target: &t.direct, method: eventualRead},
		{Name: "read: plain Envoy", target: &t.plain, method: eventualRead, direct: "read: direct"},
		{Name: "read with state: ours", target: &t.ours, method: eventualRead, direct: "read: direct", plain: "read: plain Envoy"},
		{Name: "increment: direct", target: &t.direct, method: eventualIncrement},
		{Name: "increment: plain Envoy", target: &t.plain, method: eventualIncrement, direct: "increment: direct"},
		{Name: "eventual increment: ours", target: &t.ours, method: eventualIncrement, direct: "increment: direct", plain: "increment: plain Envoy"},
		{Name: "strong read: ours", target: &t.ours, method: strongRead, direct: "read: direct", plain: "read: plain Envoy"},
		{Name: "strong increment: ours", target: &t.ours, method: strongIncrement, direct: "increment: direct", plain: "increment: plain Envoy"},
	}, *only)

	var results []*result
	for c := range strings.SplitSeq(*callers, ",") {
		var n int
		if _, err := fmt.Sscan(c, &n); err != nil || n < 1 {
			return fmt.Errorf("-c %s: %q is no number of callers", *callers, c)
		}
		some, err := runRows(ctx, rows, n, *rounds, *keys, *lasting)
		if err != nil {
			return err
		}
		results = append(results, some...)
	}
	fmt.Print(markdown(results))
	fmt.Printf("\n%d rounds of %v, %d keys, one node with one Envoy, %v in all.\n", *rounds, *lasting, *keys, time.Since(began).Round(time.Second))
	if *out == "" {
		return nil
	}
	data, err := json.MarshalIndent(results, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(*out, append(data, '\n'), 0o644)
}

// chosen are the rows whose name contains part, and their controls.
func chosen(rows []row, part string) []row {
	need := map[string]bool{}
	for _, r := range rows {
		if strings.Contains(r.Name, part) {
			need[r.Name], need[r.direct], need[r.plain] = true, true, true
		}
	}
	var some []row
	for _, r := range rows {
		if need[r.Name] {
			some = append(some, r)
		}
	}
	return some
}

// runRows runs every row once in each round and pairs it with its controls of that round.
func runRows(ctx context.Context, rows []row, callers, rounds, keys int, lasting time.Duration) ([]*result, error) {
	byName := map[string]*result{}
	var results []*result
	for _, r := range rows {
		byName[r.Name] = &result{Row: r.Name, Callers: callers}
		results = append(results, byName[r.Name])
	}
	for round := range rounds {
		for i := range rows {
			// Every other round goes backwards, so that no row always comes after the same one.
			r := rows[i]
			if round%2 == 1 {
				r = rows[len(rows)-1-i]
			}
			one, err := runOne(ctx, r, callers, keys, lasting)
			if err != nil {
				return nil, fmt.Errorf("%s, c=%d: %w", r.Name, callers, err)
			}
			byName[r.Name].Runs = append(byName[r.Name].Runs, *one)
			fmt.Fprintf(os.Stderr, "round %d/%d c=%-3d %-26s %8.0f req/s  p50 %6.0f µs  p99 %7.0f µs  failed %d %s\n",
				round+1, rounds, callers, r.Name, one.PerSec, one.P50, one.P99, one.Failed, one.Problem)
		}
		for _, r := range rows {
			mine := byName[r.Name]
			now := mine.Runs[round].PerSec
			if r.direct != "" {
				mine.Direct = append(mine.Direct, now/byName[r.direct].Runs[round].PerSec)
			}
			if r.plain != "" {
				mine.Plain = append(mine.Plain, now/byName[r.plain].Runs[round].PerSec)
			}
		}
	}
	return results, nil
}

// runOne lets a load generator of its own call one target.
func runOne(ctx context.Context, r row, callers, keys int, lasting time.Duration) (*ran, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, "load", "-address", r.target.address, "-method", r.method,
		"-c", fmt.Sprint(callers), "-keys", fmt.Sprint(keys), "-d", lasting.String())
	cmd.Stderr = os.Stderr
	envoy, others := cpu(r.target.envoys), cpu(r.target.others)
	data, err := cmd.Output()
	if err != nil {
		return nil, err
	}
	envoy, others = cpu(r.target.envoys)-envoy, cpu(r.target.others)-others
	one := &ran{}
	if err := json.Unmarshal(data, &one.measured); err != nil {
		return nil, err
	}
	if one.Requests == 0 {
		return nil, errors.New("not one call was answered")
	}
	// The warm-up's calls cost CPU too: the share of the measured ones is taken to be that of the time.
	share := lasting.Seconds() / (lasting + warmUp).Seconds() / float64(one.Requests) * 1000
	one.CPU, one.EnvoyCPU = (envoy+others)*share, envoy*share
	return one, nil
}
