package stateclient

import (
	"sync"
	"time"

	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
)

// watchTimeout bounds the first read of a watch; a watch has no deadline of its own.
const watchTimeout = 5 * time.Second

// watcher calls one watch's function, one call at a time: with the latest state, and in the end with an error.
type watcher struct {
	c       *Client
	key     entityKey
	changed func(*storev1.State, error)

	// mu guards the fields below. changed does not run under it.
	mu      sync.Mutex
	next    *storev1.State // not told yet
	err     *Error         // not told yet
	version string         // of the last state told
	running bool           // a goroutine is telling
	over    bool           // nothing more may be told
}

// Watch calls changed with the entity's state, and again when it changes, until cancel is called or the watch is over:
// then once with an error. The calls come one at a time, on a client goroutine; a state that is followed by
// another before it could be told is skipped. After cancel returns no call starts, but one may be ending. Only for
// entity types that the store pushes (eventual and causal).
func (c *Client) Watch(typ, key string, changed func(*storev1.State, error)) (cancel func()) {
	w := &watcher{c: c, key: entityKey{typ, key}, changed: changed}
	s := c.cur.Load()
	if s == nil {
		w.end(c.down(nil))
		return w.cancel
	}
	do, m, refresh, err := s.cache.watch(w)
	if err != nil {
		w.end(err)
		return w.cancel
	}
	s.follow(do)
	if refresh {
		c.start(s, &call{
			req:     &storev1.Request{Call: &storev1.Request_Get{Get: &storev1.Get{Entity: entity(typ, key), TimeoutMs: ms(watchTimeout)}}},
			timeout: watchTimeout, internal: true,
			settle: func(r *storev1.Response, err *Error, _ bool) {
				if err != nil {
					w.end(err)
					s.follow(s.cache.unwatch(w))
					return
				}
				s.follow(s.cache.read(m, r.GetState()))
			},
		})
	}
	return func() {
		w.cancel()
		s.follow(s.cache.unwatch(w))
	}
}

// watch adds a watcher. refresh says that the entity is subscribed but its state has to be read.
func (c *cache) watch(w *watcher) (do todo, m mark, refresh bool, err *Error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead {
		return do, m, false, notApplied(codeUnavailable, "connection to the store lost")
	}
	if c.watches >= c.maxWatches {
		return do, m, false, notApplied(codeResourceExhausted, "%d watches, at most %d", c.watches, c.maxWatches)
	}
	e := c.entries[w.key]
	if pinned := c.live - c.idle.Len(); pinned >= c.maxEntries && (e == nil || len(e.watchers) == 0) {
		return do, m, false, notApplied(codeResourceExhausted, "%d entities are watched or being read, at most %d may", pinned, c.maxEntries)
	}
	if e == nil {
		e = c.add(w.key)
		do.subscribe = e
	}
	if e.watchers == nil {
		e.watchers = map[*watcher]struct{}{}
	}
	e.watchers[w] = struct{}{}
	c.watches++
	if e.elem != nil {
		c.idle.Remove(e.elem)
		e.elem = nil
	}
	if e.state != nil {
		do.state, do.watchers = e.state, []*watcher{w}
	}
	return do, mark{e, e.seq}, e.state == nil && e.phase == subscribed, nil
}

// unwatch removes a watcher, if it is there.
func (c *cache) unwatch(w *watcher) (do todo) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.entries[w.key]
	if e == nil {
		return do
	}
	if _, ok := e.watchers[w]; !ok {
		return do
	}
	delete(e.watchers, w)
	c.watches--
	c.rest(e)
	c.evict(&do)
	return do
}

// follow carries out what a change of the cache leads to.
func (s *session) follow(do todo) {
	for _, w := range do.watchers {
		if do.err != nil {
			w.end(do.err)
		} else {
			w.tell(do.state)
		}
	}
	if e := do.subscribe; e != nil {
		s.subscribe(e)
	}
	for _, e := range do.unsubscribe {
		s.c.start(s, &call{
			req: &storev1.Request{Call: &storev1.Request_Unsubscribe{
				Unsubscribe: &storev1.Unsubscribe{Entity: entity(e.key.typ, e.key.key)},
			}},
			timeout: watchTimeout, internal: true,
			settle: func(_ *storev1.Response, err *Error, _ bool) { s.follow(s.cache.left(e, err)) },
		})
	}
}

// subscribe sends the subscribing Get of an entry that has watchers only.
func (s *session) subscribe(e *entry) {
	s.cache.mu.RLock()
	m := mark{e, e.seq}
	s.cache.mu.RUnlock()
	s.c.start(s, &call{
		req: &storev1.Request{Call: &storev1.Request_Get{Get: &storev1.Get{
			Entity: entity(e.key.typ, e.key.key), Subscribe: true, TimeoutMs: ms(watchTimeout),
		}}},
		timeout: watchTimeout, internal: true,
		settle: func(r *storev1.Response, err *Error, _ bool) { s.follow(s.cache.subscribed(m, r.GetState(), err)) },
	})
}

func (w *watcher) tell(st *storev1.State) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.next = st
	w.run()
}

func (w *watcher) end(err *Error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = err
	}
	w.run()
}

func (w *watcher) cancel() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = true
	w.next = nil
}

// run makes sure that there is a goroutine that tells. w.mu is held.
func (w *watcher) run() {
	if w.over || w.running {
		return
	}
	w.running = true
	w.c.async(w.telling)
}

// telling tells what there is to tell.
func (w *watcher) telling() {
	for {
		w.mu.Lock()
		st, err := w.next, w.err
		w.next = nil
		if w.over || (st == nil && err == nil) {
			w.running = false
			w.mu.Unlock()
			return
		}
		if err != nil {
			w.over = true
			w.mu.Unlock()
			w.c.guard(func() { w.changed(nil, err) })
			continue
		}
		same := st.GetVersion() != "" && st.GetVersion() == w.version
		w.version = st.GetVersion()
		w.mu.Unlock()
		if !same {
			w.c.guard(func() { w.changed(st, nil) })
		}
	}
}
