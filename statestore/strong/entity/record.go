package entity

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strconv"

	"google.golang.org/grpc/codes"

	"github.com/holdfast-mesh/holdfast/internal/fenced"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
	"github.com/holdfast-mesh/holdfast/statestore/refusal"
)

// ErrChanged says that head and cells are of different times: read the head anew, then decode that.
var ErrChanged = errors.New("the entity was changed while it was read")

// errCorrupt says that bytes in etcd are not what any version of this package wrote.
var errCorrupt = errors.New("not a layout that is known")

// Record is an entity at one revision. The zero Record was never written. Immutable.
type Record struct {
	// Revision is the head's modification revision; 0: there is no head.
	Revision int64

	exists       bool
	eventSourced bool
	sequence     uint64
	// Invariant: snapshotAt <= sequence, deleted <= sequence; where there is a snapshot, deleted < snapshotAt.
	snapshotAt, deleted uint64
	// changed is the revision of the last change of state; 0: Revision.
	changed int64
	// expiry is in unix milliseconds, mark in unix seconds; 0: none.
	expiry, mark int64
	ids          ids
	value        []byte
	snapshot     []byte
	// events are those after the snapshot, and eventBytes what they take.
	events     []*holdfastv1.Event
	eventBytes int
	head       []byte
}

// Exists reports whether the entity has state.
func (r *Record) Exists() bool { return r.exists }

// Applied reports whether the command with this request id is among the remembered ones.
func (r *Record) Applied(requestID string) bool { return r.ids.has(requestID) }

// At returns the entity as it was committed at the revision.
func (r *Record) At(revision int64) *Record {
	out := *r
	out.Revision = revision
	return &out
}

// Size is about how many bytes the Record takes in memory.
func (r *Record) Size() int {
	const record, event, idPage = 256, 128, 8 + headIDs*16
	return record + len(r.head) + len(r.snapshot) + r.eventBytes + len(r.events)*event + len(r.ids.newest)*len(id{}) + len(r.ids.pages)*idPage
}

// Sequence is the last event's; 0: there was none yet.
func (r *Record) Sequence() uint64 { return r.sequence }

// Snapshot is the last event that the entity snapshot includes; 0: there is none.
func (r *Record) Snapshot() uint64 { return r.snapshotAt }

// Deleted is the sequence up to which events went with the entity when it was deleted.
func (r *Record) Deleted() uint64 { return r.deleted }

// Head is what etcd has, or is to have, under the head's key; nil where there is no head.
func (r *Record) Head() []byte { return r.head }

// Version is opaque and changes whenever the state does; "" where there is no state.
func (r *Record) Version() string {
	switch {
	case !r.exists:
		return ""
	case r.changed != 0:
		return strconv.FormatInt(r.changed, 36)
	}
	return strconv.FormatInt(r.Revision, 36)
}

// Value is the state as a service sees it; nil where the entity does not exist.
func (t *Type) Value(r *Record) *holdfastv1.Value {
	switch {
	case !r.exists:
		return nil
	case !t.eventSourced():
		return &holdfastv1.Value{Kind: &holdfastv1.Value_Value{Value: r.value}}
	}
	return &holdfastv1.Value{Kind: &holdfastv1.Value_EventSourced{EventSourced: &holdfastv1.EventSourcedValue{
		Snapshot: r.snapshot, SnapshotSequence: r.snapshotAt, Events: r.events, Sequence: r.sequence,
		SnapshotWanted: t.snapshotWanted(r),
	}}}
}

// snapshotWanted: often enough that replays are short, and before maxStateBytes refuses an append.
func (t *Type) snapshotWanted(r *Record) bool {
	return t.SnapshotEvery > 0 && (len(r.events) >= int(t.SnapshotEvery) || r.eventBytes > t.MaxStateBytes/2)
}

const (
	layout1 = 1
	layout2 = 2

	flagExists       = 1
	flagEventSourced = 2
)

// seal encodes the head.
func (r *Record) seal() {
	b := make([]byte, 0, 64+len(r.ids.newest)*len(id{})+len(r.value))
	flags := byte(0)
	if r.exists {
		flags |= flagExists
	}
	if r.eventSourced {
		flags |= flagEventSourced
	}
	b = append(b, layout2, flags)
	for _, n := range []uint64{
		r.sequence, r.snapshotAt, r.deleted, uint64(r.changed), uint64(r.expiry), uint64(r.mark), r.ids.first, r.ids.next,
	} {
		b = binary.AppendUvarint(b, n)
	}
	b = append(b, byte(len(r.ids.newest)))
	for _, i := range r.ids.newest {
		b = append(b, i[:]...)
	}
	r.head = append(b, r.value...)
	r.value = r.head[len(b):len(r.head):len(r.head)]
}

// DecodeHead reads a head by itself: the state of an event-sourced entity and older request ids are not in it.
func DecodeHead(head []byte, rev int64) (*Record, error) {
	if rev == 0 {
		return &Record{}, nil
	}
	r := &Record{Revision: rev, head: head}
	in := reader{b: head}
	layout := in.byte()
	flags := in.byte()
	r.exists, r.eventSourced = flags&flagExists != 0, flags&flagEventSourced != 0
	n := 0
	switch {
	case layout == layout1 && flags <= flagExists:
		for n = in.count(len(in.b)); n > 0; n-- {
			r.ids.newest = append(r.ids.newest, idOf(string(in.take(in.count(len(in.b))))))
		}
		// The next commit writes them anew: as many as a head may have.
		r.ids.newest = r.ids.newest[max(0, len(r.ids.newest)-headIDs):]
	case layout == layout2 && flags <= flagExists|flagEventSourced:
		r.sequence, r.snapshotAt, r.deleted = in.uvarint(), in.uvarint(), in.uvarint()
		r.changed, r.expiry, r.mark = in.unix(), in.unix(), in.unix()
		r.ids.first, r.ids.next = in.uvarint(), in.uvarint()
		if n = int(in.byte()); n > headIDs {
			in.failed = true
			break
		}
		r.ids.newest = make([]id, n)
		for i := range r.ids.newest {
			r.ids.newest[i] = id(in.take(len(id{})))
		}
	default:
		in.failed = true
	}
	r.value = in.b[:len(in.b):len(in.b)]
	if in.failed || !r.valid() {
		return nil, fmt.Errorf("head: %w", errCorrupt)
	}
	return r, nil
}

// valid checks the invariants that a head shows.
func (r *Record) valid() bool {
	switch {
	case r.sequence == math.MaxUint64, r.snapshotAt > r.sequence, r.deleted > r.sequence:
		return false
	case r.snapshotAt > 0 && r.deleted >= r.snapshotAt:
		return false
	case !r.exists && (r.snapshotAt > 0 || r.deleted != r.sequence):
		return false
	case !r.eventSourced && (r.snapshotAt > 0 || r.deleted != r.sequence):
		// A value that was event-sourced once keeps the sequence for the day when it is again.
		return false
	case len(r.value) > 0 && (r.eventSourced || !r.exists):
		return false
	}
	return r.ids.first <= r.ids.next && r.ids.next-r.ids.first <= maxPages
}

// Decode makes an entity of its head and its cells. cells returns those whose names are in [from, to), in order; it is called
// only for what the head needs. ErrChanged: they are of different times. A head that another model wrote is refused.
func Decode(t *Type, head []byte, rev int64, cells func(from, to string) ([]fenced.Cell, error)) (*Record, error) {
	r, err := DecodeHead(head, rev)
	if err != nil || rev == 0 {
		return r, err
	}
	if r.exists && r.eventSourced != t.eventSourced() {
		return nil, refusal.NotApplied(codes.FailedPrecondition,
			"this entity of %s was written when the type had another model; give the type its former model, or a new name", t.Name)
	}
	if err := r.ids.load(cells); err != nil {
		return nil, fmt.Errorf("request ids: %w", err)
	}
	if !r.exists || !r.eventSourced {
		return r, nil
	}
	if err := r.loadEvents(cells); err != nil {
		return nil, err
	}
	return r, nil
}

// reader takes bytes apart. After a failure everything it returns is zero.
type reader struct {
	b      []byte
	failed bool
}

// take returns n bytes, zeros after a failure. n is small where it is not of a slice that is there.
func (r *reader) take(n int) []byte {
	if r.failed || n < 0 || n > len(r.b) {
		r.failed, r.b = true, nil
		return make([]byte, max(0, min(n, 64)))
	}
	out := r.b[:n:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) byte() byte { return r.take(1)[0] }

func (r *reader) layout(want byte) {
	if r.byte() != want {
		r.failed, r.b = true, nil
	}
}

func (r *reader) uvarint() uint64 {
	n, size := binary.Uvarint(r.b)
	if r.failed || size <= 0 {
		r.failed, r.b = true, nil
		return 0
	}
	r.b = r.b[size:]
	return n
}

// unix is a number that fits a signed one.
func (r *reader) unix() int64 {
	n := r.uvarint()
	if n > math.MaxInt64 {
		r.failed, r.b = true, nil
		return 0
	}
	return int64(n)
}

// count is a number of things of which each takes at least a byte of what is left.
func (r *reader) count(limit int) int {
	n := r.uvarint()
	if n > uint64(limit) {
		r.failed, r.b = true, nil
		return 0
	}
	return int(n)
}
