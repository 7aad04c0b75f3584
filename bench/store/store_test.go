package store

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-mesh/holdfast/e2e/rig/stores"
)

// Callers call again when they are answered, and what fails is told, not counted.
func TestMeasure(t *testing.T) {
	rate := &Rate{Callers: 3}
	calls := make([]int, rate.Callers)
	one := measure(t.Context(), rate, 30*time.Millisecond, func(caller, n int, done func(error)) {
		calls[caller]++
		go func() {
			if n == 2 {
				done(errors.New("why"))
				return
			}
			done(nil)
		}()
	})
	made := 0
	for _, n := range calls {
		made += n
	}
	if one.Calls == 0 || one.Calls > made || one.P50 > one.P99 || rate.Failed != 3 || rate.Problem != "why" {
		t.Errorf("got %+v of %d calls, %d failed with %q", one, made, rate.Failed, rate.Problem)
	}
	lost := &Rate{Callers: 1}
	if one := measure(t.Context(), lost, time.Hour, func(_, _ int, done func(error)) { done(stores.ErrLost) }); one.Calls != 0 || lost.Failed != 1 {
		t.Errorf("a lost connection: got %+v and %+v, want the end", one, lost)
	}
}

// Each state model that is not strong is measured.
func TestModels(t *testing.T) {
	if len(models) != 10 {
		t.Errorf("%d models", len(models))
	}
	for _, m := range choose(nil) {
		ops := newStream(m, 1)
		for range 40 {
			if ops.next(0).GetOperation() == nil {
				t.Fatalf("%s has no operation", m.name)
			}
		}
	}
	if got := choose([]string{"flag"}); len(got) != 1 || got[0].name != "flag" {
		t.Errorf("chose %v", got)
	}
}

func TestMarkdown(t *testing.T) {
	r := &Report{
		Redis: "NOT RUN: no", Rates: []*Rate{{Model: "lww", Level: "ALL", Callers: 1, Failed: 2, Problem: "why", Rounds: []Round{{PerSec: 1}, {PerSec: 5}, {PerSec: 3}}}},
		Wire: []Wire{{Model: "flag", Single: 7}}, Joins: []Join{{Entities: 9, Seconds: 1.5}},
	}
	r.Rates[0].median()
	got := r.markdown()
	for _, want := range []string{"| lww | ALL | 1 | 3 |", "2: why", "NOT RUN", "| flag | 7 | 0 |", "| 9 | 1.5 |"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
}
