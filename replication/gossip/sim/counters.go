package sim

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"sync"

	"github.com/holdfast-mesh/holdfast/internal/placement"
	replicationv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/replication/v1"
)

// Counters is a small engine: entities that are grow-only counters. It stands for the store where a test is about
// replication alone; its states are a model, not the product's encoding.
type Counters struct {
	mu sync.Mutex
	// +checklocks:mu
	types []string
	// +checklocks:mu
	entities map[[2]string]map[uint64]uint64
	// hashes of the entities by type and slot.
	// +checklocks:mu
	hashes map[string]map[uint32]map[string]uint64
	// +checklocks:mu
	merges int
}

// NewCounters makes an engine that knows some entity types.
func NewCounters(types ...string) *Counters {
	return &Counters{types: types, entities: map[[2]string]map[uint64]uint64{}, hashes: map[string]map[uint32]map[string]uint64{}}
}

// SetTypes changes the known types.
func (c *Counters) SetTypes(types ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.types = types
}

// Add counts n at a replica and returns the delta to publish.
func (c *Counters) Add(entityType, key string, replica, n uint64) *replicationv1.Delta {
	c.mu.Lock()
	defer c.mu.Unlock()
	id := [2]string{entityType, key}
	if c.entities[id] == nil {
		c.entities[id] = map[uint64]uint64{}
	}
	c.entities[id][replica] += n
	c.rehash(id)
	return &replicationv1.Delta{
		Type: entityType, Key: key, State: encodeCounter(map[uint64]uint64{replica: c.entities[id][replica]}),
	}
}

// Values returns the value of every entity.
func (c *Counters) Values() map[string]uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := map[string]uint64{}
	for id, counts := range c.entities {
		for _, n := range counts {
			out[id[0]+"/"+id[1]] += n
		}
	}
	return out
}

// Merges counts the deltas that were merged.
func (c *Counters) Merges() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.merges
}

// Merge implements gossip.Engine.
func (c *Counters) Merge(_ context.Context, deltas []*replicationv1.Delta) error {
	decoded := make([]map[uint64]uint64, len(deltas))
	for i, d := range deltas {
		var err error
		if decoded[i], err = decodeCounter(d.GetState()); err != nil {
			return fmt.Errorf("merge %s %q: %w", d.GetType(), d.GetKey(), err)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, d := range deltas {
		c.merges++
		id := [2]string{d.GetType(), d.GetKey()}
		if c.entities[id] == nil {
			c.entities[id] = map[uint64]uint64{}
		}
		for replica, n := range decoded[i] {
			c.entities[id][replica] = max(c.entities[id][replica], n)
		}
		c.rehash(id)
	}
	return nil
}

// Types implements gossip.Engine.
func (c *Counters) Types() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.types)
}

// SlotHashes implements gossip.Engine.
func (c *Counters) SlotHashes(entityType string) []*replicationv1.SlotHash {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []*replicationv1.SlotHash
	for _, slot := range slices.Sorted(maps.Keys(c.hashes[entityType])) {
		s := &replicationv1.SlotHash{Slot: slot}
		for _, h := range c.hashes[entityType][slot] {
			s.Hash ^= h
		}
		out = append(out, s)
	}
	return out
}

// KeyHashes implements gossip.Engine.
func (c *Counters) KeyHashes(entityType string, slot uint32) []*replicationv1.KeyHash {
	c.mu.Lock()
	defer c.mu.Unlock()
	keys := c.hashes[entityType][slot]
	var out []*replicationv1.KeyHash
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		out = append(out, &replicationv1.KeyHash{Key: key, Hash: keys[key]})
	}
	return out
}

// States implements gossip.Engine.
func (c *Counters) States(entityType string, keys []string) []*replicationv1.Delta {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []*replicationv1.Delta
	for _, key := range keys {
		if counts := c.entities[[2]string{entityType, key}]; counts != nil {
			out = append(out, &replicationv1.Delta{Type: entityType, Key: key, State: encodeCounter(counts)})
		}
	}
	return out
}

// +checklocks:c.mu
func (c *Counters) rehash(id [2]string) {
	h := fnv.New64a()
	_, _ = h.Write([]byte(id[1]))
	_, _ = h.Write(encodeCounter(c.entities[id]))
	slot := placement.Slot(id[0], id[1])
	if c.hashes[id[0]] == nil {
		c.hashes[id[0]] = map[uint32]map[string]uint64{}
	}
	if c.hashes[id[0]][slot] == nil {
		c.hashes[id[0]][slot] = map[string]uint64{}
	}
	c.hashes[id[0]][slot][id[1]] = h.Sum64()
}

func encodeCounter(counts map[uint64]uint64) []byte {
	var out []byte
	for _, replica := range slices.Sorted(maps.Keys(counts)) {
		out = binary.BigEndian.AppendUint64(out, replica)
		out = binary.BigEndian.AppendUint64(out, counts[replica])
	}
	return out
}

func decodeCounter(b []byte) (map[uint64]uint64, error) {
	if len(b)%16 != 0 {
		return nil, errors.New("not a counter")
	}
	out := map[uint64]uint64{}
	for ; len(b) > 0; b = b[16:] {
		replica := binary.BigEndian.Uint64(b)
		out[replica] = max(out[replica], binary.BigEndian.Uint64(b[8:]))
	}
	return out, nil
}
