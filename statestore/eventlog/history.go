// Package eventlog reads the events of event-sourced entities, and follows them: the base for projections.
//
// History is the reading, of heads and cells in etcd (statestore/strong/entity says how they fit together). Server offers it
// to other processes. Nobody has to own an entity to read its log, so every store serves all of them.
package eventlog

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/holdfast-mesh/holdfast/internal/fenced"
	"github.com/holdfast-mesh/holdfast/internal/placement"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
	"github.com/holdfast-mesh/holdfast/statestore/refusal"
	"github.com/holdfast-mesh/holdfast/statestore/strong/entity"
)

// Events is where events are read: a part of Committer.
type Events interface {
	// Load reads an entity's head, linearizably; rev is 0 where there is none.
	Load(ctx context.Context, entityType string, slot uint32, key string) (head []byte, rev int64, err error)
	// Cells reads the entity's cells with names in [from, to), in order, at most limit; more says that there are others.
	Cells(ctx context.Context, entityType string, slot uint32, key, from, to string, limit int) (cells []fenced.Cell, more bool, err error)
	// Changed waits until the head has a later revision than rev, or ctx ends.
	Changed(ctx context.Context, entityType string, slot uint32, key string, rev int64) error
}

// History is one reading of an event-sourced entity's events. Any store can do it: it needs no ownership, because what is
// committed stays as it is until the entity is deleted, and sequences never come again.
type History struct {
	Type, Key string
	// From is the first event wanted; 0 is as 1.
	From uint64
	// Follow goes on with what is committed from now on, until ctx ends.
	Follow bool
	// Send is given the events in order, without gaps or repetitions, and the last committed one's sequence. It is called at
	// least once, and without events where there are none. It may block: that slows this reading down and nothing else.
	Send func(events []*holdfastv1.Event, last uint64) error
}

// Read carries it out. OUT_OF_RANGE: the next event was deleted with the entity. Who follows is not told that etcd can't be
// read, once it was: the reading waits for it.
func (h History) Read(ctx context.Context, in Events) error {
	r := &reading{History: h, events: in, slot: placement.Slot(h.Type, h.Key), next: max(h.From, 1)}
	for {
		rev, err := r.step(ctx)
		switch {
		case err == nil && !h.Follow:
			return nil
		case err == nil:
			if err := in.Changed(ctx, h.Type, r.slot, h.Key, rev); err != nil {
				return readError("wait for "+h.Type+" "+h.Key, err)
			}
		case !h.Follow || !r.begun || !passes(err):
			return err
		default:
			select {
			case <-ctx.Done():
				return err
			case <-time.After(retryPause):
			}
		}
	}
}

// passes says that a look into etcd failed, and the next may not.
func passes(err error) bool {
	var refused *refusal.Error
	return errors.As(err, &refused) && (refused.Code == codes.Unavailable || refused.Code == codes.DeadlineExceeded)
}

// reading is a History under way.
type reading struct {
	History
	events Events
	slot   uint32
	// next is the first event that was not sent.
	next uint64
	// aligned: next is the first event of its commit, and so of its cell.
	aligned bool
	// begun: etcd was read once.
	begun bool
}

// step sends what there is that was not sent, and returns the head's revision.
func (r *reading) step(ctx context.Context) (rev int64, err error) {
	for stuck := int64(0); ; {
		head, err := r.head(ctx)
		if err != nil {
			return 0, err
		}
		last, gone := head.Sequence(), head.Deleted()
		switch {
		case r.next <= gone:
			return 0, refusal.NotApplied(codes.OutOfRange, "the events of %s %q up to %d were deleted with it: read from %d", r.Type, r.Key, gone, gone+1)
		case r.next <= last:
			err = r.upto(ctx, last)
		case !r.begun:
			err = r.Send(nil, last)
		}
		r.begun = true
		switch {
		case err != nil:
			return 0, err
		case r.next > last:
			return head.Revision, nil
		case head.Revision == stuck:
			return 0, refusal.NotApplied(codes.Internal, "event %d of %s %q is missing in etcd", r.next, r.Type, r.Key)
		}
		// Deleted meanwhile: the head will tell.
		stuck = head.Revision
	}
}

func (r *reading) head(ctx context.Context) (*entity.Record, error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	bytes, rev, err := r.events.Load(ctx, r.Type, r.slot, r.Key)
	if err != nil {
		return nil, readError("load "+r.Type+" "+r.Key, err)
	}
	return entity.DecodeHead(bytes, rev)
}

func (r *reading) cells(ctx context.Context, from, to string) ([]fenced.Cell, bool, error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	cells, more, err := r.events.Cells(ctx, r.Type, r.slot, r.Key, from, to, pageCells)
	if err != nil {
		return nil, false, readError("events of "+r.Type+" "+r.Key, err)
	}
	return cells, more, nil
}

// upto sends the events up to last. It sends fewer where the entity was deleted meanwhile.
func (r *reading) upto(ctx context.Context, last uint64) error {
	from, err := r.cell(ctx)
	if err != nil {
		return err
	}
	for r.next <= last {
		cells, _, err := r.cells(ctx, from, entity.EventCell(last+1))
		if err != nil {
			return err
		}
		if len(cells) == 0 {
			break
		}
		if found, err := r.send(cells, last); err != nil || !found {
			return err
		}
		from = cells[len(cells)-1].Name + "\x00"
	}
	r.aligned = r.next > last
	return nil
}

// send sends what the cells have from next on. It reports false where next is not among them.
func (r *reading) send(cells []fenced.Cell, last uint64) (found bool, err error) {
	var batch []*holdfastv1.Event
	size := 0
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		err := r.Send(batch, last)
		batch, size = nil, 0
		return err
	}
	for _, c := range cells {
		events, err := entity.DecodeEvents(c)
		if err != nil {
			return false, err
		}
		if size+len(c.Value) > messageBytes {
			if err := flush(); err != nil {
				return false, err
			}
		}
		for _, e := range events {
			if e.GetSequence() > r.next {
				return false, flush()
			}
			if e.GetSequence() == r.next {
				batch = append(batch, e)
				r.next++
			}
		}
		size += len(c.Value)
	}
	return true, flush()
}

// cell is the name of the cell that has the next event: the last one whose first event is not after it.
func (r *reading) cell(ctx context.Context) (string, error) {
	for back := uint64(0); !r.aligned; back = 2*back + 1 {
		first := r.next - min(back, r.next-1)
		name := ""
		for from, more := entity.EventCell(first), true; more; {
			cells, others, err := r.cells(ctx, from, entity.EventCell(r.next+1))
			if err != nil {
				return "", err
			}
			if more = others && len(cells) > 0; len(cells) > 0 {
				name = cells[len(cells)-1].Name
				from = name + "\x00"
			}
		}
		if name != "" {
			return name, nil
		}
		if first == 1 {
			break
		}
	}
	return entity.EventCell(r.next), nil
}
