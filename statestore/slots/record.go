package slots

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/holdfast-mesh/holdfast/internal/placement"
	"github.com/holdfast-mesh/holdfast/statestore/crdt"
)

// Kinds of log records.
const (
	deltaRecord    = 1
	statesRecord   = 2
	seenRecord     = 3
	identityRecord = 4
	retireRecord   = 5
	dropRecord     = 6
)

// Delta is a change of one entity, a request id that was applied, or both.
type Delta struct {
	Type, Key, RequestID string
	// Dot is the last one of the commit with the request id.
	Dot crdt.Dot
	At  time.Time
	// State is encoded; empty: none.
	State []byte
}

// Append encodes the record.
func (r *Delta) Append(dst []byte) []byte {
	dst = append(dst, deltaRecord)
	dst = appendString(dst, r.Type)
	dst = appendString(dst, r.Key)
	dst = appendString(dst, r.RequestID)
	dst = binary.LittleEndian.AppendUint64(dst, r.Dot.Replica)
	dst = binary.AppendUvarint(dst, r.Dot.Seq)
	dst = appendMillis(dst, r.At)
	return appendString(dst, r.State)
}

func appendMillis(dst []byte, t time.Time) []byte {
	return binary.AppendUvarint(dst, uint64(max(t.UnixMilli(), 0)))
}

// Whole is an entity's whole state, encoded, and what fills it beyond the fill of all.
type Whole struct {
	Key  string
	Live []byte
	Fill *crdt.Context
}

// AppendStates encodes whole states of one slot that share a fill: it is written once. Fills are written with all that is
// retired in them: a peer may know less of an identity than this slot does, and must not be taken to have removed the rest.
func AppendStates(dst []byte, typ string, slot uint32, at time.Time, fill *crdt.Context, states []Whole) []byte {
	dst = append(dst, statesRecord)
	dst = appendString(dst, typ)
	dst = binary.AppendUvarint(dst, uint64(slot))
	dst = appendMillis(dst, at)
	dst = appendContext(dst, fill, nil)
	for _, s := range states {
		dst = appendString(dst, s.Key)
		dst = appendString(dst, s.Live)
		dst = appendContext(dst, s.Fill, nil)
	}
	return dst
}

// AppendSeen encodes that all of seen was seen in the slot.
func AppendSeen(dst []byte, typ string, slot uint32, seen *crdt.Context, base *crdt.Retired) []byte {
	dst = append(dst, seenRecord)
	dst = appendString(dst, typ)
	dst = binary.AppendUvarint(dst, uint64(slot))
	return appendContext(dst, seen, base)
}

// AppendIdentity encodes whose a replica identity is, or was; here: it wrote to this disk.
func AppendIdentity(dst []byte, replica uint64, node string, here bool) []byte {
	dst = append(dst, identityRecord)
	dst = binary.LittleEndian.AppendUint64(dst, replica)
	dst = appendString(dst, node)
	if here {
		return append(dst, 1)
	}
	return append(dst, 0)
}

// AppendRetire encodes that those identities are retired in those slots.
func AppendRetire(dst []byte, replicas []uint64, slots map[string][]uint32) []byte {
	dst = append(dst, retireRecord)
	dst = appendIDs(dst, replicas)
	for typ, numbers := range slots {
		var bits [placement.Slots / 8]byte
		for _, n := range numbers {
			bits[n/8] |= 1 << (n % 8)
		}
		dst = appendString(dst, typ)
		dst = append(dst, bits[:]...)
	}
	return dst
}

// AppendDrop encodes that a slot was dropped.
func AppendDrop(dst []byte, typ string, slot uint32) []byte {
	dst = append(dst, dropRecord)
	dst = appendString(dst, typ)
	return binary.AppendUvarint(dst, uint64(slot))
}

// Replayer brings records into force at open.
type Replayer struct {
	Index *Index
	// Request is called for each request id, Identity for each identity, Retired for those that retired.
	Request  func(typ, key, id string, dot crdt.Dot, at time.Time)
	Identity func(replica uint64, node string, here bool)
	Retired  func(replicas []uint64)
	// Time is not before any hybrid time that was replayed.
	Time uint64
	// waiting are records of size bytes that are not in force yet.
	waiting map[*Slot][][]byte
	size    int
}

// Record takes one. What is of one slot waits for more of it, so that its section is read once for many records; slots don't
// depend on each other. Finish must follow.
func (r *Replayer) Record(b []byte) error {
	if len(b) == 0 {
		return fmt.Errorf("%w: empty", ErrRecord)
	}
	c := &cursor{b: b[1:]}
	switch b[0] {
	case deltaRecord:
		typ, key, id := c.string(), c.string(), c.string()
		dot := crdt.Dot{Replica: c.fixed(), Seq: c.uvarint()}
		at := c.millis()
		if state := c.bytes(); c.err == nil && len(state) > 0 {
			r.later(r.Index.Make(typ, placement.Slot(typ, key)), b)
		}
		if c.err == nil && id != "" {
			r.Request(typ, key, id, dot, at)
		}
	case statesRecord, seenRecord, dropRecord:
		if s := r.slot(c); s != nil {
			r.later(s, b)
		}
	case identityRecord:
		replica, node, here := c.fixed(), c.string(), c.uvarint()
		if c.err == nil {
			r.Identity(replica, node, here != 0)
		}
	case retireRecord:
		if err := r.Finish(); err != nil {
			return err
		}
		r.retire(c)
	default:
		c.fail("unknown kind")
	}
	if c.err == nil && r.size >= replayBytes {
		return r.Finish()
	}
	return c.err
}

func (r *Replayer) later(s *Slot, b []byte) {
	if r.waiting == nil {
		r.waiting = map[*Slot][][]byte{}
	}
	r.waiting[s] = append(r.waiting[s], bytes.Clone(b))
	r.size += len(b)
}

// Finish brings what waits into force.
func (r *Replayer) Finish() error {
	for s, records := range r.waiting {
		if len(s.passive) > 0 {
			body, err := s.body()
			if err != nil {
				return fmt.Errorf("read slot %d of %s: %w", s.Number, s.typ.Name, err)
			}
			s.cached = body
		}
		for _, b := range records {
			if err := r.replay(b); err != nil {
				return err
			}
		}
		s.cached = nil
		delete(r.waiting, s)
	}
	r.size = 0
	return nil
}

// replay brings a record of one slot into force.
func (r *Replayer) replay(b []byte) error {
	c := &cursor{b: b[1:]}
	switch b[0] {
	case deltaRecord:
		return r.delta(c)
	case statesRecord:
		return r.states(c)
	case seenRecord:
		s := r.slot(c)
		if seen := c.context(s.seen.Retired()); seen != nil {
			d := inPlace(s)
			d.Learn(seen)
			d.Apply(0, 0)
		}
	case dropRecord:
		r.slot(c).Drop()
	}
	return c.err
}

// inPlace is a draft that nothing else can come between.
func inPlace(s *Slot) *Draft {
	d := s.Draft()
	d.inPlace = true
	return d
}

func (r *Replayer) slot(c *cursor) *Slot {
	typ, number := c.string(), c.uvarint()
	if c.err != nil || typ == "" || number >= placement.Slots {
		c.fail("bad slot")
		return nil
	}
	return r.Index.Make(typ, uint32(number))
}

func (r *Replayer) delta(c *cursor) error {
	typ, key, _ := c.string(), c.string(), c.bytes()
	c.fixed()
	c.uvarint()
	at, encoded := c.millis(), c.bytes()
	if c.err != nil {
		return c.err
	}
	return r.join(inPlace(r.Index.Make(typ, placement.Slot(typ, key))), key, encoded, nil, at)
}

func (r *Replayer) join(d *Draft, key string, encoded []byte, fill *crdt.Context, at time.Time) error {
	state, err := crdt.DecodeOwn(encoded)
	if err == nil {
		r.Time = max(r.Time, state.LatestTime())
		_, err = d.Join(key, state, fill, len(encoded))
	}
	if errors.Is(err, crdt.ErrRetired) || errors.Is(err, crdt.ErrModel) {
		// The section is newer than the record, and has all of it: identities retired, or the type got another model once
		// all of its entities were gone.
		return nil
	}
	if err != nil {
		return fmt.Errorf("record of %s %q: %w", d.slot.typ.Name, key, err)
	}
	d.Apply(0, uint32(at.Unix()))
	return nil
}

func (r *Replayer) states(c *cursor) error {
	s := r.slot(c)
	if s == nil {
		return c.err
	}
	at := c.millis()
	fill := c.context(nil)
	for c.more() {
		key, encoded := c.string(), c.bytes()
		own := c.context(nil)
		if c.err != nil {
			break
		}
		with := fill
		if !own.Empty() {
			own.Merge(fill)
			with = own
		}
		if err := r.join(inPlace(s), key, encoded, with, at); err != nil {
			return err
		}
	}
	return c.err
}

func (r *Replayer) retire(c *cursor) {
	ids := c.ids()
	if c.err != nil {
		return
	}
	r.Retired(ids)
	set := crdt.NewRetired(ids...)
	unions := Unions{}
	for c.more() {
		typ := c.string()
		if len(c.b) < placement.Slots/8 {
			c.fail("cut short")
			return
		}
		bits := c.b[:placement.Slots/8]
		c.b = c.b[len(bits):]
		for n := range uint32(placement.Slots) {
			if bits[n/8]&(1<<(n%8)) != 0 {
				d := inPlace(r.Index.Make(typ, n))
				d.Retire(unions.Of(d.Seen().Retired(), set))
				d.Apply(0, 0)
			}
		}
	}
}

// Unions makes many slots share one set of retired identities.
type Unions map[*crdt.Retired]*crdt.Retired

// Of is both sets' union.
func (u Unions) Of(old, set *crdt.Retired) *crdt.Retired {
	if u[old] == nil {
		u[old] = old.Union(set)
	}
	return u[old]
}
