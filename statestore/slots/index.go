package slots

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/holdfast-mesh/holdfast/internal/placement"
	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	"github.com/holdfast-mesh/holdfast/statestore/wal"
)

// Sections reads bodies of the log snapshot; wal.Log does.
type Sections interface {
	ReadSection(ref wal.Ref) ([]byte, error)
}

// Index is all of a store's eventual entities.
type Index struct {
	// sections is set before the index is shared.
	sections Sections
	// refs guards Slot.ref of all slots.
	refs sync.RWMutex
	// mu guards types.
	mu    sync.RWMutex
	types map[string]*Type
	// generation is the last snapshot's that was begun; the snapshot's.
	generation uint32
	// active and passive count entities that exist, in memory and on the disk only.
	active, passive atomic.Int64
	// Seconds since the process started, for who was used when.
	clock atomic.Uint32
}

// NewIndex returns an empty one.
func NewIndex() *Index { return &Index{types: map[string]*Type{}} }

// Attach sets where passive entities are read from.
func (x *Index) Attach(s Sections) { x.sections = s }

// Tick tells how many seconds the process has been running.
func (x *Index) Tick(seconds uint32) { x.clock.Store(seconds) }

// Counts returns how many entities are in memory, and how many on the disk only.
func (x *Index) Counts() (active, passive uint64) {
	return uint64(max(x.active.Load(), 0)), uint64(max(x.passive.Load(), 0))
}

// Type is nil where nothing of the type was ever seen.
func (x *Index) Type(name string) *Type {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.types[name]
}

// Types lists them by name.
func (x *Index) Types() []*Type {
	x.mu.RLock()
	defer x.mu.RUnlock()
	out := make([]*Type, 0, len(x.types))
	for _, t := range x.types {
		out = append(out, t)
	}
	slices.SortFunc(out, func(a, b *Type) int { return compare(a.Name, b.Name) })
	return out
}

func compare(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// Slot is nil where nothing of it was ever seen.
func (x *Index) Slot(typ string, slot uint32) *Slot {
	if t := x.Type(typ); t != nil {
		return t.Slot(slot)
	}
	return nil
}

// Make returns the slot, made where it is missing. The writer's.
func (x *Index) Make(typ string, number uint32) *Slot {
	x.mu.Lock()
	t := x.types[typ]
	if t == nil {
		t = &Type{Name: typ, index: x}
		x.types[typ] = t
	}
	x.mu.Unlock()
	s := t.slots[number].Load()
	if s == nil {
		s = newSlot(t, number)
		t.slots[number].Store(s)
	}
	return s
}

// Use notes that somebody is about to use the slot, where anything is known of it.
func (x *Index) Use(typ string, slot uint32) {
	if s := x.Slot(typ, slot); s != nil {
		s.used.Store(x.clock.Load())
	}
}

// Type is one entity type's slots.
type Type struct {
	Name  string
	index *Index
	slots [placement.Slots]atomic.Pointer[Slot]
}

// Slot is nil where nothing of it was ever seen.
func (t *Type) Slot(number uint32) *Slot {
	if number >= placement.Slots {
		return nil
	}
	return t.slots[number].Load()
}

// Slots are those of which something was seen, in order.
func (t *Type) Slots(yield func(*Slot) bool) {
	for i := range t.slots {
		if s := t.slots[i].Load(); s != nil && !yield(s) {
			return
		}
	}
}

// Shape is the shape of some entity of the type, nil where there is none.
func (t *Type) Shape() (*configv1.Shape, error) {
	for s := range t.Slots {
		if shape, err := s.shape(); shape != nil || err != nil {
			return shape, err
		}
	}
	return nil, nil
}
