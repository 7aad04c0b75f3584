package strong

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/holdfast-mesh/holdfast/internal/placement"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
	"github.com/holdfast-mesh/holdfast/statestore/refusal"
	"github.com/holdfast-mesh/holdfast/statestore/strong/entity"
)

// Type is what is configured for an entity type.
type Type struct {
	*entity.Type
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
	// Types lists the strong types, for the sweep.
	Types func() []string
	// Committed counts a commit.
	Committed func(entityType string)
	// Now is the wall clock, for TTLs and events; nil means time.Now. Deadlines go by time.Now.
	Now func() time.Time
}

// Commands are a store's strong entities.
type Commands struct {
	cfg Config
	// ctx ends with Close. work counts the sweep, and what is told to other stores.
	ctx     context.Context
	cancel  context.CancelFunc
	work    sync.WaitGroup
	started sync.Once
	// own takes turns for the store itself.
	own *Caller

	// mu guards everything below, in slots, entities, turns, commands and callers.
	mu       sync.Mutex
	slots    map[slotID]*slot
	entities map[entityID]*active
	commands map[string]*command
	// bytes is about what the copies take.
	bytes  int
	closed bool
	// skip are entities whose marks could not be seen to, and when they are tried again.
	skip map[entityID]time.Time
}

type slotID struct {
	typ    string
	number uint32
}

type entityID struct{ typ, key string }

// active is a strong entity in memory: its turn, who waits for it, and a copy of its state.
type active struct {
	id      entityID
	slot    *slot
	turn    *turn
	waiting []*waiter
	// users counts who looks at it without a turn: it is not forgotten under them.
	users int
	// epoch is the claim that the copy belongs to; 0: there is no copy.
	epoch int64
	copy  *entity.Record
	// floor is the newest revision that was seen. What a slow load brings from before it is not kept.
	floor at
	// open is the revision at which a transaction that this store does not wait for may still change the entity: one that
	// was given up, or that another store sends. A copy of that revision is not served: whoever reads it reads etcd. Zero:
	// there is none.
	open      at
	openUntil time.Time
}

// at is a revision of an entity under a claim of its slot. What is said of it means nothing under another claim.
type at struct{ epoch, rev int64 }

// New returns the strong entities of a store: none in memory. Start begins the sweep; Close must follow.
func New(cfg Config) *Commands {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	c := &Commands{
		cfg: cfg, own: NewCaller(), slots: map[slotID]*slot{}, entities: map[entityID]*active{}, commands: map[string]*command{}, skip: map[entityID]time.Time{},
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c
}

// Close ends all turns, refuses who waits, and waits for what is being told to other stores.
func (c *Commands) Close() {
	c.mu.Lock()
	c.closed = true
	for _, cmd := range c.commands {
		c.abandon(cmd)
	}
	for _, e := range c.entities {
		c.evict(e, errClosed)
	}
	c.mu.Unlock()
	c.cancel()
	c.work.Wait()
}

var errClosed = refusal.NotApplied(codes.Unavailable, "store is shutting down")

// aside runs f on its own, within settleTimeout. mu is held.
func (c *Commands) aside(f func(context.Context)) {
	c.work.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), settleTimeout)
		defer cancel()
		f(ctx)
	})
}

// evict ends the entity's turn and refuses who waits, unless a commit is under way: that one ends by itself.
func (c *Commands) evict(e *active, why error) {
	for _, w := range e.waiting {
		w.ready <- granted{err: why}
	}
	e.waiting = nil
	if e.turn != nil && e.turn.committing == nil {
		c.end(e, e.turn)
	}
}

// entity finds or makes the entity. mu is held.
func (c *Commands) entity(s *slot, id entityID) *active {
	if e := c.entities[id]; e != nil {
		return e
	}
	looked := 0
	for _, idle := range c.entities {
		if len(c.entities) < maxActive && c.bytes < maxBytes || looked == maxLooks {
			break
		}
		looked++
		c.forget(idle)
	}
	e := &active{id: id, slot: s}
	c.entities[id] = e
	s.entities[id.key] = e
	return e
}

// use is entity for who wants no turn; release must follow.
func (c *Commands) use(s *slot, id entityID) *active {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.entity(s, id)
	e.users++
	return e
}

func (c *Commands) release(e *active) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e.users--
	if e.epoch == 0 {
		c.forget(e)
	}
}

// forget takes an idle entity out of memory. mu is held.
func (c *Commands) forget(e *active) {
	if e.turn != nil || len(e.waiting) > 0 || e.users > 0 || e.unsettled(e.open.epoch, e.open.rev) {
		return
	}
	c.drop(e)
	delete(c.entities, e.id)
	delete(e.slot.entities, e.id.key)
}

// keep makes r the copy, unless there is a newer one, or the claim is over. mu is held.
func (c *Commands) keep(e *active, epoch int64, r *entity.Record) {
	if e.slot.epoch != epoch || e.epoch == epoch && e.copy.Revision >= r.Revision {
		return
	}
	c.hold(e, epoch, r)
	if e.open.epoch == epoch && e.open.rev < r.Revision {
		// Its guard has failed.
		e.open = at{}
	}
	if e.floor.epoch != epoch || e.floor.rev < r.Revision {
		e.floor = at{epoch, r.Revision}
	}
}

// drop drops the copy. mu is held.
func (c *Commands) drop(e *active) { c.hold(e, 0, nil) }

// hold replaces the copy, and keeps account of the memory. mu is held.
func (c *Commands) hold(e *active, epoch int64, r *entity.Record) {
	if e.copy != nil {
		c.bytes -= e.copy.Size()
	}
	if r != nil {
		c.bytes += r.Size()
	}
	e.epoch, e.copy = epoch, r
}

// unsettle says that a transaction may change the entity from this revision on, whenever etcd gets to it. mu is held.
func (e *active) unsettle(epoch, rev int64) {
	e.open, e.openUntil = at{epoch, rev}, time.Now().Add(openFor)
}

// unsettled reports whether a copy of this revision may be changed by a transaction that this store does not wait for.
// mu is held.
func (e *active) unsettled(epoch, rev int64) bool {
	return epoch != 0 && e.open == at{epoch, rev} && time.Now().Before(e.openUntil)
}

var errEtcdGone = refusal.NotApplied(codes.Unavailable, "etcd is gone: strong entities wait for it")

// Peek returns what memory has of the entity: it may be old, and calls nobody. active is false where there is nothing.
func (c *Commands) Peek(typ, key string) (state *storev1.State, active bool) {
	t, err := c.cfg.Type(typ)
	if err != nil {
		return nil, false
	}
	id := entityID{typ, key}
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.entities[id]; e != nil && e.epoch != 0 {
		return stateOf(t, id, e.copy), true
	}
	return nil, false
}

func slotOf(id entityID) slotID { return slotID{id.typ, placement.Slot(id.typ, id.key)} }
