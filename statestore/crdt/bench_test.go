package crdt

import (
	"fmt"
	"runtime"
	"testing"

	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
)

// BenchmarkCommit is an operation as the engine makes it: delta, join, seen, strip.
func BenchmarkCommit(b *testing.B) {
	for _, c := range []struct {
		name    string
		shape   *configv1.Shape
		prepare func(i int) *holdfastv1.Operation
		n       int
		op      func(i int) *holdfastv1.Operation
	}{
		{"gcounter", shapeOf(gcounterModel), nil, 0, func(int) *holdfastv1.Operation { return incOp(1) }},
		{"lww", shapeOf(lwwModel), nil, 0, func(int) *holdfastv1.Operation { return setOp("some bytes of a value") }},
		{"orset of 1000", shapeOf(orsetModel), func(i int) *holdfastv1.Operation { return addOp(fmt.Sprint(i)) }, 1000, func(i int) *holdfastv1.Operation { return addOp(fmt.Sprint(i % 1000)) }},
		{"ormap of 1000", shapeOf(ormapModel, gcounterModel), func(i int) *holdfastv1.Operation { return updateOp(fmt.Sprint(i), incOp(1)) }, 1000, func(i int) *holdfastv1.Operation { return updateOp(fmt.Sprint(i%1000), incOp(1)) }},
		{"ormap of 30000", shapeOf(ormapModel, gcounterModel), func(i int) *holdfastv1.Operation { return updateOp(fmt.Sprint(i), incOp(1)) }, 30000, func(i int) *holdfastv1.Operation { return updateOp(fmt.Sprint(i%1000), incOp(1)) }},
	} {
		b.Run(c.name, func(b *testing.B) {
			s, seen, next := bottom(c.shape), &Context{}, uint64(1)
			do := func(op *holdfastv1.Operation) {
				d, err := s.Delta(op, Mutator{Replica: 1, Seq: next, Now: MinTime})
				if err != nil {
					b.Fatal(err)
				}
				next = d.Context().Next(1)
				if _, err := s.Join(&d, seen, nil); err != nil {
					b.Fatal(err)
				}
				seen.Merge(d.Context())
				s.Strip(seen)
			}
			for i := range c.n {
				do(c.prepare(i))
			}
			ops := make([]*holdfastv1.Operation, 1000)
			for i := range ops {
				ops[i] = c.op(i)
			}
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				do(ops[i%len(ops)])
			}
		})
	}
}

// BenchmarkReceive is a delta of another store, decoded and joined.
func BenchmarkReceive(b *testing.B) {
	for _, n := range []int{1, 1000} {
		b.Run(fmt.Sprintf("remove of one of %d", n), func(b *testing.B) {
			s, seen := bottom(shapeOf(ormapModel, gcounterModel)), &Context{}
			for i := range n {
				d, err := s.Delta(updateOp(fmt.Sprint(i), incOp(1)), Mutator{Replica: 1, Seq: uint64(i + 1)})
				if err != nil {
					b.Fatal(err)
				}
				merge(b, &s, d)
			}
			seen.Merge(s.Context())
			s.Strip(seen)
			d, err := s.Delta(removeOp("0"), Mutator{Replica: 1, Seq: uint64(n + 1)})
			if err != nil {
				b.Fatal(err)
			}
			code := d.Append(nil)
			b.ReportAllocs()
			for b.Loop() {
				o, err := Decode(code)
				if err != nil {
					b.Fatal(err)
				}
				to := s
				if changed, err := to.Join(&o, seen, nil); err != nil || !changed {
					b.Fatal(changed, err)
				}
			}
		})
	}
}

// A counter in memory is the State and a dot of some ten bytes for each node that counted: the budget of a million of them.
func TestMemoryOfCounters(t *testing.T) {
	const n = 100_000
	for _, c := range []struct{ dots, most int }{{1, 64}, {2, 80}} {
		states := make([]State, n)
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		seen := &Context{}
		for i := range states {
			states[i] = bottom(shapeOf(gcounterModel))
			for r := range uint64(c.dots) {
				d, err := states[i].Delta(incOp(1), Mutator{Replica: r + 1, Seq: uint64(i + 1)})
				if err != nil {
					t.Fatal(err)
				}
				if _, err := states[i].Join(&d, seen, nil); err != nil {
					t.Fatal(err)
				}
				seen.Merge(d.Context())
				states[i].Strip(seen)
			}
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		// The slice itself was there before.
		each := int(after.HeapAlloc-before.HeapAlloc)/n + 40
		t.Logf("%d dots: %d bytes", c.dots, each)
		if each > c.most {
			t.Errorf("a counter of %d dots takes %d bytes, at most %d", c.dots, each, c.most)
		}
		runtime.KeepAlive(states)
	}
}
