package store

import (
	"fmt"
	"strings"
)

// markdown is the report as tables.
func (r *Report) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d CPUs, %s, %s; %s in all.\n", r.Machine.CPUs, r.Machine.OS, r.Machine.Go, r.Took)
	if r.Rates != nil {
		fmt.Fprintf(&b, "\nOne operation a commit, at one of %d stores of this machine; medians. Beside it: %s.\n\n", rateStores, r.Redis)
		b.WriteString("| model | level | callers | operations/s | p50 / p99 µs | all have it after ms | failed |\n|---|---|---|---|---|---|---|\n")
		for _, x := range r.Rates {
			settled := "–"
			if x.Settled > 0 {
				settled = fmt.Sprintf("%.0f", x.Settled)
			}
			fmt.Fprintf(&b, "| %s | %s | %d | %.0f | %.0f / %.0f | %s | %d%s |\n",
				x.Model, x.Level, x.Callers, x.PerSec, x.P50, x.P99, settled, x.Failed, note(x.Problem))
		}
		if strings.HasPrefix(r.Redis, "NOT RUN") {
			b.WriteString("| redis | appendfsync always | – | NOT RUN | – | – | – |\n")
		}
	}
	if r.Wire != nil {
		b.WriteString("\nBytes that another store reads for one update:\n\n| model | one writer | 32 writers |\n|---|---|---|\n")
		for _, x := range r.Wire {
			fmt.Fprintf(&b, "| %s | %.0f | %.0f |\n", x.Model, x.Single, x.Bulk)
		}
	}
	if r.Convergence != nil {
		b.WriteString("\nFrom acknowledgement to visible at all stores:\n\n| stores | writes | p50 ms | p99 ms | max ms | all connected after s | RSS each MB |\n|---|---|---|---|---|---|---|\n")
		for _, x := range r.Convergence {
			fmt.Fprintf(&b, "| %d | %d | %.1f | %.1f | %.1f | %.1f | %d |\n", x.Stores, x.Writes, x.P50, x.P99, x.Max, x.Ready, x.RSS>>20)
		}
	}
	if r.Memory != nil {
		b.WriteString("\nMemory of a store with counters that have keys of 16 bytes:\n\n| when | entities | RSS MB | bytes each | |\n|---|---|---|---|---|\n")
		for _, x := range r.Memory {
			fmt.Fprintf(&b, "| %s | %d | %d | %.0f | %s |\n", x.When, x.Entities, x.RSS>>20, x.PerEntity, x.Note)
		}
	}
	if r.Joins != nil {
		b.WriteString("\nAn empty store joins two others, from the start of its process:\n\n| entities | s | MB read | RSS MB |\n|---|---|---|---|\n")
		for _, x := range r.Joins {
			fmt.Fprintf(&b, "| %d | %.1f | %d | %d |\n", x.Entities, x.Seconds, x.Bytes>>20, x.RSS>>20)
		}
	}
	return b.String()
}

func note(problem string) string {
	if problem == "" {
		return ""
	}
	return ": " + problem
}
