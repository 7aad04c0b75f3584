package slots

import (
	"bytes"
	"testing"
	"time"

	"github.com/holdfast-mesh/holdfast/internal/placement"
	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
	"github.com/holdfast-mesh/holdfast/statestore/crdt"
	"github.com/holdfast-mesh/holdfast/statestore/wal"
)

func counterDelta(t testing.TB, replica, seq uint64) crdt.State {
	t.Helper()
	s, err := crdt.New(&configv1.Shape{Model: configv1.Model_MODEL_GCOUNTER})
	if err != nil {
		t.Fatal(err)
	}
	d, err := s.Delta(&holdfastv1.Operation{Operation: &holdfastv1.Operation_Increment{Increment: &holdfastv1.Increment{By: 1}}},
		crdt.Mutator{Replica: replica, Seq: seq, Now: crdt.MinTime, Node: "n"})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// recorder is a replayer that keeps what it was told.
func recorder(x *Index) (*Replayer, *[]string) {
	var told []string
	return &Replayer{
		Index:    x,
		Request:  func(typ, key, id string, _ crdt.Dot, _ time.Time) { told = append(told, typ+key+id) },
		Identity: func(_ uint64, node string, _ bool) { told = append(told, node) },
		Retired:  func([]uint64) { told = append(told, "retired") },
	}, &told
}

func records(t testing.TB) [][]byte {
	d := counterDelta(t, 7, 1)
	slot := placement.Slot("c", "k")
	fill := d.Context().Clone()
	fill.Add(crdt.Dot{Replica: 8, Seq: 3})
	fill.Retire(crdt.NewRetired(5))
	delta := Delta{Type: "c", Key: "k", RequestID: "r", Dot: crdt.Dot{Replica: 7, Seq: 1}, At: time.UnixMilli(1), State: d.Append(nil)}
	return [][]byte{
		delta.Append(nil),
		AppendStates(nil, "c", slot, time.UnixMilli(2), fill, []Whole{{Key: "k", Live: d.AppendLive(nil), Fill: fill}}),
		AppendIdentity(nil, 7, "n", true),
		AppendSeen(nil, "c", slot, fill, nil),
		AppendRetire(nil, []uint64{7}, map[string][]uint32{"c": {slot}}),
		AppendDrop(nil, "other", 3),
	}
}

func TestRecords(t *testing.T) {
	x := NewIndex()
	r, told := recorder(x)
	for range 2 { // Once more does no harm.
		for _, b := range records(t) {
			if err := r.Record(b); err != nil {
				t.Fatal(err)
			}
		}
		if err := r.Finish(); err != nil {
			t.Fatal(err)
		}
	}
	if len(*told) != 6 {
		t.Errorf("told %q", *told)
	}
	s := x.Slot("c", placement.Slot("c", "k"))
	seen := s.Seen()
	if !seen.Retired().Has(5) || !seen.Retired().Has(7) || !seen.Has(crdt.Dot{Replica: 8, Seq: 3}) || seen.Has(crdt.Dot{Replica: 8, Seq: 2}) {
		t.Errorf("seen %v", seen)
	}
	_, states, err := s.States([]string{"k"})
	if err != nil || len(states) != 1 || states[0].Fill != nil {
		t.Errorf("got %v, %v: want the entity without residue", states, err)
	}
}

// Residue stays while the slot has not seen what it covers, in records and in sections.
func TestResidueIsKept(t *testing.T) {
	x := NewIndex()
	r, _ := recorder(x)
	for _, b := range records(t)[:2] {
		if err := r.Record(b); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Finish(); err != nil {
		t.Fatal(err)
	}
	s := x.Slot("c", placement.Slot("c", "k"))
	set, rest, body, err := s.section(1)
	if err != nil {
		t.Fatal(err)
	}
	meta := s.meta(0, rest)
	if set.Len() != 0 {
		t.Fatalf("the slot has retired %v", set.IDs())
	}
	again := NewIndex()
	again.Attach(sections{body})
	if err := NewLoader(again, nil).Section(meta, wal.Ref{}); err != nil {
		t.Fatal(err)
	}
	for _, x := range []*Index{x, again} {
		_, states, err := x.Slot("c", placement.Slot("c", "k")).States([]string{"k"})
		if err != nil || len(states) != 1 || !states[0].Fill.Has(crdt.Dot{Replica: 8, Seq: 3}) || !states[0].Fill.Retired().Has(5) {
			t.Errorf("got %v, %v: want the residue", states, err)
		}
		if got, want := x.Slot("c", placement.Slot("c", "k")).Hash(), s.Hash(); got != want {
			t.Errorf("hash %x, want %x", got, want)
		}
	}
}

// A state of a peer that knows less of a retired identity than this slot took nothing away, and a replay must not either.
func TestReplayOfAFillTakesNothingMore(t *testing.T) {
	slot := placement.Slot("c", "k")
	old, other := counterDelta(t, 7, 1), counterDelta(t, 8, 1)
	delta := Delta{Type: "c", Key: "k", At: time.UnixMilli(1), State: old.Append(nil)}
	x := NewIndex()
	r, _ := recorder(x)
	for _, b := range [][]byte{
		delta.Append(nil),
		AppendRetire(nil, []uint64{7}, map[string][]uint32{"c": {slot}}),
		AppendStates(nil, "c", slot, time.UnixMilli(2), other.Context(), []Whole{{Key: "k", Live: other.AppendLive(nil)}}),
	} {
		if err := r.Record(b); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Finish(); err != nil {
		t.Fatal(err)
	}
	live := 0
	if err := x.Slot("c", slot).Read("k", func(e *Entity) { e.State.Live(func(crdt.Dot) bool { live++; return true }) }); err != nil || live != 2 {
		t.Errorf("%d changes are live after the replay, %v: want both", live, err)
	}
}

// A log snapshot may be newer than a record of the same key by so much that the type has another model since.
func TestReplayOverAnotherModel(t *testing.T) {
	s, err := crdt.New(&configv1.Shape{Model: configv1.Model_MODEL_FLAG})
	if err != nil {
		t.Fatal(err)
	}
	now, err := s.Delta(&holdfastv1.Operation{Operation: &holdfastv1.Operation_Enable{Enable: &holdfastv1.Enable{}}}, crdt.Mutator{Replica: 7, Seq: 3, Now: crdt.MinTime})
	if err != nil {
		t.Fatal(err)
	}
	newer := Delta{Type: "c", Key: "k", At: time.UnixMilli(1), State: now.Append(nil)}
	old := counterDelta(t, 7, 1)
	older := Delta{Type: "c", Key: "k", At: time.UnixMilli(1), State: old.Append(nil)}
	r, _ := recorder(NewIndex())
	for _, b := range [][]byte{newer.Append(nil), older.Append(nil)} {
		if err := r.Record(b); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Finish(); err != nil {
		t.Error(err)
	}
}

type sections struct{ body []byte }

func (s sections) ReadSection(wal.Ref) ([]byte, error) { return s.body, nil }

// FuzzRecord: bytes of a log that passed its checksums but are not ours are an error, never a panic.
func FuzzRecord(f *testing.F) {
	for _, b := range records(f) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, _ := recorder(NewIndex())
		before := bytes.Clone(b)
		if r.Record(b) == nil {
			_ = r.Finish()
		}
		if !bytes.Equal(before, b) {
			t.Error("the record was changed")
		}
	})
}

// FuzzSection is the same for sections.
func FuzzSection(f *testing.F) {
	x := NewIndex()
	r, _ := recorder(x)
	for _, b := range records(f)[:2] {
		if err := r.Record(b); err != nil {
			f.Fatal(err)
		}
	}
	if err := r.Finish(); err != nil {
		f.Fatal(err)
	}
	s := x.Slot("c", placement.Slot("c", "k"))
	_, rest, body, err := s.section(1)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(s.meta(0, rest), body)
	f.Add([]byte{retiredSection, 1, 0}, []byte(nil))
	f.Fuzz(func(_ *testing.T, meta, body []byte) {
		x := NewIndex()
		x.Attach(sections{body})
		l := NewLoader(x, func([]byte) error { return nil })
		if l.Section(meta, wal.Ref{}) != nil {
			return
		}
		for _, t := range x.Types() {
			for s := range t.Slots {
				_, _, _ = s.Keys(nil)
				_ = s.Read("k", func(*Entity) {})
				_, _, _ = s.States([]string{"k"})
			}
		}
	})
}
