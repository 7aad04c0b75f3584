//go:debug randautoseed=0
package simulation

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

var (
	oneSeed   = flag.Uint64("sim.seed", 0, "run this seed only, and show what happens")
	firstSeed = flag.Uint64("sim.first", 1, "begin with this seed")
	seeds     = flag.Uint64("sim.seeds", defaultSeeds, "run so many seeds")
	twice     = flag.Bool("sim.twice", false, "run each of the seeds twice, and say how often the two were the same")
	stop      = flag.Bool("sim.stop", false, "run one seed after another, and stop at the first that fails")
	events    = flag.Bool("sim.events", false, "with -sim.seed: print all events, and hashes of them")
	debug     = flag.Bool("sim.debug", false, "have the stores' own logs, too")
)

func TestMain(m *testing.M) {
	flag.Parse()
	goleak.VerifyTestMain(m)
}

// figures are of all runs.
var figures struct{ runs, operations, faults, virtual atomic.Int64 }

func TestStoresKeepTheirPromises(t *testing.T) {
	if *oneSeed != 0 {
		run(t, *oneSeed)
		return
	}
	first, last := *firstSeed, *firstSeed+*seeds
	if *stop {
		for seed := first; seed < last; seed++ {
			if !t.Run(fmt.Sprint(seed), func(t *testing.T) { run(t, seed) }) {
				return
			}
		}
		return
	}
	begin := time.Now()
	t.Run("seeds", func(t *testing.T) {
		for seed := first; seed < last; seed++ {
			t.Run(fmt.Sprint(seed), func(t *testing.T) {
				t.Parallel()
				run(t, seed)
			})
		}
	})
	took := time.Since(begin)
	fmt.Printf("simulation: %d runs in %s, %.1f a second; %s of virtual time, %d changes, %d faults\n", figures.runs.Load(),
		took.Round(time.Millisecond), float64(figures.runs.Load())/took.Seconds(), time.Duration(figures.virtual.Load()),
		figures.operations.Load(), figures.faults.Load())
}

// TestSameSeedTwice measures how much of a run its seed determines: it runs each seed in two processes of their own. That
// the decisions are the same is required; the events are counted.
func TestSameSeedTwice(t *testing.T) {
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	last := *firstSeed + 1
	if *twice {
		last = *firstSeed + *seeds
	}
	same, alike, lines := 0, 0, 0
	for seed := *firstSeed; seed < last; seed++ {
		var outs [2][]string
		for i := range outs {
			cmd := exec.Command(binary, "-test.run", "TestStoresKeepTheirPromises", "-test.cpu", "1", "-sim.seed", fmt.Sprint(seed), "-sim.events")
			out, err := cmd.Output()
			if err != nil {
				t.Fatalf("seed %d: %v\n%s", seed, err, out)
			}
			outs[i] = strings.Split(string(out), "\n")
		}
		a, b := outs[0], outs[1]
		if pa, pb := marked(a, "decisions "), marked(b, "decisions "); pa == "" || pa != pb {
			t.Errorf("seed %d decided otherwise the second time: %s, %s", seed, pa, pb)
		}
		if marked(a, "events ") == marked(b, "events ") {
			same++
		}
		for i := range min(len(a), len(b)) {
			if a[i] != b[i] {
				break
			}
			alike++
		}
		lines += max(len(a), len(b))
	}
	fmt.Printf("simulation: of %d seeds that ran twice, %d had all events the same; the same from the beginning were %d %% of the events\n",
		last-*firstSeed, same, 100*alike/max(lines, 1))
}

// marked is the line that begins with a word.
func marked(lines []string, word string) string {
	for _, l := range lines {
		if strings.HasPrefix(l, word) {
			return l
		}
	}
	return ""
}

// run runs one seed.
func run(t *testing.T, seed uint64) {
	if *events { // Identities of stores are random; memberlist's own choices are by the debug setting above.
		cryptotest.SetGlobalRandom(t, seed)
	}
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, seed, 0)
		defer func() {
			if t.Failed() {
				w.keepLog()
			}
		}()
		w.trouble()
		w.heal()
		w.verify()
		w.end()
		if *events {
			w.print()
		}
		figures.runs.Add(1)
		figures.operations.Add(int64(w.ops))
		figures.virtual.Add(int64(time.Since(w.start)))
		for _, n := range w.faults {
			figures.faults.Add(int64(n))
		}
	})
}

// keepLog writes what happened to a file, for another run of the seed may go otherwise.
func (w *world) keepLog() {
	name := filepath.Join(os.TempDir(), fmt.Sprintf("holdfast-simulation-%d.log", w.seed))
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := os.WriteFile(name, []byte(strings.Join(w.events, "\n")+"\n"), 0o600); err != nil {
		w.t.Log(err)
	}
	w.t.Logf("what happened: %s; again: make sim SEED=%d", name, w.seed)
}
