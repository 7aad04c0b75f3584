package crdt

import (
	"encoding/binary"
	"slices"

	"github.com/cespare/xxhash/v2"
)

// Retired is a set of replica identities that are over: all that they ever wrote is known to everybody. It never changes;
// the many contexts of a store share one. nil is the empty set.
type Retired struct {
	ids  []uint64 // ascending, each once
	hash uint64
}

// NewRetired makes a set.
func NewRetired(ids ...uint64) *Retired {
	if len(ids) == 0 {
		return nil
	}
	sorted := slices.Clone(ids)
	slices.Sort(sorted)
	sorted = slices.Compact(sorted)
	b := make([]byte, 0, 8*len(sorted))
	for _, id := range sorted {
		b = binary.BigEndian.AppendUint64(b, id)
	}
	return &Retired{ids: sorted, hash: xxhash.Sum64(b)}
}

// Has tells whether an identity is in the set.
func (r *Retired) Has(replica uint64) bool {
	if r == nil {
		return false
	}
	_, found := slices.BinarySearch(r.ids, replica)
	return found
}

// Union is the set of what is in either; it is r or o itself where that holds all of the other.
func (r *Retired) Union(o *Retired) *Retired {
	switch {
	case r == o || r.covers(o):
		return r
	case o.covers(r):
		return o
	}
	return NewRetired(append(slices.Clone(r.ids), o.ids...)...)
}

func (r *Retired) covers(o *Retired) bool {
	if r == o || o == nil {
		return true
	}
	if r == nil || len(r.ids) < len(o.ids) {
		return false
	}
	for _, id := range o.ids {
		if !r.Has(id) {
			return false
		}
	}
	return true
}

// IDs lists the set, ascending. The caller owns the list.
func (r *Retired) IDs() []uint64 {
	if r == nil {
		return nil
	}
	return slices.Clone(r.ids)
}

// Len is the number of identities.
func (r *Retired) Len() int {
	if r == nil {
		return 0
	}
	return len(r.ids)
}

// Hash is equal for equal sets, and 0 for the empty one.
func (r *Retired) Hash() uint64 {
	if r == nil {
		return 0
	}
	return r.hash
}
