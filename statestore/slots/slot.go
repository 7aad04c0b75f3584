package slots

import (
	"math"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/cespare/xxhash/v2"

	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	"github.com/holdfast-mesh/holdfast/statestore/crdt"
	"github.com/holdfast-mesh/holdfast/statestore/wal"
)

// Entity is one in memory.
type Entity struct {
	Key   string
	State crdt.State
	// hash is of key and live dots. It is counted in its slot's while hashed is set.
	hash uint64
	// Changed is when, in unix seconds; used in seconds of the process.
	Changed uint32
	used    atomic.Uint32
	// stamp is the generation of the log snapshot that was last begun when the entity changed.
	stamp uint32
	// bits are size, at least the length of the live dots' encoding, and the flags.
	bits uint32
}

const (
	hashed = 1 << 31 // hash is valid, and counted in the slot's
	queued = 1 << 30 // in the slot's stale
	exists = 1 << 29 // counted as existing
	sizes  = exists - 1
)

func (e *Entity) size() int { return int(e.bits & sizes) }

func (e *Entity) setSize(n int) { e.bits = e.bits&^sizes | uint32(min(n, sizes)) }

func (e *Entity) is(flag uint32) bool { return e.bits&flag != 0 }

// Slot is one slot of a type at this store.
type Slot struct {
	Number uint32
	typ    *Type

	// ref is where the log snapshot has it; under Index.refs.
	ref wal.Ref
	// cached is the section's body while records are replayed, before anybody else knows of the slot.
	cached []byte
	// used is when an entity was last read or changed here.
	used atomic.Uint32

	// mu guards the rest. The writer alone changes seen, next and entities' states, and reads these without it.
	mu   sync.RWMutex
	seen *crdt.Context
	// next is this process's next own sequence.
	next     uint64
	entities map[string]*Entity
	// peak is the most entities that the map had since it was made: maps don't shrink.
	peak int
	// hash is the XOR over all entities, passive ones too, but not over those in stale, which are to be hashed.
	hash  uint64
	stale []*Entity
	// residues are the entities in memory that have one.
	residues map[*Entity]struct{}
	// passive are the hashes of the keys, in order, that only the snapshot's section has; ghosts counts those without
	// live dots. turns counts passivations: what was read before one may be old after it.
	passive []uint64
	ghosts  int
	turns   uint32
	// oldest is not after any passive entity's last change; the greatest number where there are none.
	oldest uint32
	// newest is the last change of what this process passivated.
	newest uint32
	// dropped counts drops, and failed readings.
	dropped uint64
	// stamp is the generation in which the slot last changed, begun that of the last section that was made, installed that
	// of ref.
	stamp, begun, installed uint32
}

func newSlot(t *Type, number uint32) *Slot {
	return &Slot{typ: t, Number: number, seen: &crdt.Context{}, next: 1, entities: map[string]*Entity{}, oldest: math.MaxUint32}
}

// Type is the slot's entity type.
func (s *Slot) Type() string { return s.typ.Name }

// KeyHash is how a key is found among passive ones; its low 6 bits are the key's bucket.
func KeyHash(key string) uint64 { return xxhash.Sum64String(key) }

// Bucket is a key's bucket for anti-entropy, below Buckets.
func Bucket(key string) uint32 { return uint32(KeyHash(key) % Buckets) }

// entityHash is one entity's part of its slot's hash.
func entityHash(key string, live []byte) uint64 {
	var d xxhash.Digest
	d.Reset()
	_, _ = d.WriteString(key)
	_, _ = d.Write([]byte{0xff})
	_, _ = d.Write(live)
	return d.Sum64()
}

// Next is this process's next own sequence in the slot.
func (s *Slot) Next() uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.next
}

// SetNext is for a slot that was there before under the same identity.
func (s *Slot) SetNext(next uint64) {
	s.mu.Lock()
	s.next = max(s.next, next)
	s.mu.Unlock()
}

// Seen is a copy of the slot's context, of those replicas only where some are given, and of the retired.
func (s *Slot) Seen(replicas ...uint64) *crdt.Context {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if len(replicas) > 0 {
		only := s.seen.Only(replicas...)
		only.Retire(s.seen.Retired())
		return only
	}
	return s.seen.Clone()
}

func (s *Slot) holds(hash uint64) bool {
	_, found := slices.BinarySearch(s.passive, hash)
	return found
}

// Read calls f with the entity as it is durable, nil where there is none; f must not keep it. A passive one is activated.
func (s *Slot) Read(key string, f func(*Entity)) error {
	if err := s.activate(key); err != nil {
		return err
	}
	now := s.typ.index.clock.Load()
	s.used.Store(now)
	s.mu.RLock()
	defer s.mu.RUnlock()
	e := s.entities[key]
	if e == nil || !e.is(exists) {
		f(nil)
		return nil
	}
	e.used.Store(now)
	f(e)
	return nil
}

// change takes an entity out of what its hash and the snapshot say of it. With mu.
func (s *Slot) change(e *Entity) {
	if e.is(hashed) {
		s.hash ^= e.hash
		e.bits &^= hashed
	}
	if !e.is(queued) {
		e.bits |= queued
		s.stale = append(s.stale, e)
	}
	e.stamp = s.begun
	s.stamp = s.begun
}

// settle counts or drops an entity after a change. With mu.
func (s *Slot) settle(e *Entity) {
	if now := e.State.Exists(); now != e.is(exists) {
		e.bits ^= exists
		if now {
			s.typ.index.active.Add(1)
		} else {
			s.typ.index.active.Add(-1)
		}
	}
	residue := !e.State.Residue().Empty()
	if residue {
		if s.residues == nil {
			s.residues = map[*Entity]struct{}{}
		}
		s.residues[e] = struct{}{}
	} else {
		delete(s.residues, e)
	}
	if !e.is(exists) && !residue {
		delete(s.entities, e.Key)
	}
}

// rehash brings the hashes up to date. With mu.
func (s *Slot) rehash() {
	var buf []byte
	for _, e := range s.stale {
		e.bits &^= queued
		if s.entities[e.Key] != e || !e.is(exists) || e.is(hashed) {
			continue
		}
		buf = e.State.AppendLive(buf[:0])
		e.hash = entityHash(e.Key, buf)
		e.bits |= hashed
		e.setSize(len(buf))
		s.hash ^= e.hash
	}
	clear(s.stale)
	s.stale = s.stale[:0]
	if cap(s.stale) > keepStale {
		s.stale = nil
	}
}

// Version is a hash of the entity's live dots: equal states, equal hashes.
func (e *Entity) Version() uint64 {
	if e.is(hashed) {
		return e.hash
	}
	return entityHash(e.Key, e.State.AppendLive(nil))
}

// shape of some entity.
func (s *Slot) shape() (*configv1.Shape, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, e := range s.entities {
		return e.State.Shape(), nil
	}
	if len(s.passive) == 0 {
		return nil, nil
	}
	var shape *configv1.Shape
	err := s.eachPassive(func(p *stored) error {
		if shape != nil {
			return nil
		}
		state, err := crdt.DecodeOwn(p.live)
		if err == nil {
			shape = state.Shape()
		}
		return err
	})
	return shape, err
}

// Retired is the set of identities of which every dot counts as seen in the slot.
func (s *Slot) Retired() *crdt.Retired {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.seen.Retired()
}

// Lacks tells whether the slot has anything, and would adopt any of the set.
func (s *Slot) Lacks(set *crdt.Retired) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return !s.seen.Empty() && s.seen.Retired().Union(set) != s.seen.Retired()
}

// Active counts entities in memory.
func (s *Slot) Active() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return len(s.entities)
}

// LastUsed is when an entity of the slot was last read or changed, in seconds of the process; 0: never.
func (s *Slot) LastUsed() uint32 { return s.used.Load() }

// Spoil ends the comparisons that are under way, as a drop does: something could not be read for one, and must not be taken
// for removed.
func (s *Slot) Spoil() {
	s.mu.Lock()
	s.dropped++
	s.mu.Unlock()
}

// Dropped is how often the slot was dropped, or spoiled, in this process.
func (s *Slot) Dropped() uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.dropped
}
