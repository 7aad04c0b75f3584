package slots

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/holdfast-mesh/holdfast/internal/placement"
	"github.com/holdfast-mesh/holdfast/statestore/crdt"
	"github.com/holdfast-mesh/holdfast/statestore/wal"
)

// Kinds of sections.
const (
	headSection    = 1
	retiredSection = 2
	slotSection    = 3
)

// Head is what a log snapshot holds beside the slots.
type Head struct {
	// Time is a hybrid time that is not before any that was given out or taken.
	Time uint64
	// Records are those that stand for identities and request ids.
	Records [][]byte
}

// WriteSnapshot writes everything, slot by slot beside running commits, each under its slot's lock: never a second copy of
// it all. One call at a time. installed must be called once the snapshot is in force.
func (x *Index) WriteSnapshot(w *wal.SnapshotWriter, head Head) (installed func(), err error) {
	x.generation++
	generation := x.generation
	if err := writeHead(w, head); err != nil {
		return nil, err
	}
	type place struct {
		slot *Slot
		ref  wal.Ref
	}
	var places []place
	sets := map[*crdt.Retired]uint64{}
	numbered := uint64(0)
	for _, t := range x.Types() {
		for s := range t.Slots {
			set, meta, body, err := s.section(generation)
			if err != nil {
				return nil, fmt.Errorf("slot %d of %s: %w", s.Number, t.Name, err)
			}
			number := uint64(0)
			if set.Len() > 0 {
				if number = sets[set]; number == 0 {
					numbered++
					number = numbered
					sets[set] = number
					b := binary.AppendUvarint([]byte{retiredSection}, number)
					if _, err := w.Section(appendIDs(b, set.IDs()), nil); err != nil {
						return nil, err
					}
				}
			}
			ref, err := w.Section(s.meta(number, meta), body)
			if err != nil {
				return nil, err
			}
			places = append(places, place{s, ref})
		}
	}
	w.Installed(func() {
		x.refs.Lock()
		defer x.refs.Unlock()
		for _, p := range places {
			p.slot.ref = p.ref
		}
	})
	return func() {
		for _, p := range places {
			p.slot.mu.Lock()
			p.slot.installed = generation
			p.slot.mu.Unlock()
		}
	}, nil
}

func writeHead(w *wal.SnapshotWriter, head Head) error {
	meta := binary.AppendUvarint([]byte{headSection}, head.Time)
	for i, r := range head.Records {
		meta = appendString(meta, r)
		if len(meta) >= headBytes || i == len(head.Records)-1 {
			if _, err := w.Section(meta, nil); err != nil {
				return err
			}
			meta = binary.AppendUvarint([]byte{headSection}, head.Time)
		}
	}
	if len(head.Records) == 0 {
		_, err := w.Section(meta, nil)
		return err
	}
	return nil
}

// meta is a slot section's: what comes before and after the number of the retired set.
func (s *Slot) meta(set uint64, rest []byte) []byte {
	b := appendString([]byte{slotSection}, s.typ.Name)
	b = binary.AppendUvarint(b, uint64(s.Number))
	b = binary.AppendUvarint(b, set)
	return append(b, rest...)
}

// section encodes the slot as it is now.
func (s *Slot) section(generation uint32) (set *crdt.Retired, rest, body []byte, err error) {
	// Read without the lock: only snapshots replace it, and what becomes passive meanwhile is in it.
	s.mu.RLock()
	old := s.installed > 0
	s.mu.RUnlock()
	var before []byte
	if old {
		if before, err = s.body(); err != nil {
			return nil, nil, nil, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rehash()
	set = s.seen.Retired()
	count, oldest := len(s.passive)-s.ghosts, s.oldest
	hashes := make([]uint64, 0, len(s.passive)+len(s.entities))
	err = eachStored(before, func(p *stored) error {
		hash := KeyHash(string(p.key))
		if s.entities[string(p.key)] == nil && s.holds(hash) {
			body = append(body, p.raw...)
			hashes = append(hashes, hash)
		}
		return nil
	})
	if err == nil && len(hashes) != len(s.passive) {
		err = fmt.Errorf("%w: %d of %d passive entities are there", ErrRecord, len(hashes), len(s.passive))
	}
	if err != nil {
		return nil, nil, nil, err
	}
	for key, e := range s.entities {
		body = appendStored(body, e, set)
		hashes = append(hashes, KeyHash(key))
		if e.is(exists) {
			oldest = min(oldest, e.Changed)
			count++
		}
	}
	slices.Sort(hashes)
	rest = appendString(rest, s.seen.Append(nil))
	rest = le64(rest, s.hash)
	rest = binary.AppendUvarint(rest, uint64(oldest))
	rest = binary.AppendUvarint(rest, uint64(count))
	rest = appendIDs(rest, hashes)
	s.begun = generation
	return set, rest, body, nil
}

// Loader reads the sections of a log snapshot, in order.
type Loader struct {
	index *Index
	sets  map[uint64]*crdt.Retired
	// Head is called for each record of the heads.
	Head func(record []byte) error
	// Time is the head's.
	Time uint64
}

// NewLoader is for an empty index.
func NewLoader(x *Index, head func(record []byte) error) *Loader {
	x.generation = 1
	return &Loader{index: x, sets: map[uint64]*crdt.Retired{}, Head: head}
}

// Section takes one; everything in it is passive at first.
func (l *Loader) Section(meta []byte, ref wal.Ref) error {
	if len(meta) == 0 {
		return fmt.Errorf("%w: empty section", ErrRecord)
	}
	c := cursor{b: meta[1:]}
	switch meta[0] {
	case headSection:
		l.Time = max(l.Time, c.uvarint())
		for c.more() {
			if r := c.bytes(); c.err == nil {
				if err := l.Head(r); err != nil {
					return err
				}
			}
		}
	case retiredSection:
		number := c.uvarint()
		if ids := c.ids(); c.err == nil {
			l.sets[number] = crdt.NewRetired(ids...)
		}
	case slotSection:
		l.slot(&c, ref)
	default:
		c.fail("unknown section")
	}
	return c.err
}

func (l *Loader) slot(c *cursor, ref wal.Ref) {
	typ, number, set, runs := c.string(), c.uvarint(), c.uvarint(), c.bytes()
	hash, oldest, count, hashes := c.fixed(), uint32(c.uvarint()), c.uvarint(), c.ids()
	retired := l.sets[set]
	if c.err != nil || number >= placement.Slots || count > uint64(len(hashes)) || (set != 0 && retired == nil) {
		c.fail("bad slot")
		return
	}
	seen, err := crdt.DecodeContext(runs)
	if err != nil {
		c.err = fmt.Errorf("%w: %w", ErrRecord, err)
		return
	}
	if retired != nil {
		seen.Retire(retired)
	}
	s := l.index.Make(typ, uint32(number))
	s.seen, s.hash, s.passive, s.ghosts = seen, hash, hashes, len(hashes)-int(count)
	s.ref, s.begun, s.installed = ref, 1, 1
	if len(hashes) > 0 {
		s.oldest = oldest
	}
	l.index.passive.Add(int64(count))
}
