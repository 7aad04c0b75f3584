package main

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
)

// markdown is the table: medians over the rounds, ratios as min/median/max.
func markdown(results []*result) string {
	var b strings.Builder
	b.WriteString("| path | c | req/s | p50 / p99 µs | to direct (min/median/max) | to plain Envoy (min/median/max) | CPU-s per 1,000: all / Envoy | failed |\n")
	b.WriteString("|---|---|---|---|---|---|---|---|\n")
	for _, r := range results {
		failed, requests := 0, 0
		for _, run := range r.Runs {
			failed += run.Failed
			requests += run.Requests
		}
		fmt.Fprintf(&b, "| %s | %d | %.0f | %.0f / %.0f | %s | %s | %.3f / %.3f | %d of %d |\n",
			r.Row, r.Callers, over(r, func(x ran) float64 { return x.PerSec }),
			over(r, func(x ran) float64 { return x.P50 }), over(r, func(x ran) float64 { return x.P99 }),
			spread(r.Direct), spread(r.Plain),
			over(r, func(x ran) float64 { return x.CPU }), over(r, func(x ran) float64 { return x.EnvoyCPU }),
			failed, requests)
	}
	for _, r := range results {
		for _, run := range r.Runs {
			if run.Problem != "" {
				fmt.Fprintf(&b, "\n%s, c=%d failed with: %s\n", r.Row, r.Callers, run.Problem)
				break
			}
		}
	}
	b.WriteString(added(results))
	return b.String()
}

// added tells what our filter and store add to plain Envoy for one caller, in the median.
func added(results []*result) string {
	p50 := map[string]float64{}
	for _, r := range results {
		if r.Callers == 1 {
			p50[r.Row] = over(r, func(x ran) float64 { return x.P50 })
		}
	}
	var b strings.Builder
	for _, pair := range [][3]string{
		{"a read with state", "read with state: ours", "read: plain Envoy"},
		{"an eventual increment", "eventual increment: ours", "increment: plain Envoy"},
		{"a strong read", "strong read: ours", "read: plain Envoy"},
		{"a strong increment", "strong increment: ours", "increment: plain Envoy"},
	} {
		with, ok1 := p50[pair[1]]
		without, ok2 := p50[pair[2]]
		if ok1 && ok2 {
			fmt.Fprintf(&b, "\nWith the filter %s takes %.0f µs (p50, one caller), without it %.0f: %+.0f.", pair[0], with, without, with-without)
		}
	}
	if b.Len() > 0 {
		return b.String() + "\n"
	}
	return ""
}

func over(r *result, get func(ran) float64) float64 {
	all := make([]float64, len(r.Runs))
	for i, run := range r.Runs {
		all[i] = get(run)
	}
	return median(all)
}

func median(all []float64) float64 {
	if len(all) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(all))
	mid := len(sorted) / 2
	if len(sorted)%2 == 0 {
		return (sorted[mid-1] + sorted[mid]) / 2
	}
	return sorted[mid]
}

func spread(ratios []float64) string {
	if len(ratios) == 0 {
		return "–"
	}
	return fmt.Sprintf("%.2f/**%.2f**/%.2f", slices.Min(ratios), median(ratios), slices.Max(ratios))
}

// cpu is the CPU time that processes have used, in seconds.
func cpu(pids []int) (seconds float64) {
	for _, pid := range pids {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue
		}
		// The command in parentheses may hold spaces; utime and stime are fields 14 and 15 of the line.
		_, rest, ok := strings.Cut(string(data), ") ")
		fields := strings.Fields(rest)
		if !ok || len(fields) < 13 {
			continue
		}
		for _, f := range fields[11:13] {
			ticks, _ := strconv.ParseFloat(f, 64)
			seconds += ticks / clockTicks
		}
	}
	return seconds
}

// clockTicks is USER_HZ, which is 100 on every Linux that Go runs on.
const clockTicks = 100
