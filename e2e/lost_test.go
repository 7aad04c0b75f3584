package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast-mesh/holdfast/e2e/rig"
	"github.com/holdfast-mesh/holdfast/e2e/rig/stores"
	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
)

var crashes = flag.Int("crashes", 50, "crashes for each write level in TestNoAcknowledgementIsLost")

const (
	lostStores = 5
	// acksPerCrash increments are acknowledged by a store before it is killed.
	acksPerCrash = 100
	// callersPerStore have a call under way each, so that a crash leaves unknown outcomes.
	callersPerStore = 4
	lostKeys        = 5
	testCounter     = "test.Counter"
	// minority is how many of five stores may be without their disk at a time.
	minority = 2
	// lostDeadline of an increment is longer than a crashed store takes to come back: ALL waits for it.
	lostDeadline = 20 * time.Second
	// agreeWait bounds the wait until all stores are the same.
	agreeWait = 30 * time.Second
)

// What each write level promises when the store that acknowledged is killed right after: LOCAL keeps what its disk has,
// MAJORITY and ALL keep it without that disk. LOCAL_MEM promises nothing; its loss is told.
func TestNoAcknowledgementIsLost(t *testing.T) {
	for _, l := range []struct {
		level configv1.WriteLevel
		wipe  bool
		keeps bool
	}{
		{level: configv1.WriteLevel_WRITE_LEVEL_LOCAL, keeps: true},
		{level: configv1.WriteLevel_WRITE_LEVEL_MAJORITY, wipe: true, keeps: true},
		{level: configv1.WriteLevel_WRITE_LEVEL_ALL, wipe: true, keeps: true},
		{level: configv1.WriteLevel_WRITE_LEVEL_LOCAL_MEM},
	} {
		t.Run(l.level.String()[len("WRITE_LEVEL_"):], func(t *testing.T) {
			r := &lossRun{t: t, level: l.level, wipe: l.wipe, away: make(chan struct{}, minority)}
			r.cluster = startStores(t, stores.Options{Count: lostStores, TLS: true, Types: []*configv1.EntityType{counterType(l.level)}})
			r.run(*crashes / lostStores)
			r.judge(l.keeps)
		})
	}
}

func counterType(level configv1.WriteLevel) *configv1.EntityType {
	return &configv1.EntityType{
		Type: testCounter, Model: configv1.Model_MODEL_GCOUNTER, Consistency: configv1.Consistency_CONSISTENCY_EVENTUAL,
		Write: level, Affinity: configv1.Affinity_AFFINITY_LOCAL, MaxStateBytes: 4096,
	}
}

// startStores starts store processes for this test alone.
func startStores(t *testing.T, opts stores.Options) *stores.Cluster {
	t.Helper()
	c, err := stores.Start(t.Context(), opts)
	if err != nil {
		t.Fatalf("no stores: %v", err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the end of each log:\n%s", c.Logs(logLines))
		}
		if err := c.Close(); err != nil {
			t.Errorf("taking the stores down: %v", err)
		}
	})
	return c
}

// lossRun is one level's run.
type lossRun struct {
	t       *testing.T
	cluster *stores.Cluster
	level   configv1.WriteLevel
	wipe    bool
	// away holds a token for each store that lost its disk and has not got everything back.
	away chan struct{}

	acked, unknown [lostKeys]atomic.Int64
	refused        atomic.Int64
	crashes        atomic.Int64
	took           time.Duration
}

func lostKey(k int) string { return fmt.Sprintf("counter-%d", k) }

// run lets one client for each store increment, and kills the store again and again.
func (r *lossRun) run(lives int) {
	began := time.Now()
	problems := make([]error, lostStores)
	var wg sync.WaitGroup
	for i := range lostStores {
		wg.Go(func() {
			for n := 0; n < lives && problems[i] == nil; n++ {
				problems[i] = r.life(i)
			}
		})
	}
	wg.Wait()
	r.took = time.Since(began)
	if err := errors.Join(problems...); err != nil {
		r.t.Fatal(err)
	}
}

// life increments at store i until it has acknowledged enough and is killed, and brings it back.
func (r *lossRun) life(i int) error {
	conn, err := r.cluster.Dial(i)
	if err != nil {
		return err
	}
	var acks atomic.Int64
	var killed atomic.Bool
	var callers sync.WaitGroup
	for range callersPerStore {
		callers.Go(func() {
			for {
				k := rand.IntN(lostKeys)
				answered := make(chan error, 1)
				conn.Go(stores.CommitRequest(testCounter, lostKey(k), lostDeadline, stores.Increment()), func(_ *storev1.Response, err error) {
					// Right after the acknowledgement, before anything else runs.
					if err == nil && acks.Add(1) >= acksPerCrash && r.mayCrash() {
						if !killed.Swap(true) {
							err := r.cluster.Crash(i)
							answered <- err
							return
						}
						r.back()
					}
					answered <- err
				})
				switch err := <-answered; {
				case err == nil:
					r.acked[k].Add(1)
				case stores.Applied(err) == storev1.Outcome_OUTCOME_NOT_APPLIED:
					r.refused.Add(1)
				default:
					r.unknown[k].Add(1)
				}
				if killed.Load() {
					return
				}
			}
		})
	}
	callers.Wait()
	conn.Close()
	r.crashes.Add(1)
	return r.comeBack(i)
}

// mayCrash takes a token where crashes cost disks: only a minority may be lost at a time.
func (r *lossRun) mayCrash() bool {
	if !r.wipe {
		return true
	}
	select {
	case r.away <- struct{}{}:
		return true
	default:
		return false
	}
}

func (r *lossRun) back() {
	if r.wipe {
		<-r.away
	}
}

func (r *lossRun) comeBack(i int) error {
	r.cluster.Gone(i)
	if r.wipe {
		if err := r.cluster.Wipe(i); err != nil {
			return err
		}
	}
	if err := r.cluster.StartStore(r.t.Context(), i); err != nil {
		return err
	}
	if r.wipe {
		if err := r.refilled(i); err != nil {
			return fmt.Errorf("store %d came back without its disk: %w", i+1, err)
		}
	}
	r.back()
	return nil
}

// horizon is what a store has seen of each identity in the slot of a key: up to which number, and how many in all.
type horizon map[string][2]uint64

// refilled waits until store i has seen all that the others had seen when it came back. Its next crash, or another's, is
// then a new minority.
func (r *lossRun) refilled(i int) error {
	need := [lostKeys]horizon{}
	for k := range need {
		need[k] = horizon{}
		for j := range lostStores {
			if j != i {
				r.look(j, k, func(in *storev1.Inspection) {
					for _, s := range in.GetSeen() {
						have := need[k][s.GetReplica()]
						need[k][s.GetReplica()] = [2]uint64{max(have[0], s.GetUpto()), max(have[1], s.GetUpto()+s.GetBeyond())}
					}
				})
			}
		}
	}
	return rig.PollFor(30*time.Second, func() error {
		for k := range need {
			// An identity that a store does not name any more is retired: all of it was seen by all.
			named := map[string]int{}
			mine := horizon{}
			value := uint64(0)
			for j := range lostStores {
				r.look(j, k, func(in *storev1.Inspection) {
					for _, s := range in.GetSeen() {
						named[s.GetReplica()]++
						if j == i {
							mine[s.GetReplica()] = [2]uint64{s.GetUpto(), s.GetUpto() + s.GetBeyond()}
						}
					}
					if j == i {
						value = in.GetState().GetValue().GetGcounter()
					}
				})
			}
			for id, n := range need[k] {
				if named[id] > 0 && (mine[id][0] < n[0] || mine[id][1] < n[1]) {
					return fmt.Errorf("%s: of %s it has seen %v, others had seen %v; its value is %d", lostKey(k), id, mine[id], n, value)
				}
			}
		}
		return nil
	})
}

// look inspects a key at a store, if that one answers.
func (r *lossRun) look(j, k int, with func(*storev1.Inspection)) {
	conn, err := r.cluster.Dial(j)
	if err != nil {
		return
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(r.t.Context(), 5*time.Second)
	defer cancel()
	if in, err := conn.Inspect(ctx, testCounter, lostKey(k)); err == nil {
		with(in)
	}
}

// judge holds every store to the law: acknowledged <= value <= acknowledged + unknown, and all the same.
func (r *lossRun) judge(keeps bool) {
	t := r.t
	var acked, unknown, lost int64
	var lows [lostKeys]int64
	for k := range lows {
		if keeps {
			lows[k] = r.acked[k].Load()
		}
	}
	values, err := agreed(t.Context(), r.cluster, lows)
	if err != nil {
		t.Errorf("%v\n%s", err, r.describe())
	}
	for k, value := range values {
		low, high := r.acked[k].Load(), r.acked[k].Load()+r.unknown[k].Load()
		acked, unknown = acked+low, unknown+high-low
		if value > high {
			t.Errorf("%s is %d, but %d were acknowledged and %d are unknown", lostKey(k), value, low, high-low)
		}
		lost += max(0, low-value)
	}
	t.Logf("%v: %d increments acknowledged, %d unknown, %d refused; %d crashes in %.1f s; %d acknowledged ones lost",
		r.level, acked, unknown, r.refused.Load(), r.crashes.Load(), r.took.Seconds(), lost)
	if keeps && lost > 0 {
		t.Errorf("%d acknowledged increments are lost", lost)
	}
	// A run without load or without faults proves nothing.
	if want := int64(*crashes / lostStores * lostStores); r.crashes.Load() != want || acked < want*acksPerCrash || unknown == 0 {
		t.Errorf("%d crashes, %d acknowledged and %d unknown: want %d crashes, at least %d acknowledged and some unknown",
			r.crashes.Load(), acked, unknown, want, want*acksPerCrash)
	}
}

// describe tells what each store has seen of each identity for the first counter that they have differently, for who looks
// for the cause.
func (r *lossRun) describe() string {
	for k := range lostKeys {
		if _, err := same(r.t.Context(), r.cluster, lostKey(k)); err == nil {
			continue
		}
		text := ""
		for j := range lostStores {
			r.look(j, k, func(in *storev1.Inspection) {
				text += fmt.Sprintf("store %d, slot %d, %s is %d, seen", j+1, in.GetSlot(), lostKey(k), in.GetState().GetValue().GetGcounter())
				for _, s := range in.GetSeen() {
					text += fmt.Sprintf(" %s(%s):%d+%d", s.GetReplica(), s.GetNode(), s.GetUpto(), s.GetBeyond())
				}
				text += "\n"
			})
		}
		return text
	}
	return ""
}

// agreed waits until all stores hold the same states, with values of at least low, and returns the values.
func agreed(ctx context.Context, c *stores.Cluster, low [lostKeys]int64) (values [lostKeys]int64, err error) {
	err = rig.PollFor(agreeWait, func() error {
		var problem error
		for k := range values {
			if values[k], err = same(ctx, c, lostKey(k)); err == nil && values[k] < low[k] {
				err = fmt.Errorf("%s is %d everywhere, %d were acknowledged", lostKey(k), values[k], low[k])
			}
			problem = errors.Join(problem, err)
		}
		return problem
	})
	return values, err
}

// same returns a counter's value, and an error unless all stores have it the same.
func same(ctx context.Context, c *stores.Cluster, key string) (value int64, err error) {
	values, hashes := map[int64]bool{}, map[uint64]bool{}
	text := ""
	for i := range c.Count() {
		conn, err := c.Dial(i)
		if err != nil {
			return 0, err
		}
		in, err := conn.Inspect(ctx, testCounter, key)
		conn.Close()
		if err != nil {
			return 0, err
		}
		value = int64(in.GetState().GetValue().GetGcounter())
		values[value], hashes[in.GetHash()] = true, true
		text += fmt.Sprintf(" %d (%x)", value, in.GetHash())
	}
	if len(values) != 1 || len(hashes) != 1 {
		return value, fmt.Errorf("the stores have %s as%s", key, text)
	}
	return value, nil
}
