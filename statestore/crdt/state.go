package crdt

import (
	"errors"
	"fmt"

	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
)

// The kinds of error of this package.
var (
	// ErrOperation says that the operation is not one of the model's, or that an argument of it is missing or too large.
	ErrOperation = errors.New("operation does not fit the state model")
	// ErrOverflow says that the operation would carry a number over its range.
	ErrOverflow = errors.New("number out of range")
	// ErrModel says that two states, or a state and a shape, are of different kinds.
	ErrModel = errors.New("different state models")
	// ErrRights says that this replica may not take as much off a bounded counter. See RightsError.
	ErrRights = errors.New("not enough rights to the bounded counter here")
	// ErrRetired says that a delta comes from an identity of which everybody has seen everything: it is an old one, or of a
	// past that was lost. Nothing of it may be taken, its context neither.
	ErrRetired = errors.New("delta of a retired replica identity")
	// ErrCorrupt says that bytes are not an encoding of a state.
	ErrCorrupt = errors.New("not an encoded state")
)

// MinTime is the first hybrid time of a real change; what comes before is for zero values, which any change beats.
const MinTime = 2

// Mutator is who changes a state, and when.
type Mutator struct {
	// Replica identifies one incarnation of one store. Never 0.
	Replica uint64
	// Seq is the replica's next sequence in the slot. An operation takes this one; a set's add takes one for each element.
	// The next free one is then Next(Replica) of the delta's context.
	Seq uint64
	// Now is the store's hybrid time: it grows at each call, and with the wall clock. At least MinTime.
	Now uint64
	// Node is the store's node: who votes.
	Node string
	// Absorb tells which identities are former ones of this node, and retired: counters move their share to Replica.
	// nil: none.
	Absorb func(replica uint64) bool
	// Heir tells which identities are retired former ones of this very disk, whose log was read here without loss: their
	// rights to a bounded counter go over to Replica. What another disk lost stays lost: it may have used more of its
	// rights than anybody knows. nil: none.
	Heir func(replica uint64) bool
	// Floor of a bounded counter.
	Floor int64
}

// View is who reads a value, and what the value depends on that is not in the state.
type View struct {
	// Node is the reader's node, for its own vote.
	Node string
	// Voters are the nodes whose votes count.
	Voters []string
	// Replica is the reader's identity, for its own rights.
	Replica uint64
	// Floor of a bounded counter.
	Floor int64
}

// State is one entity's mergeable state, or a change of it: the live dots and the causal context. It is a value of a few
// words; a copy of it is a state of its own, which costs nothing. The zero State has no shape and must not be used.
type State struct {
	shape *shape
	// own is the causal context beyond the live dots, which always are in the context, too. It never changes, and
	// others share it.
	own  *Context
	live store
}

// New returns the bottom state of a shape.
func New(p *configv1.Shape) (State, error) {
	s, err := findShape(p)
	if err != nil {
		return State{}, err
	}
	return State{shape: s}, nil
}

// Merge is Join where nothing but the states themselves is known.
func (s *State) Merge(o *State) (changed bool, err error) { return s.Join(o, nil, nil) }

// Join joins o into s and reports whether s knows more than before (Almeida et al. 2018, section 7). seenHere is what
// this store has seen beyond the state: the slot's context. seenThere is what o's sender had seen beyond it: nil for a delta,
// the fill for a whole state. What one side has seen and does not hold was removed. s keeps seenThere in its own
// context; the slot's other entities did not learn of it. o is unharmed.
//
// A delta with a live dot of an identity that is retired here is an ErrRetired: what it replaced must not go where the dot
// itself can't come.
func (s *State) Join(o *State, seenHere, seenThere *Context) (changed bool, err error) {
	if s.shape == nil || s.shape != o.shape {
		return false, fmt.Errorf("%w: can't merge %s into %s", ErrModel, o.shape, s.shape)
	}
	if retired := seenHere.Retired(); retired != nil && seenThere == nil && !o.live.each(func(d Dot, _ string) bool { return !retired.Has(d.Replica) }) {
		return false, ErrRetired
	}
	j := joiner{sawA: known{s.own, seenHere}, sawB: known{o.own, seenThere}}
	s.live = j.join(s.shape, s.live, o.live, true)
	// o's live dots are live here now, or were known.
	changed = j.changed || !o.own.coveredBy(s.own, seenHere) || !seenThere.coveredBy(s.own, seenHere)
	s.own = union(union(s.own, o.own), seenThere)
	return changed, nil
}

// union is a context with what is in either, one of the two where that will do.
func union(a, b *Context) *Context {
	switch {
	case b == nil || a.Covers(b):
		return a
	case a == nil || b.Covers(a):
		return b
	}
	c := a.Clone()
	c.Merge(b)
	return c
}

// Strip drops the own context where seen covers it.
func (s *State) Strip(seen *Context) {
	if s.own.coveredBy(seen, nil) {
		s.own = nil
	}
}

// Residue is the context that the state holds beyond its live dots; nil for none. It must not be changed.
func (s *State) Residue() *Context { return s.own }

// Hold adds to the context, which the state shares from then on.
func (s *State) Hold(c *Context) { s.own = union(s.own, c) }

// Context is all that the state has seen, its live dots included. It must not be changed.
func (s *State) Context() *Context {
	var missing []Dot
	s.Live(func(d Dot) bool {
		if !s.own.Has(d) {
			missing = append(missing, d)
		}
		return true
	})
	switch {
	case s.own != nil && len(missing) == 0:
		return s.own
	case s.own == nil:
		return contextOf(missing)
	}
	c := s.own.Clone()
	c.Merge(contextOf(missing))
	return c
}

// Live visits the live dots.
func (s *State) Live(yield func(Dot) bool) {
	s.live.each(func(d Dot, _ string) bool { return yield(d) })
}

// Exists is true while a dot is live: from the first change on, until a delete.
func (s *State) Exists() bool { return !s.live.empty() }

// Bottom is true where the state holds no knowledge at all: merging it changes nothing.
func (s *State) Bottom() bool { return !s.Exists() && s.own.Empty() && s.own.Retired() == nil }

// Clone copies.
func (s *State) Clone() State { return *s }

// Shape is the state's shape. It must not be changed.
func (s *State) Shape() *configv1.Shape { return s.shape.proto }

// Is tells whether the state is of a shape.
func (s *State) Is(p *configv1.Shape) bool { return s.shape != nil && SameShape(s.shape.proto, p) }

// Value is what a service reads; nil where Exists is false. The caller owns it.
func (s *State) Value(v View) *holdfastv1.Value {
	if !s.Exists() {
		return nil
	}
	return s.shape.value(s.live, v)
}

// LatestTime is the greatest hybrid time of what was written by the stores' own clock: of an lww or value under
// CLOCK_DEFAULT, and of a vote. 0 for none.
func (s *State) LatestTime() uint64 { return s.shape.latest(s.live) }
