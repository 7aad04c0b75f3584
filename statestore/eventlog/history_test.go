package eventlog_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"pgregory.net/rapid"

	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
	"github.com/holdfast-mesh/holdfast/statestore/eventlog"
	"github.com/holdfast-mesh/holdfast/statestore/refusal"
	"github.com/holdfast-mesh/holdfast/statestore/strong/entity"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// reader collects what a reading sends, and refuses what is out of order.
type reader struct {
	mu     sync.Mutex
	events []*holdfastv1.Event
	last   uint64
	sends  int
}

func (r *reader) history(from uint64, follow bool) eventlog.History {
	next := max(from, 1)
	return eventlog.History{Type: "cart.Cart", Key: "ada", From: from, Follow: follow, Send: func(events []*holdfastv1.Event, last uint64) error {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.sends++
		for _, e := range events {
			if e.GetSequence() != next || string(e.GetPayload()) != fmt.Sprint(next) || e.GetType() != "happened" || e.GetTime().GetSeconds() == 0 {
				return fmt.Errorf("got %v, want event %d", e, next)
			}
			next++
		}
		if last < r.last || len(events) > 0 && events[len(events)-1].GetSequence() > last {
			return fmt.Errorf("last is %d after %d, with %v", last, r.last, events)
		}
		r.events, r.last = append(r.events, events...), last
		return nil
	}}
}

func (r *reader) got() (n, sends int, last uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.events), r.sends, r.last
}

func TestRead(t *testing.T) {
	commits := func(sizes ...int) func(*etcd) {
		return func(e *etcd) {
			for _, n := range sizes {
				e.append(n)
			}
		}
	}
	many := func(e *etcd) {
		for range 100 {
			e.append(1)
		}
	}
	for name, c := range map[string]struct {
		write func(*etcd)
		from  uint64
		// want is how many events are sent.
		want int
		last uint64
		code codes.Code
	}{
		"never written":                {commits(), 0, 0, 0, codes.OK},
		"never written, from later on": {commits(), 7, 0, 0, codes.OK},
		"one":                          {commits(1), 0, 1, 1, codes.OK},
		"from the first":               {commits(1, 1), 1, 2, 2, codes.OK},
		"from the last":                {commits(1, 1), 2, 1, 2, codes.OK},
		"from after the last":          {commits(1, 1), 3, 0, 2, codes.OK},
		"several a commit":             {commits(3, 1, 4), 0, 8, 8, codes.OK},
		"inside a commit":              {commits(3, 1, 4), 2, 7, 8, codes.OK},
		"inside the last commit":       {commits(1, 1, 1, 1, 1, 500), 500, 6, 505, codes.OK},
		"a commit's last event":        {commits(1, 1000, 1), 1001, 2, 1002, codes.OK},
		"many pages":                   {many, 0, 100, 100, codes.OK},
		"many pages, from inside":      {many, 50, 51, 100, codes.OK},
		"a snapshot changes nothing":   {func(e *etcd) { e.append(2); e.commit(appendOp(2, 2), snapshotOp); e.append(1) }, 0, 5, 5, codes.OK},
		"deleted":                      {func(e *etcd) { e.append(2); e.commit(deleteOp) }, 0, 0, 0, codes.OutOfRange},
		"deleted, from after it":       {func(e *etcd) { e.append(2); e.commit(deleteOp) }, 3, 0, 2, codes.OK},
		"deleted and begun anew":       {func(e *etcd) { e.append(2); e.commit(deleteOp); e.append(3) }, 3, 3, 5, codes.OK},
		"deleted, from within":         {func(e *etcd) { e.append(2); e.commit(deleteOp); e.append(3) }, 2, 0, 0, codes.OutOfRange},
	} {
		t.Run(name, func(t *testing.T) {
			e, r := newEtcd(t), &reader{}
			c.write(e)
			err := r.history(c.from, false).Read(t.Context(), e)
			if got := codeOf(err); got != c.code {
				t.Fatalf("got %v, want %v", err, c.code)
			}
			n, sends, last := r.got()
			if n != c.want || last != c.last || (err == nil && sends == 0) {
				t.Errorf("got %d events in %d messages, last %d; want %d, last %d", n, sends, last, c.want, c.last)
			}
		})
	}
}

func codeOf(err error) codes.Code {
	var refused *refusal.Error
	switch {
	case err == nil:
		return codes.OK
	case errors.As(err, &refused):
		return refused.Code
	}
	return codes.Unknown
}

// TestReadIsCheap: who follows looks at what is new, not at what it has seen.
func TestReadIsCheap(t *testing.T) {
	e, r := newEtcd(t), &reader{}
	for range 300 {
		e.append(1)
	}
	if err := r.history(300, false).Read(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	if e.loads != 1 || e.reads > 2 {
		t.Errorf("%d loads, %d reads of cells for one event", e.loads, e.reads)
	}
}

func TestFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, r := newEtcd(t), &reader{}
		e.append(3)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- r.history(2, true).Read(ctx, e) }()
		for i, step := range []struct {
			do   func()
			want int
		}{
			{func() {}, 2},
			{func() { e.append(1) }, 3},
			{func() { e.append(2); e.append(2) }, 7},
			{func() { e.commit(appendOp(8, 1), snapshotOp) }, 8},
			{func() { e.commit(snapshotOp) }, 8},
			// It has seen all that goes.
			{func() { e.commit(deleteOp) }, 8},
			{func() { e.append(1) }, 9},
		} {
			step.do()
			synctest.Wait()
			if n, _, _ := r.got(); n != step.want {
				t.Fatalf("step %d: %d events, want %d", i, n, step.want)
			}
		}
		cancel()
		if err := <-ended; codeOf(err) != codes.Canceled {
			t.Errorf("got %v", err)
		}
	})
}

// TestFollowFromTheFuture waits for an event that does not exist yet, and skips those before it.
func TestFollowFromTheFuture(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, r := newEtcd(t), &reader{}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- r.history(4, true).Read(ctx, e) }()
		for want, size := range []int{0, 2, 3} {
			if size > 0 {
				e.append(size)
			}
			synctest.Wait()
			if n, _, _ := r.got(); n != max(want-1, 0)*2 {
				t.Fatalf("after %d events: %d sent", e.last(), n)
			}
		}
		cancel()
		<-ended
	})
}

// TestDeletedWhileRead: events that go between the head and the cells are not skipped over.
func TestDeletedWhileRead(t *testing.T) {
	for name, follow := range map[string]bool{"read": false, "follow": true} {
		t.Run(name, func(t *testing.T) {
			e, r := newEtcd(t), &reader{}
			for range 100 {
				e.append(1)
			}
			reads := 0
			e.between = func() {
				if reads++; reads == 3 {
					e.commit(deleteOp)
					e.append(5)
				}
			}
			err := r.history(0, follow).Read(t.Context(), e)
			n, _, _ := r.got()
			if codeOf(err) != codes.OutOfRange || !strings.Contains(err.Error(), "read from 101") || n == 0 || n >= 100 {
				t.Errorf("got %v after %d events", err, n)
			}
		})
	}
}

func TestEtcdGone(t *testing.T) {
	e, r := newEtcd(t), &reader{}
	e.append(1)
	e.fails = errors.New("no leader")
	if err := r.history(0, true).Read(t.Context(), e); codeOf(err) != codes.Unavailable {
		t.Errorf("got %v, want UNAVAILABLE", err)
	}
}

// TestFollowAcrossEtcdsAbsence: who follows sees what was committed while this store could not read etcd, once it can.
func TestFollowAcrossEtcdsAbsence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, r := newEtcd(t), &reader{}
		e.append(1)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- r.history(0, true).Read(ctx, e) }()
		synctest.Wait()
		fail := func(err error) { e.mu.Lock(); e.fails = err; e.mu.Unlock() }
		fail(errors.New("no leader"))
		e.append(2)
		time.Sleep(time.Minute)
		if n, _, _ := r.got(); n != 1 {
			t.Errorf("%d events without etcd, want 1", n)
		}
		fail(nil)
		time.Sleep(time.Second)
		if n, _, _ := r.got(); n != 3 {
			t.Errorf("%d events, want 3", n)
		}
		fail(errors.New("no leader"))
		e.append(1)
		synctest.Wait()
		cancel()
		if err := <-ended; err == nil {
			t.Error("it ended without a word")
		}
	})
}

// TestCallerGone: what the caller does not take ends the reading.
func TestCallerGone(t *testing.T) {
	e, gone := newEtcd(t), errors.New("gone")
	e.append(3)
	h := eventlog.History{Type: "cart.Cart", Key: "ada", Follow: true, Send: func([]*holdfastv1.Event, uint64) error { return gone }}
	if err := h.Read(t.Context(), e); !errors.Is(err, gone) {
		t.Errorf("got %v", err)
	}
}

// TestMissingEvent: what can't be is said, not repeated for ever.
func TestMissingEvent(t *testing.T) {
	e, r := newEtcd(t), &reader{}
	e.append(1)
	e.append(1)
	delete(e.cells, entity.EventCell(1))
	if err := r.history(0, true).Read(t.Context(), e); codeOf(err) != codes.Internal {
		t.Errorf("got %v, want INTERNAL", err)
	}
}

// TestGapless: whatever is committed and deleted meanwhile, a reading has no gap, and ends with the last event or says that
// the next one was deleted.
func TestGapless(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		e, r := newEtcd(t), &reader{}
		write := func(label string) {
			for range rapid.IntRange(0, 40).Draw(rt, label) {
				if rapid.IntRange(0, 30).Draw(rt, "delete") == 0 {
					e.commit(deleteOp)
				} else {
					e.append(rapid.IntRange(1, 6).Draw(rt, "events"))
				}
			}
		}
		write("before")
		e.between = func() { write("meanwhile") }
		from := uint64(rapid.IntRange(0, 100).Draw(rt, "from"))
		err := r.history(from, false).Read(context.Background(), e)
		n, _, last := r.got()
		reached := max(from, 1) + uint64(n) - 1
		switch codeOf(err) {
		case codes.OK:
			if n > 0 && reached != last || n == 0 && max(from, 1) <= last {
				rt.Fatalf("from %d: %d events, the last is %d", from, n, last)
			}
		case codes.OutOfRange:
			if reached >= e.record.Deleted() {
				rt.Fatalf("out of range at %d, deleted up to %d", reached+1, e.record.Deleted())
			}
		default:
			rt.Fatal(err)
		}
	})
}
