package simulation

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/holdfast-mesh/holdfast/internal/simnet"
	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
	"github.com/holdfast-mesh/holdfast/replication/gossip"
	"github.com/holdfast-mesh/holdfast/replication/gossip/sim"
	"github.com/holdfast-mesh/holdfast/statestore"
)

var (
	oneSeed = flag.Uint64("sim.seed", 0, "run this seed only")
	seeds   = flag.Uint64("sim.seeds", defaultSeeds, "run so many seeds")
)

func TestMain(m *testing.M) {
	flag.Parse()
	goleak.VerifyTestMain(m)
}

const (
	// healTime is the promise: so long after the last fault all stores are equal.
	healTime = 10 * time.Second
	// trouble is how long faults happen.
	trouble = 30 * time.Second
	entries = 6
)

func TestStoresConverge(t *testing.T) {
	if *oneSeed != 0 {
		run(t, *oneSeed)
		return
	}
	for seed := uint64(1); seed <= *seeds; seed++ {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			t.Parallel()
			run(t, seed)
		})
	}
}

func run(t *testing.T, seed uint64) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, seed)
		w.trouble()
		w.heal()
		w.end()
		if t.Failed() {
			t.Logf("again: go test ./cmd/holdfast/simulation -run TestStoresConverge -sim.seed %d -v", seed)
		}
	})
}

// tally is what the writers of one counter know of it.
type tally struct{ acked, unknown uint64 }

// world is one run: the stores, their network and what was written.
type world struct {
	t       *testing.T
	random  *rand.Rand
	net     *simnet.Net
	nodes   []*node
	tallies map[string]*tally
	start   time.Time
	counts  struct{ ops, cuts, crashes int }
}

// node is one store, by turns up and down.
type node struct {
	world  *world
	index  int
	name   string
	disk   *disk
	engine *statestore.Engine
	member *sim.Member
	// back is when a crashed one comes back.
	back time.Time
}

func newWorld(t *testing.T, seed uint64) *world {
	random := rand.New(rand.NewPCG(seed, 0))
	w := &world{
		t: t, random: random, tallies: map[string]*tally{}, start: time.Now(),
		net: simnet.New(seed, simnet.Faults{MinDelay: 50 * time.Microsecond, MaxDelay: 2 * time.Millisecond}),
	}
	size := 3 + random.IntN(5)
	for i := range size {
		w.nodes = append(w.nodes, &node{world: w, index: i, name: fmt.Sprint("node-", i+1), disk: newDisk()})
	}
	for _, n := range w.nodes {
		n.up()
	}
	w.log("%d nodes", size)
	return w
}

func (w *world) log(format string, args ...any) {
	if *oneSeed != 0 {
		w.t.Logf("%8s  %s", time.Since(w.start).Round(time.Millisecond), fmt.Sprintf(format, args...))
	}
}

func (w *world) configuration() *storev1.Configure {
	typ := func(name string, model, values configv1.Model) *configv1.EntityType {
		return &configv1.EntityType{
			Type: name, Model: model, Values: values, Consistency: configv1.Consistency_CONSISTENCY_EVENTUAL,
			Write: configv1.WriteLevel_WRITE_LEVEL_LOCAL, MaxStateBytes: 1 << 16,
		}
	}
	c := &storev1.Configure{
		Types: []*configv1.EntityType{
			typ("counter", configv1.Model_MODEL_GCOUNTER, 0),
			typ("register", configv1.Model_MODEL_LWW, 0),
			typ("map", configv1.Model_MODEL_ORMAP, configv1.Model_MODEL_GCOUNTER),
		},
		Placement: &configv1.Placement{Epoch: 1},
	}
	for _, n := range w.nodes {
		c.Placement.Members = append(c.Placement.Members, &configv1.Member{Name: n.name, Weight: 1})
	}
	return c
}

func (n *node) up() {
	w := n.world
	logger := slog.New(slog.DiscardHandler)
	engine, err := statestore.Open(statestore.Config{Node: n.name, Dir: "/data", FS: n.disk, Logger: logger})
	if err != nil {
		w.t.Fatalf("open %s: %v", n.name, err)
	}
	if engine.Configuration() == nil {
		if err := engine.Configure(context.Background(), w.configuration()); err != nil {
			w.t.Fatalf("configure %s: %v", n.name, err)
		}
	}
	var join []string
	for i := range min(3, len(w.nodes)) {
		join = append(join, fmt.Sprintf("10.0.0.%d:7946", i+1))
	}
	member, err := sim.Start(w.net, byte(n.index+1), gossip.Config{
		Node: n.name, Replica: engine.Replica(), Join: join, Keys: [][]byte{[]byte("0123456789abcdef")}, Engine: engine,
		Logger: logger, Seed: w.random.Uint64(),
	})
	if err != nil {
		w.t.Fatalf("start %s: %v", n.name, err)
	}
	engine.Connect(statestore.Links{Publisher: member.Node, Peers: member.Node.Peers})
	n.engine, n.member = engine, member
	w.log("%s is up", n.name)
}

// crash ends the store as a kill and a loss of power do.
func (n *node) crash() {
	n.disk = n.disk.crash(n.world.random)
	n.member.Crash()
	_ = n.engine.Close()
	n.engine, n.member = nil, nil
	n.world.counts.crashes++
	n.back = time.Now().Add(n.world.between(100*time.Millisecond, 6*time.Second))
	n.world.log("%s crashed", n.name)
}

// trouble writes and breaks things.
func (w *world) trouble() {
	nextFault := time.Now().Add(w.between(0, 2*time.Second))
	for time.Since(w.start) < trouble {
		time.Sleep(w.between(0, 40*time.Millisecond))
		w.write(w.nodes[w.random.IntN(len(w.nodes))])
		for _, n := range w.nodes {
			if n.engine == nil && time.Now().After(n.back) {
				n.up()
			}
		}
		if time.Now().After(nextFault) {
			w.fault()
			nextFault = time.Now().Add(w.between(100*time.Millisecond, 4*time.Second))
		}
	}
}

func (w *world) between(low, high time.Duration) time.Duration {
	return low + time.Duration(w.random.Int64N(int64(high-low)))
}

func (w *world) fault() {
	switch w.random.IntN(7) {
	case 0: // Two sides.
		side := map[string]bool{}
		for _, n := range w.nodes {
			side[n.name] = w.random.IntN(2) == 0
		}
		w.cut("partition", func(a, b string) bool { return side[a] != side[b] })
	case 1: // One node alone: also what a paused one looks like.
		alone := w.nodes[w.random.IntN(len(w.nodes))].name
		w.cut("lone "+alone, func(a, b string) bool { return a == alone || b == alone })
	case 2: // Some links, each in one direction.
		w.cut("links", func(string, string) bool { return w.random.IntN(4) == 0 })
	case 3:
		w.net.Heal()
		w.log("links healed")
	case 4:
		f := simnet.Faults{
			MinDelay: 50 * time.Microsecond, MaxDelay: w.between(time.Millisecond, 60*time.Millisecond),
			Loss: w.random.Float64() / 2, Repeat: w.random.Float64() / 5, Reset: w.random.Float64() / 20, Replay: w.random.Float64() / 5,
		}
		w.net.SetFaults(f)
		w.log("faults %+v", f)
	default:
		if n := w.nodes[w.random.IntN(len(w.nodes))]; n.engine != nil {
			n.crash()
		}
	}
}

func (w *world) cut(what string, which func(a, b string) bool) {
	w.counts.cuts++
	w.log("cut: %s", what)
	for _, a := range w.nodes {
		for _, b := range w.nodes {
			if a != b && which(a.name, b.name) {
				w.net.Cut(a.name, b.name)
			}
		}
	}
}

// write commits one random change at a node that is up.
func (w *world) write(n *node) {
	if n.engine == nil {
		return
	}
	w.counts.ops++
	by := 1 + w.random.Uint64N(3)
	inc := &holdfastv1.Operation{Operation: &holdfastv1.Operation_Increment{Increment: &holdfastv1.Increment{By: by}}}
	key := fmt.Sprint("k", w.random.IntN(entries))
	c := &storev1.Commit{RequestId: fmt.Sprint("r", w.counts.ops)}
	counter := ""
	switch w.random.IntN(4) {
	case 0, 1:
		counter = "counter/" + key
		c.Entity = &storev1.Entity{Type: "counter", Key: key}
		c.Operations = []*holdfastv1.Operation{inc}
	case 2:
		entry := fmt.Sprint("e", w.random.IntN(3))
		c.Entity = &storev1.Entity{Type: "map", Key: key}
		op := &holdfastv1.Operation{Operation: &holdfastv1.Operation_MapUpdate{MapUpdate: &holdfastv1.MapUpdate{Key: entry, Operation: inc}}}
		if w.random.IntN(10) == 0 { // Entries that are removed are only compared, not counted.
			op = &holdfastv1.Operation{Operation: &holdfastv1.Operation_MapRemove{MapRemove: &holdfastv1.MapRemove{Key: entry}}}
		}
		c.Operations = []*holdfastv1.Operation{op}
	default:
		c.Entity = &storev1.Entity{Type: "register", Key: key}
		c.Operations = []*holdfastv1.Operation{{
			Operation: &holdfastv1.Operation_Set{Set: &holdfastv1.Set{Value: []byte(c.RequestId)}},
		}}
	}
	tl := w.tallies[counter]
	if tl == nil {
		tl = &tally{}
		w.tallies[counter] = tl
	}
	if w.random.IntN(200) == 0 {
		// The store dies with the commit under way: nobody hears what became of it.
		n.engine.CommitAsync(c, time.Time{}, func(*storev1.Committed, error) {})
		tl.unknown += by
		n.crash()
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if _, err := n.engine.Commit(ctx, c); err != nil {
		w.t.Errorf("commit at %s: %v", n.name, err)
	} else if counter != "" {
		tl.acked += by
	}
}

// heal ends all faults and checks the promises.
func (w *world) heal() {
	w.net.Heal()
	w.net.SetFaults(simnet.Faults{MinDelay: 50 * time.Microsecond, MaxDelay: 2 * time.Millisecond})
	for _, n := range w.nodes {
		if n.engine == nil {
			n.up()
		}
	}
	w.log("all healed: %+v", w.counts)
	healed := time.Now()
	for !w.equal() {
		if time.Since(healed) > healTime {
			w.t.Errorf("stores differ %s after the last fault: %s", healTime, w.difference())
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	w.log("equal after %s", time.Since(healed))
	for i := range entries {
		key := fmt.Sprint("k", i)
		tl := w.tallies["counter/"+key]
		if tl == nil {
			continue
		}
		for _, n := range w.nodes {
			state, err := n.engine.Get(&storev1.Entity{Type: "counter", Key: key})
			if err != nil {
				w.t.Fatal(err)
			}
			if got := state.GetValue().GetGcounter(); got < tl.acked || got > tl.acked+tl.unknown {
				w.t.Errorf("%s: %s is %d, acknowledged %d, unknown %d", n.name, key, got, tl.acked, tl.unknown)
			}
		}
	}
	if w.counts.ops < 500 || w.counts.cuts+w.counts.crashes < 3 {
		w.t.Errorf("the run proves nothing: %+v", w.counts)
	}
}

func (w *world) equal() bool { return w.difference() == "" }

// difference tells one thing that two stores do not agree on, "" where they agree.
func (w *world) difference() string {
	first := w.nodes[0]
	for _, n := range w.nodes[1:] {
		for _, typ := range first.engine.Types() {
			a, b := first.engine.SlotHashes(typ), n.engine.SlotHashes(typ)
			if len(a) != len(b) {
				return fmt.Sprintf("%s: %s has %d slots, %s %d", typ, first.name, len(a), n.name, len(b))
			}
			for i := range a {
				if a[i].Slot != b[i].Slot || a[i].Hash != b[i].Hash {
					return fmt.Sprintf("%s: slot %d of %s, slot %d of %s", typ, a[i].Slot, first.name, b[i].Slot, n.name)
				}
			}
			for key := range entries {
				ent := &storev1.Entity{Type: typ, Key: fmt.Sprint("k", key)}
				x, errX := first.engine.Get(ent)
				y, errY := n.engine.Get(ent)
				if errX != nil || errY != nil || !slices.Equal(value(x), value(y)) {
					return fmt.Sprintf("%s %s: %v at %s, %v at %s", typ, ent.Key, x.GetValue(), first.name, y.GetValue(), n.name)
				}
			}
		}
	}
	return ""
}

// value flattens a state so that equal ones are equal.
func value(s *storev1.State) []string {
	v := s.GetValue()
	out := []string{fmt.Sprint(s.GetExists(), v.GetGcounter(), string(v.GetLww()))}
	for k, e := range v.GetOrmap().GetEntries() {
		out = append(out, fmt.Sprint(k, "=", e.GetGcounter()))
	}
	slices.Sort(out)
	return out
}

func (w *world) end() {
	for _, n := range w.nodes {
		if n.member != nil {
			n.member.Close()
			_ = n.engine.Close()
		}
	}
	// Memberlist's last probes end by their timers, and the bubble's time stands still after the test's end.
	time.Sleep(time.Minute)
}
