package crdt

import (
	"bytes"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
)

// drawWorld runs some steps.
func drawWorld(t *rapid.T, k kind) *world {
	w := newWorld(k, 3)
	for range rapid.IntRange(0, 12).Draw(t, "steps") {
		w.step(t)
	}
	return w
}

func TestLaws(t *testing.T) {
	each(t, func(t *testing.T, k kind) {
		rapid.Check(t, func(t *rapid.T) {
			w := drawWorld(t, k)
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
	if merge(t, ab.Clone(), a) || merge(t, ab.Clone(), b) {
		t.Fatalf("merge said that it changed what it did not")
	}
	if changed := merge(t, a.Clone(), b); changed == same(a, ab) {
		t.Fatalf("merge said changed=%v", changed)
	}
	for _, s := range []State{a, b, c, ab} {
		again, err := Decode(s.Append(nil))
		if err != nil {
			t.Fatalf("decode of %s: %v", show(s), err)
		}
		wantSame(t, "encoding", again, s)
		if !proto.Equal(again.Value(), s.Value()) || again.Exists() != s.Exists() || again.Bottom() != s.Bottom() {
			t.Fatalf("equal states, unequal values: %v, %v", again.Value(), s.Value())
		}
		if s.Exists() != (s.Value() != nil) {
			t.Fatalf("exists=%v with value %v", s.Exists(), s.Value())
		}
	}
}

// All replicas are equal once all have all, however it came: deltas in any order, doubled, or whole states.
func TestDeltasAndWholeStatesAreEquivalent(t *testing.T) {
	each(t, func(t *testing.T, k kind) {
		rapid.Check(t, func(t *rapid.T) {
			w := drawWorld(t, k)
			byState := joined(t, w.replicas...)
			order := rapid.Permutation(indexes(len(w.deltas))).Draw(t, "order")
			byDelta := k.bottom()
			for _, i := range order {
				merge(t, byDelta, w.deltas[i])
				if rapid.IntRange(0, 3).Draw(t, "doubled") == 0 {
					merge(t, byDelta, w.deltas[i])
				}
			}
			wantSame(t, "all deltas, and all states", byDelta, byState)
			// Some deltas lost, then one round of anti-entropy.
			late := k.bottom()
			for _, i := range order {
				if rapid.Bool().Draw(t, "arrives") {
					merge(t, late, w.deltas[i])
				}
			}
			merge(t, late, byState)
			wantSame(t, "some deltas then the state", late, byState)
			for _, d := range w.deltas {
				if got, whole := len(d.Append(nil)), len(byState.Append(nil)); k.model == gcounterModel && got > whole {
					t.Fatalf("delta of %d bytes, state of %d", got, whole)
				}
			}
		})
	})
}

func indexes(n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = i
	}
	return out
}

// A delta is the change: merging it is what the operation means, and Delta itself changes nothing.
func TestDeltaChangesNothing(t *testing.T) {
	each(t, func(t *testing.T, k kind) {
		rapid.Check(t, func(t *rapid.T) {
			s := drawWorld(t, k).state(t, "state")
			before := s.Append(nil)
			if _, err := s.Delta(k.operation(t), Mutator{Replica: 9, Now: 1000}); err != nil {
				t.Fatalf("%v", err)
			}
			if !bytes.Equal(before, s.Append(nil)) {
				t.Fatalf("delta changed the state")
			}
		})
	})
}

// Incarnations: a replica that restarts without all that it acknowledged loses nothing that others have, as long as its
// new incarnation has a new identity. freshID false shows that the test would notice.
func incarnations(t *rapid.T, k kind, op *holdfastv1.Operation, freshID bool) (acked, got uint64) {
	id := uint64(1)
	disk, mine, others := k.bottom(), k.bottom(), k.bottom()
	for range rapid.IntRange(1, 20).Draw(t, "steps") {
		switch rapid.IntRange(0, 3).Draw(t, "step") {
		case 0: // A crash: back to what the disk had; the others keep what they got.
			mine = disk.Clone()
			if freshID {
				id++
			}
		case 1:
			disk = mine.Clone()
		default:
			d, err := mine.Delta(op, Mutator{Replica: id, Now: MinTime})
			if err != nil {
				t.Fatalf("%v", err)
			}
			merge(t, mine, d)
			// Acknowledged by a majority: another replica has it.
			merge(t, others, d)
			acked++
		}
	}
	merge(t, others, mine)
	v := others.Value()
	return acked, v.GetGcounter() + v.GetOrmap().GetEntries()["k"].GetGcounter()
}

func TestFreshIdentityLosesNothing(t *testing.T) {
	for _, c := range []struct {
		kind kind
		op   *holdfastv1.Operation
	}{{kinds[0], incOp(1)}, {kinds[3], updateOp("k", incOp(1))}} {
		t.Run(c.kind.String(), func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				if acked, got := incarnations(t, c.kind, c.op, true); got != acked {
					t.Fatalf("%d increments were acknowledged, the value is %d", acked, got)
				}
			})
		})
	}
}

// And with the old identity it does: this is what the identity is for.
func TestOldIdentityLosesIncrements(t *testing.T) {
	k := kinds[0]
	mine, others := k.bottom(), k.bottom()
	merge(t, others, do(t, mine, 1, MinTime, incOp(1)))
	mine = k.bottom()
	merge(t, others, do(t, mine, 1, MinTime, incOp(1)))
	wantValue(t, "two increments under one identity that went back", others, counterValue(1))
}
