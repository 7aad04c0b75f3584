package main

import (
	"fmt"
	"os"
	"text/tabwriter"
	"time"
)

// column is a part of a figure that a measurement shows.
type column struct {
	name string
	show func(f figure) string
}

var (
	perSecond = column{"entities/s", func(f figure) string { return fmt.Sprintf("%.0f", f.PerSecond) }}
	p50       = column{"p50", func(f figure) string { return short(f.P50) }}
	p99       = column{"p99", func(f figure) string { return short(f.P99) }}
	took      = column{"took", func(f figure) string { return short(f.P50) }}
	bytes     = column{"on disk", func(f figure) string { return mib(f.Bytes) }}
	peak      = column{"at most", func(f figure) string { return mib(f.Peak) }}
	written   = column{"written", func(f figure) string { return mib(f.Written) }}
)

func mib(n int64) string { return fmt.Sprintf("%.0f MiB", float64(n)/(1<<20)) }

func short(d time.Duration) string {
	switch {
	case d < time.Millisecond:
		return fmt.Sprintf("%.1f µs", float64(d)/1e3)
	case d < time.Second:
		return fmt.Sprintf("%.2f ms", float64(d)/1e6)
	}
	return fmt.Sprintf("%.2f s", d.Seconds())
}

// printTable writes the medians as a table that is one in Markdown too.
func printTable(all []measurement) {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 1, ' ', 0)
	defer w.Flush()
	fmt.Fprint(w, "| \t| ")
	for _, c := range candidates {
		fmt.Fprintf(w, "\t| %s ", c.name)
	}
	fmt.Fprint(w, "\t|\n|---\t|---")
	for range candidates {
		fmt.Fprint(w, "\t|---")
	}
	fmt.Fprintln(w, "\t|")
	for _, m := range all {
		for _, column := range m.columns {
			fmt.Fprintf(w, "| %s \t| %s ", m.Name, column.name)
			for _, c := range candidates {
				fmt.Fprintf(w, "\t| %s ", column.show(m.Median[c.name]))
			}
			fmt.Fprintln(w, "\t|")
		}
	}
}
