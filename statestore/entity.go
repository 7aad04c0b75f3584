package statestore

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"sync/atomic"

	"github.com/cespare/xxhash/v2"

	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
	"github.com/holdfast-mesh/holdfast/statestore/crdt"
)

// entityID names an entity.
type entityID struct {
	typ string
	key string
}

func idOf(e *storev1.Entity) entityID { return entityID{typ: e.GetType(), key: e.GetKey()} }

// entity is an eventual entity in memory.
type entity struct {
	id   entityID
	slot uint32

	// The committer's: the state as it will be once the batch under way is durable.
	state crdt.State
	// size is at least the length of state's encoding.
	size int
	// hash is of state's encoding, and counted in its type's slot hashes, while clean is true.
	hash  uint64
	clean bool

	// visible is the last durable state, for everybody. Never changed once stored.
	visible atomic.Pointer[storev1.State]
}

// show makes the state visible. Only the committer calls it, with a durable state.
func (e *entity) show(replica, n uint64) *storev1.State {
	s := &storev1.State{
		Entity:  &storev1.Entity{Type: e.id.typ, Key: e.id.key},
		Exists:  e.state.Exists(),
		Version: strconv.FormatUint(replica, 36) + "." + strconv.FormatUint(n, 36),
		Value:   e.state.Value(),
	}
	e.visible.Store(s)
	return s
}

// absent is the state of an entity that was never changed.
func absent(id entityID) *storev1.State {
	return &storev1.State{Entity: &storev1.Entity{Type: id.typ, Key: id.key}}
}

// entities is one type's entities, and what anti-entropy compares. The map is the engine's to lock; the rest is the
// committer's.
type entities struct {
	slots map[uint32]map[string]*entity
	// hashes holds, per slot, the XOR over its clean entities of keyHash.
	hashes map[uint32]uint64
	dirty  map[*entity]struct{}
}

func newEntities() *entities {
	return &entities{slots: map[uint32]map[string]*entity{}, hashes: map[uint32]uint64{}, dirty: map[*entity]struct{}{}}
}

func (t *entities) add(e *entity) {
	if t.slots[e.slot] == nil {
		t.slots[e.slot] = map[string]*entity{}
	}
	t.slots[e.slot][e.id.key] = e
	t.dirty[e] = struct{}{}
}

// touch takes a changed entity out of its slot's hash until rehash.
func (t *entities) touch(e *entity) {
	if e.clean {
		t.hashes[e.slot] ^= keyHash(e.id.key, e.hash)
		e.clean = false
		t.dirty[e] = struct{}{}
	}
}

// rehash brings hashes up to date.
func (t *entities) rehash() {
	var buf []byte
	for e := range t.dirty {
		buf = e.state.Append(buf[:0])
		e.hash, e.size, e.clean = xxhash.Sum64(buf), len(buf), true
		t.hashes[e.slot] ^= keyHash(e.id.key, e.hash)
	}
	clear(t.dirty)
}

// keyHash is one entity's part of its slot's hash.
func keyHash(key string, hash uint64) uint64 {
	var d xxhash.Digest
	d.Reset()
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], hash)
	_, _ = d.Write(b[:])
	_, _ = d.WriteString(key)
	return d.Sum64()
}

func (id entityID) String() string { return fmt.Sprintf("%s %q", id.typ, id.key) }
