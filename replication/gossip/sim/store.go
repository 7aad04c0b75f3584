package sim

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/cespare/xxhash/v2"

	"github.com/holdfast-mesh/holdfast/internal/placement"
	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	replicationv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/replication/v1"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
	"github.com/holdfast-mesh/holdfast/replication/gossip"
	"github.com/holdfast-mesh/holdfast/replication/gossip/settle"
	"github.com/holdfast-mesh/holdfast/statestore/crdt"
)

// Store is a small engine in memory: what package gossip needs of the real one, under one lock and without a disk. Tests
// that are about replication alone use it.
type Store struct {
	node    string
	replica uint64

	mu sync.Mutex
	// +checklocks:mu
	types map[string]*configv1.Shape
	// +checklocks:mu
	slots map[settle.Slot]*slot
	// turns counts the drops of slots; next has the store's own next sequences at them.
	// +checklocks:mu
	turns, next map[settle.Slot]uint64
	// +checklocks:mu
	registry map[uint64]*replicationv1.Identity
	// +checklocks:mu
	retired *crdt.Retired
	// +checklocks:mu
	now uint64
	// +checklocks:mu
	merges int
	// granted has the requests for rights that came in.
	// +checklocks:mu
	granted []string
	// refuse makes merges of states fail, if set.
	// +checklocks:mu
	refuse func(key string) bool
	// slotOf is placement.Slot, or what a test that wants full slots has instead.
	slotOf func(entityType, key string) uint32
}

type slot struct {
	seen     *crdt.Context
	entities map[string]*crdt.State
	// hashes of the entities that exist.
	hashes map[string]uint64
	hash   uint64
	// next is the store's own next sequence as of the slot's last drop.
	next uint64
}

// Types makes a map of types with one shape.
func Types(model configv1.Model, names ...string) map[string]*configv1.Shape {
	out := map[string]*configv1.Shape{}
	for _, name := range names {
		out[name] = &configv1.Shape{Model: model}
	}
	return out
}

// NewStore makes an empty engine.
func NewStore(node string, replica uint64, types map[string]*configv1.Shape) *Store {
	return &Store{
		node: node, replica: replica, types: types, slots: map[settle.Slot]*slot{}, now: crdt.MinTime, slotOf: placement.Slot,
		turns: map[settle.Slot]uint64{}, next: map[settle.Slot]uint64{},
		registry: map[uint64]*replicationv1.Identity{replica: {Replica: replica, Node: node}},
	}
}

// Restart is the same disk under another identity. The old store may go on: they share nothing.
func (s *Store) Restart(replica uint64) *Store {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := NewStore(s.node, replica, maps.Clone(s.types))
	for at, old := range s.slots {
		c := &slot{seen: old.seen.Clone(), entities: map[string]*crdt.State{}, hashes: maps.Clone(old.hashes), hash: old.hash}
		for key, e := range old.entities {
			state := e.Clone()
			c.entities[key] = &state
		}
		n.slots[at] = c
	}
	for id, i := range s.registry {
		n.registry[id] = &replicationv1.Identity{Replica: id, Node: i.GetNode(), Retired: i.GetRetired()}
	}
	n.retired, n.now, n.slotOf = s.retired, s.now, s.slotOf
	return n
}

// Replica is the store's identity.
func (s *Store) Replica() uint64 { return s.replica }

// SetTypes changes the known types.
func (s *Store) SetTypes(types map[string]*configv1.Shape) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.types = types
}

// InOneSlot puts all keys of an empty store in one slot.
func (s *Store) InOneSlot(number uint32) *Store {
	s.slotOf = func(string, string) uint32 { return number }
	return s
}

// Refuse makes merges of some keys' states fail.
func (s *Store) Refuse(which func(key string) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuse = which
}

// +checklocks:s.mu
func (s *Store) slot(at settle.Slot) *slot {
	if s.slots[at] == nil {
		s.slots[at] = newSlot()
		s.slots[at].next = s.next[at]
	}
	return s.slots[at]
}

// look is slot for those who only read.
//
// +checklocks:s.mu
func (s *Store) look(entityType string, number uint32) *slot {
	if sl := s.slots[settle.Slot{Type: entityType, Slot: number}]; sl != nil {
		return sl
	}
	return newSlot()
}

func newSlot() *slot {
	return &slot{seen: &crdt.Context{}, entities: map[string]*crdt.State{}, hashes: map[string]uint64{}}
}

// +checklocks:s.mu
func (s *Store) entity(sl *slot, entityType, key string) (*crdt.State, error) {
	if e := sl.entities[key]; e != nil {
		return e, nil
	}
	e, err := crdt.New(s.types[entityType])
	return &e, err
}

// put keeps an entity after a change.
func (sl *slot) put(key string, e *crdt.State) {
	e.Strip(sl.seen)
	sl.hash ^= sl.hashes[key]
	delete(sl.hashes, key)
	if !e.Exists() {
		if e.Residue() == nil {
			delete(sl.entities, key)
			return
		}
		sl.entities[key] = e
		return
	}
	h := xxhash.Sum64String(key) ^ xxhash.Sum64(e.AppendLive(nil))*31
	sl.hashes[key] = h
	sl.hash ^= h
	sl.entities[key] = e
}

// Do changes an entity and returns the delta to publish, with its slot and last dot; nil where nothing changed.
func (s *Store) Do(entityType, key string, op *holdfastv1.Operation) (*replicationv1.Delta, uint32, crdt.Dot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := settle.Slot{Type: entityType, Slot: s.slotOf(entityType, key)}
	sl := s.slot(at)
	e, err := s.entity(sl, entityType, key)
	if err != nil {
		panic(err)
	}
	s.now++
	d, err := e.Delta(op, crdt.Mutator{Replica: s.replica, Seq: max(sl.seen.Next(s.replica), sl.next), Now: s.now, Node: s.node, Absorb: s.absorb})
	if err != nil {
		panic(err)
	}
	if d.Bottom() {
		return nil, 0, crdt.Dot{}
	}
	if _, err := e.Join(&d, sl.seen, nil); err != nil {
		panic(err)
	}
	sl.seen.Merge(d.Context())
	sl.put(key, e)
	dot := crdt.Dot{Replica: s.replica, Seq: d.Context().Next(s.replica) - 1}
	return &replicationv1.Delta{Type: entityType, Key: key, State: d.Append(nil)}, at.Slot, dot
}

// +checklocks:s.mu
func (s *Store) absorb(replica uint64) bool {
	i := s.registry[replica]
	return i != nil && i.GetNode() == s.node && s.retired.Has(replica)
}

// Add counts at a grow-only counter.
func (s *Store) Add(entityType, key string, n uint64) *replicationv1.Delta {
	d, _, _ := s.Do(entityType, key, &holdfastv1.Operation{Operation: &holdfastv1.Operation_Increment{Increment: &holdfastv1.Increment{By: n}}})
	return d
}

// Delete deletes an entity.
func (s *Store) Delete(entityType, key string) *replicationv1.Delta {
	d, _, _ := s.Do(entityType, key, &holdfastv1.Operation{Operation: &holdfastv1.Operation_Delete{Delete: &holdfastv1.Delete{}}})
	return d
}

// Values returns the value of every counter that exists.
func (s *Store) Values() map[string]uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[string]uint64{}
	for at, sl := range s.slots {
		for key, e := range sl.entities {
			if e.Exists() {
				out[at.Type+"/"+key] = e.Value(crdt.View{}).GetGcounter()
			}
		}
	}
	return out
}

// Residues counts the entities that hold a context beyond their slot's.
func (s *Store) Residues() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, sl := range s.slots {
		for _, e := range sl.entities {
			if e.Residue() != nil {
				n++
			}
		}
	}
	return n
}

// Merges counts the deltas that were merged.
func (s *Store) Merges() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.merges
}

// Granted lists the requests for rights.
func (s *Store) Granted() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.granted)
}

// Named lists the identities that contexts name.
func (s *Store) Named() []uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	set := map[uint64]bool{}
	for _, sl := range s.slots {
		for _, id := range sl.seen.Replicas() {
			set[id] = true
		}
	}
	return slices.Sorted(maps.Keys(set))
}

// Drop forgets a slot.
func (s *Store) Drop(entityType string, number uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := settle.Slot{Type: entityType, Slot: number}
	if s.slots[at] != nil {
		s.next[at] = s.slots[at].seen.Next(s.replica)
	}
	delete(s.slots, at)
	s.turns[at]++
}

// SlotTurn implements rounds.Turner.
func (s *Store) SlotTurn(entityType string, number uint32) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.turns[settle.Slot{Type: entityType, Slot: number}]
}

// forged reports whether a context claims changes of this store's that it did not make.
func (s *Store) forged(sl *slot, c *crdt.Context) bool {
	return c.Next(s.replica) > max(sl.seen.Next(s.replica), sl.next)
}

// Merge implements gossip.Engine.
func (s *Store) Merge(_ context.Context, deltas []*replicationv1.Delta) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, d := range deltas {
		if err := s.merge(d); err != nil {
			errs = append(errs, fmt.Errorf("merge %s %q: %w", d.GetType(), d.GetKey(), err))
		}
	}
	return errors.Join(errs...)
}

// +checklocks:s.mu
func (s *Store) merge(d *replicationv1.Delta) error {
	delta, err := crdt.Decode(d.GetState())
	if err != nil {
		return err
	}
	if s.types[d.GetType()] == nil {
		return errors.New("unknown type")
	}
	sl := s.slot(settle.Slot{Type: d.GetType(), Slot: s.slotOf(d.GetType(), d.GetKey())})
	if s.forged(sl, delta.Context()) {
		return errors.New("not what this store did")
	}
	e, err := s.entity(sl, d.GetType(), d.GetKey())
	if err != nil {
		return err
	}
	if _, err := e.Join(&delta, sl.seen, nil); err != nil {
		return err
	}
	s.merges++
	sl.seen.Merge(delta.Context())
	sl.put(d.GetKey(), e)
	return nil
}

// MergeStates implements gossip.Engine.
func (s *Store) MergeStates(_ context.Context, entityType string, number uint32, fill *crdt.Context, states []*replicationv1.Delta, absent []string, done *crdt.Comparison) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.types[entityType] == nil {
		return errors.New("unknown type")
	}
	at := settle.Slot{Type: entityType, Slot: number}
	if done != nil && done.Turn != s.turns[at] {
		return errors.New("the slot was dropped since")
	}
	sl := s.slot(at)
	if s.forged(sl, fill) || done != nil && s.forged(sl, done.Complete) {
		return errors.New("not what this store did")
	}
	var errs []error
	for _, d := range states {
		if err := s.mergeState(sl, entityType, d, fill); err != nil {
			errs = append(errs, fmt.Errorf("merge state %s %q: %w", entityType, d.GetKey(), err))
		}
	}
	for _, key := range absent {
		e, err := s.entity(sl, entityType, key)
		if err != nil {
			return err
		}
		nothing, err := crdt.New(s.types[entityType])
		if err != nil {
			return err
		}
		if _, err := e.Join(&nothing, sl.seen, fill); err != nil {
			return err
		}
		sl.put(key, e)
	}
	if err := errors.Join(errs...); err != nil || done == nil {
		return err
	}
	for key, e := range sl.entities {
		done.Settle(key, bucket(key), e)
	}
	sl.seen.Merge(done.Complete)
	for key, e := range sl.entities {
		sl.put(key, e)
	}
	return nil
}

// +checklocks:s.mu
func (s *Store) mergeState(sl *slot, entityType string, d *replicationv1.Delta, fill *crdt.Context) error {
	if s.refuse != nil && s.refuse(d.GetKey()) {
		return errors.New("refused")
	}
	state, err := crdt.Decode(d.GetState())
	if err != nil {
		return err
	}
	if s.forged(sl, state.Context()) {
		return errors.New("not what this store did")
	}
	e, err := s.entity(sl, entityType, d.GetKey())
	if err != nil {
		return err
	}
	if len(d.GetFill()) > 0 {
		residue, err := crdt.DecodeContext(d.GetFill())
		if err != nil {
			return err
		}
		residue.Merge(fill)
		fill = residue
	}
	if _, err := e.Join(&state, sl.seen, fill); err != nil {
		return err
	}
	// Its live dots were seen; what fill covers was seen of this key only.
	sl.seen.Merge(state.Context())
	sl.put(d.GetKey(), e)
	return nil
}

// Types implements gossip.Engine.
func (s *Store) Types() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.types))
}

// SlotHashes implements gossip.Engine.
func (s *Store) SlotHashes(entityType string) []*replicationv1.SlotHash {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*replicationv1.SlotHash
	for at, sl := range s.slots {
		if at.Type == entityType && (len(sl.hashes) > 0 || !sl.seen.Empty()) {
			out = append(out, &replicationv1.SlotHash{Slot: at.Slot, Hash: sl.hash ^ sl.seen.Hash()})
		}
	}
	slices.SortFunc(out, func(a, b *replicationv1.SlotHash) int { return int(a.GetSlot()) - int(b.GetSlot()) })
	return out
}

func bucket(key string) uint32 { return uint32(xxhash.Sum64String(key) % 64) }

// SlotSummary implements gossip.Engine.
func (s *Store) SlotSummary(entityType string, number uint32) (*crdt.Context, []*replicationv1.BucketHash) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sl := s.look(entityType, number)
	hashes := map[uint32]uint64{}
	for key, h := range sl.hashes {
		hashes[bucket(key)] ^= h
	}
	var out []*replicationv1.BucketHash
	for _, b := range slices.Sorted(maps.Keys(hashes)) {
		out = append(out, &replicationv1.BucketHash{Bucket: b, Hash: hashes[b]})
	}
	return sl.seen.Clone(), out
}

// SlotKeys implements gossip.Engine.
func (s *Store) SlotKeys(entityType string, number uint32, buckets []uint32) (*crdt.Context, []*replicationv1.KeyHash) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sl := s.look(entityType, number)
	var out []*replicationv1.KeyHash
	for _, key := range slices.Sorted(maps.Keys(sl.hashes)) {
		if buckets == nil || slices.Contains(buckets, bucket(key)) {
			out = append(out, &replicationv1.KeyHash{Key: key, Hash: sl.hashes[key]})
		}
	}
	return sl.seen.Clone(), out
}

// SlotStates implements gossip.Engine.
func (s *Store) SlotStates(entityType string, number uint32, keys []string) (*crdt.Context, []*replicationv1.Delta) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sl := s.look(entityType, number)
	var out []*replicationv1.Delta
	for _, key := range keys {
		if e := sl.entities[key]; e != nil && e.Exists() {
			d := &replicationv1.Delta{Type: entityType, Key: key, State: e.AppendLive(nil)}
			if r := e.Residue(); !r.Empty() {
				d.Fill = r.Append(nil)
			}
			out = append(out, d)
		}
	}
	return sl.seen.Clone(), out
}

// Seen implements gossip.Engine.
func (s *Store) Seen(entityType string, number uint32, replicas ...uint64) *crdt.Context {
	s.mu.Lock()
	defer s.mu.Unlock()
	sl := s.slots[settle.Slot{Type: entityType, Slot: number}]
	if sl == nil {
		return &crdt.Context{}
	}
	c := sl.seen.Only(replicas...)
	c.Retire(sl.seen.Retired())
	return c
}

// Identities implements gossip.Engine.
func (s *Store) Identities() []*replicationv1.Identity {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*replicationv1.Identity
	for _, id := range slices.Sorted(maps.Keys(s.registry)) {
		i := s.registry[id]
		out = append(out, &replicationv1.Identity{Replica: id, Node: i.GetNode(), Retired: i.GetRetired()})
	}
	return out
}

// LearnIdentities implements gossip.Engine.
func (s *Store) LearnIdentities(_ context.Context, in []*replicationv1.Identity) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, i := range in {
		if s.registry[i.GetReplica()] == nil {
			s.registry[i.GetReplica()] = &replicationv1.Identity{Replica: i.GetReplica(), Node: i.GetNode()}
		}
	}
	return nil
}

// Retire implements gossip.Engine.
func (s *Store) Retire(_ context.Context, ids []uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.retired = s.retired.Union(crdt.NewRetired(ids...))
	for _, id := range ids {
		if s.registry[id] == nil {
			s.registry[id] = &replicationv1.Identity{Replica: id}
		}
		s.registry[id].Retired = true
	}
	for _, sl := range s.slots {
		sl.seen.Retire(s.retired)
	}
	return nil
}

// GrantRights implements gossip.Engine: it only notes that it was asked.
func (s *Store) GrantRights(_ context.Context, entityType, key string, to, amount uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.granted = append(s.granted, fmt.Sprintf("%s/%s %d to %x", entityType, key, amount, to))
	return nil
}

var _ gossip.Engine = (*Store)(nil)
