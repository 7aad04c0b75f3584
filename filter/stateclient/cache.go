package stateclient

import (
	"container/list"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"google.golang.org/protobuf/proto"

	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
)

type entityKey struct{ typ, key string }

func keyOf(e *storev1.Entity) entityKey { return entityKey{e.GetType(), e.GetKey()} }

type phase uint8

const (
	// subscribing: the subscribing Get is under way.
	subscribing phase = iota
	subscribed
	// leaving: the Unsubscribe is under way. The store may handle calls of one connection in any order, so the entity
	// can't be subscribed again before its answer.
	leaving
)

// entry is one entity that this connection has, wants or had a subscription to. Guarded by cache.mu, but used.
type entry struct {
	key   entityKey
	phase phase
	// state is the last one known, nil while there is none that may be served.
	state *storev1.State
	size  int
	// seq grows whenever state is set or dropped.
	seq uint64
	// recent is a ring of what state was set to, and at which seq.
	recent [recentVersions]struct {
		seq     uint64
		version string
	}
	// elem is the place in cache.idle; nil while the entry has watchers or is not subscribed.
	elem     *list.Element
	watchers map[*watcher]struct{}
	// used says that the entry was read since the eviction hand was here last.
	used atomic.Bool
}

// mark remembers what was cached when a call was sent, to see whether the answer is still the latest news.
type mark struct {
	e   *entry
	seq uint64
}

// cache holds the subscribed entities of one session. Eviction is second chance: it costs a reader one atomic load,
// where a true LRU would cost a lock.
type cache struct {
	maxEntries, maxBytes, maxWatches int

	// mu guards the fields below. No callback runs under it, and no call starts.
	mu      sync.RWMutex
	entries map[entityKey]*entry
	// idle are the entries that may be evicted, the next to go at the back.
	idle *list.List
	// live counts the entries that are not leaving.
	live    int
	leaving int
	unswept int // idle entries that the round of sweep has still to come to
	bytes   int
	watches int
	dead    bool
}

func newCache(maxEntries, maxBytes, maxWatches int) *cache {
	return &cache{
		maxEntries: maxEntries, maxBytes: maxBytes, maxWatches: maxWatches,
		entries: map[entityKey]*entry{}, idle: list.New(),
	}
}

// todo is what a change of the cache leads to, done by session.follow once mu is free.
type todo struct {
	unsubscribe []*entry
	subscribe   *entry
	state       *storev1.State // for watchers
	err         *Error         // for watchers, instead
	watchers    []*watcher
}

func (c *cache) get(key entityKey) (*storev1.State, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	e := c.entries[key]
	if e == nil || e.state == nil {
		return nil, false
	}
	if !e.used.Load() {
		e.used.Store(true)
	}
	return e.state, true
}

// mark is taken before a commit is sent.
func (c *cache) mark(key entityKey) mark {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if e := c.entries[key]; e != nil {
		return mark{e, e.seq}
	}
	return mark{}
}

// reading is called before a Get that wants a subscription is sent; subscribe says whether that Get has to ask for it.
func (c *cache) reading(key entityKey) (m mark, subscribe bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.entries[key]; e != nil {
		return mark{e, e.seq}, false
	}
	e := c.add(key)
	return mark{e, e.seq}, true
}

func (c *cache) add(key entityKey) *entry {
	e := &entry{key: key, size: entryOverhead + len(key.typ) + len(key.key)}
	c.entries[key] = e
	c.live++
	c.bytes += e.size
	return e
}

// remove forgets an entry that is not in idle and was counted as live.
func (c *cache) remove(e *entry) {
	delete(c.entries, e.key)
	c.live--
	c.bytes -= e.size
}

// subscribed is the answer to the Get that subscribes m's entry.
func (c *cache) subscribed(m mark, st *storev1.State, err *Error) (do todo) {
	n := proto.Size(st)
	c.mu.Lock()
	defer c.mu.Unlock()
	e := m.e
	if c.dead {
		return do
	}
	if err != nil {
		do.err, do.watchers = err, c.detach(e)
		c.remove(e)
		return do
	}
	e.phase = subscribed
	// A push that came first is of a change after the subscription, and of every later one there is a push.
	if e.seq == m.seq {
		c.install(e, st, n, &do)
	}
	if e.size <= c.maxBytes {
		// Others make room for it: it is not idle yet, since an entry that nobody has read would be the first to go.
		c.evict(&do)
	}
	c.rest(e)
	c.evict(&do)
	return do
}

// read is the answer to a Get of an entity that was subscribed already.
func (c *cache) read(m mark, st *storev1.State) (do todo) {
	n := proto.Size(st)
	c.mu.Lock()
	defer c.mu.Unlock()
	// While subscribed, what came meanwhile is at least as new, or more will come. Where it was dropped again, this is the
	// latest there is: the store answers and pushes an entity's states in their order.
	if e := m.e; c.entries[e.key] == e && e.phase == subscribed && (e.seq == m.seq || e.state == nil) && !e.is(st) {
		c.install(e, st, n, &do)
		c.evict(&do)
	}
	return do
}

// committed is the state after a commit of ours.
func (c *cache) committed(m mark, st *storev1.State) (do todo) {
	n := proto.Size(st)
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.entries[keyOf(st.GetEntity())]
	switch {
	case e == nil || e.phase != subscribed || e.is(st):
		// Of an entry that is subscribing, the Get's answer is still to come: it holds this commit, and perhaps later
		// changes of which there is no push.
	case e == m.e && e.seq == m.seq:
		c.install(e, st, n, &do)
		c.evict(&do)
	case e.hadSince(m, st):
		// The push was faster, and what came after it is newer.
	default:
		// Something came since the commit was sent, and whether that or this is newer only the store knows.
		c.unset(e)
	}
	return do
}

// pushed is news from the store.
func (c *cache) pushed(st *storev1.State) (do todo) {
	n := proto.Size(st)
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.entries[keyOf(st.GetEntity())]
	if e == nil || e.phase == leaving {
		return do
	}
	if e.is(st) {
		return do
	}
	c.install(e, st, n, &do)
	c.evict(&do)
	return do
}

// is reports whether the entry's state is st.
func (e *entry) is(st *storev1.State) bool {
	return e.state != nil && st.GetVersion() != "" && e.state.GetVersion() == st.GetVersion()
}

// hadSince reports whether the entry's state was set to st after the mark. A version before it proves nothing: a state
// may come back.
func (e *entry) hadSince(m mark, st *storev1.State) bool {
	for _, r := range e.recent {
		if r.version != "" && r.version == st.GetVersion() && (e != m.e || r.seq > m.seq) {
			return true
		}
	}
	return false
}

// install sets the state, of n bytes, and leaves in do what to tell watchers.
func (c *cache) install(e *entry, st *storev1.State, n int, do *todo) {
	c.unset(e)
	e.state = st
	e.size += n
	c.bytes += n
	r := &e.recent[e.seq%recentVersions]
	r.seq, r.version = e.seq, st.GetVersion()
	if e.elem != nil && e.size > c.maxBytes {
		// It can't stay: let it go first, and not after all others.
		c.idle.MoveToBack(e.elem)
		e.used.Store(false)
	}
	do.state = st
	do.watchers = slices.AppendSeq(do.watchers, maps.Keys(e.watchers))
}

func (c *cache) unset(e *entry) {
	n := e.size - entryOverhead - len(e.key.typ) - len(e.key.key)
	e.state = nil
	e.size -= n
	c.bytes -= n
	e.seq++
}

// rest makes a subscribed entry without watchers evictable.
func (c *cache) rest(e *entry) {
	if e.phase != subscribed || len(e.watchers) > 0 || e.elem != nil {
		return
	}
	if e.size > c.maxBytes {
		e.elem = c.idle.PushBack(e)
	} else {
		e.elem = c.idle.PushFront(e)
	}
}

// evict brings the cache back into its bounds, as far as watches and maxLeaving let it; each end of an eviction goes on.
func (c *cache) evict(do *todo) {
	for (c.live > c.maxEntries || c.bytes > c.maxBytes) && c.idle.Len() > 0 && c.leaving < maxLeaving {
		back := c.idle.Back()
		e := back.Value.(*entry)
		if e.used.Swap(false) {
			c.idle.MoveToFront(back)
			continue
		}
		c.leave(e, do)
	}
}

// leave begins the end of an idle entry.
func (c *cache) leave(e *entry, do *todo) {
	c.idle.Remove(e.elem)
	e.elem = nil
	c.unset(e)
	c.live--
	c.leaving++
	c.bytes -= e.size
	e.phase = leaving
	do.unsubscribe = append(do.unsubscribe, e)
}

// sweep lets entries go that nobody has read since the last round; a subscription tells the store that somebody does. A
// round goes once over all idle entries, in as many calls as maxLeaving makes of it.
func (c *cache) sweep(round bool) (do todo) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if round {
		c.unswept = c.idle.Len()
	}
	c.unswept = min(c.unswept, c.idle.Len())
	for ; c.unswept > 0 && c.leaving < maxLeaving; c.unswept-- {
		back := c.idle.Back()
		if e := back.Value.(*entry); e.used.Swap(false) {
			c.idle.MoveToFront(back)
		} else {
			c.leave(e, &do)
		}
	}
	return do
}

// left is the end of an entry's Unsubscribe.
func (c *cache) left(e *entry, err *Error) (do todo) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead {
		return do
	}
	c.leaving--
	if err == nil && len(e.watchers) == 0 {
		delete(c.entries, e.key)
		c.evict(&do)
		return do
	}
	c.live++
	c.bytes += e.size
	if len(e.watchers) > 0 {
		e.phase = subscribing
		do.subscribe = e
		return do
	}
	// Not sent, or refused by a store that has too much to do: it is subscribed still. What comes next evicts it; to try
	// again at once would only add to the load.
	e.phase = subscribed
	e.elem = c.idle.PushBack(e)
	return do
}

// detach takes an entry's watchers off it.
func (c *cache) detach(e *entry) []*watcher {
	out := slices.Collect(maps.Keys(e.watchers))
	c.watches -= len(out)
	e.watchers = nil
	return out
}

// drop forgets everything, when the connection is lost, and returns all watchers.
func (c *cache) drop() (out []*watcher) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dead = true
	for _, e := range c.entries {
		out = append(out, c.detach(e)...)
	}
	c.entries = map[entityKey]*entry{}
	c.idle.Init()
	c.live, c.leaving, c.bytes = 0, 0, 0
	return out
}
