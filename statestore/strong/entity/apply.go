package entity

import (
	"time"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/holdfast-mesh/holdfast/internal/fenced"
	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
	"github.com/holdfast-mesh/holdfast/statestore/crdt"
	"github.com/holdfast-mesh/holdfast/statestore/refusal"
)

// Apply carries out a command's operations, all or none, and remembers its request id ("": there is none to remember). The
// Write has everything but slot, epoch and key. next has no revision yet: see At. No operation means no change:
// then next is r, and nothing is to be written.
//
// Errors are *refusal.Error: INVALID_ARGUMENT for operations that can't be, ABORTED where expected_sequence is another,
// FAILED_PRECONDITION where the value is not in the type's encoding, RESOURCE_EXHAUSTED for what would be too large.
func (t *Type) Apply(r *Record, requestID string, ops []*holdfastv1.Operation, now time.Time) (next *Record, w fenced.Write, err error) {
	if len(ops) == 0 {
		return r, fenced.Write{}, nil
	}
	d := &draft{t: t, base: r, next: *r, now: now}
	d.next.changed, d.next.eventSourced = 0, t.eventSourced()
	apply := d.value
	if t.eventSourced() {
		apply = d.event
	}
	for i, op := range ops {
		if err := apply(i, op); err != nil {
			return nil, fenced.Write{}, err
		}
	}
	if err := d.finish(); err != nil {
		return nil, fenced.Write{}, err
	}
	if requestID != "" {
		d.next.ids = r.ids.add(requestID, now, &d.write)
	}
	d.schedule()
	next, w = d.seal()
	return next, w, nil
}

// draft is a change in the making.
type draft struct {
	t     *Type
	base  *Record
	next  Record
	now   time.Time
	write fenced.Write
	// appended are the command's events; snapshot is set once it gave an entity snapshot; dead once it deleted.
	appended []*holdfastv1.Event
	snapshot bool
	dead     bool
}

// seal makes the Write.
func (d *draft) seal() (*Record, fenced.Write) {
	next := d.next
	next.Revision = 0
	next.seal()
	d.write.Revision, d.write.Head = d.base.Revision, next.head
	d.write.Frees = d.write.Frees || !next.exists
	return &next, d.write
}

func (d *draft) refuse(i int, op *holdfastv1.Operation, code codes.Code, format string, args ...any) error {
	return refusal.NotApplied(code, "operation %d (%s) on %s: "+format, append([]any{i, operationName(op), d.t.Name}, args...)...)
}

func operationName(op *holdfastv1.Operation) string {
	switch op.GetOperation().(type) {
	case *holdfastv1.Operation_Append:
		return "append"
	case *holdfastv1.Operation_Snapshot:
		return "snapshot"
	case *holdfastv1.Operation_MergePatch:
		return "merge_patch"
	case *holdfastv1.Operation_FieldPatch:
		return "field_patch"
	}
	return crdt.OperationName(op)
}

// value carries out an operation on a value.
func (d *draft) value(i int, op *holdfastv1.Operation) error {
	n := &d.next
	var err error
	switch o := op.GetOperation().(type) {
	case *holdfastv1.Operation_Set:
		if err = d.t.check(o.Set.GetValue()); err == nil {
			n.value, n.exists = o.Set.GetValue(), true
		}
	case *holdfastv1.Operation_Delete:
		n.value, n.exists = nil, false
	case *holdfastv1.Operation_MergePatch:
		n.value, err = d.t.mergePatch(n.value, n.exists, o.MergePatch.GetPatch())
		n.exists = true
	case *holdfastv1.Operation_FieldPatch:
		n.value, err = d.t.fieldPatch(n.value, n.exists, o.FieldPatch)
		n.exists = true
	default:
		return d.refuse(i, op, codes.InvalidArgument, "a value takes set, merge_patch, field_patch and delete")
	}
	if err != nil {
		return d.refuse(i, op, patchCode(err), "%v", err)
	}
	return nil
}

// event carries out an operation on an event-sourced entity.
func (d *draft) event(i int, op *holdfastv1.Operation) error {
	n := &d.next
	if d.dead && op.GetDelete() == nil {
		return d.refuse(i, op, codes.InvalidArgument, "it comes after a delete; delete and begin anew by two commands")
	}
	switch o := op.GetOperation().(type) {
	case *holdfastv1.Operation_Append:
		if d.snapshot {
			return d.refuse(i, op, codes.InvalidArgument, "it comes after the command's snapshot, which is to include all events")
		}
		if want := o.Append.ExpectedSequence; want != nil && *want != n.sequence {
			return d.refuse(i, op, codes.Aborted, "the last event's sequence is %d, %d was expected", n.sequence, *want)
		}
		if k := len(d.appended) + len(o.Append.GetEvents()); k > MaxEvents {
			return d.refuse(i, op, codes.ResourceExhausted, "%d events in one command, at most %d", k, MaxEvents)
		}
		at := timestamppb.New(d.now.Truncate(time.Microsecond))
		for j, e := range o.Append.GetEvents() {
			switch typ := e.GetType(); {
			case typ == "":
				return d.refuse(i, op, codes.InvalidArgument, "event %d has no type", j)
			case len(typ) > maxEventType || !utf8.ValidString(typ):
				return d.refuse(i, op, codes.InvalidArgument, "event %d has a type of %d bytes; at most %d, in UTF-8", j, len(typ), maxEventType)
			}
			n.sequence++
			d.appended = append(d.appended, &holdfastv1.Event{Sequence: n.sequence, Type: e.GetType(), Payload: e.GetPayload(), Time: at})
		}
		n.exists = n.exists || len(o.Append.GetEvents()) > 0
	case *holdfastv1.Operation_Snapshot:
		n.snapshot, d.snapshot = o.Snapshot.GetSnapshot(), true
	case *holdfastv1.Operation_Delete:
		d.dead = true
	default:
		return d.refuse(i, op, codes.InvalidArgument, "an event-sourced entity takes append, snapshot and delete")
	}
	return nil
}

// finish checks the whole and writes the cells.
func (d *draft) finish() error {
	n := &d.next
	if !d.t.eventSourced() {
		if k := len(n.value); k > d.t.MaxStateBytes {
			return refusal.NotApplied(codes.ResourceExhausted,
				"state of %s would take %d bytes, at most %d: raise maxStateBytes of the type, or spread the state over more keys", d.t.Name, k, d.t.MaxStateBytes)
		}
		return nil
	}
	if d.dead {
		n.exists, n.events, n.eventBytes, n.snapshot, n.snapshotAt, n.deleted = false, nil, 0, nil, 0, n.sequence
		d.write.Drop = append(d.write.Drop, eventPrefix, snapshotCell)
		return nil
	}
	if d.t.Folded && len(d.appended) > 0 && !d.snapshot {
		return refusal.NotApplied(codes.InvalidArgument,
			"append to %s without a snapshot: the type's services are given the folded state only, so each append needs a snapshot with it", d.t.Name)
	}
	if len(d.appended) > 0 {
		cell, err := encodeEvents(d.appended, d.now)
		if err != nil {
			return refusal.NotApplied(codes.InvalidArgument, "append to %s: %v", d.t.Name, err)
		}
		d.write.Put = append(d.write.Put, fenced.Cell{Name: EventCell(d.appended[0].Sequence), Value: cell})
	}
	size := 0
	for _, e := range d.appended {
		size += eventSize(e)
	}
	if size > d.t.MaxStateBytes {
		return refusal.NotApplied(codes.ResourceExhausted,
			"the events of one command on %s would take %d bytes, at most %d: raise maxStateBytes of the type, or append less at a time", d.t.Name, size, d.t.MaxStateBytes)
	}
	if d.snapshot {
		if n.sequence == n.deleted {
			return refusal.NotApplied(codes.InvalidArgument, "snapshot of %s: there is no event that it could include", d.t.Name)
		}
		n.events, n.eventBytes, n.snapshotAt = nil, 0, n.sequence
		d.write.Put = append(d.write.Put, fenced.Cell{Name: snapshotCell, Value: encodeSnapshot(n.snapshotAt, n.snapshot)})
	} else {
		n.events = append(n.events[:len(n.events):len(n.events)], d.appended...)
		n.eventBytes += size
	}
	if k := len(n.snapshot) + n.eventBytes; k > d.t.MaxStateBytes {
		return refusal.NotApplied(codes.ResourceExhausted,
			"state of %s (entity snapshot and %d events after it) would take %d bytes, at most %d: return a snapshot with the events, set snapshotEvery, or raise maxStateBytes of the type",
			d.t.Name, len(n.events), k, d.t.MaxStateBytes)
	}
	return nil
}

var errNoEncoding = errorOf(codes.InvalidArgument, "the type does not say what its values are: set model.value.encoding to json or proto")

// check refuses a value that is not in the type's encoding.
func (t *Type) check(value []byte) error {
	switch t.Encoding {
	case configv1.ValueEncoding_VALUE_ENCODING_JSON:
		return checkJSON("the value", value)
	case configv1.ValueEncoding_VALUE_ENCODING_PROTO:
		_, err := t.message("the value", value)
		return err
	}
	return nil
}
