package statestore

import (
	"hash/maphash"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/holdfast-mesh/holdfast/internal/placement"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
	"github.com/holdfast-mesh/holdfast/statestore/crdt"
	"github.com/holdfast-mesh/holdfast/statestore/refusal"
	"github.com/holdfast-mesh/holdfast/statestore/slots"
)

// Subscriber is told of an entity's states. Push must not block, and may drop states as long as the latest arrives.
type Subscriber interface {
	Push(*storev1.State)
}

// subscriptions are who wants to see what. Each shard's lock is held over "look, show and push" and over "look and answer", so
// that a subscriber that queues what it gets never has an older state behind a newer one. Slots' locks come after it.
type subscriptions struct {
	seed   maphash.Seed
	shards [64]subscriptionShard
}

type subscriptionShard struct {
	// mu guards byEntity.
	mu       sync.Mutex
	byEntity map[entityID]*subscription
}

type subscription struct {
	subscribers map[Subscriber]struct{}
	// shown is the last state that was looked up. Never changed.
	shown *storev1.State
}

func (s *subscriptions) init() {
	s.seed = maphash.MakeSeed()
	for i := range s.shards {
		s.shards[i].byEntity = map[entityID]*subscription{}
	}
}

func (s *subscriptions) shard(id entityID) *subscriptionShard {
	return &s.shards[maphash.String(s.seed, id.key)%uint64(len(s.shards))]
}

// has tells whether anybody is subscribed.
func (s *subscriptions) has(id entityID) bool {
	shard := s.shard(id)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	return shard.byEntity[id] != nil
}

// hasSlot tells whether anybody is subscribed to an entity of the slot.
func (s *subscriptions) hasSlot(typ string, slot uint32) bool {
	for i := range s.shards {
		shard := &s.shards[i]
		shard.mu.Lock()
		for id := range shard.byEntity {
			if id.typ == typ && placement.Slot(id.typ, id.key) == slot {
				shard.mu.Unlock()
				return true
			}
		}
		shard.mu.Unlock()
	}
	return false
}

// push shows an entity's subscribers its state where it changed.
func (e *Engine) push(id entityID) {
	shard := e.subs.shard(id)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	sub := shard.byEntity[id]
	if sub == nil {
		return
	}
	state, err := e.look(id)
	if err != nil {
		e.unreadable(err)
		return
	}
	if sub.shown.GetVersion() == state.Version && sub.shown.GetExists() == state.Exists {
		return
	}
	sub.shown = state
	for subscriber := range sub.subscribers {
		subscriber.Push(state)
	}
}

// repush shows an entity's subscribers its state again where its value depends on more than the entity.
func (e *Engine) repush(match func(typ string) bool) {
	var ids []entityID
	for i := range e.subs.shards {
		shard := &e.subs.shards[i]
		shard.mu.Lock()
		for id := range shard.byEntity {
			if match(id.typ) {
				ids = append(ids, id)
			}
		}
		shard.mu.Unlock()
	}
	for _, id := range ids {
		e.push(id)
	}
}

// see is the state of an eventual entity, the one that subscribers were shown where there are any.
func (e *Engine) see(id entityID) (*storev1.State, error) {
	shard := e.subs.shard(id)
	shard.mu.Lock()
	if sub := shard.byEntity[id]; sub != nil && sub.shown != nil {
		defer shard.mu.Unlock()
		return sub.shown, nil
	}
	shard.mu.Unlock()
	return e.look(id)
}

// look makes the state of an eventual entity from what is in memory, or activates it.
func (e *Engine) look(id entityID) (*storev1.State, error) {
	number := placement.Slot(id.typ, id.key)
	slot := e.index.Slot(id.typ, number)
	if slot == nil {
		return absent(id), nil
	}
	var state crdt.State
	var version uint64
	err := slot.Read(id.key, func(ent *slots.Entity) {
		if ent != nil {
			// A copy never changes.
			state, version = ent.State, ent.Version()
		}
	})
	if err != nil {
		return nil, refusal.NotApplied(codes.Unavailable, "%v", err)
	}
	if version == 0 {
		return absent(id), nil
	}
	return e.show(id, number, &state, version), nil
}

// show is a state as callers see it. The version is a hash of the live dots, with all else that the value depends on.
func (e *Engine) show(id entityID, slot uint32, state *crdt.State, version uint64) *storev1.State {
	view := crdt.View{Node: e.cfg.Node, Replica: e.replica}
	s := absent(id)
	s.Exists = state.Exists()
	s.Version = strconv.FormatUint(e.replica, 36) + "." + strconv.FormatUint(version, 36)
	if c := e.config.Load(); c != nil && c.types[id.typ] != nil {
		t := c.types[id.typ]
		view.Floor = t.Floor
		if t.votes {
			view.Voters = c.replicas(t, slot)
			s.Version += "." + strconv.FormatUint(c.table.Epoch(), 36)
		}
	}
	s.Value = state.Value(view)
	return s
}

// View reads an eventual entity: its state is given to answer, once, which must not block; the slot may have to come from
// another store first, for which it waits until the deadline (zero: defaultDeadline). Where sub is not nil it gets every
// later state (or a later one instead), until Unsubscribe; not after an error.
func (e *Engine) View(ent *storev1.Entity, deadline time.Time, sub Subscriber, answer func(*storev1.State, error)) {
	if err := checkEntity(ent); err != nil {
		answer(nil, err)
		return
	}
	typ, err := e.eventualType(ent.Type)
	if err != nil {
		answer(nil, err)
		return
	}
	id := idOf(ent)
	e.ready(typ, placement.Slot(id.typ, id.key), deadline, func(err error) {
		switch {
		case err != nil:
			answer(nil, err)
		case sub == nil:
			answer(e.see(id))
		default:
			e.subscribe(id, sub, answer)
		}
	})
}

func (e *Engine) subscribe(id entityID, subscriber Subscriber, answer func(*storev1.State, error)) {
	shard := e.subs.shard(id)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	sub := shard.byEntity[id]
	if sub == nil {
		state, err := e.look(id)
		if err != nil {
			answer(nil, err)
			return
		}
		sub = &subscription{subscribers: map[Subscriber]struct{}{}, shown: state}
		shard.byEntity[id] = sub
	}
	sub.subscribers[subscriber] = struct{}{}
	answer(sub.shown, nil)
}

// Get is View without a subscription.
func (e *Engine) Get(ent *storev1.Entity) (*storev1.State, error) {
	type result struct {
		state *storev1.State
		err   error
	}
	results := make(chan result, 1)
	e.View(ent, time.Time{}, nil, func(s *storev1.State, err error) { results <- result{s, err} })
	r := <-results
	return r.state, r.err
}

// Unsubscribe ends a subscription; there may be none.
func (e *Engine) Unsubscribe(ent *storev1.Entity, subscriber Subscriber) {
	id := idOf(ent)
	shard := e.subs.shard(id)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	sub := shard.byEntity[id]
	if sub == nil {
		return
	}
	if delete(sub.subscribers, subscriber); len(sub.subscribers) == 0 {
		delete(shard.byEntity, id)
	}
}

func errType(typ string) error {
	return refusal.NotApplied(codes.Unavailable, "entity type %q is not configured at this store (yet)", typ)
}
