package entity

import (
	"time"

	"github.com/holdfast-mesh/holdfast/internal/fenced"
)

// Expired reports that the TTL is over. It takes effect by the Write of Expire only: commit that before anybody is told.
func (t *Type) Expired(r *Record, now time.Time) bool {
	return r.exists && t.TTL > 0 && r.expiry != 0 && now.UnixMilli() >= r.expiry
}

// Expire deletes an entity whose TTL is over. Where it is not, changed is false and next is r.
func (t *Type) Expire(r *Record, now time.Time) (next *Record, w fenced.Write, changed bool) {
	if !t.Expired(r, now) {
		return r, fenced.Write{}, false
	}
	d := &draft{t: t, base: r, next: *r, now: now}
	n := &d.next
	n.changed, n.value, n.exists = 0, nil, false
	if n.eventSourced {
		n.events, n.eventBytes, n.snapshot, n.snapshotAt, n.deleted = nil, 0, nil, 0, n.sequence
		d.write.Drop = append(d.write.Drop, eventPrefix, snapshotCell)
	}
	d.schedule()
	next, w = d.seal()
	return next, w, true
}

// Touch counts a use of an entity whose TTL counts from there. changed is false where the TTL's end need not be moved: it
// is moved when more than a tenth of the TTL has gone. The version stays.
func (t *Type) Touch(r *Record, now time.Time) (next *Record, w fenced.Write, changed bool) {
	if !r.exists || !t.TTLByUse || t.TTL == 0 || t.Expired(r, now) {
		return r, fenced.Write{}, false
	}
	if end := t.end(now); r.expiry != 0 && end-r.expiry <= int64(t.TTL/time.Millisecond)/touchPart {
		return r, fenced.Write{}, false
	}
	d := t.housekeeping(r, now)
	d.schedule()
	next, w = d.seal()
	return next, w, true
}

// Due does what an entity's mark at that unix second is for: it deletes what is expired, moves a mark that came too early, and
// removes what is left of an entity that was deleted long enough ago: of a value nothing, next is the zero Record then. A mark
// that the head does not know is removed by a Write that keeps the head, next is r then. changed is false where none of this
// is due.
func (t *Type) Due(r *Record, at int64, now time.Time) (next *Record, w fenced.Write, changed bool) {
	switch {
	case at != r.mark:
		return r, fenced.Write{Revision: r.Revision, Keep: true, Unmark: at, Frees: true}, true
	case t.Expired(r, now):
		return t.Expire(r, now)
	case r.mark == 0 || now.Unix() < r.mark:
		return r, fenced.Write{}, false
	case !r.exists && r.sequence == 0:
		w = fenced.Write{Revision: r.Revision, Drop: []string{eventPrefix, pagePrefix, snapshotCell}, Unmark: r.mark, Frees: true}
		return &Record{}, w, true
	case !r.exists:
		d := t.housekeeping(r, now)
		d.next.ids = ids{first: r.ids.next, next: r.ids.next}
		d.next.mark, d.next.expiry, d.next.changed = 0, 0, 0
		d.write.Drop, d.write.Unmark = []string{pagePrefix}, r.mark
		next, w = d.seal()
		return next, w, true
	}
	d := t.housekeeping(r, now)
	d.mark(0)
	if t.TTL > 0 && r.expiry != 0 {
		d.mark(seconds(r.expiry))
	}
	next, w = d.seal()
	return next, w, true
}

// housekeeping begins a change that leaves the state, and so the version, as it is.
func (t *Type) housekeeping(r *Record, now time.Time) *draft {
	d := &draft{t: t, base: r, next: *r, now: now, write: fenced.Write{Frees: true}}
	if d.next.changed == 0 {
		d.next.changed = r.Revision
	}
	return d
}

// schedule sets when the TTL ends and sees to it that a mark comes no later than what is to be done.
func (d *draft) schedule() {
	n := &d.next
	switch {
	case !n.exists:
		n.expiry = 0
		d.mark(d.now.Add(keepIDs).Unix())
	case d.t.TTL > 0:
		n.expiry = d.t.end(d.now)
		// The sweep moves it when it comes too early, so that not each write has to.
		if due := seconds(n.expiry); n.mark == 0 || due < n.mark || !d.base.exists {
			d.mark(due)
		}
	default:
		n.expiry = 0
		d.mark(0)
	}
}

// mark makes at the entity's one mark, in unix seconds; 0: none.
func (d *draft) mark(at int64) {
	d.next.mark = at
	d.write.Mark, d.write.Unmark = at, d.base.mark
	if d.write.Mark == d.write.Unmark {
		d.write.Mark, d.write.Unmark = 0, 0
	}
}

func (t *Type) end(now time.Time) int64 { return now.Add(t.TTL).UnixMilli() }

// seconds rounds unix milliseconds up.
func seconds(milli int64) int64 { return (milli + 999) / 1000 }
