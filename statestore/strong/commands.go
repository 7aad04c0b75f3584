package strong

import (
	"context"
	"slices"
	"sync"

	"google.golang.org/grpc/codes"

	"github.com/holdfast-mesh/holdfast/internal/placement"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
	"github.com/holdfast-mesh/holdfast/statestore/refusal"
)

// Type is what is configured for an entity type.
type Type struct {
	MaxStateBytes int
	// Replicas are the names of the slot's placed stores, in order.
	Replicas func(slot uint32) []string
}

// Config is what Commands need.
type Config struct {
	// Node is this store's node, as slot owners are named.
	Node string
	// Links are what is called; they may change.
	Links func() (Committer, Forwarder)
	// Type refuses a type that is not configured, or not strong.
	Type func(entityType string) (Type, error)
	// Committed counts a commit.
	Committed func(entityType string)
}

// Commands are a store's strong entities.
type Commands struct {
	cfg Config

	// mu guards everything below, in slots, entities, turns and callers.
	mu       sync.Mutex
	slots    map[slotID]*slot
	entities map[entityID]*entity
	closed   bool
}

type slotID struct {
	typ    string
	number uint32
}

type entityID struct{ typ, key string }

// entity is a strong entity in memory: its turn, who waits for it, and a copy of its state.
type entity struct {
	id      entityID
	slot    *slot
	turn    *turn
	waiting []*waiter
	// epoch is the claim that the copy belongs to; 0: there is no copy.
	epoch int64
	copy  record
	// told is the newest revision that a load brought: nobody may be given an older state after it.
	told int64
	// drops counts how often the copy was dropped: what was loaded before a drop is not installed after it.
	drops uint64
}

// record is an entity as etcd has it. Immutable.
type record struct {
	value  []byte
	exists bool
	rev    int64
	ids    []string
}

func (r record) applied(requestID string) bool {
	return requestID != "" && slices.Contains(r.ids, requestID)
}

// New returns the strong entities of a store: none in memory.
func New(cfg Config) *Commands {
	return &Commands{cfg: cfg, slots: map[slotID]*slot{}, entities: map[entityID]*entity{}}
}

// Close ends all turns and refuses who waits.
func (c *Commands) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for _, e := range c.entities {
		c.evict(e, errClosed)
	}
}

var errClosed = refusal.NotApplied(codes.Unavailable, "store is shutting down")

// evict ends the entity's turn and refuses who waits, unless a commit is under way: that one ends by itself.
func (c *Commands) evict(e *entity, why error) {
	for _, w := range e.waiting {
		w.ready <- granted{err: why}
	}
	e.waiting = nil
	if e.turn != nil && e.turn.committing == nil {
		c.end(e, e.turn)
	}
}

// entity finds or makes the entity. mu is held.
func (c *Commands) entity(s *slot, id entityID) *entity {
	if e := c.entities[id]; e != nil {
		return e
	}
	for _, idle := range c.entities {
		if len(c.entities) < maxEntities {
			break
		}
		if idle.turn == nil && len(idle.waiting) == 0 {
			c.forget(idle)
		}
	}
	e := &entity{id: id, slot: s}
	c.entities[id] = e
	s.entities[id.key] = e
	return e
}

// forget takes an idle entity out of memory. Who still holds the pointer only reads etcd in vain: its copy is not found again.
func (c *Commands) forget(e *entity) {
	e.drop()
	delete(c.entities, e.id)
	delete(e.slot.entities, e.id.key)
}

// drop drops the copy.
func (e *entity) drop() {
	e.epoch, e.copy = 0, record{}
	e.drops++
}

// fresh returns the entity's state as of now, and the claim under which it is. A *movedError says that the slot is
// another store's.
func (c *Commands) fresh(ctx context.Context, s *slot, e *entity) (record, int64, error) {
	committer, _ := c.cfg.Links()
	for range attempts {
		owner, epoch, err := c.claim(ctx, s)
		if err != nil {
			return record{}, 0, err
		}
		if owner != c.cfg.Node {
			return record{}, 0, &movedError{owner: owner}
		}
		held := committer.Held(s.id.typ, s.id.number, epoch)
		c.mu.Lock()
		if held && e.epoch == epoch {
			r := e.copy
			c.mu.Unlock()
			return r, epoch, nil
		}
		drops := e.drops
		c.mu.Unlock()
		if !committer.Up() {
			return record{}, 0, errEtcdGone
		}
		r := record{}
		r.value, r.exists, r.rev, r.ids, err = committer.Load(ctx, s.id.typ, s.id.number, e.id.key)
		if err != nil {
			return record{}, 0, readRefusal("load "+e.id.String(), err)
		}
		if !c.install(s, e, epoch, drops, &r) {
			continue
		}
		if committer.Held(s.id.typ, s.id.number, epoch) {
			return r, epoch, nil
		}
		if owner, err := committer.Owner(ctx, s.id.typ, s.id.number); err == nil && owner == c.cfg.Node && c.claimedAs(s, epoch) {
			return r, epoch, nil
		}
		c.unclaim(s, epoch)
	}
	return record{}, 0, refusal.NotApplied(codes.Unavailable, "slot %d of %s changes hands", s.id.number, s.id.typ)
}

// install keeps what was loaded, unless there is something newer: then that is r. It reports false where others were told of
// something newer already, and it is not here any more. Etcd may answer two loads in another order than it carried them
// out, and between them a commit that was given up as unknown may arrive.
func (c *Commands) install(s *slot, e *entity, epoch int64, drops uint64, r *record) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	forgotten := false
	if now := c.entities[e.id]; now != nil && now != e {
		e, forgotten = now, true
	}
	switch {
	case s.epoch != epoch:
		return true // The caller looks whose the slot is.
	case e.epoch == epoch && e.copy.rev >= r.rev:
		*r = e.copy
		return true
	case r.rev < e.told:
		return false
	case e.epoch == epoch || !forgotten && e.drops == drops:
		e.epoch, e.copy = epoch, *r
	}
	e.told = r.rev
	return true
}

var errEtcdGone = refusal.NotApplied(codes.Unavailable, "etcd is gone: strong entities wait for it")

// read returns the entity's state, linearizably.
func (c *Commands) read(ctx context.Context, s *slot, id entityID) (*storev1.State, error) {
	c.mu.Lock()
	e := c.entity(s, id)
	c.mu.Unlock()
	r, _, err := c.fresh(ctx, s, e)
	if err != nil {
		return nil, err
	}
	return stateOf(id, r), nil
}

// Peek returns what memory has of the entity: it may be old, and calls nobody. active is false where there is nothing.
func (c *Commands) Peek(typ, key string) (state *storev1.State, active bool) {
	id := entityID{typ, key}
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.entities[id]; e != nil && e.epoch != 0 {
		return stateOf(id, e.copy), true
	}
	return nil, false
}

func slotOf(id entityID) slotID { return slotID{id.typ, placement.Slot(id.typ, id.key)} }
