package statestore_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/holdfast-mesh/holdfast/internal/placement"
	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	replicationv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/replication/v1"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
	"github.com/holdfast-mesh/holdfast/statestore"
)

// large are deltas of one entity from stores that did not see each other: together they are over every bound, though none
// was where it was made.
func large(t *testing.T, stores, entries, size int) []*replicationv1.Delta {
	t.Helper()
	var out []*replicationv1.Delta
	for i := range stores {
		e := open(t, statestore.Config{Dir: t.TempDir()})
		c := testConfigure(1)
		for _, typ := range c.Types {
			if typ.Consistency != configv1.Consistency_CONSISTENCY_STRONG {
				typ.MaxStateBytes = 1 << 20
			}
		}
		if err := e.Configure(context.Background(), c); err != nil {
			t.Fatal(err)
		}
		var ops []*holdfastv1.Operation
		for k := range entries {
			ops = append(ops, update(fmt.Sprintf("%d-%d", i, k), set(strings.Repeat("x", size))))
		}
		mustCommit(t, e, commitOf("names", "k", "", ops...))
		_, states := e.SlotStates("names", placement.Slot("names", "k"), []string{"k"})
		out = append(out, states...)
	}
	return out
}

func TestStateOverEveryBoundIsReadAgain(t *testing.T) {
	dir := t.TempDir()
	e := configured(t, statestore.Config{Dir: dir, SegmentBytes: 1 << 20})
	for _, d := range large(t, 6, 9, 100_000) {
		if err := e.Merge(context.Background(), []*replicationv1.Delta{d}); err != nil {
			t.Fatal(err)
		}
	}
	want := read(t, e, "names", "k")
	if n := len(want.Value.GetOrmap().GetEntries()); n != 54 {
		t.Fatalf("%d entries", n)
	}
	// Each time the log gets a snapshot with all of it, and the next start reads that.
	for range 2 {
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
		e = open(t, statestore.Config{Dir: dir, SegmentBytes: 1})
		mustCommit(t, e, commitOf("count", "k", "", inc(1)))
	}
	if n := len(read(t, e, "names", "k").Value.GetOrmap().GetEntries()); n != 54 {
		t.Errorf("%d entries after a restart, want 54", n)
	}
	// Another replica must be able to take it, or the two never become equal.
	other := configured(t, statestore.Config{Dir: t.TempDir()})
	_, states := e.SlotStates("names", placement.Slot("names", "k"), []string{"k"})
	if err := other.Merge(context.Background(), states); err != nil {
		t.Error(err)
	}
}

func TestStateOverItsLimitCanBeMadeSmaller(t *testing.T) {
	e := configured(t, statestore.Config{Dir: t.TempDir()})
	for _, d := range large(t, 3, 6, 10_000) {
		if err := e.Merge(context.Background(), []*replicationv1.Delta{d}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := e.Commit(context.Background(), commitOf("names", "k", "", update("more", set("x")))); err == nil {
		t.Fatal("a state over its limit grew")
	}
	if _, err := e.Commit(context.Background(), commitOf("names", "k", "", remove("0-0"))); err != nil {
		t.Errorf("an entry can't be removed: %v", err)
	}
}
