package strong

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/holdfast-mesh/holdfast/internal/etcd"
	"github.com/holdfast-mesh/holdfast/internal/fenced"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
)

func TestWhatAFailedAttemptMeans(t *testing.T) {
	const notApplied, unknown = storev1.Outcome_OUTCOME_NOT_APPLIED, storev1.Outcome_OUTCOME_UNKNOWN
	slot := fenced.Slot{Type: "t", Number: 1}
	ours := func(epoch int64) etcd.KV { return etcd.KV{CreateRev: epoch} }
	type state struct{ slot, x, y etcd.KV }
	before := state{ours(5), etcd.KV{ModRev: 7, Value: []byte("x0")}, etcd.KV{}}
	changed := func(f func(*state)) state {
		s := before
		f(&s)
		return s
	}
	for _, test := range []struct {
		name     string
		now      state
		silences int
		innocent bool
		rev      int64
		err      error
		index    int
		outcome  storev1.Outcome
	}{
		{name: "its guards hold", now: before, innocent: true},
		{name: "its guards hold after an attempt without an answer", now: before, silences: 1, innocent: true},
		{name: "applied by an attempt without an answer", silences: 1, rev: 9, now: changed(func(s *state) {
			s.x, s.y = etcd.KV{ModRev: 9, Value: []byte("x1")}, etcd.KV{ModRev: 9, Value: []byte("y1")}
		})},
		{name: "applied, and one changed again", silences: 1, rev: 9, now: changed(func(s *state) {
			s.x, s.y = etcd.KV{ModRev: 11, Value: []byte("x2")}, etcd.KV{ModRev: 9, Value: []byte("y1")}
		})},
		{name: "applied, and the slot moved", silences: 1, rev: 9, now: changed(func(s *state) {
			s.slot, s.x, s.y = ours(10), etcd.KV{ModRev: 9, Value: []byte("x1")}, etcd.KV{ModRev: 9, Value: []byte("y1")}
		})},
		{name: "one has changed", err: ErrConflict, index: 1, outcome: notApplied, now: changed(func(s *state) { s.y = etcd.KV{ModRev: 8, Value: []byte("other")} })},
		{name: "one is gone", err: ErrConflict, outcome: notApplied, now: changed(func(s *state) { s.x = etcd.KV{} })},
		{name: "one has changed, perhaps after it was applied", silences: 1, err: ErrConflict, index: 1, outcome: unknown, now: changed(func(s *state) {
			s.y = etcd.KV{ModRev: 8, Value: []byte("other")}
		})},
		{name: "the slot has moved", err: ErrNotOwner, outcome: notApplied, now: changed(func(s *state) { s.slot = ours(8) })},
		{name: "the slot is free", err: ErrNotOwner, outcome: notApplied, now: changed(func(s *state) { s.slot = etcd.KV{} })},
		{name: "the slot has moved before an attempt without an answer arrived", silences: 1, err: ErrNotOwner, outcome: notApplied, now: changed(func(s *state) { s.slot = ours(8) })},
		{name: "the slot has moved, and its owner wrote", silences: 2, err: ErrNotOwner, outcome: unknown, now: changed(func(s *state) {
			s.slot, s.x = ours(8), etcd.KV{ModRev: 9, Value: []byte("theirs")}
		})},
	} {
		p, err := newCommand(context.Background(), []fenced.Write{
			{Slot: slot, Epoch: 5, Key: "x", Revision: 7, Head: []byte("x1")},
			{Slot: slot, Epoch: 5, Key: "y", Head: []byte("y1")},
		})
		if err != nil {
			t.Fatal(err)
		}
		p.silences = test.silences
		r, innocent := p.judge(map[string]etcd.KV{slotKey(slot): test.now.slot, headKey(slot, "x"): test.now.x, headKey(slot, "y"): test.now.y})
		var e *Error
		index := 0
		if errors.As(r.err, &e) {
			index = e.Index()
		}
		if innocent != test.innocent || r.rev != test.rev || !errors.Is(r.err, test.err) || (r.err == nil) != (test.err == nil) || index != test.index || outcome(r.err) != test.outcome {
			t.Errorf("%s: innocent %v, revision %d, %v of %d, %v", test.name, innocent, r.rev, r.err, index, outcome(r.err))
		}
	}
}

func TestTransactionsFill(t *testing.T) {
	put := func(q *queue, n int) {
		for range n {
			p, err := newCommand(context.Background(), []fenced.Write{one(5, fmt.Sprint(len(q.waiting), "/", q.flying, "/", n), 0, []byte("v"))})
			if err != nil {
				t.Fatal(err)
			}
			q.waiting = append(q.waiting, p)
		}
	}
	var q queue
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, step := range []struct{ arrive, want int }{
		{1, 1},    // Nothing is under way: it goes.
		{1, 0},    // One is: two go.
		{1, 2},    //
		{5, 0},    // Three are.
		{1, 6},    //
		{200, 64}, // Never more than a transaction holds.
		{0, 0},    // Seventy-three are.
		{10, 64},  // 146 wait.
	} {
		put(&q, step.arrive)
		got := 0
		tx := q.take()
		if tx != nil {
			got = len(tx.commands)
		}
		if got != step.want {
			t.Errorf("%d more wait, %d are under way now: %d go, want %d", step.arrive, q.flying, got, step.want)
		}
	}
}

func TestCommandsOfOneEntityDoNotShareATransaction(t *testing.T) {
	mk := func(keys ...string) *command {
		var writes []fenced.Write
		for _, k := range keys {
			writes = append(writes, one(5, k, 0, []byte("v")))
		}
		p, err := newCommand(context.Background(), writes)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	silent := mk("silent")
	silent.alone = true
	q := queue{waiting: []*command{mk("a", "b"), silent, mk("b", "c"), mk("d")}}
	q.mu.Lock()
	defer q.mu.Unlock()
	if first := q.take(); len(first.commands) != 2 || len(first.guards) != 4 || len(first.ops) != 3 {
		t.Errorf("first: %d commands, %d guards, %d operations, want a, b and d behind one guard on their slot", len(first.commands), len(first.guards), len(first.ops))
	}
	q.flying = 0
	if second := q.take(); len(second.commands) != 1 || second.commands[0] != silent {
		t.Error("second: want the one that goes alone")
	}
	q.flying = 0
	if third := q.take(); len(third.commands) != 1 || len(third.ops) != 2 {
		t.Error("third: want b and c")
	}
}
