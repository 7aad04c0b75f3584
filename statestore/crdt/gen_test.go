package crdt

import (
	"bytes"
	"fmt"
	"testing"

	"pgregory.net/rapid"

	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
)

const (
	gcounterModel = configv1.Model_MODEL_GCOUNTER
	lwwModel      = configv1.Model_MODEL_LWW
	valueModel    = configv1.Model_MODEL_VALUE
	ormapModel    = configv1.Model_MODEL_ORMAP
	noModel       = configv1.Model_MODEL_UNSPECIFIED
)

type kind struct{ model, values configv1.Model }

var kinds = []kind{{gcounterModel, noModel}, {lwwModel, noModel}, {valueModel, noModel}, {ormapModel, gcounterModel}, {ormapModel, lwwModel}}

func (k kind) String() string { return Name(k.model) + "/" + Name(k.values) }

func (k kind) bottom() State {
	s, err := New(k.model, k.values)
	if err != nil {
		panic(err)
	}
	return s
}

// each runs the test for every model.
func each(t *testing.T, f func(t *testing.T, k kind)) {
	for _, k := range kinds {
		t.Run(k.String(), func(t *testing.T) { f(t, k) })
	}
}

func incOp(n uint64) *holdfastv1.Operation {
	return &holdfastv1.Operation{Operation: &holdfastv1.Operation_Increment{Increment: &holdfastv1.Increment{By: n}}}
}

func setOp(v string) *holdfastv1.Operation {
	return &holdfastv1.Operation{Operation: &holdfastv1.Operation_Set{Set: &holdfastv1.Set{Value: []byte(v)}}}
}

func delOp() *holdfastv1.Operation {
	return &holdfastv1.Operation{Operation: &holdfastv1.Operation_Delete{Delete: &holdfastv1.Delete{}}}
}

func updateOp(key string, op *holdfastv1.Operation) *holdfastv1.Operation {
	return &holdfastv1.Operation{Operation: &holdfastv1.Operation_MapUpdate{MapUpdate: &holdfastv1.MapUpdate{Key: key, Operation: op}}}
}

func removeOp(key string) *holdfastv1.Operation {
	return &holdfastv1.Operation{Operation: &holdfastv1.Operation_MapRemove{MapRemove: &holdfastv1.MapRemove{Key: key}}}
}

// operation draws an operation that the model takes.
func (k kind) operation(t *rapid.T) *holdfastv1.Operation {
	value := rapid.SampledFrom([]string{"", "a", "b", "c"})
	switch k.model {
	case gcounterModel:
		return incOp(rapid.Uint64Range(0, 3).Draw(t, "by"))
	case ormapModel:
		key := rapid.SampledFrom([]string{"p", "q", "r"}).Draw(t, "key")
		switch rapid.IntRange(0, 4).Draw(t, "map operation") {
		case 0:
			return removeOp(key)
		case 1:
			return updateOp(key, nil)
		}
		if k.values == gcounterModel {
			return updateOp(key, incOp(rapid.Uint64Range(0, 3).Draw(t, "by")))
		}
		return updateOp(key, setOp(value.Draw(t, "value")))
	}
	if rapid.IntRange(0, 3).Draw(t, "register operation") == 0 {
		return delOp()
	}
	return setOp(value.Draw(t, "value"))
}

// world is some replicas, and every delta that was made.
type world struct {
	kind     kind
	replicas []State
	deltas   []State
	clock    uint64
}

func newWorld(k kind, n int) *world {
	w := &world{kind: k}
	for range n {
		w.replicas = append(w.replicas, k.bottom())
	}
	return w
}

// change lets a replica make a change; clocks differ from replica to replica, and stand still at times.
func (w *world) change(t *rapid.T, i int, op *holdfastv1.Operation) {
	w.clock += rapid.Uint64Range(0, 2).Draw(t, "clock")
	d, err := w.replicas[i].Delta(op, Mutator{Replica: uint64(i + 1), Now: w.clock + MinTime + uint64(i*3)})
	if err != nil {
		t.Fatalf("%s: %v", OperationName(op), err)
	}
	merge(t, w.replicas[i], d)
	w.deltas = append(w.deltas, d)
}

// step changes a replica, or brings it a delta, or the whole of another one.
func (w *world) step(t *rapid.T) {
	i := rapid.IntRange(0, len(w.replicas)-1).Draw(t, "replica")
	switch rapid.IntRange(0, 4).Draw(t, "step") {
	case 0:
		if len(w.deltas) > 0 {
			merge(t, w.replicas[i], w.deltas[rapid.IntRange(0, len(w.deltas)-1).Draw(t, "delta")])
		}
	case 1:
		merge(t, w.replicas[i], w.replicas[rapid.IntRange(0, len(w.replicas)-1).Draw(t, "from")])
	default:
		w.change(t, i, w.kind.operation(t))
	}
}

// state draws a state that a run can reach: a replica's, a delta, or a join of deltas with gaps.
func (w *world) state(t *rapid.T, label string) State {
	switch rapid.IntRange(0, 2).Draw(t, label+" kind") {
	case 0:
		return w.replicas[rapid.IntRange(0, len(w.replicas)-1).Draw(t, label)].Clone()
	case 1:
		if len(w.deltas) > 0 {
			return w.deltas[rapid.IntRange(0, len(w.deltas)-1).Draw(t, label)].Clone()
		}
	}
	s := w.kind.bottom()
	for _, d := range w.deltas {
		if rapid.Bool().Draw(t, label+" has it") {
			merge(t, s, d)
		}
	}
	return s
}

type fataler interface{ Fatalf(string, ...any) }

func merge(t fataler, into, from State) bool {
	before := from.Append(nil)
	changed, err := into.Merge(from)
	if err != nil {
		t.Fatalf("merge: %v", err)
	}
	if into != from && !bytes.Equal(from.Append(nil), before) {
		t.Fatalf("merge changed what it merged")
	}
	return changed
}

func joined(t fataler, states ...State) State {
	s := states[0].Clone()
	for _, o := range states[1:] {
		merge(t, s, o)
	}
	return s
}

func same(a, b State) bool { return bytes.Equal(a.Append(nil), b.Append(nil)) }

func wantSame(t fataler, what string, a, b State) {
	if !same(a, b) {
		t.Fatalf("%s: %s and %s differ", what, show(a), show(b))
	}
}

func show(s State) string { return fmt.Sprintf("%v (%x)", s.Value(), s.Append(nil)) }
