package crdt

import (
	"fmt"
	"math"

	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
)

// change is an operation in the making: a delta-mutator (Almeida et al. 2018, definition 2) puts new dots into a store and
// the dots that they replace into the context.
type change struct {
	Mutator
	seen  []Dot // the new dots and those that they replace
	taken uint64
	err   error
}

// dot takes the next sequence.
func (c *change) dot() Dot {
	if c.Seq >= math.MaxUint64-c.taken {
		c.err = fmt.Errorf("%w: this replica's changes are at the last number: start the store anew", ErrOverflow)
		return Dot{c.Replica, math.MaxUint64}
	}
	d := Dot{c.Replica, c.Seq + c.taken}
	c.taken++
	c.seen = append(c.seen, d)
	return d
}

// replace takes live dots for replaced or removed.
func (c *change) replace(s store) {
	s.each(func(d Dot, _ string) bool {
		c.seen = append(c.seen, d)
		return true
	})
}

// Delta computes the operation's change without making it: join the delta to do so. It is bottom, and takes no dot, where
// the operation changes nothing.
func (s *State) Delta(op *holdfastv1.Operation, m Mutator) (State, error) {
	if m.Replica == 0 || m.Seq == 0 {
		panic("crdt: a change without a replica or a sequence")
	}
	m.Now = max(m.Now, MinTime)
	c := &change{Mutator: m}
	live, err := s.shape.apply(c, s.live, op)
	if err == nil {
		err = c.err
	}
	if err != nil {
		return State{}, err
	}
	return s.delta(c, live), nil
}

func (s *State) delta(c *change, live store) State {
	d := State{shape: s.shape, live: live}
	if c.taken == 0 {
		d.live = store{}
	}
	if d.live.members == nil && s.shape.member != nil && c.taken == 0 {
		d.live.members = nothingNamed
	}
	if c.taken > 0 {
		d.own = contextOf(c.seen)
	}
	return d
}

// apply makes the store of an operation's delta, and puts what it replaces into c. It takes no dot where the operation
// changes nothing.
func (s *shape) apply(c *change, live store, op *holdfastv1.Operation) (store, error) {
	if _, ok := op.GetOperation().(*holdfastv1.Operation_Delete); ok && s.kind != configv1.Model_MODEL_BCOUNTER {
		return s.remove(c, live), nil
	}
	switch s.kind {
	case configv1.Model_MODEL_GCOUNTER, configv1.Model_MODEL_PNCOUNTER:
		return s.applyCounter(c, live, op)
	case configv1.Model_MODEL_BCOUNTER:
		return s.applyBounded(c, live, op)
	case configv1.Model_MODEL_LWW, configv1.Model_MODEL_VALUE:
		return s.applyRegister(c, live, op)
	case configv1.Model_MODEL_MVREGISTER:
		return s.applyMulti(c, live, op)
	case configv1.Model_MODEL_FLAG:
		return s.applyFlag(c, live, op)
	case configv1.Model_MODEL_GSET, configv1.Model_MODEL_ORSET:
		return s.applySet(c, live, op)
	case configv1.Model_MODEL_VOTE:
		return s.applyVote(c, live, op)
	default:
		return s.applyMap(c, live, op)
	}
}

// remove takes exactly what is live here, with a dot of its own that is seen and never live.
func (s *shape) remove(c *change, live store) store {
	if !live.empty() {
		c.dot()
		c.replace(live)
	}
	return store{}
}

// create makes the zero value of a map's entry.
func (s *shape) create(c *change) store {
	switch s.kind {
	case configv1.Model_MODEL_GCOUNTER, configv1.Model_MODEL_PNCOUNTER:
		return store{dots: one(c.dot(), s.appendShare(nil, share{}))}
	case configv1.Model_MODEL_LWW:
		return store{dots: one(c.dot(), write{}.append(nil))}
	case configv1.Model_MODEL_MVREGISTER:
		return store{dots: one(c.dot(), []byte{multiCreated})}
	case configv1.Model_MODEL_FLAG:
		return store{dots: one(c.dot(), []byte{flagDisabled})}
	}
	return store{dots: one(c.dot(), nil), members: nothingNamed}
}

// latest is the greatest hybrid time in a store.
func (s *shape) latest(live store) uint64 {
	latest := uint64(0)
	switch {
	case s.kind == kindBallot:
		for at := live.dots; at != ""; {
			_, payload, rest := at.next()
			t, _ := cutUint(payload)
			latest, at = max(latest, t), rest
		}
	case s.kind == configv1.Model_MODEL_LWW || s.kind == configv1.Model_MODEL_VALUE:
		for at := live.dots; at != ""; {
			_, payload, rest := at.next()
			if w := readWrite(payload); w.clock == clockDefault {
				latest = max(latest, w.time)
			}
			at = rest
		}
	case s.member != nil && s.member != elementShape:
		for it := live.members.iterate(); it.member() != nil; it.next() {
			latest = max(latest, s.member.latest(it.member().store))
		}
	}
	return latest
}

// value is what a service reads of a store that has a live dot.
func (s *shape) value(live store, v View) *holdfastv1.Value {
	switch s.kind {
	case configv1.Model_MODEL_GCOUNTER:
		return &holdfastv1.Value{Kind: &holdfastv1.Value_Gcounter{Gcounter: s.total(live.dots).unsigned()}}
	case configv1.Model_MODEL_PNCOUNTER:
		return &holdfastv1.Value{Kind: &holdfastv1.Value_Pncounter{Pncounter: s.total(live.dots).signed()}}
	case configv1.Model_MODEL_BCOUNTER:
		return &holdfastv1.Value{Kind: &holdfastv1.Value_Bcounter{Bcounter: boundedValue(live.dots, v)}}
	case configv1.Model_MODEL_LWW:
		return &holdfastv1.Value{Kind: &holdfastv1.Value_Lww{Lww: []byte(latestWrite(live.dots))}}
	case configv1.Model_MODEL_VALUE:
		return &holdfastv1.Value{Kind: &holdfastv1.Value_Value{Value: []byte(latestWrite(live.dots))}}
	case configv1.Model_MODEL_MVREGISTER:
		return &holdfastv1.Value{Kind: &holdfastv1.Value_Mvregister{Mvregister: multiValue(live.dots)}}
	case configv1.Model_MODEL_FLAG:
		return &holdfastv1.Value{Kind: &holdfastv1.Value_Flag{Flag: flagValue(live.dots)}}
	case configv1.Model_MODEL_GSET:
		return &holdfastv1.Value{Kind: &holdfastv1.Value_Gset{Gset: setValue(live.members)}}
	case configv1.Model_MODEL_ORSET:
		return &holdfastv1.Value{Kind: &holdfastv1.Value_Orset{Orset: setValue(live.members)}}
	case configv1.Model_MODEL_VOTE:
		return &holdfastv1.Value{Kind: &holdfastv1.Value_Vote{Vote: voteValue(live.members, v)}}
	default:
		entries := make(map[string]*holdfastv1.Value, live.members.len())
		for it := live.members.iterate(); it.member() != nil; it.next() {
			if m := it.member(); !m.store.empty() {
				entries[m.name] = s.member.value(m.store, v)
			}
		}
		return &holdfastv1.Value{Kind: &holdfastv1.Value_Ormap{Ormap: &holdfastv1.MapValue{Entries: entries}}}
	}
}

// check says what is wrong with a dot's payload.
func (s *shape) check(r *reader) {
	switch s.kind {
	case configv1.Model_MODEL_GCOUNTER, configv1.Model_MODEL_PNCOUNTER:
		s.checkShare(r)
	case configv1.Model_MODEL_BCOUNTER:
		checkRow(r)
	case configv1.Model_MODEL_LWW, configv1.Model_MODEL_VALUE:
		checkWrite(r)
	case configv1.Model_MODEL_MVREGISTER:
		checkMulti(r)
	case configv1.Model_MODEL_FLAG:
		if mark := r.byte(); mark > flagEnabled {
			r.fail("unknown mark of a flag")
		}
	case kindBallot:
		if t := r.uint(); r.err == nil && t < MinTime {
			r.fail("time before the first")
		}
		if r.byte() > 1 {
			r.fail("a vote is 0 or 1")
		}
	}
	// A presence and an element carry nothing, which the caller checks.
}

// unfit refuses an operation of another model.
func (s *shape) unfit(op *holdfastv1.Operation, takes string) error {
	return fmt.Errorf("%w: %s is not an operation of %s, which takes %s", ErrOperation, OperationName(op), Name(s.kind), takes)
}
