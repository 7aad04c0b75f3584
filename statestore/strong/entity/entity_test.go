package entity_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/holdfast-mesh/holdfast/internal/fenced"
	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
	"github.com/holdfast-mesh/holdfast/statestore/strong/entity"
)

func TestWhatApplyRefuses(t *testing.T) {
	values, events := valueType(t), eventType(t)
	folded := newType(t, &configv1.EntityType{Model: configv1.Model_MODEL_EVENT_SOURCED, Folded: true})
	one := &entity.Record{}
	for _, c := range []struct {
		name string
		typ  *entity.Type
		ops  []*holdfastv1.Operation
		code codes.Code
		text string
	}{
		{"a counter's operation", values, []*holdfastv1.Operation{set("x"), increment()}, codes.InvalidArgument, "operation 1 (increment) on t: a value takes"},
		{"an append to a value", values, []*holdfastv1.Operation{appended("a:")}, codes.InvalidArgument, "operation 0 (append)"},
		{"a set of an event-sourced entity", events, []*holdfastv1.Operation{set("x")}, codes.InvalidArgument, "takes append, snapshot and delete"},
		{"a patch without encoding", values, []*holdfastv1.Operation{mergePatch("{}")}, codes.InvalidArgument, "set model.value.encoding"},
		{"a field patch without encoding", values, []*holdfastv1.Operation{fieldPatch("{}", "a")}, codes.InvalidArgument, "set model.value.encoding"},
		{"too large", values, []*holdfastv1.Operation{set(strings.Repeat("x", 1001))}, codes.ResourceExhausted, "1001 bytes, at most 1000: raise maxStateBytes"},
		{"events that are too large", events, []*holdfastv1.Operation{appended("a:" + strings.Repeat("x", 1001)), snapshot("")}, codes.ResourceExhausted, "1066 bytes, at most 1000"},
		{"state that is too large", events, []*holdfastv1.Operation{appended("a:" + strings.Repeat("x", 600)), snapshot(strings.Repeat("x", 1001))}, codes.ResourceExhausted, "1001 bytes, at most 1000"},
		{"an event without type", events, []*holdfastv1.Operation{appended("a:", ":x")}, codes.InvalidArgument, "event 1 has no type"},
		{"an event whose type is no text", events, []*holdfastv1.Operation{appended("\xff:x")}, codes.InvalidArgument, "UTF-8"},
		{"another sequence", events, []*holdfastv1.Operation{expecting(3, appended("a:"))}, codes.Aborted, "sequence is 0, 3 was expected"},
		{"another sequence after an append", events, []*holdfastv1.Operation{appended("a:"), expecting(0, appended("a:"))}, codes.Aborted, "sequence is 1, 0 was expected"},
		{"an append after the snapshot", events, []*holdfastv1.Operation{appended("a:"), snapshot("x"), appended("a:")}, codes.InvalidArgument, "operation 2 (append)"},
		{"an append after a delete", events, []*holdfastv1.Operation{del(), appended("a:")}, codes.InvalidArgument, "after a delete"},
		{"a snapshot of nothing", events, []*holdfastv1.Operation{snapshot("x")}, codes.InvalidArgument, "no event that it could include"},
		{"a folded append without snapshot", folded, []*holdfastv1.Operation{appended("a:")}, codes.InvalidArgument, "without a snapshot"},
		{"no operation that is known", values, []*holdfastv1.Operation{{}}, codes.InvalidArgument, "operation 0"},
	} {
		next, _, err := c.typ.Apply(one, "id", c.ops, start)
		wantRefusal(t, c.name, err, c.code, c.text)
		if next != nil {
			t.Errorf("%s: got a record beside the refusal", c.name)
		}
	}
	many := make([]string, 1025)
	for i := range many {
		many[i] = "a:"
	}
	_, _, err := events.Apply(one, "id", []*holdfastv1.Operation{appended(many...)}, start)
	wantRefusal(t, "too many events", err, codes.ResourceExhausted, "1025 events")
	if next, w, err := values.Apply(one, "id", nil, start); err != nil || next != one || w.Head != nil {
		t.Errorf("no operations: got %v, %v, %v, want no change", next, w, err)
	}
}

func TestSnapshotIsAskedForBeforeAppendsAreRefused(t *testing.T) {
	typ, d := eventType(t), newDisk()
	r := d.do(t, typ, d.decode(t, typ), "1", start, appended("a:"+strings.Repeat("x", 400)))
	if typ.Value(r).GetEventSourced().SnapshotWanted {
		t.Error("wanted too early")
	}
	r = d.do(t, typ, r, "2", start, appended("a:"+strings.Repeat("x", 100)))
	if !typ.Value(r).GetEventSourced().SnapshotWanted {
		t.Error("half of maxStateBytes are events, and no snapshot is wanted")
	}
	_, _, err := typ.Apply(r, "3", []*holdfastv1.Operation{appended("a:" + strings.Repeat("x", 500))}, start)
	wantRefusal(t, "no room", err, codes.ResourceExhausted, "set snapshotEvery")
	d.do(t, typ, r, "3", start, appended("a:"+strings.Repeat("x", 500)), snapshot("small"))
}

func TestRequestIDsAreARing(t *testing.T) {
	typ, d := valueType(t), newDisk()
	r := d.decode(t, typ)
	const n = 5000
	for i := range n {
		r = d.do(t, typ, r, fmt.Sprint("id", i), start, set("x"))
		if len(r.Head()) > 64+32*16 {
			t.Fatalf("a head of %d bytes", len(r.Head()))
		}
	}
	if len(d.cells) != 128 {
		t.Errorf("%d pages, want 128", len(d.cells))
	}
	for _, r := range []*entity.Record{r, d.decode(t, typ)} {
		for i := range n {
			if kept := i >= n-4096; kept && !r.Applied(fmt.Sprint("id", i)) {
				t.Fatalf("id %d of %d is forgotten", i, n)
			}
		}
		if r.Applied("id0") {
			t.Error("the first id is still known")
		}
	}
	// Later they go, some pages with each new one.
	now := start.Add(11 * time.Minute)
	for i := range 40 * 32 {
		r = d.do(t, typ, r, fmt.Sprint("late", i), now, set("x"))
	}
	if len(d.cells) != 40 {
		t.Errorf("%d pages after a while, want the 40 new ones", len(d.cells))
	}
	d.decode(t, typ)
}

// A head that was read before, or after, its cells is found out.
func TestHeadAndCellsOfDifferentTimes(t *testing.T) {
	typ, d := eventType(t), newDisk()
	r := d.decode(t, typ)
	step := 0
	do := func(ops ...*holdfastv1.Operation) func() {
		return func() {
			step++
			r = d.do(t, typ, r, fmt.Sprint(step), start, ops...)
		}
	}
	many := func() {
		for range 33 {
			do(appended("n:"), snapshot("n"))()
		}
	}
	type moment struct {
		head  []byte
		rev   int64
		cells map[string][]byte
		text  string
	}
	var moments []moment
	for _, f := range []func(){
		do(appended("a:1", "b:2")), do(appended("c:3")), do(appended("d:4"), snapshot("four")), do(appended("e:5")), many,
		do(del()), do(appended("a:1", "b:2")), do(appended("c:3"), snapshot("x")), do(appended("y:")), many, do(del()),
	} {
		f()
		m := moment{d.head, d.rev, map[string][]byte{}, describe(typ, r)}
		for name, v := range d.cells {
			m.cells[name] = v
		}
		moments = append(moments, m)
	}
	for i, head := range moments {
		for j, cells := range moments {
			other := &disk{cells: cells.cells}
			got, err := entity.Decode(typ, head.head, head.rev, other.load)
			switch {
			case errors.Is(err, entity.ErrChanged):
				if i == j {
					t.Errorf("moment %d: %v", i, err)
				}
			case err != nil:
				t.Errorf("head of %d, cells of %d: %v", i, j, err)
			case describe(typ, got) != head.text:
				t.Errorf("head of %d, cells of %d: got %s, want %s", i, j, describe(typ, got), head.text)
			}
		}
	}
}

func TestAnotherModel(t *testing.T) {
	values, events := valueType(t), eventType(t)
	d := newDisk()
	r := d.do(t, events, d.decode(t, events), "1", start, appended("a:", "b:"))
	_, err := entity.Decode(values, d.head, d.rev, d.load)
	wantRefusal(t, "events as a value", err, codes.FailedPrecondition, "another model")
	// A deleted one may begin anew, and its sequences don't come again.
	d.do(t, events, r, "2", start, del())
	r = d.decode(t, values)
	d.do(t, values, r, "3", start, set("x"))
	_, err = entity.Decode(events, d.head, d.rev, d.load)
	wantRefusal(t, "a value as events", err, codes.FailedPrecondition, "another model")
	r = d.do(t, values, d.decode(t, values), "4", start, del())
	if !r.Applied("1") {
		t.Error("its request ids are gone")
	}
	r = d.do(t, events, d.decode(t, events), "5", start, appended("a:"))
	if r.Sequence() != 3 || r.Deleted() != 2 {
		t.Errorf("got %s, want sequence 3", describe(events, r))
	}
}

func TestDecodeFails(t *testing.T) {
	typ := valueType(t)
	broken := errors.New("broken")
	d := newDisk()
	r := d.decode(t, typ)
	for i := range 40 {
		r = d.do(t, typ, r, fmt.Sprint(i), start, set("x"))
	}
	if _, err := entity.Decode(typ, d.head, d.rev, func(string, string) ([]fenced.Cell, error) { return nil, broken }); !errors.Is(err, broken) {
		t.Errorf("got %v, want what the cells' reader said", err)
	}
	for n := range 12 {
		if _, err := entity.DecodeHead(d.head[:n], d.rev); err == nil {
			t.Errorf("a head of %d bytes was taken", n)
		}
	}
	if _, err := entity.DecodeHead([]byte("\x03abcdefghijklmnop"), 1); err == nil {
		t.Error("a layout of the future was taken")
	}
}

// Commands whose TTL counts from the last use move its end seldom, and never the version.
func TestTouch(t *testing.T) {
	typ, d := valueType(t), newDisk()
	typ.TTL, typ.TTLByUse = 100*time.Second, true
	r := d.do(t, typ, d.decode(t, typ), "1", start, set("x"))
	version, commits := r.Version(), 0
	for i := range 2000 {
		now := start.Add(time.Duration(i) * 200 * time.Millisecond)
		next, w, changed := typ.Touch(r, now)
		if !changed {
			continue
		}
		commits++
		if r = next.At(d.commit(t, w)); r.Version() != version {
			t.Fatalf("a use changed the version from %s to %s", version, r.Version())
		}
	}
	if commits < 30 || commits > 40 {
		t.Errorf("%d commits in 400 s with a ttl of 100 s, want about 39", commits)
	}
}

func TestStrayMarkIsRemoved(t *testing.T) {
	typ, d := valueType(t), newDisk()
	r := d.do(t, typ, d.decode(t, typ), "1", start, set("x"))
	next, w, changed := typ.Due(r, 77, start)
	if !changed || next != r || !w.Keep || w.Unmark != 77 || w.Mark != 0 || !w.Frees {
		t.Errorf("got %v, %+v, want the mark removed and the head kept", changed, w)
	}
}

// The cell of an event is in the range that EventCells tells, wherever the event is in its commit.
func TestEventCells(t *testing.T) {
	typ, d := newType(t, &configv1.EntityType{Model: configv1.Model_MODEL_EVENT_SOURCED, MaxStateBytes: 1_000_000}), newDisk()
	r := d.decode(t, typ)
	for i, n := range []int{1, entity.MaxEvents, 3, entity.MaxEvents, 1} {
		events := make([]string, n)
		for j := range events {
			events[j] = "a:"
		}
		r = d.do(t, typ, r, fmt.Sprint(i), start, appended(events...))
	}
	for sequence := uint64(1); sequence <= r.Sequence(); sequence++ {
		cells, err := d.load(entity.EventCells(sequence))
		if err != nil || len(cells) == 0 {
			t.Fatalf("event %d: %d cells, %v", sequence, len(cells), err)
		}
		events, err := entity.DecodeEvents(cells[0])
		if err != nil || events[0].Sequence > sequence {
			t.Fatalf("event %d is before the first of its range, %d, %v", sequence, events[0].Sequence, err)
		}
	}
}
