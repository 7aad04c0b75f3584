package linear

import (
	"flag"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-mesh/holdfast/e2e/rig"
)

var down = flag.Duration("linear.down", 30*time.Second, "how long etcd is gone in TestEtcdGone")

const (
	// ownerKills is how many owners are killed for good, until another takes over.
	ownerKills = 3
	// firstSuccessGoal is from the kill of an owner that does not come back to the first success of a register that it owned.
	firstSuccessGoal = 3 * time.Second
	// refusalDeadline is what strong calls get while etcd is gone. They are refused within it and refusalGoal more.
	refusalDeadline = 500 * time.Millisecond
	refusalGoal     = 50 * time.Millisecond
	// returnGoal is from etcd's return to the first success.
	returnGoal = 5 * time.Second
	// eventualGoal is the part of the eventual calls that succeed while etcd is gone.
	eventualGoal = 0.999
	// knownWait bounds how long until the stores know that etcd is gone.
	knownWait = 10 * time.Second
)

// An owner's store is killed and does not come back: others serve what it owned.
func TestOwnerDoesNotComeBack(t *testing.T) {
	w := newWorld(t)
	h := &holding{t: t, world: w, callers: &callers{addresses: w.addresses(), begun: time.Now()}}
	var all []time.Duration
	for kill := range ownerKills {
		victim := 1 + kill%nodeCount
		keys := h.owned(nodeName(victim), fmt.Sprintf("k%d", kill))
		n, err := w.Node(nodeName(victim))
		if err != nil {
			t.Fatal(err)
		}
		// Who would start it again stands still.
		if err := w.Pause(w.UpPID()); err != nil {
			t.Fatal(err)
		}
		if err := w.Kill(n.StorePID); err != nil {
			t.Fatal(err)
		}
		killed := time.Now()
		took := make([]time.Duration, len(keys))
		var wg sync.WaitGroup
		for i, key := range keys {
			wg.Go(func() {
				// By the other nodes and the gateway: the victim's own Envoy has no store.
				address := w.Ingress(1 + (victim+i%2)%nodeCount)
				if i%3 == 2 {
					address = w.Gateway()
				}
				err := rig.PollFor(takenWait, func() error {
					o := &operation{Kind: write, Key: key, Value: h.values.Add(1)}
					if h.one(o, i, address, "", deadline) != answered {
						return fmt.Errorf("%s at %s: %s", key, address, o.Attempts)
					}
					return nil
				})
				if err != nil {
					t.Error(err)
				}
				took[i] = time.Since(killed)
			})
		}
		wg.Wait()
		if err := w.Resume(w.UpPID()); err != nil {
			t.Fatal(err)
		}
		slices.Sort(took)
		t.Logf("%s's store killed for good: first success of its %d registers after %.2f s, the last one's after %.2f s",
			nodeName(victim), len(took), took[0].Seconds(), took[len(took)-1].Seconds())
		all = append(all, took...)
		if err := w.WaitReady(t.Context(), nodeCount); err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(all)
	worst := all[len(all)-1]
	t.Logf("first success after the kill of an owner: median %.2f s, longest %.2f s of %d registers; the goal is %v",
		all[len(all)/2].Seconds(), worst.Seconds(), len(all), firstSuccessGoal)
	if worst > slack*firstSuccessGoal {
		t.Errorf("%v until the first success", worst)
	}
	if verdict, _ := check(h.all); verdict != "Ok" {
		t.Errorf("the history is %s", verdict)
	}
}

// While all of etcd is gone, strong calls are refused soon and eventual ones go on; when it is back, so are they.
func TestEtcdGone(t *testing.T) {
	w := newWorld(t)
	h := &holding{t: t, world: w, callers: &callers{addresses: w.addresses(), begun: time.Now()}}
	for k := range keyCount {
		h.one(&operation{Kind: write, Key: keyName("gone", k), Value: h.values.Add(1)}, k, w.Gateway(), "", deadline)
	}
	counting := rig.StartLoad(4, 10*time.Millisecond, func(worker, n int) (*rig.Reply, error) {
		address := w.addresses()[(worker+n)%len(w.addresses())]
		if n%2 == 0 {
			return w.Get(address, "/v1/counters/c")
		}
		return w.Post(address, "/v1/counters/c:add", map[string]any{})
	})
	defer counting.Stop()
	if err := rig.PollFor(knownWait, func() error {
		if counting.Acked() < 100 {
			return fmt.Errorf("counting: %v", &counting.Tally)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	counting.Stop()
	for i := range memberCount {
		if err := w.etcd.Crash(i); err != nil {
			t.Fatal(err)
		}
	}
	gone := time.Now()
	counting = rig.StartLoad(4, 10*time.Millisecond, func(worker, n int) (*rig.Reply, error) {
		address := w.addresses()[(worker+n)%len(w.addresses())]
		if n%2 == 0 {
			return w.Get(address, "/v1/counters/c")
		}
		return w.Post(address, "/v1/counters/c:add", map[string]any{})
	})
	defer counting.Stop()

	var mu sync.Mutex
	var took []time.Duration
	counts := map[string]int{}
	var wg sync.WaitGroup
	for i := range callerCount {
		wg.Go(func() {
			for n := 0; time.Since(gone) < *down; n++ {
				began := time.Now()
				o := &operation{Kind: write, Key: keyName("gone", (i+n)%keyCount), Value: h.values.Add(1)}
				f := h.one(o, i, w.addresses()[(i+n)%len(w.addresses())], "", refusalDeadline)
				mu.Lock()
				took = append(took, time.Since(began))
				counts[f.String()]++
				mu.Unlock()
				time.Sleep(20 * time.Millisecond)
			}
		})
	}
	wg.Wait()
	for i := range memberCount {
		if err := w.etcd.Launch(i); err != nil {
			t.Fatal(err)
		}
	}
	if err := rig.PollFor(takenWait, func() error { _, err := w.etcd.Leader(); return err }); err != nil {
		t.Fatal(err)
	}
	back := time.Now()
	var returned time.Duration
	for k := range keyCount {
		err := rig.PollFor(takenWait, func() error {
			o := &operation{Kind: write, Key: keyName("gone", k), Value: h.values.Add(1)}
			if h.one(o, k, w.addresses()[k%len(w.addresses())], "", deadline) != answered {
				return fmt.Errorf("%s after etcd's return: %s", o.Key, o.Attempts)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		returned = time.Since(back)
	}
	counting.Stop()
	slices.Sort(took)
	at := func(part float64) time.Duration { return took[int(part*float64(len(took)-1))].Round(time.Millisecond) }
	counted := counting.Acked() + counting.Refused() + counting.Unknown()
	t.Logf("etcd gone for %v: %d strong writes, %v, median %v, 99 %% within %v, longest %v (deadline %v); %d of %d eventual calls succeeded; all registers were written %.2f s after etcd had a leader",
		*down, len(took), counts, at(0.5), at(0.99), at(1), refusalDeadline, counting.Acked(), counted, returned.Seconds())
	if counts["answered"] > 0 {
		t.Errorf("%d writes were acknowledged without etcd", counts["answered"])
	}
	if counts["refused"] < len(took)*9/10 {
		t.Errorf("%v: want nearly all refused", counts)
	}
	if at(0.99) > refusalDeadline+slack*refusalGoal+time.Second {
		t.Errorf("99 %% of the refusals within %v, the deadline was %v", at(0.99), refusalDeadline)
	}
	if float64(counting.Acked()) < eventualGoal*float64(counted) || counted < 1000 {
		t.Errorf("eventual calls while etcd was gone: %v", &counting.Tally)
	}
	if returned > slack*returnGoal {
		t.Errorf("%v until strong writes worked again", returned)
	}
	if verdict, _ := check(h.all); verdict != "Ok" {
		t.Errorf("the history is %s", verdict)
	}
}
