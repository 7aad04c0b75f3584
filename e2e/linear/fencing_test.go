package linear

import (
	"context"
	"flag"
	"fmt"
	mathrand "math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/holdfast-mesh/holdfast/e2e/rig"
	"github.com/holdfast-mesh/holdfast/e2e/rig/links"
)

var holders = flag.Int("linear.holders", 100, "how many holders of a turn are paused or cut off beyond their lease")

const (
	// perPause is how many turns are open at a store when it is paused.
	perPause = 20
	// shortHold ends while the store is paused or cut off, so that its commit waits at the store or on its way to etcd;
	// longHold after that.
	shortHold, longHold = 1200 * time.Millisecond, 6 * time.Second
	slowDeadline        = 15 * time.Second
	// slotPrefix is where etcd has the owners of the registers' slots.
	slotPrefix = "/holdfast/slots/test.Register/"
	// takenWait bounds how long it takes until another store serves what the paused one owned.
	takenWait = 20 * time.Second
	// begunWait lets the turns begin before the pause. Those that did not are no holders, and don't count.
	begunWait = 400 * time.Millisecond
)

// Who was paused or cut off beyond its lease with turns open must not write when it goes on: another owns its slots by then,
// and shows its own copies to readers.
func TestPausedHolderDoesNotWrite(t *testing.T) {
	w := newWorld(t)
	h := &holding{t: t, world: w, callers: &callers{addresses: w.addresses(), begun: time.Now()}}
	fenced, attempts := 0, 3**holders/perPause
	verdict := porcupine.Ok
	for pause := 0; fenced < *holders && pause < attempts && verdict == porcupine.Ok; pause++ {
		n := h.pause(pause)
		t.Logf("pause %d: %d holders were fenced", pause+1, n)
		fenced += n
		var info porcupine.LinearizationInfo
		if verdict, info = check(h.all); verdict != porcupine.Ok {
			(&trial{t: t, world: w, name: "fencing", callers: h.callers}).keep(verdict, info, h.all)
		}
	}
	t.Logf("%s: %d operations, %d holders were paused or cut off beyond their lease and did not write", verdict, len(h.all), fenced)
	if verdict != porcupine.Ok {
		t.Errorf("the history is %s", verdict)
	} else if fenced < *holders {
		t.Errorf("%d holders were fenced in %d pauses, want %d: this proves nothing", fenced, attempts, *holders)
	}
}

// holding keeps the history of all pauses.
type holding struct {
	*callers
	t     *testing.T
	world *world
}

// one makes one operation at an address, and records it.
func (h *holding) one(o *operation, number int, address, etag string, timeout time.Duration) fate {
	c := &caller{
		callers: &callers{addresses: []string{address}, begun: h.begun}, number: number, http: &http.Client{Transport: &http.Transport{}},
		rand: mathrand.New(mathrand.NewPCG(1, 1)), deadline: timeout,
	}
	defer c.http.CloseIdleConnections()
	o.Caller, o.Called = number, h.now()
	o.Fate = c.attempt(o, "", etag)
	o.Returned = h.now()
	h.add(o)
	return o.Fate
}

// pause lets a store be paused while it has turns open, and returns how many of their commits were turned down.
func (h *holding) pause(number int) (fenced int) {
	t, w := h.t, h.world
	victim := 1 + number%nodeCount
	other := 1 + (number+1)%nodeCount
	keys := h.owned(nodeName(victim), fmt.Sprintf("p%d", number))
	var wg sync.WaitGroup
	stop := make(chan struct{})
	// Readers at every address, from before the pause until after the holders' ends.
	for i, address := range w.addresses() {
		wg.Go(func() {
			for k := 0; ; k++ {
				select {
				case <-stop:
					return
				case <-time.After(think):
				}
				h.one(&operation{Kind: read, Key: keys[k%len(keys)]}, perPause+i, address, "", deadline)
			}
		})
	}
	fates := make([]fate, len(keys))
	var slow sync.WaitGroup
	for i, key := range keys {
		slow.Go(func() {
			hold := shortHold
			if i%4 == 3 {
				hold = longHold
			}
			o := &operation{Kind: write, Key: key, Value: h.values.Add(1), hold: hold}
			fates[i] = h.one(o, i, w.Ingress(victim), "", slowDeadline)
		})
	}
	time.Sleep(begunWait)
	var b *broken
	var err error
	how := "cut off"
	if number%2 == 0 {
		// What was sent arrives at etcd when the cut ends, or is sent again then.
		b = cut(w, links.Both(nodeName(victim), w.etcd.Names()...))
	} else {
		how = "paused"
		if b, err = paused(w, victim, func(n rig.NodeStatus) int { return n.StorePID }); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	// The paused one's lease is over when it owns nothing any more, and another owns the keys' slots when it answers then.
	err = rig.PollFor(takenWait, func() error {
		slots, err := w.etcd.List(t.Context(), slotPrefix)
		if err != nil {
			return err
		}
		for slot, owner := range slots {
			if owner == nodeName(victim) {
				return fmt.Errorf("%s still is %s's", slot, owner)
			}
		}
		for _, key := range keys {
			if f := h.one(&operation{Kind: read, Key: key}, perPause+10, w.Ingress(other), "", deadline); f != answered {
				return fmt.Errorf("%s is not served by %s", key, nodeName(other))
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	t.Logf("%s's store was %s for %.1f s; others serve its registers", nodeName(victim), how, time.Since(began).Seconds())
	if err := b.heal(); err != nil {
		t.Fatal(err)
	}
	slow.Wait()
	for _, address := range w.addresses() {
		for _, key := range keys {
			h.one(&operation{Kind: read, Key: key}, perPause+11, address, "", deadline)
		}
	}
	close(stop)
	wg.Wait()
	for _, f := range fates {
		if f == refused || f == unknown {
			fenced++
		}
	}
	return fenced
}

// owned finds registers that the node's store owns, written once.
func (h *holding) owned(node, prefix string) (keys []string) {
	ctx, cancel := context.WithTimeout(h.t.Context(), takenWait)
	defer cancel()
	for i := 0; len(keys) < perPause; i++ {
		if ctx.Err() != nil {
			h.t.Fatalf("only %d of %d registers are %s's", len(keys), i, node)
		}
		key := fmt.Sprintf("%s-%d", prefix, i)
		r, err := h.world.Do(http.MethodGet, h.world.Gateway(), "/v1/registers/"+key, nil, http.Header{"Holdfast-Explain": {"1"}})
		if err != nil || r.Status != http.StatusOK || r.Header.Get("Holdfast-Explain") != "node="+node {
			continue
		}
		o := &operation{Kind: write, Key: key, Value: h.values.Add(1)}
		if h.one(o, 0, h.world.Gateway(), "", slowDeadline) == answered {
			keys = append(keys, key)
		}
	}
	return keys
}
