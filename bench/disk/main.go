// Command disk measures what may lie below the state store: its own log with sections (statestore/wal), Pebble, bbolt.
//
// Every figure is the median of some rounds, and in a round all candidates take their turn right after one another, so
// that a machine that is busier for a while is so for all of them. Run it with `go run .` in this folder, which is a
// module of its own so that the others never become dependencies of Holdfast.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"time"
)

var background = context.Background()

// measurement is one row of the table: what each candidate did in each round.
type measurement struct {
	Name    string              `json:"name"`
	Rounds  map[string][]figure `json:"rounds"`
	Median  map[string]figure   `json:"median"`
	columns []column
}

func main() {
	dir := flag.String("dir", os.TempDir(), "folder on the disk to measure")
	entities := flag.Int("entities", 1_000_000, "how many entities the large store has")
	rounds := flag.Int("rounds", 5, "rounds, of which the median counts")
	out := flag.String("json", "disk.json", "file for all figures")
	flag.Parse()
	if err := run(*dir, *entities, *rounds, *out); err != nil {
		fmt.Fprintln(os.Stderr, "disk:", err)
		os.Exit(1)
	}
}

func run(parent string, entities, rounds int, out string) error {
	dir, err := os.MkdirTemp(parent, "holdfast-disk-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	fmt.Printf("%d entities, key %d bytes, value %d bytes; %d rounds; %s\n\n", entities, keySize, valueSize, rounds, time.Now().UTC().Format(time.RFC3339))
	small, err := writing(filepath.Join(dir, "small"), rounds)
	if err != nil {
		return err
	}
	large, err := standing(filepath.Join(dir, "large"), entities, rounds)
	if err != nil {
		return err
	}
	all := append(small, large...)
	printTable(all)
	data, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(out, data, 0o644)
}

// measure lets every candidate take its turn, in every round, and puts the medians together.
func measure(name string, rounds int, columns []column, turn func(i int) (figure, error)) (measurement, error) {
	m := measurement{Name: name, Rounds: map[string][]figure{}, Median: map[string]figure{}, columns: columns}
	for round := range rounds {
		for k := range candidates {
			// Nobody is always the first.
			i := (k + round) % len(candidates)
			f, err := turn(i)
			if err != nil {
				return m, fmt.Errorf("%s, %s: %w", name, candidates[i].name, err)
			}
			m.Rounds[candidates[i].name] = append(m.Rounds[candidates[i].name], f)
		}
	}
	for name, figures := range m.Rounds {
		m.Median[name] = figure{
			PerSecond: median(figures, func(f figure) float64 { return f.PerSecond }),
			P50:       median(figures, func(f figure) time.Duration { return f.P50 }),
			P99:       median(figures, func(f figure) time.Duration { return f.P99 }),
			Bytes:     median(figures, func(f figure) int64 { return f.Bytes }),
			Peak:      median(figures, func(f figure) int64 { return f.Peak }),
			Written:   median(figures, func(f figure) int64 { return f.Written }),
		}
	}
	fmt.Fprintln(os.Stderr, "measured:", name)
	return m, nil
}

func median[T float64 | int64 | time.Duration](figures []figure, of func(figure) T) T {
	values := make([]T, len(figures))
	for i, f := range figures {
		values[i] = of(f)
	}
	slices.Sort(values)
	return values[len(values)/2]
}

// writing measures batches that are synced, on stores that begin empty.
func writing(dir string, rounds int) ([]measurement, error) {
	stores, folders := make([]candidate, len(candidates)), make([]string, len(candidates))
	for i, c := range candidates {
		stores[i], folders[i] = c.make(), filepath.Join(dir, fmt.Sprint(i))
		if err := stores[i].open(folders[i]); err != nil {
			return nil, fmt.Errorf("open %s: %w", c.name, err)
		}
		defer stores[i].close()
	}
	var all []measurement
	rng := rand.New(rand.NewPCG(1, 1))
	for _, size := range []struct{ batch, n int }{{1, 400}, {32, 300}, {512, 100}} {
		name := fmt.Sprintf("write, batches of %d", size.batch)
		m, err := measure(name, rounds, []column{perSecond, p50, p99}, func(i int) (figure, error) {
			return batches(stores[i], size.n, size.batch, 100_000, rng)
		})
		if err != nil {
			return nil, err
		}
		all = append(all, m)
	}
	return all, nil
}

// standing measures stores that hold all entities: open, reads, bytes, rewrites.
func standing(dir string, entities, rounds int) ([]measurement, error) {
	rng := rand.New(rand.NewPCG(2, 2))
	folder := func(i int) string { return filepath.Join(dir, fmt.Sprint(i)) }
	stores := make([]candidate, len(candidates))
	reopen := func(i int) (figure, error) {
		if err := stores[i].close(); err != nil {
			return figure{}, err
		}
		stores[i] = candidates[i].make()
		return opening(stores[i], folder(i))
	}
	filled, err := measure("bytes of all entities", 1, []column{bytes}, func(i int) (figure, error) {
		stores[i] = candidates[i].make()
		if err := stores[i].open(folder(i)); err != nil {
			return figure{}, err
		}
		entries := make([]entry, entities)
		for k := range entries {
			entries[k] = entry{keyOf(k), valueOf(rng)}
		}
		if err := stores[i].fill(entries); err != nil {
			return figure{}, err
		}
		return figure{Bytes: folderBytes(folder(i))}, nil
	})
	if err != nil {
		return nil, err
	}
	all := []measurement{filled}
	add := func(name string, rounds int, columns []column, turn func(i int) (figure, error)) {
		if err != nil {
			return
		}
		var m measurement
		m, err = measure(name, rounds, columns, turn)
		all = append(all, m)
	}
	add("open", rounds, []column{took}, reopen)
	add("open, not in the page cache", rounds, []column{took}, func(i int) (figure, error) {
		forget(folder(i))
		return reopen(i)
	})
	add("read at random", rounds, []column{perSecond, p50, p99}, func(i int) (figure, error) {
		return reads(stores[i], 20_000, entities, rng)
	})
	add("read at random, not in the page cache", rounds, []column{perSecond, p50, p99}, func(i int) (figure, error) {
		if _, err := reopen(i); err != nil {
			return figure{}, err
		}
		forget(folder(i))
		return reads(stores[i], 500, entities, rng)
	})
	add("rewrite 10 % ten times", 1, []column{perSecond, bytes, peak, written}, func(i int) (figure, error) {
		return rewrites(stores[i], folder(i), entities, rng)
	})
	add("open after that", rounds, []column{took}, reopen)
	if err != nil {
		return nil, err
	}
	for i := range stores {
		if err := stores[i].close(); err != nil {
			return nil, err
		}
	}
	return all, nil
}
