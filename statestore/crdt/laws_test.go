package crdt

import (
	"bytes"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
)

func TestLaws(t *testing.T) {
	each(t, func(t *testing.T, p *configv1.Shape) {
		rapid.Check(t, func(t *rapid.T) {
			w := drawWorld(t, p)
			checkLaws(t, w.state(t, "a"), w.state(t, "b"), w.state(t, "c"))
		})
	})
}

func checkLaws(t fataler, a, b, c State) {
	wantSame(t, "commutative", joined(t, a, b), joined(t, b, a))
	wantSame(t, "associative", joined(t, joined(t, a, b), c), joined(t, a, joined(t, b, c)))
	wantSame(t, "idempotent", joined(t, a, a), a)
	ab := joined(t, a, b)
	// Inflationary: nothing of a or b is news to their join.
	wantSame(t, "inflationary", joined(t, ab, a), ab)
	wantSame(t, "inflationary", joined(t, ab, b), ab)
	if x, y := ab, ab; merge(t, &x, a) || merge(t, &y, b) {
		t.Fatalf("merge said that it changed what it did not")
	}
	if x := a; merge(t, &x, b) == alike(a, ab) {
		t.Fatalf("merge of %s into %s said otherwise", show(b), show(a))
	}
	for _, s := range []State{a, b, c, ab} {
		checkEncoding(t, s)
	}
}

func checkEncoding(t fataler, s State) {
	again, err := Decode(s.Append(nil))
	if err != nil {
		t.Fatalf("decode of %s: %v", show(s), err)
	}
	wantSame(t, "encoding", again, s)
	if !proto.Equal(again.Value(testView), s.Value(testView)) || again.Exists() != s.Exists() || again.Bottom() != s.Bottom() {
		t.Fatalf("equal states, unequal values: %v, %v", again.Value(testView), s.Value(testView))
	}
	if s.Exists() != (s.Value(testView) != nil) {
		t.Fatalf("exists=%v with value %v", s.Exists(), s.Value(testView))
	}
	live, err := Decode(s.AppendLive(nil))
	if err != nil {
		t.Fatalf("decode of the live dots of %s: %v", show(s), err)
	}
	if !proto.Equal(live.Value(testView), s.Value(testView)) || live.Residue() != nil {
		t.Fatalf("live dots alone: %s is not %s", show(live), show(s))
	}
	live.Hold(s.Context())
	wantAlike(t, "live dots and context", live, s)
	if seen := s.Context(); !bytes.Equal(seen.Append(nil), s.Context().Clone().Append(nil)) {
		t.Fatalf("context changes as it is read")
	}
}

// All replicas are equal once all have all, however it came: deltas in any order, doubled, or whole states.
func TestDeltasAndWholeStatesAreEquivalent(t *testing.T) {
	each(t, func(t *testing.T, p *configv1.Shape) {
		rapid.Check(t, func(t *rapid.T) {
			w := drawWorld(t, p)
			byState := joined(t, w.replicas...)
			byDelta := bottom(p)
			order := rapid.Permutation(w.deltas).Draw(t, "order")
			for _, d := range order {
				merge(t, &byDelta, d)
				if rapid.IntRange(0, 3).Draw(t, "doubled") == 0 {
					merge(t, &byDelta, d)
				}
			}
			wantSame(t, "all deltas, and all states", byDelta, byState)
			// Some deltas lost, then one round of anti-entropy.
			late := bottom(p)
			for _, d := range order {
				if rapid.Bool().Draw(t, "arrives") {
					merge(t, &late, d)
				}
			}
			merge(t, &late, byState)
			wantSame(t, "some deltas then the state", late, byState)
			// And one delta of all, as of a commit.
			if len(order) > 0 {
				commit := joined(t, order...)
				at := bottom(p)
				merge(t, &at, commit)
				wantSame(t, "one delta of all", at, byState)
			}
		})
	})
}

// A delta is no longer than the state that it leads to, as that would be sent instead, plus what it says of what is gone:
// the replaced dots and the names of emptied members.
func TestDeltasAreSmall(t *testing.T) {
	each(t, func(t *testing.T, p *configv1.Shape) {
		rapid.Check(t, func(t *rapid.T) {
			w := drawWorld(t, p)
			s := joined(t, w.replicas...)
			d, err := s.Delta(operation(t, p, false), Mutator{Replica: 9, Seq: 1, Now: 1000, Node: node(1)})
			if err != nil {
				return
			}
			after := joined(t, s, d)
			delta, whole, gone := len(d.AppendLive(nil)), len(after.AppendLive(nil)), len(d.Context().Append(nil))
			if delta > whole || len(d.Append(nil)) > whole+gone+32 {
				t.Fatalf("delta of %d bytes and %d with its context, state of %d", delta, len(d.Append(nil)), whole)
			}
		})
	})
}

// Delta itself changes nothing, and takes dots in order without a hole, exactly where it is not bottom.
func TestDeltaTakesDots(t *testing.T) {
	each(t, func(t *testing.T, p *configv1.Shape) {
		rapid.Check(t, func(t *rapid.T) {
			s := drawWorld(t, p).state(t, "state")
			before := s.Append(nil)
			d, err := s.Delta(operation(t, p, false), Mutator{Replica: 9, Seq: 5, Now: 1000, Node: node(1)})
			if err != nil && p.Model == bcounterModel {
				return
			}
			if err != nil {
				t.Fatalf("%v", err)
			}
			if !bytes.Equal(before, s.Append(nil)) {
				t.Fatalf("delta changed the state")
			}
			taken := d.Context().Only(9)
			if d.Bottom() != taken.Empty() || !d.Bottom() && len(taken.runs) != 1 || !d.Bottom() && taken.runs[0].from != 5 {
				t.Fatalf("delta %s took %v", show(d), taken.runs)
			}
			if !d.Bottom() && taken.Next(9) != 6 && p.Model != gsetModel && p.Model != orsetModel && p.Model != ormapModel {
				t.Fatalf("one change took %v", taken.runs)
			}
			after := s
			if merge(t, &after, d) == d.Bottom() {
				t.Fatalf("delta %s changed %s and said otherwise", show(d), show(s))
			}
		})
	})
}
