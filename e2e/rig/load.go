package rig

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// Outcome is what a caller knows of a write.
type Outcome int

// The outcomes. A write that is refused was not applied; one that is unknown may have been.
const (
	Acked Outcome = iota
	Refused
	Unknown
)

// OutcomeOf tells a REST write's outcome from what the caller got: the promise is that UNAVAILABLE and ABORTED, and every
// refusal, mean not applied, and that all else that isn't OK is unknown.
func OutcomeOf(r *Reply, err error) Outcome {
	if err != nil {
		var op *net.OpError
		if errors.As(err, &op) && op.Op == "dial" {
			return Refused
		}
		return Unknown
	}
	switch {
	case r.Status == http.StatusOK:
		return Acked
	case r.Header.Get("holdfast-outcome") == "unknown":
		return Unknown
	case r.Status == http.StatusServiceUnavailable, r.Status < 500:
		return Refused
	default:
		return Unknown
	}
}

// Tally counts outcomes. Its zero value is ready, and it may be used from many goroutines.
type Tally struct {
	mu       sync.Mutex
	counts   [3]int
	problems map[string]int
}

// Add counts one call and returns its outcome.
func (t *Tally) Add(r *Reply, err error) Outcome {
	o := OutcomeOf(r, err)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.counts[o]++
	if o != Acked {
		text := fmt.Sprint(err)
		if err == nil {
			text = fmt.Sprintf("%d %s", r.Status, r.Body)
		}
		if t.problems == nil {
			t.problems = map[string]int{}
		}
		if len(t.problems) < maxProblems {
			t.problems[text]++
		}
	}
	return o
}

// Acked, Refused and Unknown are the counts so far.
func (t *Tally) Acked() int { return t.count(Acked) }

// Refused counts writes that were not applied.
func (t *Tally) Refused() int { return t.count(Refused) }

// Unknown counts writes that may have been applied.
func (t *Tally) Unknown() int { return t.count(Unknown) }

func (t *Tally) count(o Outcome) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.counts[o]
}

// String tells the counts and each different problem.
func (t *Tally) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var b strings.Builder
	fmt.Fprintf(&b, "%d acknowledged, %d refused, %d unknown", t.counts[Acked], t.counts[Refused], t.counts[Unknown])
	for _, text := range slices.Sorted(maps.Keys(t.problems)) {
		fmt.Fprintf(&b, "\n  %d × %s", t.problems[text], strings.TrimSpace(text))
	}
	return b.String()
}

// Load is workers that call until they are stopped.
type Load struct {
	Tally
	stop chan struct{}
	wg   sync.WaitGroup
}

// StartLoad lets workers call, each again when its last call was answered and think has passed. call gets the worker's
// number and how many calls it made before.
func StartLoad(workers int, think time.Duration, call func(worker, n int) (*Reply, error)) *Load {
	l := &Load{stop: make(chan struct{})}
	for w := range workers {
		l.wg.Go(func() {
			ticker := time.NewTicker(think)
			defer ticker.Stop()
			for n := 0; ; n++ {
				select {
				case <-l.stop:
					return
				case <-ticker.C:
				}
				l.Add(call(w, n))
			}
		})
	}
	return l
}

// Stop ends the load when the calls under way are answered. It may be called again.
func (l *Load) Stop() {
	select {
	case <-l.stop:
	default:
		close(l.stop)
	}
	l.wg.Wait()
}

// Each calls call n times, spread over workers, and tallies.
func Each(workers, n int, call func(i int) (*Reply, error)) *Tally {
	t := &Tally{}
	var wg sync.WaitGroup
	next := make(chan int)
	for range workers {
		wg.Go(func() {
			for i := range next {
				t.Add(call(i))
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
	return t
}

// maxProblems bounds the different problems that a tally remembers.
const maxProblems = 20
