package statestore_test

import (
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"

	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
	"github.com/holdfast-mesh/holdfast/statestore"
	"github.com/holdfast-mesh/holdfast/statestore/crdt"
)

// late are replicas that answer a join at its deadline, with an error.
type late struct{ end }

func (late) Join(_ string, _ uint32, deadline time.Time, done func(error)) {
	time.AfterFunc(time.Until(deadline), func() { done(errors.New("nobody is there")) })
}

// A slot that something is held of, and that nobody can fill now, is asked for again by each later request.
func TestJoinAfterAFailedOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, configure(&configv1.EntityType{Model: configv1.Model_MODEL_GCOUNTER}, "a"))
		defer p.close()
		a, b := p.stores["a"], p.stores["b"]
		mustCommit(t, a, commitOf("t", "k", "", inc(2)))
		synctest.Wait() // b has it, and is not placed.
		b.Connect(statestore.Links{Publisher: end{p, "b"}, Replicas: late{end{p, "b"}}})
		for range 2 {
			answer := make(chan error, 1)
			go func() {
				_, err := b.Get(entity("t", "k"))
				answer <- err
			}()
			select {
			case err := <-answer:
				wantError(t, "read", err, codes.Unavailable, notApplied, "not a replica")
			case <-time.After(time.Minute):
				t.Fatal("no answer for a minute")
			}
		}
	})
}

// undecided are replicas that don't say whether they have a slot that this store would let go.
type undecided struct {
	end
	leaving chan func(bool)
}

func (u undecided) Leave(_ string, _ uint32, _ *crdt.Context, _ time.Time, done func(bool)) {
	u.leaving <- done
}

// A slot that is being let go is there for who asks for it, however long others take to say whether they have all of it; and
// stays, whatever they say then.
func TestJoinOfASlotThatIsLetGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, configure(&configv1.EntityType{Model: configv1.Model_MODEL_GCOUNTER}, "a"))
		defer p.close()
		a, b := p.stores["a"], p.stores["b"]
		u := undecided{end{p, "b"}, make(chan func(bool), 10)}
		b.Connect(statestore.Links{Publisher: end{p, "b"}, Replicas: u})
		mustCommit(t, a, commitOf("t", "k", "", inc(2)))
		done := <-u.leaving
		began := time.Now()
		if got := read(t, b, "t", "k").GetValue().GetGcounter(); got != 2 || p.joins != 1 {
			t.Errorf("got %d after %d joins, want 2 after one", got, p.joins)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("answered after %s", took)
		}
		done(true) // Said before it was asked for.
		synctest.Wait()
		mustCommit(t, a, commitOf("t", "k", "", inc(1)))
		synctest.Wait()
		if got := read(t, b, "t", "k").GetValue().GetGcounter(); got != 3 || p.joins != 1 {
			t.Errorf("got %d after %d joins, want 3 after one", got, p.joins)
		}
	})
}

// once are replicas that answer a join at its deadline, the first time.
type once struct {
	end
	asked *atomic.Int32
}

func (o once) Join(typ string, slot uint32, deadline time.Time, done func(error)) {
	if o.asked.Add(1) == 1 {
		late{}.Join(typ, slot, deadline, done)
		return
	}
	o.end.Join(typ, slot, deadline, done)
}

// Who waits for a slot does so until its own deadline, not that of who asked first.
func TestJoinOutlivesWhoAskedFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, configure(&configv1.EntityType{Model: configv1.Model_MODEL_GCOUNTER}, "a"))
		defer p.close()
		b := p.stores["b"]
		b.Connect(statestore.Links{Publisher: end{p, "b"}, Replicas: once{end{p, "b"}, new(atomic.Int32)}})
		answers := make(chan error, 2)
		for _, d := range []time.Duration{time.Second, 3 * time.Second} {
			b.View(entity("t", "k"), time.Now().Add(d), nil, func(_ *storev1.State, err error) { answers <- err })
		}
		wantError(t, "first", <-answers, codes.Unavailable, notApplied, "not a replica")
		if err := <-answers; err != nil {
			t.Errorf("second: %v", err)
		}
	})
}
