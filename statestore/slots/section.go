package slots

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/holdfast-mesh/holdfast/statestore/crdt"
	"github.com/holdfast-mesh/holdfast/statestore/wal"
)

// stored is an entity as a section's body has it; its parts are the body's.
type stored struct {
	key     []byte
	changed uint32
	exists  bool
	live    []byte
	residue []byte
	raw     []byte
}

func appendStored(dst []byte, e *Entity, base *crdt.Retired) []byte {
	dst = appendString(dst, e.Key)
	changed := uint64(e.Changed) << 1
	if e.is(exists) {
		changed |= 1
	}
	dst = binary.AppendUvarint(dst, changed)
	dst = appendString(dst, e.State.AppendLive(nil))
	if e.State.Residue().Empty() {
		return appendString(dst, "")
	}
	return appendString(dst, appendContext(nil, e.State.Residue(), base))
}

// eachStored calls f for each entity of a body; p is the same every time.
func eachStored(body []byte, f func(p *stored) error) error {
	c := cursor{b: body}
	var p stored
	for c.more() {
		start := c.b
		p.key = c.bytes()
		changed := c.uvarint()
		p.changed, p.exists = uint32(changed>>1), changed&1 != 0
		p.live = c.bytes()
		p.residue = c.bytes()
		p.raw = start[:len(start)-len(c.b)]
		if c.err != nil {
			break
		}
		if err := f(&p); err != nil {
			return err
		}
	}
	return c.err
}

// errFound ends eachStored early; p stays what it is.
var errFound = errors.New("found")

// body reads the slot's section. Not under refs.
func (s *Slot) body() ([]byte, error) {
	if s.cached != nil {
		return s.cached, nil
	}
	for {
		s.typ.index.refs.RLock()
		ref := s.ref
		s.typ.index.refs.RUnlock()
		b, err := s.typ.index.sections.ReadSection(ref)
		if !errors.Is(err, wal.ErrGone) {
			return b, err
		}
		// A new snapshot came between: its places were known before the old one went away.
		s.typ.index.refs.RLock()
		same := s.ref == ref
		s.typ.index.refs.RUnlock()
		if same {
			return nil, err
		}
	}
}

// eachPassive calls f for each passive entity, those without live dots, too. With mu, for reading at least.
func (s *Slot) eachPassive(f func(p *stored) error) error {
	if len(s.passive) == 0 {
		return nil
	}
	body, err := s.body()
	if err != nil {
		return fmt.Errorf("read slot %d of %s: %w", s.Number, s.typ.Name, err)
	}
	return eachStored(body, func(p *stored) error {
		if s.entities[string(p.key)] != nil || !s.holds(KeyHash(string(p.key))) {
			return nil
		}
		return f(p)
	})
}

// entityOf decodes a stored entity.
func (s *Slot) entityOf(p *stored) (*Entity, error) {
	e := &Entity{Key: string(p.key), Changed: p.changed}
	var err error
	if e.State, err = crdt.DecodeOwn(p.live); err != nil {
		return nil, fmt.Errorf("stored state of %s %q: %w", s.typ.Name, e.Key, err)
	}
	if len(p.residue) > 0 {
		c := cursor{b: p.residue}
		residue := c.context(s.seen.Retired())
		if c.err != nil {
			return nil, fmt.Errorf("stored residue of %s %q: %w", s.typ.Name, e.Key, c.err)
		}
		e.State.Hold(residue)
	}
	return e, nil
}

// activate brings the entity to memory where it is passive.
func (s *Slot) activate(key string) error {
	hash := KeyHash(key)
	for {
		s.mu.RLock()
		there := s.entities[key] != nil || !s.holds(hash)
		turns := s.turns
		s.mu.RUnlock()
		if there {
			return nil
		}
		body, err := s.body()
		if err != nil {
			return fmt.Errorf("read %s %q: %w", s.typ.Name, key, err)
		}
		var found *stored
		err = eachStored(body, func(p *stored) error {
			if string(p.key) == key {
				found = p
				return errFound
			}
			return nil
		})
		if err != nil && !errors.Is(err, errFound) {
			return fmt.Errorf("read %s %q: %w", s.typ.Name, key, err)
		}
		if found == nil {
			// Another key with the same hash.
			return nil
		}
		s.mu.Lock()
		err, again := s.insert(found, turns)
		s.mu.Unlock()
		if err != nil || !again {
			return err
		}
	}
}

// insert puts a passive entity into memory, unless it was passivated since it was read. With mu.
func (s *Slot) insert(p *stored, turns uint32) (err error, again bool) {
	at, holds := slices.BinarySearch(s.passive, KeyHash(string(p.key)))
	if s.turns != turns || !holds || s.entities[string(p.key)] != nil {
		return nil, true
	}
	e, err := s.entityOf(p)
	if err != nil {
		return err, false
	}
	s.passive = slices.Delete(s.passive, at, at+1)
	e.setSize(len(p.live))
	e.used.Store(s.typ.index.clock.Load())
	s.entities[e.Key] = e
	s.peak = max(s.peak, len(s.entities))
	if e.State.Exists() {
		// Passive ones are in the slot's hash already.
		e.hash = entityHash(e.Key, p.live)
		e.bits |= hashed
		s.typ.index.passive.Add(-1)
	} else {
		s.ghosts--
	}
	e.State.Strip(s.seen)
	s.settle(e)
	return nil, false
}

// Idle counts entities that nobody used since before the moment (seconds of the process), and returns the keys of those that
// the log snapshot has as they are, so that Passivate may take them.
func (s *Slot) Idle(before uint32) (idle int, keys []string) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for key, e := range s.entities {
		if e.used.Load() >= before {
			continue
		}
		idle++
		if s.passivable(e, before) {
			keys = append(keys, key)
		}
	}
	return idle, keys
}

func (s *Slot) passivable(e *Entity, before uint32) bool {
	return e.stamp < s.installed && e.used.Load() < before && e.is(exists) && e.State.Residue().Empty()
}

// Passivate takes those of the keys out of memory that are still idle. The writer's.
func (s *Slot) Passivate(keys []string, before uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rehash()
	for _, key := range keys {
		e := s.entities[key]
		if e == nil || !s.passivable(e, before) {
			continue
		}
		delete(s.entities, key)
		s.oldest, s.newest = min(s.oldest, e.Changed), max(s.newest, e.Changed)
		s.passive = append(s.passive, KeyHash(key))
		s.typ.index.active.Add(-1)
		s.typ.index.passive.Add(1)
	}
	slices.Sort(s.passive)
	s.turns++
	if s.peak > 2*len(s.entities) {
		smaller := make(map[string]*Entity, len(s.entities))
		for k, e := range s.entities {
			smaller[k] = e
		}
		s.entities, s.peak = smaller, len(smaller)
	}
}

// Due lists the keys of existing entities, passive ones, too, that nobody changed since before the moment (unix seconds).
func (s *Slot) Due(before uint32) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var keys []string
	for key, e := range s.entities {
		if e.is(exists) && e.Changed < before {
			keys = append(keys, key)
		}
	}
	if s.oldest >= before {
		return keys, nil
	}
	oldest := uint32(math.MaxUint32)
	err := s.eachPassive(func(p *stored) error {
		if !p.exists {
			return nil
		}
		oldest = min(oldest, p.changed)
		if p.changed < before {
			keys = append(keys, string(p.key))
		}
		return nil
	})
	if err == nil {
		s.oldest = oldest
	}
	return keys, err
}
