package entity_test

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/holdfast-mesh/holdfast/internal/fenced"
	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
	"github.com/holdfast-mesh/holdfast/statestore/refusal"
	"github.com/holdfast-mesh/holdfast/statestore/strong/entity"
)

// start is a whole second.
var start = time.Unix(1_700_000_000, 0)

// failer is a *testing.T or a *rapid.T.
type failer interface {
	Helper()
	Fatalf(format string, args ...any)
	Errorf(format string, args ...any)
}

// disk is what etcd has of one entity.
type disk struct {
	head  []byte
	rev   int64
	cells map[string][]byte
	mark  int64
	// clock counts commits, and other entities' commits between them.
	clock int64
}

func newDisk() *disk { return &disk{cells: map[string][]byte{}, clock: 100} }

// commit carries out a Write as etcd would, and refuses what etcd would.
func (d *disk) commit(t failer, w fenced.Write) int64 {
	t.Helper()
	if w.Revision != d.rev {
		t.Fatalf("the write's guard is revision %d, the head has %d", w.Revision, d.rev)
	}
	put := map[string]bool{}
	for _, c := range w.Put {
		if put[c.Name] {
			t.Fatalf("cell %s is written twice", c.Name)
		}
		put[c.Name] = true
		for _, prefix := range w.Drop {
			if strings.HasPrefix(c.Name, prefix) {
				t.Fatalf("cell %s is written and dropped at once: etcd refuses that", c.Name)
			}
		}
	}
	for _, prefix := range w.Drop {
		maps.DeleteFunc(d.cells, func(name string, _ []byte) bool { return strings.HasPrefix(name, prefix) })
	}
	for _, c := range w.Put {
		d.cells[c.Name] = slices.Clone(c.Value)
	}
	if w.Unmark != 0 && w.Unmark != d.mark || w.Mark != 0 && w.Unmark != d.mark {
		t.Fatalf("mark %d, unmark %d, but the entity's mark is %d", w.Mark, w.Unmark, d.mark)
	}
	if w.Unmark != 0 || w.Mark != 0 {
		d.mark = w.Mark
	}
	d.clock += 3
	d.head, d.rev = slices.Clone(w.Head), d.clock
	if w.Head == nil {
		d.rev = 0
		if len(d.cells) > 0 {
			t.Fatalf("cells without a head: %v", slices.Sorted(maps.Keys(d.cells)))
		}
	}
	return d.rev
}

func (d *disk) load(from, to string) ([]fenced.Cell, error) {
	var out []fenced.Cell
	for _, name := range slices.Sorted(maps.Keys(d.cells)) {
		if name >= from && (to == "" || name < to) {
			out = append(out, fenced.Cell{Name: name, Value: d.cells[name]})
		}
	}
	return out, nil
}

// decode reads the entity anew.
func (d *disk) decode(t failer, typ *entity.Type) *entity.Record {
	t.Helper()
	r, err := entity.Decode(typ, d.head, d.rev, d.load)
	if err != nil {
		t.Fatalf("decode: %v", err)
	}
	return r
}

// do applies operations and commits them.
func (d *disk) do(t failer, typ *entity.Type, r *entity.Record, id string, now time.Time, ops ...*holdfastv1.Operation) *entity.Record {
	t.Helper()
	next, w, err := typ.Apply(r, id, ops, now)
	if err != nil {
		t.Fatalf("apply: %v", err)
	}
	if !bytes.Equal(next.Head(), w.Head) {
		t.Fatalf("the record's head is not the write's")
	}
	return next.At(d.commit(t, w))
}

func set(v string) *holdfastv1.Operation {
	return &holdfastv1.Operation{Operation: &holdfastv1.Operation_Set{Set: &holdfastv1.Set{Value: []byte(v)}}}
}

func del() *holdfastv1.Operation {
	return &holdfastv1.Operation{Operation: &holdfastv1.Operation_Delete{Delete: &holdfastv1.Delete{}}}
}

// appended makes an append of events "type:payload".
func appended(events ...string) *holdfastv1.Operation {
	a := &holdfastv1.AppendEvents{}
	for _, e := range events {
		typ, payload, _ := strings.Cut(e, ":")
		a.Events = append(a.Events, &holdfastv1.Event{Type: typ, Payload: []byte(payload)})
	}
	return &holdfastv1.Operation{Operation: &holdfastv1.Operation_Append{Append: a}}
}

func expecting(sequence uint64, op *holdfastv1.Operation) *holdfastv1.Operation {
	op.GetAppend().ExpectedSequence = &sequence
	return op
}

func snapshot(v string) *holdfastv1.Operation {
	return &holdfastv1.Operation{Operation: &holdfastv1.Operation_Snapshot{Snapshot: &holdfastv1.SaveSnapshot{Snapshot: []byte(v)}}}
}

func mergePatch(v string) *holdfastv1.Operation {
	return &holdfastv1.Operation{Operation: &holdfastv1.Operation_MergePatch{MergePatch: &holdfastv1.MergePatch{Patch: []byte(v)}}}
}

func fieldPatch(v string, paths ...string) *holdfastv1.Operation {
	return &holdfastv1.Operation{Operation: &holdfastv1.Operation_FieldPatch{FieldPatch: &holdfastv1.FieldPatch{Value: []byte(v), Paths: paths}}}
}

func increment() *holdfastv1.Operation {
	return &holdfastv1.Operation{Operation: &holdfastv1.Operation_Increment{Increment: &holdfastv1.Increment{By: 1}}}
}

func newType(t failer, c *configv1.EntityType) *entity.Type {
	t.Helper()
	c.Type, c.Consistency = "t", configv1.Consistency_CONSISTENCY_STRONG
	typ, err := entity.NewType(c)
	if err != nil {
		t.Fatalf("type: %v", err)
	}
	return typ
}

func valueType(t failer) *entity.Type {
	return newType(t, &configv1.EntityType{Model: configv1.Model_MODEL_VALUE, MaxStateBytes: 1000})
}

func jsonType(t failer) *entity.Type {
	return newType(t, &configv1.EntityType{Model: configv1.Model_MODEL_VALUE, ValueEncoding: configv1.ValueEncoding_VALUE_ENCODING_JSON})
}

func eventType(t failer) *entity.Type {
	return newType(t, &configv1.EntityType{Model: configv1.Model_MODEL_EVENT_SOURCED, MaxStateBytes: 1000, SnapshotEvery: 3})
}

// describe says in one line what a service is given, and what else is known.
func describe(typ *entity.Type, r *entity.Record) string {
	out := fmt.Sprintf("exists=%v version=%q sequence=%d deleted=%d", r.Exists(), r.Version(), r.Sequence(), r.Deleted())
	switch v := typ.Value(r); {
	case v == nil:
	case v.GetEventSourced() != nil:
		es := v.GetEventSourced()
		out += fmt.Sprintf(" snapshot=%q@%d wanted=%v", es.Snapshot, es.SnapshotSequence, es.SnapshotWanted)
		for _, e := range es.Events {
			out += fmt.Sprintf(" %d:%s:%s@%d", e.Sequence, e.Type, e.Payload, e.Time.AsTime().UnixMicro())
		}
	default:
		out += fmt.Sprintf(" value=%q", v.GetValue())
	}
	return out
}

func wantRefusal(t *testing.T, what string, err error, code codes.Code, text string) {
	t.Helper()
	e, ok := err.(*refusal.Error)
	switch {
	case !ok:
		t.Errorf("%s: got %v, want a refusal", what, err)
	case e.Code != code || !strings.Contains(e.Message, text):
		t.Errorf("%s: got %s (%s), want %s with %q", what, e.Message, e.Code, code, text)
	}
}
