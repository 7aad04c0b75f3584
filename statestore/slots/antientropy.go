package slots

import (
	"encoding/binary"
	"slices"

	"github.com/holdfast-mesh/holdfast/statestore/crdt"
)

// What anti-entropy compares and fetches. Each call is atomic.

// Key is an entity's key and hash.
type Key struct {
	Key  string
	Hash uint64
}

// State is an entity's whole state, encoded, and its residue where it has one.
type State struct {
	Key   string
	Live  []byte
	Fill  *crdt.Context
	Found bool
}

// Hash is over entities and context; 0 where the slot has neither.
func (s *Slot) Hash() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rehash()
	if s.seen.Empty() && s.hash == 0 {
		return 0
	}
	return s.hash ^ s.seen.Hash()
}

// Summary is the context, and the hash of each bucket that has entities.
func (s *Slot) Summary() (*crdt.Context, map[uint32]uint64, error) {
	buckets := map[uint32]uint64{}
	seen, err := s.eachHash(func(key string, hash uint64) { buckets[Bucket(key)] ^= hash })
	return seen, buckets, err
}

// Keys are the entities of those buckets, or all for nil, by key.
func (s *Slot) Keys(buckets []uint32) (*crdt.Context, []Key, error) {
	var out []Key
	seen, err := s.eachHash(func(key string, hash uint64) {
		if buckets == nil || slices.Contains(buckets, Bucket(key)) {
			out = append(out, Key{key, hash})
		}
	})
	slices.SortFunc(out, func(a, b Key) int { return compare(a.Key, b.Key) })
	return seen, out, err
}

func (s *Slot) eachHash(f func(key string, hash uint64)) (*crdt.Context, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rehash()
	for key, e := range s.entities {
		if e.is(exists) {
			f(key, e.hash)
		}
	}
	err := s.eachPassive(func(p *stored) error {
		if p.exists {
			f(string(p.key), entityHash(string(p.key), p.live))
		}
		return nil
	})
	return s.seen.Clone(), err
}

// States are the whole states of those keys that are here.
func (s *Slot) States(keys []string) (*crdt.Context, []State, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var out []State
	wanted := map[string]struct{}{}
	for _, key := range keys {
		e := s.entities[key]
		switch {
		case e == nil:
			wanted[key] = struct{}{}
		case e.is(exists):
			st := State{Key: key, Live: e.State.AppendLive(nil)}
			if residue := e.State.Residue(); !residue.Empty() {
				st.Fill = residue.Clone()
			}
			out = append(out, st)
		}
	}
	if !slices.ContainsFunc(keys, func(k string) bool { _, ok := wanted[k]; return ok && s.holds(KeyHash(k)) }) {
		return s.seen.Clone(), out, nil
	}
	err := s.eachPassive(func(p *stored) error {
		if _, ok := wanted[string(p.key)]; !ok || !p.exists {
			return nil
		}
		st := State{Key: string(p.key), Live: slices.Clone(p.live)}
		if len(p.residue) > 0 {
			c := cursor{b: p.residue}
			st.Fill = c.context(s.seen.Retired())
			if c.err != nil {
				return c.err
			}
		}
		out = append(out, st)
		return nil
	})
	return s.seen.Clone(), out, err
}

// Inspect is the hash of an entity, 0 where there is none, and whether it is in memory. It activates nothing.
func (s *Slot) Inspect(key string) (e *Entity, active bool, err error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if e := s.entities[key]; e != nil {
		if !e.is(exists) {
			return nil, false, nil
		}
		return &Entity{Key: key, State: e.State.Clone(), Changed: e.Changed}, true, nil
	}
	if !s.holds(KeyHash(key)) {
		return nil, false, nil
	}
	err = s.eachPassive(func(p *stored) error {
		if string(p.key) != key || !p.exists {
			return nil
		}
		var err error
		e, err = s.entityOf(p)
		return err
	})
	return e, false, err
}

func le64(b []byte, n uint64) []byte { return binary.LittleEndian.AppendUint64(b, n) }
