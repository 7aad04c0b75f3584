package crdt

import (
	"testing"

	"pgregory.net/rapid"
)

// A context is a set of dots: here it is held against one.
func TestContext(t *testing.T) {
	dot := rapid.Custom(func(t *rapid.T) Dot {
		return Dot{rapid.Uint64Range(1, 3).Draw(t, "replica"), rapid.Uint64Range(1, 24).Draw(t, "seq")}
	})
	build := func(dots []Dot) (*Context, map[Dot]bool) {
		c, set := &Context{}, map[Dot]bool{}
		for _, d := range dots {
			c.Add(d)
			set[d] = true
		}
		return c, set
	}
	check := func(t *rapid.T, c *Context, set map[Dot]bool) {
		for r := uint64(1); r <= 3; r++ {
			next, upto, beyond := uint64(1), uint64(0), uint64(0)
			for seq := uint64(1); seq <= 25; seq++ {
				has := set[Dot{r, seq}]
				if c.Has(Dot{r, seq}) != has {
					t.Fatalf("has %d.%d: %v", r, seq, !has)
				}
				switch {
				case has && upto == seq-1:
					upto, next = seq, seq+1
				case has:
					beyond, next = beyond+1, seq+1
				}
			}
			if c.Next(r) != next || c.Upto(r) != upto || c.Beyond(r) != beyond {
				t.Fatalf("replica %d: next %d, upto %d, beyond %d; want %d, %d, %d", r, c.Next(r), c.Upto(r), c.Beyond(r), next, upto, beyond)
			}
		}
		again, err := DecodeContext(c.Append(nil))
		if err != nil || !again.Equal(c) {
			t.Fatalf("decoded: %v, %v", again, err)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		dots := rapid.SliceOfN(dot, 0, 40)
		a, inA := build(dots.Draw(t, "a"))
		b, inB := build(dots.Draw(t, "b"))
		check(t, a, inA)
		checkContexts(t, a, b)
		covers := true
		for d := range inB {
			covers = covers && inA[d]
		}
		if a.Covers(b) != covers {
			t.Fatalf("%v covers %v: %v", a.runs, b.runs, !covers)
		}
		a.Merge(b)
		for d := range inB {
			inA[d] = true
		}
		check(t, a, inA)
		only := map[Dot]bool{}
		for d := range inA {
			if d.Replica != 2 {
				only[d] = true
			}
		}
		check(t, a.Only(1, 3), only)
		// Who is retired needs no runs, and every dot of it counts as seen.
		over := a.Clone()
		if !over.Retire(NewRetired(2)) || over.Retire(NewRetired(2)) || !over.Has(Dot{2, 99}) || len(over.of(2)) != 0 {
			t.Fatalf("retired: %v", over.runs)
		}
		over.Add(Dot{2, 1})
		checkContexts(t, over, b)
		checkContexts(t, b, over)
		if !over.Covers(a) || len(over.of(2)) != 0 || over.Equal(a) || over.Hash() == a.Hash() && !a.Empty() && !over.Empty() {
			t.Fatalf("retired: %v", over.runs)
		}
	})
}

func TestNilContextIsEmpty(t *testing.T) {
	var c *Context
	if c.Has(Dot{1, 1}) || !c.Empty() || c.Next(1) != 1 || c.Upto(1) != 0 || c.Beyond(1) != 0 || c.Hash() != 0 || len(c.Replicas()) != 0 {
		t.Error("nil context holds something")
	}
	if !c.Equal(&Context{}) || !c.Covers(nil) || !(&Context{}).Covers(c) || c.Covers(&Context{runs: []run{{1, 1, 1}}}) || !c.Only(1).Empty() || len(c.Append(nil)) != 1 {
		t.Error("nil context is not the empty one")
	}
}

func TestRetired(t *testing.T) {
	a, b := NewRetired(3, 1, 3), NewRetired(1)
	if a.Len() != 2 || !a.Has(1) || a.Has(2) || a.IDs()[1] != 3 {
		t.Errorf("got %v", a.IDs())
	}
	if a.Union(b) != a || b.Union(a) != a || a.Union(nil) != a || (*Retired)(nil).Union(a) != a {
		t.Error("union does not share")
	}
	if u := b.Union(NewRetired(2)); u.Len() != 2 || u.Hash() != NewRetired(2, 1).Hash() || u.Hash() == a.Hash() {
		t.Errorf("union: %v", u.IDs())
	}
	if NewRetired() != nil || (*Retired)(nil).Hash() != 0 {
		t.Error("the empty set is nil")
	}
}
