package statestore

import (
	"context"
	"maps"
	"slices"

	replicationv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/replication/v1"
)

// What anti-entropy compares and fetches. All of it is durable. Once the log failed these are empty: the working states may
// then be ahead of the disk.

// Types lists the configured types that are not strong, in order.
func (e *Engine) Types() []string {
	c := e.config.Load()
	if c == nil {
		return nil
	}
	var names []string
	for name, t := range c.types {
		if !strongType(t) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// between runs f on the committer where it may show what it sees.
func (e *Engine) between(typ string, f func(t *entities)) {
	_ = e.do(context.Background(), func() {
		if t := e.types[typ]; t != nil && e.log.Err() == nil {
			t.rehash()
			f(t)
		}
	})
}

// SlotHashes lists the type's slots that have entities, in order. A slot's hash is the XOR over its entities of a hash of the
// key and of the hash of the state's encoding: equal states, equal hashes.
func (e *Engine) SlotHashes(typ string) []*replicationv1.SlotHash {
	var out []*replicationv1.SlotHash
	e.between(typ, func(t *entities) {
		for _, slot := range slices.Sorted(maps.Keys(t.slots)) {
			out = append(out, &replicationv1.SlotHash{Slot: slot, Hash: t.hashes[slot]})
		}
	})
	return out
}

// KeyHashes lists the slot's entities, by key.
func (e *Engine) KeyHashes(typ string, slot uint32) []*replicationv1.KeyHash {
	var out []*replicationv1.KeyHash
	e.between(typ, func(t *entities) {
		for _, key := range slices.Sorted(maps.Keys(t.slots[slot])) {
			out = append(out, &replicationv1.KeyHash{Key: key, Hash: t.slots[slot][key].hash})
		}
	})
	return out
}

// States returns the whole states of those keys that this store has.
func (e *Engine) States(typ string, keys []string) []*replicationv1.Delta {
	var out []*replicationv1.Delta
	e.between(typ, func(*entities) {
		for _, key := range keys {
			if ent := e.entities[entityID{typ, key}]; ent != nil {
				out = append(out, &replicationv1.Delta{Type: typ, Key: key, State: ent.state.Append(nil)})
			}
		}
	})
	return out
}
