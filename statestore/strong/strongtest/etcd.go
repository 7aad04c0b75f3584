// Package strongtest is an etcd in memory for tests of strong entities: slots, guarded commits, and faults on demand. It
// implements strong.Committer the way replication/strong does, errors' methods included.
package strongtest

import (
	"context"
	"errors"
	"slices"
	"sync"

	"google.golang.org/grpc/codes"

	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
)

// Etcd is the shared truth.
type Etcd struct {
	mu       sync.Mutex
	rev      int64
	slots    map[slotID]claim
	entities map[entityID]entity
}

type slotID struct {
	typ  string
	slot uint32
}

type entityID struct{ typ, key string }

type claim struct {
	owner string
	epoch int64
}

type entity struct {
	value  []byte
	exists bool
	rev    int64
	ids    []string
}

// New returns an empty one.
func New() *Etcd {
	return &Etcd{slots: map[slotID]claim{}, entities: map[entityID]entity{}}
}

// Error is a refusal with the methods by which strong knows it.
type Error struct {
	Text    string
	Result  storev1.Outcome
	GRPC    codes.Code
	Moved   bool
	Changed bool
}

func (e *Error) Error() string            { return e.Text }
func (e *Error) Outcome() storev1.Outcome { return e.Result }
func (e *Error) Code() int32              { return int32(e.GRPC) }
func (e *Error) NotOwner() bool           { return e.Moved }
func (e *Error) Conflict() bool           { return e.Changed }

func refuse(text string, code codes.Code) *Error {
	return &Error{Text: text, GRPC: code, Result: storev1.Outcome_OUTCOME_NOT_APPLIED}
}

// Store is one node's Committer.
type Store struct {
	etcd *Etcd
	node string

	mu     sync.Mutex
	down   bool
	unheld bool
	loads  int
	commit func(apply func() (int64, error)) (int64, error)
}

// Store returns the Committer of a node.
func (e *Etcd) Store(node string) *Store { return &Store{etcd: e, node: node} }

// SetDown cuts the store off, as known to it.
func (s *Store) SetDown(down bool) { s.mu.Lock(); s.down = down; s.mu.Unlock() }

// SetHeld makes Held false, or lets it be as it is.
func (s *Store) SetHeld(held bool) { s.mu.Lock(); s.unheld = !held; s.mu.Unlock() }

// OnCommit puts f around every commit from now on; apply is the real one. nil takes it away.
func (s *Store) OnCommit(f func(apply func() (int64, error)) (int64, error)) {
	s.mu.Lock()
	s.commit = f
	s.mu.Unlock()
}

// Loads counts the calls of Load.
func (s *Store) Loads() int { s.mu.Lock(); defer s.mu.Unlock(); return s.loads }

// Lapse ends the lease: its slots are free.
func (s *Store) Lapse() {
	s.etcd.mu.Lock()
	defer s.etcd.mu.Unlock()
	for id, c := range s.etcd.slots {
		if c.owner == s.node {
			delete(s.etcd.slots, id)
		}
	}
}

func (s *Store) reachable(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down {
		return refuse("etcd is gone", codes.Unavailable)
	}
	return ctx.Err()
}

// Claim implements strong.Committer.
func (s *Store) Claim(ctx context.Context, typ string, slot uint32) (string, int64, error) {
	if err := s.reachable(ctx); err != nil {
		return "", 0, err
	}
	e := s.etcd
	e.mu.Lock()
	defer e.mu.Unlock()
	id := slotID{typ, slot}
	c, ok := e.slots[id]
	if !ok {
		e.rev++
		c = claim{s.node, e.rev}
		e.slots[id] = c
	}
	if c.owner != s.node {
		return c.owner, 0, nil
	}
	return c.owner, c.epoch, nil
}

// Held implements strong.Committer. It knows the truth, as a store with a good clock does.
func (s *Store) Held(typ string, slot uint32, epoch int64) bool {
	s.mu.Lock()
	unheld := s.unheld
	s.mu.Unlock()
	s.etcd.mu.Lock()
	defer s.etcd.mu.Unlock()
	return !unheld && s.etcd.slots[slotID{typ, slot}] == claim{s.node, epoch}
}

// Load implements strong.Committer.
func (s *Store) Load(ctx context.Context, typ string, _ uint32, key string) ([]byte, bool, int64, []string, error) {
	if err := s.reachable(ctx); err != nil {
		return nil, false, 0, nil, err
	}
	s.mu.Lock()
	s.loads++
	s.mu.Unlock()
	s.etcd.mu.Lock()
	defer s.etcd.mu.Unlock()
	r := s.etcd.entities[entityID{typ, key}]
	return slices.Clone(r.value), r.exists, r.rev, slices.Clone(r.ids), nil
}

// Commit implements strong.Committer.
func (s *Store) Commit(ctx context.Context, typ string, slot uint32, epoch int64, key string, expected int64, value []byte, exists bool, ids []string) (int64, error) {
	if err := s.reachable(ctx); err != nil {
		return 0, err
	}
	apply := func() (int64, error) {
		e := s.etcd
		e.mu.Lock()
		defer e.mu.Unlock()
		if (e.slots[slotID{typ, slot}] != claim{s.node, epoch}) {
			err := refuse("not the owner", codes.Unavailable)
			err.Moved = true
			return 0, err
		}
		if e.entities[entityID{typ, key}].rev != expected {
			err := refuse("changed meanwhile", codes.Aborted)
			err.Changed = true
			return 0, err
		}
		e.rev++
		e.entities[entityID{typ, key}] = entity{slices.Clone(value), exists, e.rev, slices.Clone(ids)}
		return e.rev, nil
	}
	s.mu.Lock()
	around := s.commit
	s.mu.Unlock()
	if around != nil {
		return around(apply)
	}
	return apply()
}

// Up implements strong.Committer.
func (s *Store) Up() bool { s.mu.Lock(); defer s.mu.Unlock(); return !s.down }

// Owner implements strong.Committer.
func (s *Store) Owner(ctx context.Context, typ string, slot uint32) (string, error) {
	if err := s.reachable(ctx); err != nil {
		return "", err
	}
	s.etcd.mu.Lock()
	defer s.etcd.mu.Unlock()
	return s.etcd.slots[slotID{typ, slot}].owner, nil
}

// ErrLost is a commit whose answer never came.
var ErrLost = errors.New("no answer from etcd")
