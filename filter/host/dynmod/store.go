package dynmod

import (
	"errors"
	"sync"
	"time"

	"github.com/holdfast-mesh/holdfast/filter"
	"github.com/holdfast-mesh/holdfast/filter/stateclient"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
)

// stores holds one client per store socket for the whole process: a new configuration of the same listener, and the
// node's other listeners, find a warm cache.
var stores = registry{open: map[string]*store{}}

type registry struct {
	// mu guards open and the stores' users.
	mu   sync.Mutex
	open map[string]*store
}

type store struct {
	socket string
	client client
	users  int
}

// client is what of stateclient.Client is used here; its comments say what each promises.
type client interface {
	Up() bool
	Cached(entityType, key string) (*storev1.State, bool)
	Get(req *storev1.Get, timeout time.Duration, done func(st *storev1.State, others []*storev1.State, err error))
	Begin(req *storev1.Begin, timeout time.Duration, done func(*storev1.Begun, error))
	Commit(req *storev1.Commit, timeout time.Duration, done func(*storev1.Committed, error))
	Abort(entityType, key, token string)
	Watch(entityType, key string, changed func(*storev1.State, error)) (cancel func())
	Close()
}

// take returns the socket's client, for one more user.
func (r *registry) take(socket string) *store {
	r.mu.Lock()
	defer r.mu.Unlock()
	st := r.open[socket]
	if st == nil {
		st = &store{socket: socket, client: stateclient.New(socket, stateclient.Options{})}
		r.open[socket] = st
	}
	st.users++
	return st
}

// give ends one use; the last one closes the client.
func (r *registry) give(st *store) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if st.users--; st.users > 0 {
		return
	}
	delete(r.open, st.socket)
	// Close waits for goroutines, which may be waiting for a stream's lock; this is Envoy's main thread.
	go func() {
		defer func() { _ = recover() }()
		st.client.Close()
	}()
}

// storeError is an error of the client in the machine's words.
func storeError(err error) *filter.StoreError {
	if err == nil {
		return nil
	}
	var e *stateclient.Error
	if errors.As(err, &e) {
		return &filter.StoreError{Code: e.Code, Message: e.Message, Outcome: e.Outcome, Precondition: e.Precondition}
	}
	return &filter.StoreError{Code: 13, Message: err.Error(), Outcome: storev1.Outcome_OUTCOME_UNKNOWN}
}

func (s *stream) StoreUp() bool { return s.store != nil && s.store.client.Up() }

func (s *stream) Cached(typ, key string) (*storev1.State, bool) {
	return s.store.client.Cached(typ, key)
}

func (s *stream) Get(req *storev1.Get, timeout time.Duration) {
	s.expect()
	s.asked = time.Now()
	s.store.client.Get(req, timeout, func(st *storev1.State, others []*storev1.State, err error) {
		s.post(message{kind: mailGot, got: st, others: others, err: storeError(err)})
	})
}

func (s *stream) Begin(req *storev1.Begin, timeout time.Duration) {
	s.expect()
	s.asked = time.Now()
	s.store.client.Begin(req, timeout, func(b *storev1.Begun, err error) {
		s.post(message{kind: mailBegun, begun: b, err: storeError(err), entity: req.GetEntity()})
	})
}

func (s *stream) Commit(req *storev1.Commit, timeout time.Duration) {
	s.committing = true
	s.expect()
	s.asked = time.Now()
	s.store.client.Commit(req, timeout, func(c *storev1.Committed, err error) {
		s.post(message{kind: mailCommitted, committed: c, err: storeError(err)})
	})
}

func (s *stream) Abort(typ, key, token string) { s.store.client.Abort(typ, key, token) }
