package statestore

import (
	"cmp"
	"slices"

	replicationv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/replication/v1"
	"github.com/holdfast-mesh/holdfast/statestore/crdt"
	"github.com/holdfast-mesh/holdfast/statestore/slots"
)

// What anti-entropy compares and fetches. All of it is durable, but for changes of LOCAL_MEM; it goes on when the log fails.
// What can't be read from the disk is left out: a later round finds it.

// Types lists the configured types that are not strong, in order.
func (e *Engine) Types() []string {
	c := e.config.Load()
	if c == nil {
		return nil
	}
	var names []string
	for name, t := range c.types {
		if t.shape != nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// SlotHashes lists the type's slots that have anything, in order. A slot's hash is the XOR over its entities of a hash of the
// key and the live dots, and of the context's hash: equal slots, equal hashes.
func (e *Engine) SlotHashes(typ string) []*replicationv1.SlotHash {
	t := e.index.Type(typ)
	if t == nil {
		return nil
	}
	var out []*replicationv1.SlotHash
	for s := range t.Slots {
		if hash := s.Hash(); hash != 0 {
			out = append(out, &replicationv1.SlotHash{Slot: s.Number, Hash: hash})
		}
	}
	return out
}

// SlotSummary is the slot's context, and the hashes of its buckets.
func (e *Engine) SlotSummary(typ string, slot uint32) (*crdt.Context, []*replicationv1.BucketHash) {
	s := e.index.Slot(typ, slot)
	if s == nil {
		return &crdt.Context{}, nil
	}
	seen, buckets, err := s.Summary()
	e.spoiled(s, err)
	out := make([]*replicationv1.BucketHash, 0, len(buckets))
	for bucket, hash := range buckets {
		out = append(out, &replicationv1.BucketHash{Bucket: bucket, Hash: hash})
	}
	slices.SortFunc(out, func(a, b *replicationv1.BucketHash) int { return cmp.Compare(a.Bucket, b.Bucket) })
	return seen, out
}

// SlotKeys is the slot's context, and its entities in those buckets, nil for all, by key.
func (e *Engine) SlotKeys(typ string, slot uint32, buckets []uint32) (*crdt.Context, []*replicationv1.KeyHash) {
	s := e.index.Slot(typ, slot)
	if s == nil {
		return &crdt.Context{}, nil
	}
	seen, keys, err := s.Keys(buckets)
	e.spoiled(s, err)
	out := make([]*replicationv1.KeyHash, len(keys))
	for i, k := range keys {
		out[i] = &replicationv1.KeyHash{Key: k.Key, Hash: k.Hash}
	}
	return seen, out
}

// SlotStates is the slot's context, and the whole states of those keys that are here.
func (e *Engine) SlotStates(typ string, slot uint32, keys []string) (*crdt.Context, []*replicationv1.Delta) {
	s := e.index.Slot(typ, slot)
	if s == nil {
		return &crdt.Context{}, nil
	}
	seen, states, err := s.States(keys)
	e.spoiled(s, err)
	out := make([]*replicationv1.Delta, len(states))
	for i, st := range states {
		out[i] = &replicationv1.Delta{Type: typ, Key: st.Key, State: st.Live}
		if !st.Fill.Empty() {
			out[i].Fill = st.Fill.Append(nil)
		}
	}
	return seen, out
}

// Seen is the slot's context, of those replicas only where some are given, with the retired ones.
func (e *Engine) Seen(typ string, slot uint32, replicas ...uint64) *crdt.Context {
	s := e.index.Slot(typ, slot)
	if s == nil {
		return &crdt.Context{}
	}
	return s.Seen(replicas...)
}

// SlotTurn is what a round on the slot takes for its Comparison's Turn, before anything else of the slot.
func (e *Engine) SlotTurn(typ string, slot uint32) uint64 {
	if s := e.index.Slot(typ, slot); s != nil {
		return s.Dropped()
	}
	return 0
}

// spoiled ends a comparison for which something could not be read.
func (e *Engine) spoiled(s *slots.Slot, err error) {
	if err != nil {
		s.Spoil()
		e.unreadable(err)
	}
}

func (e *Engine) unreadable(err error) {
	if err != nil {
		e.cfg.Logger.Error("passive entities can't be read", "error", err)
	}
}
