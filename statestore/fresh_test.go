package statestore_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
)

// A slot that the placement gives a store is filled before it is read or changed there; one that it had is not asked for.
func TestPlacedSlotsAreFilledFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		typ := &configv1.EntityType{Model: configv1.Model_MODEL_GCOUNTER}
		p := newPair(t, configure(typ, "a"))
		defer p.close()
		p.filling = true
		a, b := p.stores["a"], p.stores["b"]
		setCut := func(cut bool) {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.cut = cut
		}
		setCut(true)
		mustCommit(t, a, commitOf("t", "k", "", inc(2)))
		mustCommit(t, a, commitOf("t", "other", "", inc(3)))
		both := proto.Clone(configure(typ, "a", "b")).(*storev1.Configure)
		both.Placement.Epoch = 2
		for _, e := range []interface {
			Configure(context.Context, *storev1.Configure) error
		}{a, b} {
			if err := e.Configure(context.Background(), both); err != nil {
				t.Fatal(err)
			}
		}
		// Nobody can fill it yet.
		_, err := b.Get(entity("t", "k"))
		wantError(t, "read", err, codes.Unavailable, notApplied, "not a full one")
		_, err = b.Commit(context.Background(), commitOf("t", "k", "", inc(1)))
		wantError(t, "commit", err, codes.Unavailable, notApplied, "not a full one")
		setCut(false)
		if got := read(t, b, "t", "k").GetValue().GetGcounter(); got != 2 {
			t.Errorf("the new replica shows %d, want 2", got)
		}
		p.mu.Lock()
		fills := p.fills
		p.mu.Unlock()
		read(t, b, "t", "k")
		read(t, a, "t", "k")
		both = proto.Clone(both).(*storev1.Configure)
		both.Placement.Epoch++
		if err := b.Configure(context.Background(), both); err != nil {
			t.Fatal(err)
		}
		read(t, b, "t", "k")
		if p.fills != fills {
			t.Errorf("a slot was filled again: %d fills, before %d", p.fills, fills)
		}
		// Anti-entropy has filled the others by now, or nobody can.
		setCut(true)
		time.Sleep(40 * time.Second)
		read(t, b, "t", "other")
	})
}
