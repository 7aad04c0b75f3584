package statestore_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"

	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
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

// Who asks for a slot that is being let go waits no longer than until its deadline, and others get it later.
func TestJoinOfASlotThatIsLetGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, configure(&configv1.EntityType{Model: configv1.Model_MODEL_GCOUNTER}, "a"))
		defer p.close()
		b := p.stores["b"]
		u := undecided{end{p, "b"}, make(chan func(bool), 1)}
		b.Connect(statestore.Links{Publisher: end{p, "b"}, Replicas: u})
		mustCommit(t, p.stores["a"], commitOf("t", "k", "", inc(2)))
		done := <-u.leaving
		began := time.Now()
		_, err := b.Get(entity("t", "k"))
		wantError(t, "read", err, codes.Unavailable, notApplied, "in time")
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("answered after %s", took)
		}
		answer := make(chan error, 1)
		go func() {
			_, err := b.Get(entity("t", "k"))
			answer <- err
		}()
		synctest.Wait()
		done(false)
		if err := <-answer; err != nil {
			t.Error(err)
		}
	})
}
