package crdt

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
)

// replica is a state with who changes it.
type replica struct {
	State
	id, seq uint64
	absorb  func(uint64) bool
}

func newReplica(p *configv1.Shape, id uint64) *replica {
	return &replica{State: bottom(p), id: id, seq: 1}
}

// do makes a change and returns its delta.
func (r *replica) do(t *testing.T, now uint64, op *holdfastv1.Operation) State {
	t.Helper()
	d, err := r.Delta(op, Mutator{Replica: r.id, Seq: r.seq, Now: now, Node: node(int(r.id)), Absorb: r.absorb})
	if err != nil {
		t.Fatal(err)
	}
	if !d.Bottom() {
		r.seq = d.Context().Next(r.id)
	}
	merge(t, &r.State, d)
	return d
}

func (r *replica) wants(t *testing.T, what, want string) {
	t.Helper()
	wantValue(t, what, r.State, want)
}

// wantValue compares with a value in text format, "" for none.
func wantValue(t *testing.T, what string, s State, want string) {
	t.Helper()
	var v *holdfastv1.Value
	if want != "" {
		v = &holdfastv1.Value{}
		if err := prototext.Unmarshal([]byte(want), v); err != nil {
			t.Fatal(err)
		}
	}
	if got := s.Value(testView); !proto.Equal(got, v) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

// pair is two replicas that have seen the same changes of the first.
func pair(t *testing.T, p *configv1.Shape, ops ...*holdfastv1.Operation) (a, b *replica) {
	t.Helper()
	a, b = newReplica(p, 1), newReplica(p, 2)
	for _, op := range ops {
		a.do(t, 10, op)
	}
	merge(t, &b.State, a.State)
	return a, b
}

func (r *replica) meet(t *testing.T, o *replica) {
	t.Helper()
	merge(t, &r.State, o.State)
	merge(t, &o.State, r.State)
	wantSame(t, "after both merged", r.State, o.State)
}

func TestGCounter(t *testing.T) {
	a, b := pair(t, shapeOf(gcounterModel))
	a.wants(t, "bottom", "")
	a.do(t, 2, incOp(0))
	a.wants(t, "incremented by 0", "gcounter:0")
	a.do(t, 2, incOp(3))
	b.do(t, 2, incOp(4))
	a.meet(t, b)
	a.wants(t, "both", "gcounter:7")
	if d := a.do(t, 2, incOp(0)); !d.Bottom() {
		t.Errorf("an increment by 0 leaves a trace: %s", show(d))
	}
	// A delete takes what it saw, and a concurrent increment stays with what its replica had counted.
	a.do(t, 2, delOp())
	a.wants(t, "deleted", "")
	b.do(t, 2, incOp(1))
	a.meet(t, b)
	a.wants(t, "delete and concurrent increment", "gcounter:5")
	a.do(t, 2, delOp())
	a.do(t, 2, incOp(2))
	a.wants(t, "again", "gcounter:2")
	// Concurrent increments may add up to too much: the value stays at the end.
	b.do(t, 2, incOp(math.MaxUint64-6))
	a.meet(t, b)
	a.wants(t, "more than there is", fmt.Sprintf("gcounter:%d", uint64(math.MaxUint64)))
}

func TestPNCounter(t *testing.T) {
	a, b := pair(t, shapeOf(pncounterModel), changeOp(-5))
	b.do(t, 2, changeOp(2))
	a.meet(t, b)
	a.wants(t, "both", "pncounter:-3")
	a.do(t, 2, changeOp(math.MinInt64+5))
	a.wants(t, "nearly the least", fmt.Sprintf("pncounter:%d", math.MinInt64+2))
	b.do(t, 2, changeOp(math.MinInt64+3))
	a.meet(t, b)
	a.wants(t, "less than there is", fmt.Sprintf("pncounter:%d", math.MinInt64))
	if _, err := a.Delta(changeOp(-1), Mutator{Replica: 1, Seq: a.seq}); !errors.Is(err, ErrOverflow) {
		t.Errorf("still less: got %v", err)
	}
	b.do(t, 2, changeOp(math.MaxInt64))
	a.do(t, 2, changeOp(math.MaxInt64))
	a.meet(t, b)
	a.wants(t, "back", "pncounter:3")
}

func TestAbsorb(t *testing.T) {
	a, c := pair(t, shapeOf(gcounterModel), incOp(5))
	// Node 1's store comes back as 3, and later as 4; c misses what 3 did first.
	b := newReplica(shapeOf(gcounterModel), 3)
	merge(t, &b.State, a.State)
	b.absorb = func(r uint64) bool { return r == 1 }
	b.do(t, 2, incOp(1))
	second := b.do(t, 2, incOp(1))
	b.wants(t, "absorbed", "gcounter:7")
	merge(t, &c.State, second)
	c.wants(t, "absorbed, with a gap", "gcounter:7")
	if got := c.live.dots.count(); got != 1 {
		t.Errorf("%d live dots after the absorbed one was replaced", got)
	}
	d := newReplica(shapeOf(gcounterModel), 4)
	merge(t, &d.State, b.State)
	d.absorb = func(r uint64) bool { return r == 1 || r == 3 }
	merge(t, &c.State, d.do(t, 2, incOp(10)))
	c.wants(t, "absorbed again", "gcounter:17")
	c.meet(t, d)
	// Two that absorbed the same without knowing of each other count it once.
	e := newReplica(shapeOf(gcounterModel), 5)
	merge(t, &e.State, a.State)
	e.absorb = func(r uint64) bool { return r == 1 }
	e.do(t, 2, incOp(100))
	b.meet(t, e)
	b.wants(t, "absorbed twice", "gcounter:107")
}

func TestRegister(t *testing.T) {
	a, b := pair(t, shapeOf(lwwModel))
	a.do(t, 100, setOp("a"))
	b.do(t, 50, setOp("b"))
	a.meet(t, b)
	b.wants(t, "later clock wins", `lww:"a"`)
	b.do(t, 60, setOp("c"))
	a.meet(t, b)
	a.wants(t, "what was seen is beaten, whatever the clock says", `lww:"c"`)
	if got := a.LatestTime(); got != 101 {
		t.Errorf("latest time: got %d", got)
	}
	a.do(t, 60, delOp())
	a.wants(t, "deleted", "")
	if d := a.do(t, 60, delOp()); !d.Bottom() {
		t.Errorf("a second delete leaves a trace: %s", show(d))
	}
	b.do(t, 1, setOp("late"))
	a.meet(t, b)
	a.wants(t, "set that the delete did not see", `lww:"late"`)
	v := newReplica(shapeOf(valueModel), 1)
	v.do(t, 2, setOp("x"))
	v.wants(t, "value", `value:"x"`)

	// Concurrent losers live on until they are replaced, so a delete takes only what it saw.
	a, b = pair(t, shapeOf(lwwModel))
	a.do(t, 100, setOp("a"))
	b.do(t, 50, setOp("b"))
	only := b.Clone()
	a.do(t, 100, delOp())
	merge(t, &only, a.State)
	wantValue(t, "loser after the winner's delete", only, `lww:"b"`)
}

func TestClocks(t *testing.T) {
	const reverse, custom, auto = holdfastv1.Clock_CLOCK_REVERSE, holdfastv1.Clock_CLOCK_CUSTOM, holdfastv1.Clock_CLOCK_CUSTOM_AUTO_INCREMENT
	a, b := pair(t, shapeOf(lwwModel))
	a.do(t, 100, clockOp("a", reverse, 0))
	b.do(t, 50, clockOp("b", reverse, 0))
	a.meet(t, b)
	a.wants(t, "the earliest wins", `lww:"b"`)
	if d := a.do(t, 1, clockOp("c", reverse, 0)); !d.Bottom() {
		t.Errorf("a set after the first leaves a trace: %s", show(d))
	}
	a.do(t, 100, clockOp("7", custom, 7))
	a.wants(t, "a set beats what it saw of another clock", `lww:"7"`)
	for _, n := range []uint64{6, 7} {
		if d := a.do(t, 100, clockOp("lost", custom, n)); !d.Bottom() {
			t.Errorf("custom clock %d after 7 leaves a trace: %s", n, show(d))
		}
	}
	a.do(t, 100, clockOp("8", auto, 3))
	a.wants(t, "auto increment", `lww:"8"`)
	b.do(t, 1000, setOp("d"))
	a.meet(t, b)
	a.wants(t, "custom beats default", `lww:"8"`)
	if got := a.LatestTime(); got != 1000 {
		t.Errorf("latest time: got %d, custom clocks don't count", got)
	}
	a.do(t, 5, setOp("e"))
	a.wants(t, "unless it was seen", `lww:"e"`)
	a.do(t, 5, clockOp("end", custom, math.MaxUint64))
	if _, err := a.Delta(clockOp("f", auto, 0), Mutator{Replica: 1, Seq: a.seq, Now: 5}); !errors.Is(err, ErrOverflow) {
		t.Errorf("after the last custom clock: got %v", err)
	}
}

func TestMultiValueRegister(t *testing.T) {
	a, b := pair(t, shapeOf(mvregisterModel), setOp("x"))
	a.do(t, 2, setOp("b"))
	b.do(t, 2, setOp("a"))
	a.meet(t, b)
	a.wants(t, "both", `mvregister:{values:"a" values:"b"}`)
	a.do(t, 2, setOp("c"))
	b.do(t, 2, delOp())
	a.meet(t, b)
	a.wants(t, "set and concurrent delete", `mvregister:{values:"c"}`)
}

func TestFlag(t *testing.T) {
	a, b := pair(t, shapeOf(flagModel))
	a.do(t, 2, disableOp())
	a.wants(t, "disabled at first", "flag:false")
	if d := a.do(t, 2, disableOp()); !d.Bottom() {
		t.Errorf("disabled twice: %s", show(d))
	}
	a.do(t, 2, enableOp())
	a.meet(t, b)
	a.do(t, 2, disableOp())
	b.do(t, 2, enableOp())
	a.meet(t, b)
	a.wants(t, "enable wins, also where it was enabled", "flag:true")
	a.do(t, 2, disableOp())
	b.do(t, 2, delOp())
	a.meet(t, b)
	a.wants(t, "disable and concurrent delete", "flag:false")
	a.do(t, 2, delOp())
	a.wants(t, "deleted", "")
}

func TestSets(t *testing.T) {
	a, b := pair(t, shapeOf(orsetModel), addOp("x", "y", "x"))
	a.wants(t, "added", `orset:{elements:"x" elements:"y"}`)
	if a.seq != 3 {
		t.Errorf("two elements took dots up to %d", a.seq-1)
	}
	a.do(t, 2, takeOp("x", "no such"))
	b.do(t, 2, addOp("x"))
	a.meet(t, b)
	a.wants(t, "add wins", `orset:{elements:"x" elements:"y"}`)
	for _, op := range []*holdfastv1.Operation{takeOp("no such"), takeOp(), addOp()} {
		if d := a.do(t, 2, op); !d.Bottom() {
			t.Errorf("%s of nothing leaves a trace: %s", OperationName(op), show(d))
		}
	}
	a.do(t, 2, clearOp())
	a.wants(t, "cleared", "orset:{}")
	b.do(t, 2, takeOp("y"))
	a.meet(t, b)
	a.wants(t, "removed twice", "orset:{}")
	a.do(t, 2, addOp("x", "y", "z"))
	a.do(t, 2, takeOp("x"))
	a.do(t, 2, takeOp("y"))
	if got := a.live.dots.count(); got != 1 {
		t.Errorf("%d dots of presence after two removes", got)
	}
	// A fill is about all members, whatever a delta names.
	named, fill := a.do(t, 2, addOp("w")), a.Context().Clone()
	other := a.Clone()
	if _, err := other.Join(&named, nil, fill); err != nil {
		t.Fatal(err)
	}
	wantValue(t, "a delta with a fill", other, `orset:{elements:"w"}`)
	a.do(t, 2, delOp())
	a.wants(t, "deleted", "")
	if !a.live.empty() {
		t.Errorf("something is left after a delete: %s", show(a.State))
	}
	a.do(t, 2, addOp())
	a.wants(t, "created empty", "orset:{}")

	g := newReplica(shapeOf(gsetModel), 1)
	g.do(t, 2, addOp("x"))
	if d := g.do(t, 2, addOp("x")); !d.Bottom() {
		t.Errorf("added twice: %s", show(d))
	}
	g.do(t, 2, addOp("", "x"))
	g.wants(t, "gset", `gset:{elements:"" elements:"x"}`)
}

// History leaves nothing behind, and a set of many elements is a few leaves.
func TestSetsDontGrowWithHistory(t *testing.T) {
	a := newReplica(shapeOf(orsetModel), 1)
	a.do(t, 2, addOp("x"))
	size := len(a.Append(nil))
	for range 200 {
		a.do(t, 2, addOp("x", "y"))
		a.do(t, 2, takeOp("y"))
	}
	if got := len(a.Append(nil)); got > size+16+10 {
		t.Errorf("%d bytes after one change, %d after 400", size, got)
	}
	for i := range 1000 {
		a.do(t, 2, addOp(fmt.Sprint(i)))
	}
	for i := range 1000 {
		if i%10 > 0 {
			a.do(t, 2, takeOp(fmt.Sprint(i)))
		}
	}
	if got := len(a.live.members.leaves); got > 8 || a.live.members.len() != 101 {
		t.Errorf("%d elements in %d leaves", a.live.members.len(), got)
	}
	for _, leaf := range a.live.members.leaves {
		if len(leaf) > maxLeaf || len(leaf) == 0 {
			t.Errorf("leaf of %d", len(leaf))
		}
	}
	checkEncoding(t, a.State)
}

func TestVote(t *testing.T) {
	// testView: this is node-0, and node-0 and node-1 are voters.
	a, b := pair(t, shapeOf(voteModel))
	a.do(t, 2, voteOp(true))
	b.do(t, 2, voteOp(true))
	a.meet(t, b)
	a.wants(t, "node-2 is no voter", "vote:{votes_for:1 total_voters:2}")
	if d := a.do(t, 2, voteOp(true)); !d.Bottom() {
		t.Errorf("voted twice: %s", show(d))
	}
	v := a.Value(View{Node: node(2), Voters: []string{node(2), node(1), node(9), node(1)}}).GetVote()
	if !v.SelfVote || v.VotesFor != 2 || v.TotalVoters != 3 {
		t.Errorf("seen by node-2: %v", v)
	}
	a.do(t, 2, voteOp(false))
	b.do(t, 2, delOp())
	a.meet(t, b)
	a.wants(t, "vote and concurrent delete", "vote:{total_voters:2}")
	if got := a.LatestTime(); got != 3 {
		t.Errorf("latest time: got %d", got)
	}
}

func TestMap(t *testing.T) {
	counters := shapeOf(ormapModel, gcounterModel)
	a, b := pair(t, counters, updateOp("q", nil))
	a.wants(t, "created", `ormap:{entries:{key:"q" value:{gcounter:0}}}`)
	if d := a.do(t, 2, updateOp("q", nil)); !d.Bottom() {
		t.Errorf("created twice: %s", show(d))
	}
	a.do(t, 2, updateOp("q", incOp(2)))
	b.do(t, 2, updateOp("q", incOp(3)))
	a.meet(t, b)
	a.wants(t, "concurrent increments", `ormap:{entries:{key:"q" value:{gcounter:5}}}`)
	a.do(t, 2, removeOp("q"))
	a.wants(t, "removed", `ormap:{}`)
	b.do(t, 2, updateOp("q", incOp(1)))
	a.meet(t, b)
	a.wants(t, "remove and concurrent increment", `ormap:{entries:{key:"q" value:{gcounter:4}}}`)

	nested := shapeOf(ormapModel, ormapModel, orsetModel)
	a, b = pair(t, nested, updateOp("p", updateOp("s", addOp("x"))), updateOp("p", updateOp("t", takeOp("x"))))
	a.wants(t, "an update that changes nothing creates", `ormap:{entries:{key:"p" value:{ormap:{
		entries:{key:"s" value:{orset:{elements:"x"}}} entries:{key:"t" value:{orset:{}}}}}}}`)
	a.do(t, 2, removeOp("p"))
	b.do(t, 2, updateOp("p", updateOp("s", addOp("y"))))
	a.meet(t, b)
	a.wants(t, "remove and concurrent add", `ormap:{entries:{key:"p" value:{ormap:{entries:{key:"s" value:{orset:{elements:"y"}}}}}}}`)
	a.do(t, 2, updateOp("p", clearOp()))
	a.wants(t, "cleared within", `ormap:{entries:{key:"p" value:{ormap:{}}}}`)
	a.do(t, 2, clearOp())
	a.wants(t, "cleared", `ormap:{}`)
	a.do(t, 2, delOp())
	a.wants(t, "deleted", "")
}

func TestBoundedCounter(t *testing.T) {
	p := shapeOf(bcounterModel)
	a, b := pair(t, p, changeOp(10))
	a.wants(t, "added", "bcounter:{value:10 available:10}")
	var short *RightsError
	_, err := b.Delta(changeOp(-1), Mutator{Replica: 2, Seq: 1})
	if !errors.As(err, &short) || !errors.Is(err, ErrRights) || *short != (RightsError{Need: 1, Have: 0, Total: 10}) {
		t.Errorf("without rights: got %v", err)
	}
	d, err := a.Transfer(2, 4, Mutator{Replica: 1, Seq: a.seq})
	if err != nil {
		t.Fatal(err)
	}
	a.seq++
	merge(t, &a.State, d)
	merge(t, &b.State, d)
	b.do(t, 2, changeOp(-3))
	a.meet(t, b)
	a.wants(t, "after both", "bcounter:{value:7 available:6}")
	if got := a.Rights(2); got != 1 {
		t.Errorf("rights of the other: got %d", got)
	}
	_, err = a.Delta(changeOp(-8), Mutator{Replica: 1, Seq: a.seq})
	if !errors.As(err, &short) || short.Total != 7 || !strings.Contains(err.Error(), "at most 7") {
		t.Errorf("below the floor: got %v", err)
	}
	if _, err := a.Transfer(2, 7, Mutator{Replica: 1, Seq: a.seq}); !errors.Is(err, ErrRights) {
		t.Errorf("transfer of more than it has: got %v", err)
	}
	v := a.Value(View{Replica: 1, Floor: -100}).GetBcounter()
	if v.Value != -93 || v.Available != 6 {
		t.Errorf("with a floor: %v", v)
	}
	// Who comes back on the same disk takes its rights over, and nobody else does.
	_, err = a.Delta(changeOp(-2), Mutator{Replica: 3, Seq: 1})
	if !errors.Is(err, ErrRights) {
		t.Errorf("a stranger: got %v", err)
	}
	d, err = a.Delta(changeOp(-2), Mutator{Replica: 3, Seq: 1, Heir: func(r uint64) bool { return r == 1 }})
	if err != nil {
		t.Fatal(err)
	}
	merge(t, &a.State, d)
	if a.Rights(1) != 0 || a.Rights(3) != 4 || a.Rights(2) != 1 {
		t.Errorf("rights after the heir: %d, %d, %d", a.Rights(1), a.Rights(2), a.Rights(3))
	}
}
