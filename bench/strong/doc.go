// Package strong measures strong commits: a counter's increment through an Envoy and at the store, beside what the same etcd
// does for who calls it directly, with get and compare-and-put, or with compare-and-put alone. All rows take turns, so that
// whatever else the machine does hits all of them alike; the figures of one machine are good for ratios only.
//
// Every row counts in the same etcd, which fsyncs each write, and spreads its callers over as many connections. The rows with
// an application have one hop before etcd, as a service has that keeps its state there by itself; ours through Envoy has three
// (Envoy, the store, etcd) and a call of the service.
package strong

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// Report is what one run measured.
type Report struct {
	Machine Machine   `json:"machine"`
	Results []*Result `json:"results"`
	Took    string    `json:"took"`
}

// Machine says what the figures are of.
type Machine struct {
	CPUs int    `json:"cpus"`
	OS   string `json:"os"`
	Go   string `json:"go"`
}

// settings of a run.
type settings struct {
	rounds  int
	lasting time.Duration
	keys    int
	callers []int
	only    string
}

// Run is the command. Its children are the same program with the words load and app.
func Run(ctx context.Context, args []string) (err error) {
	if len(args) > 0 {
		switch args[0] {
		case "load":
			return load(ctx, args[1:])
		case "app":
			return serveApp(ctx)
		}
	}
	s := &settings{}
	flags := flag.NewFlagSet("bench strong", flag.ContinueOnError)
	flags.IntVar(&s.rounds, "rounds", 5, "interleaved rounds")
	flags.DurationVar(&s.lasting, "d", 1500*time.Millisecond, "duration of one run")
	flags.IntVar(&s.keys, "keys", 1000, "keys")
	callers := flags.String("c", "1,32,64", "numbers of callers")
	flags.StringVar(&s.only, "only", "", "only rows whose name contains one of these words, separated by commas")
	out := flags.String("o", "table", "table or json, on standard output")
	file := flags.String("json", "", "file for the figures as JSON as well")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *out != "table" && *out != "json" {
		return fmt.Errorf("-o %s: it is table or json", *out)
	}
	for c := range strings.SplitSeq(*callers, ",") {
		n, err := strconv.Atoi(c)
		if err != nil || n < 1 {
			return fmt.Errorf("-c %s: %q is no number of callers", *callers, c)
		}
		s.callers = append(s.callers, n)
	}
	began := time.Now()
	t, err := startTargets(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.close()) }()
	r := &Report{Machine: Machine{CPUs: runtime.NumCPU(), OS: runtime.GOOS + "/" + runtime.GOARCH, Go: runtime.Version()}}
	if r.Results, err = measureAll(ctx, s, t); err != nil {
		return fmt.Errorf("%w\n%s", err, t.mesh.Logs(10))
	}
	r.Took = time.Since(began).Round(time.Second).String()
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if *file != "" {
		if err := os.WriteFile(*file, append(data, '\n'), 0o644); err != nil {
			return err
		}
	}
	if *out == "json" {
		fmt.Println(string(data))
		return nil
	}
	fmt.Print(r.markdown())
	fmt.Printf("\n%d rounds of %v, %d keys, one node, one etcd, %s in all.\n", s.rounds, s.lasting, s.keys, r.Took)
	return nil
}
