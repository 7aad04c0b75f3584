// Package store measures real store processes, without Envoys: what a caller of the store's API gets, what an entity costs,
// what goes over the wire and how fast it arrives. All figures of one report come from one run, those that are compared from
// the same rounds; the figures of one machine are good for ratios only.
package store

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// Report is what one run measured. A part that was not asked for is absent.
type Report struct {
	Machine     Machine       `json:"machine"`
	Rates       []*Rate       `json:"rates,omitempty"`
	Redis       string        `json:"redis,omitempty"`
	Memory      []Memory      `json:"memory,omitempty"`
	Wire        []Wire        `json:"wire,omitempty"`
	Convergence []Convergence `json:"convergence,omitempty"`
	Joins       []Join        `json:"joins,omitempty"`
	Took        string        `json:"took"`
}

// Machine says what the figures are of.
type Machine struct {
	CPUs int    `json:"cpus"`
	OS   string `json:"os"`
	Go   string `json:"go"`
}

type settings struct {
	binary      string
	tls         bool
	rounds      int
	lasting     time.Duration
	callers     []int
	keys        int
	types       []string
	levels      []string
	entities    int
	joins       []int
	convergence []int
	writes      int
	every       time.Duration
}

// parts are the report's parts, in the order in which they are measured.
var parts = []struct {
	name    string
	measure func(ctx context.Context, s *settings, r *Report) error
}{
	{"rates", rates},
	{"wire", wire},
	{"convergence", convergence},
	{"memory", memory},
	{"join", joins},
}

// Run is the command.
func Run(ctx context.Context, args []string) error {
	s := &settings{}
	flags := flag.NewFlagSet("bench store", flag.ContinueOnError)
	only := flags.String("only", "", "only these parts, separated by commas: rates, wire, convergence, memory, join")
	out := flags.String("o", "table", "table or json, on standard output")
	file := flags.String("json", "", "file for the figures as JSON as well")
	flags.StringVar(&s.binary, "binary", "", "the program to measure; empty means bin/holdfast")
	flags.BoolVar(&s.tls, "tls", true, "stores talk to each other by TLS, as under holdfast up; without it by Unix sockets")
	flags.IntVar(&s.rounds, "rounds", 3, "interleaved rounds")
	flags.DurationVar(&s.lasting, "d", 600*time.Millisecond, "duration of one run of a rate")
	callers := flags.String("c", "1,32", "numbers of callers")
	flags.IntVar(&s.keys, "keys", 1000, "keys of each type")
	types := flags.String("types", "", "only these models, separated by commas")
	levels := flags.String("levels", "", "only these write levels, separated by commas")
	flags.IntVar(&s.entities, "entities", 1_000_000, "counters whose memory is measured")
	joined := flags.String("joins", "100000,1000000", "numbers of entities that an empty store joins")
	meshes := flags.String("stores", "6,30", "numbers of stores whose convergence is measured")
	flags.IntVar(&s.writes, "writes", 300, "writes whose convergence is followed")
	flags.DurationVar(&s.every, "every", 50*time.Millisecond, "pause between two of those")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *out != "table" && *out != "json" {
		return fmt.Errorf("-o %s: it is table or json", *out)
	}
	var err error
	for _, list := range []struct {
		into *[]int
		text string
	}{{&s.callers, *callers}, {&s.joins, *joined}, {&s.convergence, *meshes}} {
		if *list.into, err = numbers(list.text); err != nil {
			return err
		}
	}
	s.types, s.levels = words(*types), words(*levels)
	began := time.Now()
	r := &Report{Machine: Machine{CPUs: runtime.NumCPU(), OS: runtime.GOOS + "/" + runtime.GOARCH, Go: runtime.Version()}}
	for _, p := range parts {
		if !chosen(words(*only), p.name) {
			continue
		}
		if err := p.measure(ctx, s, r); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	r.Took = time.Since(began).Round(time.Second).String()
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	data = append(data, '\n')
	if *file != "" {
		if err := os.WriteFile(*file, data, 0o644); err != nil {
			return err
		}
	}
	if *out == "table" {
		data = []byte(r.markdown())
	}
	_, err = os.Stdout.Write(data)
	return err
}

// progress tells whoever waits; the report is on standard output.
func progress(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

func words(list string) []string {
	if list == "" {
		return nil
	}
	return strings.Split(list, ",")
}

func numbers(list string) ([]int, error) {
	var out []int
	for _, w := range words(list) {
		n, err := strconv.Atoi(w)
		if err != nil || n < 1 {
			return nil, fmt.Errorf("%q in %q is no positive number", w, list)
		}
		out = append(out, n)
	}
	return out, nil
}

// chosen tells whether a list, of which an empty one means all, has the name.
func chosen(list []string, name string) bool {
	if list == nil {
		return true
	}
	for _, w := range list {
		if w == name {
			return true
		}
	}
	return false
}
