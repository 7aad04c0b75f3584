package crdt

import (
	"errors"
	"math"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
)

// do makes a change and returns its delta.
func do(t *testing.T, s State, replica, now uint64, op *holdfastv1.Operation) State {
	t.Helper()
	d, err := s.Delta(op, Mutator{Replica: replica, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	merge(t, s, d)
	return d
}

func wantValue(t *testing.T, what string, s State, want *holdfastv1.Value) {
	t.Helper()
	if got := s.Value(); !proto.Equal(got, want) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

func counterValue(n uint64) *holdfastv1.Value {
	return &holdfastv1.Value{Kind: &holdfastv1.Value_Gcounter{Gcounter: n}}
}

func lwwValue(v string) *holdfastv1.Value {
	return &holdfastv1.Value{Kind: &holdfastv1.Value_Lww{Lww: []byte(v)}}
}

func mapValue(entries map[string]*holdfastv1.Value) *holdfastv1.Value {
	return &holdfastv1.Value{Kind: &holdfastv1.Value_Ormap{Ormap: &holdfastv1.MapValue{Entries: entries}}}
}

func TestCounter(t *testing.T) {
	a, b := kinds[0].bottom(), kinds[0].bottom()
	wantValue(t, "bottom", a, nil)
	do(t, a, 1, 2, incOp(0))
	wantValue(t, "incremented by 0", a, counterValue(0))
	do(t, a, 1, 2, incOp(3))
	do(t, b, 2, 2, incOp(4))
	merge(t, a, b)
	wantValue(t, "both", a, counterValue(7))
	if d := do(t, a, 3, 2, incOp(0)); !d.Bottom() {
		t.Errorf("an increment by 0 leaves a trace: %s", show(d))
	}
	if _, err := a.Delta(incOp(math.MaxUint64-6), Mutator{Replica: 1, Now: 2}); !errors.Is(err, ErrOverflow) {
		t.Errorf("overflow: got %v", err)
	}
	// Concurrent increments may add up to too much: the value stays at the end.
	c := kinds[0].bottom()
	do(t, c, 3, 2, incOp(math.MaxUint64))
	merge(t, a, c)
	wantValue(t, "more than there is", a, counterValue(math.MaxUint64))
}

func TestRegister(t *testing.T) {
	a, b := kinds[1].bottom(), kinds[1].bottom()
	do(t, a, 1, 100, setOp("a"))
	do(t, b, 2, 50, setOp("b"))
	merge(t, b, a)
	wantValue(t, "later clock wins", b, lwwValue("a"))
	do(t, b, 2, 60, setOp("c"))
	merge(t, a, b)
	wantValue(t, "what was seen is beaten, whatever the clock says", a, lwwValue("c"))
	do(t, a, 1, 60, delOp())
	wantValue(t, "deleted", a, nil)
	if d := do(t, a, 1, 60, delOp()); !d.Bottom() {
		t.Errorf("a second delete leaves a trace: %s", show(d))
	}
	do(t, a, 1, 60, setOp(""))
	wantValue(t, "set again, empty", a, lwwValue(""))
	v := kinds[2].bottom()
	do(t, v, 1, 2, setOp("x"))
	wantValue(t, "value", v, &holdfastv1.Value{Kind: &holdfastv1.Value_Value{Value: []byte("x")}})
	if _, err := v.Merge(a); !errors.Is(err, ErrModel) {
		t.Errorf("merge of lww into value: got %v", err)
	}
}

func TestMapOfCounters(t *testing.T) {
	a := kinds[3].bottom()
	do(t, a, 1, 2, updateOp("q", nil))
	wantValue(t, "created", a, mapValue(map[string]*holdfastv1.Value{"q": counterValue(0)}))
	if d := do(t, a, 1, 2, updateOp("q", nil)); !d.Bottom() {
		t.Errorf("created twice: %s", show(d))
	}
	b := a.Clone()
	do(t, a, 1, 2, updateOp("q", incOp(2)))
	do(t, b, 2, 2, updateOp("q", incOp(3)))
	merge(t, a, b)
	wantValue(t, "concurrent increments", a, mapValue(map[string]*holdfastv1.Value{"q": counterValue(5)}))
	merge(t, b, a)

	// b's increment is not seen by a's remove: it stays, with what b had counted before.
	do(t, a, 1, 2, removeOp("q"))
	wantValue(t, "removed", a, mapValue(map[string]*holdfastv1.Value{}))
	do(t, b, 2, 2, updateOp("q", incOp(1)))
	merge(t, a, b)
	wantValue(t, "remove and concurrent increment", a, mapValue(map[string]*holdfastv1.Value{"q": counterValue(4)}))
	do(t, a, 1, 2, removeOp("q"))
	do(t, a, 1, 2, updateOp("q", incOp(1)))
	merge(t, b, a)
	wantValue(t, "after a remove it starts anew", b, mapValue(map[string]*holdfastv1.Value{"q": counterValue(1)}))
}

// A change takes the place of what it builds on: states don't grow with their number.
func TestMapDoesNotGrowWithChanges(t *testing.T) {
	for k, op := range map[kind]*holdfastv1.Operation{kinds[3]: incOp(1), kinds[4]: setOp("x")} {
		s := k.bottom()
		do(t, s, 1, 2, updateOp("q", op))
		one := len(s.Append(nil))
		for range 100 {
			do(t, s, 1, 2, updateOp("q", op))
			do(t, s, 1, 2, updateOp("r", op))
			do(t, s, 1, 2, removeOp("r"))
		}
		if got := len(s.Append(nil)); got > one+8 {
			t.Errorf("%s: %d bytes after one change, %d after 300", k, one, got)
		}
	}
}

// The value is right even while a delta in the middle is missing.
func TestMapWithAGap(t *testing.T) {
	a, b := kinds[3].bottom(), kinds[3].bottom()
	var deltas []State
	for range 3 {
		deltas = append(deltas, do(t, a, 1, 2, updateOp("q", incOp(1))))
	}
	merge(t, b, deltas[0])
	merge(t, b, deltas[2])
	wantValue(t, "second increment missing", b, mapValue(map[string]*holdfastv1.Value{"q": counterValue(3)}))
	merge(t, b, deltas[1])
	wantSame(t, "second increment came", b, a)
}

func TestMapOfRegisters(t *testing.T) {
	a, b := kinds[4].bottom(), kinds[4].bottom()
	do(t, a, 1, 10, updateOp("q", setOp("a")))
	do(t, b, 2, 20, updateOp("q", setOp("b")))
	merge(t, a, b)
	wantValue(t, "later clock wins", a, mapValue(map[string]*holdfastv1.Value{"q": lwwValue("b")}))
	do(t, b, 2, 30, updateOp("q", nil))
	do(t, b, 2, 30, updateOp("z", nil))
	do(t, a, 1, 5, updateOp("z", setOp("set")))
	merge(t, a, b)
	wantValue(t, "a set beats a creation", a, mapValue(map[string]*holdfastv1.Value{"q": lwwValue("b"), "z": lwwValue("set")}))
	merge(t, b, a)
	do(t, b, 2, 30, updateOp("q", setOp("late")))
	do(t, a, 1, 40, removeOp("q"))
	merge(t, a, b)
	wantValue(t, "remove and concurrent set", a, mapValue(map[string]*holdfastv1.Value{"q": lwwValue("late"), "z": lwwValue("set")}))
}

func TestWhatDeltaRefuses(t *testing.T) {
	full := kinds[3].bottom()
	do(t, full, 1, 2, updateOp("k", incOp(math.MaxUint64)))
	for _, c := range []struct {
		what  string
		state State
		op    *holdfastv1.Operation
		want  error
		says  string
	}{
		{"set on gcounter", kinds[0].bottom(), setOp("x"), ErrOperation, "set is not an operation of gcounter"},
		{"delete on gcounter", kinds[0].bottom(), delOp(), ErrOperation, "delete"},
		{"increment on lww", kinds[1].bottom(), incOp(1), ErrOperation, "increment is not an operation of lww"},
		{"increment on value", kinds[2].bottom(), incOp(1), ErrOperation, "value"},
		{"increment on ormap", kinds[3].bottom(), incOp(1), ErrOperation, "map_update"},
		{"nothing on ormap", kinds[3].bottom(), &holdfastv1.Operation{}, ErrOperation, "does not know"},
		{"nothing on lww", kinds[1].bottom(), nil, ErrOperation, "does not know"},
		{"set in ormap of gcounter", kinds[3].bottom(), updateOp("k", setOp("x")), ErrOperation, `entry "k"`},
		{"increment in ormap of lww", kinds[4].bottom(), updateOp("k", incOp(1)), ErrOperation, "takes set"},
		{"delete in ormap", kinds[4].bottom(), updateOp("k", delOp()), ErrOperation, "map_remove"},
		{"map in map", kinds[4].bottom(), updateOp("k", updateOp("l", nil)), ErrOperation, "map_update"},
		{"unknown in map", kinds[4].bottom(), updateOp("k", &holdfastv1.Operation{}), ErrOperation, "does not know"},
		{"no key", kinds[3].bottom(), updateOp("", incOp(1)), ErrOperation, "without a key"},
		{"long key", kinds[3].bottom(), updateOp(strings.Repeat("x", MaxMapKey+1), incOp(1)), ErrOperation, "1025"},
		{"key not UTF-8", kinds[3].bottom(), updateOp("\xff", incOp(1)), ErrOperation, "UTF-8"},
		{"overflow in map", full, updateOp("k", incOp(1)), ErrOverflow, `entry "k"`},
	} {
		_, err := c.state.Delta(c.op, Mutator{Replica: 2, Now: 2})
		if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: got %v, want %v that says %q", c.what, err, c.want, c.says)
		}
	}
	for _, k := range []kind{{}, {ormapModel, noModel}, {ormapModel, ormapModel}, {99, noModel}} {
		if _, err := New(k.model, k.values); !errors.Is(err, ErrModel) {
			t.Errorf("new %v: got %v", k, err)
		}
	}
	if _, err := kinds[3].bottom().Merge(kinds[4].bottom()); !errors.Is(err, ErrModel) {
		t.Errorf("merge of ormaps of two kinds: got %v", err)
	}
}
