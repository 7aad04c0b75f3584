package entity

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/holdfast-mesh/holdfast/internal/fenced"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
)

const (
	eventsLayout   = 1
	snapshotLayout = 1

	snapshotCell = "s"
	eventPrefix  = "e/"
	pagePrefix   = "r/"
)

// EventCell is the name of the cell whose first event has this sequence. Names sort as sequences do.
func EventCell(sequence uint64) string { return fmt.Sprintf("%s%020d", eventPrefix, sequence) }

// EventCells is the range of names [from, to) in which the event with this sequence is, and all later ones. Earlier ones may
// be in it, too.
func EventCells(sequence uint64) (from, to string) {
	first := uint64(1)
	if sequence > MaxEvents {
		first = sequence - MaxEvents + 1
	}
	return EventCell(first), eventCellsEnd
}

// eventCellsEnd sorts after all cells with events.
const eventCellsEnd = "e0"

// encodeEvents makes the cell of one commit's events.
func encodeEvents(events []*holdfastv1.Event, now time.Time) ([]byte, error) {
	b := []byte{eventsLayout}
	b = binary.AppendUvarint(b, uint64(now.UnixMicro()))
	for _, e := range events {
		bare := &holdfastv1.Event{Type: e.GetType(), Payload: e.GetPayload()}
		b = binary.AppendUvarint(b, uint64(proto.Size(bare)))
		var err error
		if b, err = (proto.MarshalOptions{UseCachedSize: true}).MarshalAppend(b, bare); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// DecodeEvents reads the events of a cell, with their sequences and time.
func DecodeEvents(c fenced.Cell) ([]*holdfastv1.Event, error) {
	digits, ok := strings.CutPrefix(c.Name, eventPrefix)
	sequence, err := strconv.ParseUint(digits, 10, 64)
	if !ok || len(digits) != 20 || err != nil || sequence == 0 {
		return nil, fmt.Errorf("cell %q has no events: %w", c.Name, errCorrupt)
	}
	in := reader{b: c.Value}
	in.layout(eventsLayout)
	at := timestamppb.New(time.UnixMicro(in.unix()))
	var events []*holdfastv1.Event
	for len(in.b) > 0 {
		e := &holdfastv1.Event{}
		raw := in.take(in.count(len(in.b)))
		if in.failed || proto.Unmarshal(raw, e) != nil {
			in.failed = true
			break
		}
		e.Sequence, e.Time = sequence+uint64(len(events)), at
		events = append(events, e)
	}
	if in.failed || !at.IsValid() || len(events) == 0 {
		return nil, fmt.Errorf("cell %s: %w", c.Name, errCorrupt)
	}
	return events, nil
}

// eventSize is what an event takes of maxStateBytes: with its sequence, its time and their framing, as services are given it.
func eventSize(e *holdfastv1.Event) int {
	return len(e.GetType()) + len(e.GetPayload()) + eventOverhead
}

func encodeSnapshot(sequence uint64, snapshot []byte) []byte {
	b := binary.AppendUvarint([]byte{snapshotLayout}, sequence)
	return append(b, snapshot...)
}

// loadEvents reads the snapshot and the events after it.
func (r *Record) loadEvents(cells func(from, to string) ([]fenced.Cell, error)) error {
	if r.snapshotAt > 0 {
		found, err := cells(snapshotCell, snapshotCell+"\x00")
		if err != nil {
			return fmt.Errorf("snapshot: %w", err)
		}
		if len(found) != 1 || found[0].Name != snapshotCell {
			return ErrChanged
		}
		in := reader{b: found[0].Value}
		in.layout(snapshotLayout)
		at := in.uvarint()
		switch {
		case in.failed:
			return fmt.Errorf("snapshot: %w", errCorrupt)
		case at != r.snapshotAt:
			return ErrChanged
		}
		r.snapshot = in.b
	}
	next := max(r.snapshotAt, r.deleted) + 1
	if next > r.sequence {
		return nil
	}
	found, err := cells(EventCell(next), EventCell(r.sequence+1))
	if err != nil {
		return fmt.Errorf("events: %w", err)
	}
	for _, c := range found {
		events, err := DecodeEvents(c)
		if err != nil {
			return err
		}
		if events[0].Sequence != next {
			return ErrChanged
		}
		for _, e := range events {
			r.eventBytes += eventSize(e)
		}
		r.events = append(r.events, events...)
		next += uint64(len(events))
	}
	if next != r.sequence+1 {
		return ErrChanged
	}
	return nil
}
