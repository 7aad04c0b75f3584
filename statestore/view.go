package statestore

import (
	"hash/maphash"
	"sync"

	"google.golang.org/grpc/codes"

	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
	"github.com/holdfast-mesh/holdfast/statestore/refusal"
)

// Subscriber is told of an entity's states. Push must not block, and may drop states as long as the latest arrives.
type Subscriber interface {
	Push(*storev1.State)
}

// subscriptions are who wants to see what. Each shard's lock is held over "show and push" and over "look and answer", so that
// a subscriber that queues what it gets never has an older state behind a newer one.
type subscriptions struct {
	seed   maphash.Seed
	shards [64]subscriptionShard
}

type subscriptionShard struct {
	// mu guards byEntity.
	mu       sync.Mutex
	byEntity map[entityID]map[Subscriber]struct{}
}

func (s *subscriptions) init() {
	s.seed = maphash.MakeSeed()
	for i := range s.shards {
		s.shards[i].byEntity = map[entityID]map[Subscriber]struct{}{}
	}
}

func (s *subscriptions) shard(id entityID) *subscriptionShard {
	return &s.shards[maphash.String(s.seed, id.key)%uint64(len(s.shards))]
}

// publish shows the entity's durable state and pushes it.
func (s *subscriptions) publish(ent *entity, replica, version uint64) {
	shard := s.shard(ent.id)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	state := ent.show(replica, version)
	for sub := range shard.byEntity[ent.id] {
		sub.Push(state)
	}
}

// see is the durable state of an eventual entity. It does not activate it.
func (e *Engine) see(id entityID) *storev1.State {
	if ent := e.lookup(id); ent != nil {
		if state := ent.visible.Load(); state != nil {
			return state
		}
	}
	return absent(id)
}

// View reads an eventual entity: the last durable state, given to answer, which must not block. Where sub is not nil
// it gets every later state (or a later one instead), until Unsubscribe.
func (e *Engine) View(ent *storev1.Entity, sub Subscriber, answer func(*storev1.State)) error {
	if err := checkEntity(ent); err != nil {
		return err
	}
	if _, err := e.eventualType(ent.Type); err != nil {
		return err
	}
	id := idOf(ent)
	shard := e.subs.shard(id)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	if sub != nil {
		if shard.byEntity[id] == nil {
			shard.byEntity[id] = map[Subscriber]struct{}{}
		}
		shard.byEntity[id][sub] = struct{}{}
	}
	answer(e.see(id))
	return nil
}

// Get is View without a subscription.
func (e *Engine) Get(ent *storev1.Entity) (*storev1.State, error) {
	var state *storev1.State
	err := e.View(ent, nil, func(s *storev1.State) { state = s })
	return state, err
}

// Unsubscribe ends a subscription; there may be none.
func (e *Engine) Unsubscribe(ent *storev1.Entity, sub Subscriber) {
	id := idOf(ent)
	shard := e.subs.shard(id)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	delete(shard.byEntity[id], sub)
	if len(shard.byEntity[id]) == 0 {
		delete(shard.byEntity, id)
	}
}

func errType(typ string) error {
	return refusal.NotApplied(codes.Unavailable, "entity type %q is not configured at this store (yet)", typ)
}
