package linear

import (
	"encoding/json"
	"fmt"
	mathrand "math/rand/v2"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/holdfast-mesh/holdfast/e2e/rig"
)

// What a run must have had to prove something.
const (
	wantRate   = 100 // completed operations a second
	wantOK     = 0.5 // part of the operations that were answered
	wantFaults = 6   // with their effects observed
	// maxVoid is how many runs may have had less, on a machine that is busy otherwise: they don't count.
	maxVoid = 2
	// recoveryWait bounds how long a run waits after a fault until every register was read or written again.
	recoveryWait = 20 * time.Second
	// rest is between two faults.
	rest = time.Second
)

// Goals of RELIABILITY's L3. The machine may be busy with other things: three times as long fails.
const (
	outageGoal   = 3 * time.Second
	recoveryGoal = 5 * time.Second
	slack        = 3
)

// event is a fault and what became of it. Times are nanoseconds since the run began.
type event struct {
	name, effect          string
	begun, ended, healthy int64
	// outage is the longest time without any success while it lasted and until all was well; worst is the same for the
	// register that fared worst.
	outage, worst time.Duration
}

// firstSeed is the given seed, or a new one.
func firstSeed() uint64 {
	if *seed != 0 {
		return *seed
	}
	return uint64(time.Now().UnixNano())
}

// Registers are linearizable whatever breaks.
func TestLinearizable(t *testing.T) {
	first := firstSeed()
	next := order(first, regexp.MustCompile(*only).MatchString)
	w := newWorld(t)
	void := 0
	for i := 0; i < *runs+void; i++ {
		proves := false
		ok := t.Run(fmt.Sprintf("run-%d", i+1), func(t *testing.T) {
			r := &trial{t: t, world: w, name: fmt.Sprintf("r%d", i+1), next: next, seed: first + uint64(i)}
			r.run()
			proves = r.judge()
		})
		if !ok && *stopping {
			t.Fatalf("run %d of %d failed; the seed is %d", i+1, *runs, first)
		}
		if ok && !proves {
			if void++; void > maxVoid {
				t.Errorf("%d runs proved nothing", void)
				break
			}
		}
	}
	t.Logf("the seed was %d", first)
}

// A store or a leading member that stood still for longer than leases last, with reads on their way, shows nobody anything old
// when it goes on.
func TestPausesShowNothingOld(t *testing.T) {
	first := firstSeed()
	r := &trial{
		t: t, world: newWorld(t), name: "pauses", seed: first, next: order(first, regexp.MustCompile("^(store|etcd-leader)-paused$").MatchString),
		hold: pauseTime, count: pauseCount,
	}
	r.run()
	if !r.judge() {
		t.Error("this proves nothing")
	}
	t.Logf("the seed was %d", first)
}

const (
	pauseTime  = 5 * time.Second
	pauseCount = 4
)

// trial is one run.
type trial struct {
	t     *testing.T
	world *world
	name  string
	next  func() fault
	seed  uint64
	// hold is how long each fault lasts, and count how many there are; 0: as the flag says, and as many as the time allows.
	hold  time.Duration
	count int

	callers *callers
	events  []*event
	took    time.Duration
}

func (r *trial) run() {
	r.callers = startCallers(r.name, r.world.addresses(), r.seed)
	defer r.callers.end()
	random := mathrand.New(mathrand.NewPCG(r.seed, 7))
	r.wait(rest)
	if r.hold == 0 {
		r.hold = *hold
	}
	more := func() bool {
		if r.count > 0 {
			return len(r.events) < r.count
		}
		return time.Since(r.callers.begun) < *runTime-r.hold-rest
	}
	for more() {
		if err := r.break1(r.next(), r.victim(random)); err != nil {
			r.t.Error(err)
			return
		}
		r.wait(rest)
	}
	if r.count == 0 {
		r.wait(*runTime - time.Since(r.callers.begun))
	}
	r.took = time.Since(r.callers.begun)
}

// victim is the node whose store owns a random register, so that a fault hits something; a random one where nobody does.
func (r *trial) victim(random *mathrand.Rand) int {
	out, err := r.world.Run("key", "get", "test.Register/"+keyName(r.name, random.IntN(keyCount)), "-o", "json")
	var key struct {
		Owner string `json:"owner"`
	}
	if err == nil && json.Unmarshal([]byte(out), &key) == nil {
		for i := range nodeCount {
			if key.Owner == nodeName(i+1) {
				return i + 1
			}
		}
	}
	return 1 + random.IntN(nodeCount)
}

func (r *trial) wait(d time.Duration) {
	select {
	case <-time.After(d):
	case <-r.t.Context().Done():
	}
}

// break1 lets one fault last, looks for its effect, heals it, and waits until every register is well.
func (r *trial) break1(f fault, victim int) error {
	e := &event{name: f.name, begun: r.callers.now()}
	r.events = append(r.events, e)
	b, err := f.on(r.world, victim)
	if err != nil {
		return fmt.Errorf("%s: %w", f.name, err)
	}
	err = rig.PollFor(effectWait, func() (err error) {
		e.effect, err = b.effect()
		return err
	})
	if err != nil {
		r.t.Logf("%s had no effect: %v", f.name, err)
		e.effect = ""
	}
	r.wait(r.hold - time.Duration(r.callers.now()-e.begun))
	// By now there may be more to tell.
	if effect, err := b.effect(); err == nil && e.effect != "" {
		e.effect = effect
	}
	e.ended = r.callers.now()
	if err := b.heal(); err != nil {
		return fmt.Errorf("%s: heal: %w", f.name, err)
	}
	err = rig.PollFor(recoveryWait, func() error {
		for k := range keyCount {
			if at := r.callers.success[k].Load(); at < e.ended {
				return fmt.Errorf("%s: no success with register %d for %.1f s after it healed", f.name, k, float64(r.callers.now()-at)/1e9)
			}
		}
		return nil
	})
	e.healthy = r.callers.now()
	return err
}

// judge counts, checks and tells. It reports whether the run had what it takes to prove something.
func (r *trial) judge() (proves bool) {
	t := r.t
	all := r.callers.all
	counts, kinds := map[fate]int{}, map[kind]int{}
	for _, o := range all {
		counts[o.Fate]++
		if o.Fate != refused {
			kinds[o.Kind]++
		}
	}
	completed := counts[answered] + counts[applied]
	observed := 0
	longest, recovery := time.Duration(0), time.Duration(0)
	for _, e := range r.events {
		r.measure(e)
		longest, recovery = max(longest, e.outage), max(recovery, time.Duration(e.healthy-e.ended))
		if e.effect != "" {
			observed++
		}
		t.Logf("%6.1f s %-28s %s; longest time without a success %.2f s, with one register %.2f s; well %.2f s after it ended",
			float64(e.begun)/1e9, e.name, e.effect, e.outage.Seconds(), e.worst.Seconds(), float64(e.healthy-e.ended)/1e9)
	}
	began := time.Now()
	verdict, info := check(all)
	took := time.Since(began)
	rate := float64(completed) / r.took.Seconds()
	t.Logf("%s: %d operations in %.0f s (%d answered, %d applied without their reply, %d unknown, %d refused; %d reads, %d writes, %d compare-and-set, %d if-match); "+
		"%d faults, %d observed; longest time without a success %.2f s; checked in %.2f s",
		verdict, len(all), r.took.Seconds(), counts[answered], counts[applied], counts[unknown], counts[refused],
		kinds[read], kinds[write], kinds[compareAndSet], kinds[ifMatch], len(r.events), observed, longest.Seconds(), took.Seconds())
	r.keep(verdict, info, all)
	if verdict != porcupine.Ok {
		t.Errorf("the history is %s", verdict)
	}
	if err := checkVersions(all); err != nil {
		t.Error(err)
	}
	want := r.count
	if want == 0 {
		// A run that is shorter than a minute, for who tries things, has fewer.
		want = max(1, int(wantFaults*min(*runTime, time.Minute)/time.Minute))
	}
	proves = rate >= wantRate && float64(completed) >= wantOK*float64(len(all)) && observed >= want && counts[unknown] > 0
	if !proves {
		t.Logf("the run proves nothing: %.0f operations a second of at least %d, %d answered of %d, %d faults observed of at least %d, %d unknown of at least 1",
			rate, wantRate, completed, len(all), observed, want, counts[unknown])
	}
	if longest > slack*outageGoal || recovery > slack*recoveryGoal {
		t.Errorf("%.1f s without a success and %.1f s until all was well; the goals are %v and %v", longest.Seconds(), recovery.Seconds(), outageGoal, recoveryGoal)
	}
	return proves
}

// measure finds the longest gaps between successes from a fault's begin until all was well.
func (r *trial) measure(e *event) {
	last, byKey := e.begun, map[string]int64{}
	for k := range keyCount {
		byKey[keyName(r.name, k)] = e.begun
	}
	see := func(from *int64, at int64, longest *time.Duration) {
		*longest = max(*longest, time.Duration(at-*from))
		*from = at
	}
	for _, o := range r.callers.byReturn() {
		if o.Fate != answered || o.Returned < e.begun || o.Returned > e.healthy {
			continue
		}
		see(&last, o.Returned, &e.outage)
		from := byKey[o.Key]
		see(&from, o.Returned, &e.worst)
		byKey[o.Key] = from
	}
	see(&last, e.healthy, &e.outage)
}

// annotations show the faults above the operations.
func (r *trial) annotations() (out []porcupine.Annotation) {
	for _, e := range r.events {
		out = append(out, porcupine.Annotation{
			Tag: "faults", Start: e.begun, End: e.ended, Description: e.name, Details: strings.TrimSpace(e.effect), BackgroundColor: "#f6c9c0",
		})
	}
	return out
}
