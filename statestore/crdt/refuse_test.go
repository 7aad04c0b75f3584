package crdt

import (
	"errors"
	"math"
	"strings"
	"testing"

	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
)

func TestWhatDeltaRefuses(t *testing.T) {
	full := newReplica(shapeOf(ormapModel, gcounterModel), 1)
	full.do(t, 2, updateOp("k", incOp(math.MaxUint64)))
	low := newReplica(shapeOf(pncounterModel), 1)
	low.do(t, 2, changeOp(math.MinInt64))
	of := func(models ...configv1.Model) State { return bottom(shapeOf(models...)) }
	for _, c := range []struct {
		what  string
		state State
		op    *holdfastv1.Operation
		want  error
		says  string
	}{
		{"set on gcounter", of(gcounterModel), setOp("x"), ErrOperation, "set is not an operation of gcounter"},
		{"increment on pncounter", of(pncounterModel), incOp(1), ErrOperation, "change"},
		{"change on gcounter", of(gcounterModel), changeOp(1), ErrOperation, "increment"},
		{"increment on lww", of(lwwModel), incOp(1), ErrOperation, "increment is not an operation of lww"},
		{"increment on value", of(valueModel), incOp(1), ErrOperation, "value"},
		{"unknown clock", of(lwwModel), clockOp("x", 9, 0), ErrOperation, "clock 9"},
		{"clock on mvregister", of(mvregisterModel), clockOp("x", 1, 0), ErrOperation, "only lww"},
		{"remove on gset", of(gsetModel), takeOp("x"), ErrOperation, "add and delete"},
		{"clear on gset", of(gsetModel), clearOp(), ErrOperation, "add and delete"},
		{"long element", of(orsetModel), addOp(strings.Repeat("x", MaxElement+1)), ErrOperation, "65537"},
		{"set on flag", of(flagModel), setOp("x"), ErrOperation, "enable"},
		{"enable on vote", of(voteModel), enableOp(), ErrOperation, "vote"},
		{"vote without a node", of(voteModel), voteOp(true), ErrOperation, "node"},
		{"delete of bcounter", of(bcounterModel), delOp(), ErrOperation, "can't be deleted"},
		{"set on bcounter", of(bcounterModel), setOp("x"), ErrOperation, "change"},
		{"increment on ormap", of(ormapModel, gcounterModel), incOp(1), ErrOperation, "map_update"},
		{"nothing on ormap", of(ormapModel, gcounterModel), &holdfastv1.Operation{}, ErrOperation, "does not know"},
		{"nothing on lww", of(lwwModel), nil, ErrOperation, "does not know"},
		{"set in ormap of gcounter", of(ormapModel, gcounterModel), updateOp("k", setOp("x")), ErrOperation, `entry "k"`},
		{"delete in ormap", of(ormapModel, lwwModel), updateOp("k", delOp()), ErrOperation, "map_remove"},
		{"map in map", of(ormapModel, lwwModel), updateOp("k", updateOp("l", nil)), ErrOperation, "map_update"},
		{"unknown in map", of(ormapModel, lwwModel), updateOp("k", &holdfastv1.Operation{}), ErrOperation, "does not know"},
		{"no key", of(ormapModel, gcounterModel), updateOp("", incOp(1)), ErrOperation, "without a key"},
		{"long key", of(ormapModel, gcounterModel), updateOp(strings.Repeat("x", MaxMapKey+1), incOp(1)), ErrOperation, "1025"},
		{"key not UTF-8", of(ormapModel, gcounterModel), updateOp("\xff", incOp(1)), ErrOperation, "UTF-8"},
		{"overflow in map", full.State, updateOp("k", incOp(1)), ErrOverflow, `entry "k"`},
		{"underflow", low.State, changeOp(-1), ErrOverflow, "leaves the range"},
	} {
		_, err := c.state.Delta(c.op, Mutator{Replica: 2, Seq: 1})
		if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: got %v, want %v that says %q", c.what, err, c.want, c.says)
		}
	}
	last := of(gcounterModel)
	if _, err := last.Delta(incOp(1), Mutator{Replica: 1, Seq: math.MaxUint64}); !errors.Is(err, ErrOverflow) {
		t.Errorf("after the last sequence: got %v", err)
	}
}

func TestShapes(t *testing.T) {
	deep := []configv1.Model{lwwModel}
	for range MaxDepth {
		deep = append([]configv1.Model{ormapModel}, deep...)
	}
	if s, err := New(shapeOf(deep...)); err != nil || !s.Is(shapeOf(deep...)) || s.Is(shapeOf(lwwModel)) {
		t.Errorf("%d ormaps: %v", MaxDepth, err)
	}
	for _, c := range []struct {
		shape *configv1.Shape
		says  string
	}{
		{nil, "no model"},
		{shapeOf(99), "no model"},
		{shapeOf(ormapModel), "without the shape"},
		{shapeOf(ormapModel, valueModel), "values of value"},
		{shapeOf(ormapModel, bcounterModel), "values of bcounter"},
		{shapeOf(lwwModel, lwwModel), "only an ormap"},
		{shapeOf(append([]configv1.Model{ormapModel}, deep...)...), "more than 8"},
	} {
		if _, err := New(c.shape); !errors.Is(err, ErrModel) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%v: got %v", c.shape, err)
		}
	}
	a, b := bottom(shapeOf(ormapModel, gcounterModel)), bottom(shapeOf(ormapModel, lwwModel))
	if _, err := a.Merge(&b); !errors.Is(err, ErrModel) || !strings.Contains(err.Error(), "ormap of lww into ormap of gcounter") {
		t.Errorf("merge of two shapes: got %v", err)
	}
	typ := &configv1.EntityType{Model: ormapModel, Values: shapeOf(gsetModel)}
	if got := Describe(ShapeOf(typ)); got != "ormap of gset" || !SameShape(ShapeOf(typ), shapeOf(ormapModel, gsetModel)) {
		t.Errorf("shape of an entity type: %s", got)
	}
}
