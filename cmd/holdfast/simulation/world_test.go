package simulation

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-mesh/holdfast/internal/placement"
	"github.com/holdfast-mesh/holdfast/internal/simnet"
	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
)

// world is one run: the stores, their network, and the clients with what they know.
type world struct {
	t       *testing.T
	seed    uint64
	random  *rand.Rand
	net     *simnet.Net
	nodes   []*node
	specs   []*spec
	model   *model
	start   time.Time
	segment int64
	keys    [][]byte
	// out is who is not in the placement; epoch is the placement's.
	out   *node
	epoch uint64
	table *placement.Table
	// home is the table with all members: what the run begins and ends with.
	home    *placement.Table
	agenda  []event
	clients sync.WaitGroup
	ops     int
	faults  map[string]int

	// mu guards events, plan and failures.
	mu       sync.Mutex
	events   []string
	plan     []string
	failures int
}

// event is something that happens later.
type event struct {
	at time.Time
	do func()
}

// calm is the network without faults.
var calm = simnet.Faults{MinDelay: 50 * time.Microsecond, MaxDelay: 2 * time.Millisecond}

// newWorld starts the stores of a run; size 0 lets the seed say how many.
func newWorld(t *testing.T, seed uint64, size int) *world {
	w := &world{
		t: t, seed: seed, random: rand.New(rand.NewPCG(seed, 0)), start: time.Now(), net: simnet.New(seed, calm),
		keys: [][]byte{[]byte("0123456789abcdef")}, faults: map[string]int{}, epoch: 1,
	}
	if draw := 3 + w.random.IntN(5); size == 0 {
		size = draw
	}
	w.segment = int64(8+w.random.IntN(56)) << 10
	w.specs = specs(w.random)
	w.model = newModel(size)
	for i := range size {
		w.nodes = append(w.nodes, newNode(w, i))
	}
	w.place(nil)
	w.home = w.table
	for _, s := range w.specs {
		w.decided("%s: %s, replicas %d, passivated after %s", s.name, s.level, s.replicas, s.passivate)
	}
	for _, n := range w.nodes {
		n.up()
	}
	return w
}

// log notes what happened.
func (w *world) log(format string, args ...any) {
	line := fmt.Sprintf("%9.3f  %s", time.Since(w.start).Seconds(), fmt.Sprintf(format, args...))
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events = append(w.events, line)
	if *oneSeed != 0 && !*events {
		w.t.Log(line)
	}
}

// decided notes what the seed alone decided.
func (w *world) decided(format string, args ...any) {
	w.log(format, args...)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.plan = append(w.plan, fmt.Sprintf(format, args...))
}

// fail notes a broken promise.
func (w *world) fail(format string, args ...any) {
	w.log("BROKEN: "+format, args...)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.failures++; w.failures <= maxFailures {
		w.t.Errorf(format, args...)
	}
}

// maxFailures is how many broken promises of one run are shown.
const maxFailures = 5

// print writes all events, and hashes of what the seed decided and of all that happened.
func (w *world) print() {
	w.mu.Lock()
	defer w.mu.Unlock()
	sum := func(lines []string) string {
		h := sha256.Sum256([]byte(strings.Join(lines, "\n")))
		return hex.EncodeToString(h[:8])
	}
	fmt.Println(strings.Join(w.events, "\n"))
	fmt.Println("decisions " + sum(w.plan))
	fmt.Println("events " + sum(w.events))
}

func (w *world) between(low, high time.Duration) time.Duration {
	return low + time.Duration(w.random.Int64N(int64(high-low)))
}

// later does something after a while, on the run's own goroutine.
func (w *world) later(d time.Duration, do func()) {
	w.agenda = append(w.agenda, event{time.Now().Add(d), do})
	slices.SortStableFunc(w.agenda, func(a, b event) int { return a.at.Compare(b.at) })
}

// sleep lets time pass, and does what is on the agenda.
func (w *world) sleep(d time.Duration) {
	end := time.Now().Add(d)
	for len(w.agenda) > 0 && !w.agenda[0].at.After(end) {
		next := w.agenda[0]
		w.agenda = w.agenda[1:]
		time.Sleep(time.Until(next.at))
		next.do()
	}
	time.Sleep(time.Until(end))
}

// place makes the placement of all nodes but one.
func (w *world) place(out *node) {
	w.out = out
	p := w.placement()
	table, err := placement.New(p)
	if err != nil {
		w.t.Fatal(err)
	}
	w.table = table
}

func (w *world) placement() *configv1.Placement {
	p := &configv1.Placement{Epoch: w.epoch, Seed: w.seed}
	for _, n := range w.nodes {
		if n != w.out {
			p.Members = append(p.Members, &configv1.Member{Name: n.name, Weight: 1})
		}
	}
	return p
}

func (w *world) configuration() *storev1.Configure {
	c := &storev1.Configure{Placement: w.placement()}
	for _, s := range w.specs {
		c.Types = append(c.Types, s.configuration())
	}
	return c
}

// replaced makes a new placement, of which the stores hear one after the other.
func (w *world) replaced(out *node) {
	w.epoch++
	w.place(out)
	w.model.mu.Lock()
	w.model.moved, w.model.least = true, min(w.model.least, len(w.table.Members()))
	w.model.mu.Unlock()
	for _, n := range w.nodes {
		w.later(w.between(0, 300*time.Millisecond), func() {
			if n.engine != nil {
				n.configure()
			}
		})
	}
}

// placed names the stores that keep a key in a placement.
func placed(t *placement.Table, s *spec, key string) []string {
	var out []string
	for _, m := range t.Replicas(placement.Slot(s.name, key), int(s.replicas)) {
		out = append(out, m.GetName())
	}
	return out
}

// alive are the nodes that are up.
func (w *world) alive() []*node {
	return slices.DeleteFunc(slices.Clone(w.nodes), func(n *node) bool { return n.engine == nil })
}

func (w *world) named(name string) *node {
	return w.nodes[slices.IndexFunc(w.nodes, func(n *node) bool { return n.name == name })]
}

// end stops all, and lets what has timers run out: the bubble's time stands still after the test's end.
func (w *world) end() {
	w.clients.Wait()
	for _, n := range w.alive() {
		n.member.Close()
	}
	for _, n := range w.alive() {
		_ = n.engine.Close()
	}
	time.Sleep(time.Minute)
}

// short is a context for one call.
func short(d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), d)
}
