package crdt

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"strconv"
	"testing"

	"pgregory.net/rapid"

	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
)

// TestMain makes checks the number of rapid's checks unless -rapid.checks names another.
func TestMain(m *testing.M) {
	flag.Parse()
	named := false
	flag.Visit(func(f *flag.Flag) { named = named || f.Name == "rapid.checks" })
	if !named {
		if err := flag.Set("rapid.checks", strconv.Itoa(checks)); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}

const (
	gcounterModel   = configv1.Model_MODEL_GCOUNTER
	pncounterModel  = configv1.Model_MODEL_PNCOUNTER
	gsetModel       = configv1.Model_MODEL_GSET
	orsetModel      = configv1.Model_MODEL_ORSET
	lwwModel        = configv1.Model_MODEL_LWW
	valueModel      = configv1.Model_MODEL_VALUE
	mvregisterModel = configv1.Model_MODEL_MVREGISTER
	flagModel       = configv1.Model_MODEL_FLAG
	voteModel       = configv1.Model_MODEL_VOTE
	bcounterModel   = configv1.Model_MODEL_BCOUNTER
	ormapModel      = configv1.Model_MODEL_ORMAP
)

func shapeOf(models ...configv1.Model) *configv1.Shape {
	var p *configv1.Shape
	for i := len(models) - 1; i >= 0; i-- {
		p = &configv1.Shape{Model: models[i], Values: p}
	}
	return p
}

// testShapes are every model alone, every model in a map, and some deeper.
var testShapes = func() []*configv1.Shape {
	var out []*configv1.Shape
	for _, m := range models {
		out = append(out, shapeOf(m))
		if inMap(m) {
			out = append(out, shapeOf(ormapModel, m))
		}
	}
	return append(out,
		shapeOf(ormapModel, ormapModel, orsetModel),
		shapeOf(ormapModel, ormapModel, gcounterModel),
		shapeOf(ormapModel, ormapModel, ormapModel, lwwModel))
}()

// each runs the test for every shape.
func each(t *testing.T, f func(t *testing.T, p *configv1.Shape)) {
	for _, p := range testShapes {
		t.Run(Describe(p), func(t *testing.T) { f(t, p) })
	}
}

func bottom(p *configv1.Shape) State {
	s, err := New(p)
	if err != nil {
		panic(err)
	}
	return s
}

func incOp(n uint64) *holdfastv1.Operation {
	return &holdfastv1.Operation{Operation: &holdfastv1.Operation_Increment{Increment: &holdfastv1.Increment{By: n}}}
}

func changeOp(n int64) *holdfastv1.Operation {
	return &holdfastv1.Operation{Operation: &holdfastv1.Operation_Change{Change: &holdfastv1.Change{By: n}}}
}

func setOp(v string) *holdfastv1.Operation { return clockOp(v, holdfastv1.Clock_CLOCK_DEFAULT, 0) }

func clockOp(v string, c holdfastv1.Clock, custom uint64) *holdfastv1.Operation {
	return &holdfastv1.Operation{Operation: &holdfastv1.Operation_Set{Set: &holdfastv1.Set{Value: []byte(v), Clock: c, CustomClock: custom}}}
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

func byteLists(elements []string) [][]byte {
	var out [][]byte
	for _, e := range elements {
		out = append(out, []byte(e))
	}
	return out
}

func addOp(elements ...string) *holdfastv1.Operation {
	return &holdfastv1.Operation{Operation: &holdfastv1.Operation_Add{Add: &holdfastv1.SetAdd{Elements: byteLists(elements)}}}
}

func takeOp(elements ...string) *holdfastv1.Operation {
	return &holdfastv1.Operation{Operation: &holdfastv1.Operation_Remove{Remove: &holdfastv1.SetRemove{Elements: byteLists(elements)}}}
}

func clearOp() *holdfastv1.Operation {
	return &holdfastv1.Operation{Operation: &holdfastv1.Operation_Clear{Clear: &holdfastv1.Clear{}}}
}

func enableOp() *holdfastv1.Operation {
	return &holdfastv1.Operation{Operation: &holdfastv1.Operation_Enable{Enable: &holdfastv1.Enable{}}}
}

func disableOp() *holdfastv1.Operation {
	return &holdfastv1.Operation{Operation: &holdfastv1.Operation_Disable{Disable: &holdfastv1.Disable{}}}
}

func voteOp(yes bool) *holdfastv1.Operation {
	return &holdfastv1.Operation{Operation: &holdfastv1.Operation_Vote{Vote: &holdfastv1.CastVote{InFavour: yes}}}
}

var someNames = rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"", "x", "y", "z"}), 0, 3, rapid.ID[string])

// operation draws an operation that the shape takes.
func operation(t *rapid.T, p *configv1.Shape, inMap bool) *holdfastv1.Operation {
	if !inMap && p.Model != bcounterModel && rapid.IntRange(0, 7).Draw(t, "delete") == 0 {
		return delOp()
	}
	switch p.Model {
	case gcounterModel:
		return incOp(rapid.Uint64Range(0, 3).Draw(t, "by"))
	case pncounterModel:
		return changeOp(rapid.Int64Range(-3, 3).Draw(t, "by"))
	case bcounterModel:
		return changeOp(rapid.Int64Range(-2, 3).Draw(t, "by"))
	case gsetModel:
		return addOp(someNames.Draw(t, "elements")...)
	case orsetModel:
		switch rapid.IntRange(0, 5).Draw(t, "set operation") {
		case 0:
			return clearOp()
		case 1, 2:
			return takeOp(someNames.Draw(t, "elements")...)
		}
		return addOp(someNames.Draw(t, "elements")...)
	case flagModel:
		if rapid.Bool().Draw(t, "enable") {
			return enableOp()
		}
		return disableOp()
	case voteModel:
		return voteOp(rapid.Bool().Draw(t, "in favour"))
	case ormapModel:
		key := rapid.SampledFrom([]string{"p", "q"}).Draw(t, "key")
		switch rapid.IntRange(0, 9).Draw(t, "map operation") {
		case 0, 1:
			return removeOp(key)
		case 2:
			return updateOp(key, nil)
		case 3:
			return clearOp()
		}
		return updateOp(key, operation(t, p.Values, true))
	}
	value := rapid.SampledFrom([]string{"", "a", "b", "c"}).Draw(t, "value")
	if p.Model == mvregisterModel || rapid.Bool().Draw(t, "default clock") {
		return setOp(value)
	}
	return clockOp(value, holdfastv1.Clock(rapid.IntRange(1, 3).Draw(t, "clock")), rapid.Uint64Range(0, 4).Draw(t, "custom"))
}

// world is some replicas of one entity without a slot around it, and every delta that was made.
type world struct {
	shape    *configv1.Shape
	replicas []State
	next     []uint64
	deltas   []State
	clock    uint64
}

func drawWorld(t *rapid.T, p *configv1.Shape) *world {
	w := &world{shape: p}
	for range 3 {
		w.replicas = append(w.replicas, bottom(p))
		w.next = append(w.next, 1)
	}
	for range rapid.IntRange(0, 12).Draw(t, "steps") {
		w.step(t)
	}
	return w
}

func node(i int) string { return fmt.Sprintf("node-%d", i) }

// change lets a replica make a change; clocks differ from replica to replica, and stand still at times.
func (w *world) change(t *rapid.T, i int, op *holdfastv1.Operation) {
	w.clock += rapid.Uint64Range(0, 2).Draw(t, "clock")
	d, err := w.replicas[i].Delta(op, Mutator{Replica: uint64(i + 1), Seq: w.next[i], Now: w.clock + uint64(i*3), Node: node(i)})
	if w.shape.Model == bcounterModel && err != nil {
		return
	}
	if err != nil {
		t.Fatalf("%s: %v", OperationName(op), err)
	}
	if d.Bottom() {
		return
	}
	w.next[i] = d.Context().Next(uint64(i + 1))
	merge(t, &w.replicas[i], d)
	w.deltas = append(w.deltas, d)
}

// step changes a replica, or brings it a delta, or the whole of another one.
func (w *world) step(t *rapid.T) {
	i := rapid.IntRange(0, len(w.replicas)-1).Draw(t, "replica")
	switch rapid.IntRange(0, 4).Draw(t, "step") {
	case 0:
		if len(w.deltas) > 0 {
			merge(t, &w.replicas[i], w.deltas[rapid.IntRange(0, len(w.deltas)-1).Draw(t, "delta")])
		}
	case 1:
		merge(t, &w.replicas[i], w.replicas[rapid.IntRange(0, len(w.replicas)-1).Draw(t, "from")])
	default:
		w.change(t, i, operation(t, w.shape, false))
	}
}

// state draws a state that a run can reach: a replica's, a delta, or a join of deltas with gaps, whole or not.
func (w *world) state(t *rapid.T, label string) State {
	kind := rapid.IntRange(0, 3).Draw(t, label+" kind")
	if kind == 0 || len(w.deltas) == 0 {
		return w.replicas[rapid.IntRange(0, len(w.replicas)-1).Draw(t, label)]
	}
	s := w.deltas[rapid.IntRange(0, len(w.deltas)-1).Draw(t, label)]
	if kind == 1 {
		return s
	}
	if kind == 2 {
		s = bottom(w.shape)
	}
	for _, d := range w.deltas {
		if rapid.Bool().Draw(t, label+" has it") {
			merge(t, &s, d)
		}
	}
	return s
}

type fataler interface{ Fatalf(string, ...any) }

func merge(t fataler, into *State, from State) bool { return joinIn(t, into, from, nil, nil) }

func joinIn(t fataler, into *State, from State, here, there *Context) bool {
	before, was := from.Append(nil), into.Clone()
	wasBytes := was.Append(nil)
	changed, err := into.Join(&from, here, there)
	if err != nil {
		t.Fatalf("join: %v", err)
	}
	if !bytes.Equal(from.Append(nil), before) || !bytes.Equal(was.Append(nil), wasBytes) {
		t.Fatalf("join changed what it joined, or a copy")
	}
	return changed
}

func joined(t fataler, states ...State) State {
	s := states[0]
	for _, o := range states[1:] {
		merge(t, &s, o)
	}
	return s
}

func same(a, b State) bool { return bytes.Equal(a.Append(nil), b.Append(nil)) }

// alike is same but for the names of what is empty, which say nothing of the state.
func alike(a, b State) bool {
	return bytes.Equal(a.AppendLive(nil), b.AppendLive(nil)) && a.Context().Equal(b.Context())
}

func wantSame(t fataler, what string, a, b State) {
	if !same(a, b) {
		t.Fatalf("%s: %s and %s differ", what, show(a), show(b))
	}
}

func wantAlike(t fataler, what string, a, b State) {
	if !alike(a, b) {
		t.Fatalf("%s: %s and %s differ", what, show(a), show(b))
	}
}

var testView = View{Node: node(0), Voters: []string{node(0), node(1)}, Replica: 1}

func show(s State) string { return fmt.Sprintf("%v (%x)", s.Value(testView), s.Append(nil)) }
