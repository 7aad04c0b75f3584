// Package strongtest is an etcd in memory for tests of strong entities: slots, heads, cells, marks, guarded commits, and
// faults on demand. It implements strong.Committer the way replication/strong does, errors' methods included.
package strongtest

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/holdfast-mesh/holdfast/internal/fenced"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
)

// maxParts is how many guards, and how many operations, etcd takes in a transaction.
const maxParts = 128

// Etcd is the shared truth.
type Etcd struct {
	mu       sync.Mutex
	rev      int64
	slots    map[fenced.Slot]claim
	entities map[entityID]*entity
	marks    map[string]map[fenced.Mark]struct{}
	// changed is closed and replaced at each change.
	changed chan struct{}
}

type entityID struct{ typ, key string }

type claim struct {
	owner string
	epoch int64
}

type entity struct {
	// head is nil where it was never written, or is gone.
	head  []byte
	rev   int64
	cells map[string][]byte
}

// New returns an empty one.
func New() *Etcd {
	return &Etcd{
		slots: map[fenced.Slot]claim{}, entities: map[entityID]*entity{}, marks: map[string]map[fenced.Mark]struct{}{},
		changed: make(chan struct{}),
	}
}

// touched wakes who waits. mu is held.
func (e *Etcd) touched() {
	close(e.changed)
	e.changed = make(chan struct{})
}

// wait returns once done, which is called with mu held, says so.
func (e *Etcd) wait(ctx context.Context, done func() bool) error {
	for {
		e.mu.Lock()
		ok, changed := done(), e.changed
		e.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Entity returns the head, its revision and the names of the cells, as they are now.
func (e *Etcd) Entity(typ, key string) (head []byte, rev int64, cells []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if ent := e.entities[entityID{typ, key}]; ent != nil {
		return slices.Clone(ent.head), ent.rev, slices.Sorted(maps.Keys(ent.cells))
	}
	return nil, 0, nil
}

// Error is a refusal with the methods by which strong knows it.
type Error struct {
	Text    string
	Result  storev1.Outcome
	GRPC    codes.Code
	Moved   bool
	Changed bool
	Write   int
}

func (e *Error) Error() string            { return e.Text }
func (e *Error) Outcome() storev1.Outcome { return e.Result }
func (e *Error) Code() int32              { return int32(e.GRPC) }
func (e *Error) NotOwner() bool           { return e.Moved }
func (e *Error) Conflict() bool           { return e.Changed }
func (e *Error) Index() int               { return e.Write }

func refuse(text string, code codes.Code) *Error {
	return &Error{Text: text, GRPC: code, Result: storev1.Outcome_OUTCOME_NOT_APPLIED}
}

// Store is one node's Committer.
type Store struct {
	etcd *Etcd
	node string

	mu     sync.Mutex
	down   bool
	silent bool
	unheld bool
	loads  int
	commit func(apply func() (int64, error)) (int64, error)
}

// Store returns the Committer of a node.
func (e *Etcd) Store(node string) *Store { return &Store{etcd: e, node: node} }

// SetDown cuts the store off, as known to it.
func (s *Store) SetDown(down bool) { s.mu.Lock(); s.down = down; s.mu.Unlock() }

// SetSilent cuts the store off, which does not know: no call is carried out, and none is answered before its time is up.
func (s *Store) SetSilent(silent bool) { s.mu.Lock(); s.silent = silent; s.mu.Unlock() }

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
	maps.DeleteFunc(s.etcd.slots, func(_ fenced.Slot, c claim) bool { return c.owner == s.node })
	s.etcd.touched()
}

func (s *Store) reachable(ctx context.Context) error {
	s.mu.Lock()
	down, silent := s.down, s.silent
	s.mu.Unlock()
	if down {
		return refuse("etcd is gone", codes.Unavailable)
	}
	if silent {
		<-ctx.Done()
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
	id := fenced.Slot{Type: typ, Number: slot}
	c, ok := e.slots[id]
	if !ok {
		e.rev++
		c = claim{s.node, e.rev}
		e.slots[id] = c
		e.touched()
	}
	if c.owner != s.node {
		return c.owner, 0, nil
	}
	return c.owner, c.epoch, nil
}

// Owner implements strong.Committer.
func (s *Store) Owner(ctx context.Context, typ string, slot uint32) (string, error) {
	if err := s.reachable(ctx); err != nil {
		return "", err
	}
	s.etcd.mu.Lock()
	defer s.etcd.mu.Unlock()
	return s.etcd.slots[fenced.Slot{Type: typ, Number: slot}].owner, nil
}

// Vacated implements strong.Committer.
func (s *Store) Vacated(ctx context.Context, typ string, slot uint32, owner string) error {
	return s.etcd.wait(ctx, func() bool { return s.etcd.slots[fenced.Slot{Type: typ, Number: slot}].owner != owner })
}

// Held implements strong.Committer. It knows the truth, as a store with a good clock does.
func (s *Store) Held(typ string, slot uint32, epoch int64) bool {
	s.mu.Lock()
	unheld := s.unheld
	s.mu.Unlock()
	s.etcd.mu.Lock()
	defer s.etcd.mu.Unlock()
	return !unheld && s.etcd.slots[fenced.Slot{Type: typ, Number: slot}] == claim{s.node, epoch}
}

// Up implements strong.Committer.
func (s *Store) Up() bool { s.mu.Lock(); defer s.mu.Unlock(); return !s.down }

// Load implements strong.Committer.
func (s *Store) Load(ctx context.Context, typ string, _ uint32, key string) ([]byte, int64, error) {
	if err := s.reachable(ctx); err != nil {
		return nil, 0, err
	}
	s.mu.Lock()
	s.loads++
	s.mu.Unlock()
	head, rev, _ := s.etcd.Entity(typ, key)
	return head, rev, nil
}

// Cells implements strong.Committer.
func (s *Store) Cells(ctx context.Context, typ string, _ uint32, key, from, to string, limit int) ([]fenced.Cell, bool, error) {
	if err := s.reachable(ctx); err != nil {
		return nil, false, err
	}
	s.etcd.mu.Lock()
	defer s.etcd.mu.Unlock()
	ent := s.etcd.entities[entityID{typ, key}]
	if ent == nil {
		return nil, false, nil
	}
	var cells []fenced.Cell
	for _, name := range slices.Sorted(maps.Keys(ent.cells)) {
		if name < from || to != "" && name >= to {
			continue
		}
		if limit > 0 && len(cells) == limit {
			return cells, true, nil
		}
		cells = append(cells, fenced.Cell{Name: name, Value: slices.Clone(ent.cells[name])})
	}
	return cells, false, nil
}

// Changed implements strong.Committer.
func (s *Store) Changed(ctx context.Context, typ string, _ uint32, key string, rev int64) error {
	return s.etcd.wait(ctx, func() bool {
		ent := s.etcd.entities[entityID{typ, key}]
		return ent != nil && ent.rev > rev || rev > 0 && (ent == nil || ent.rev == 0)
	})
}

// Due implements strong.Committer.
func (s *Store) Due(ctx context.Context, typ string, before time.Time, limit int) ([]fenced.Mark, error) {
	if err := s.reachable(ctx); err != nil {
		return nil, err
	}
	s.etcd.mu.Lock()
	defer s.etcd.mu.Unlock()
	due := slices.SortedFunc(maps.Keys(s.etcd.marks[typ]), func(a, b fenced.Mark) int {
		return cmp.Or(cmp.Compare(a.At, b.At), cmp.Compare(a.Slot, b.Slot), cmp.Compare(a.Key, b.Key))
	})
	for i, m := range due {
		if i == limit || m.At >= before.Unix() {
			return due[:i], nil
		}
	}
	return due, nil
}

// Marks lists a type's marks.
func (e *Etcd) Marks(typ string) []fenced.Mark {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Collect(maps.Keys(e.marks[typ]))
}

// Commit implements strong.Committer.
func (s *Store) Commit(ctx context.Context, writes []fenced.Write) (int64, error) {
	if err := s.reachable(ctx); err != nil {
		if ctx.Err() != nil {
			return 0, ErrLost
		}
		return 0, err
	}
	apply := func() (int64, error) { return s.etcd.apply(writes) }
	s.mu.Lock()
	around := s.commit
	s.mu.Unlock()
	if around != nil {
		return around(apply)
	}
	return apply()
}

// apply carries the writes out, all or none.
func (e *Etcd) apply(writes []fenced.Write) (int64, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	guards, ops := 0, 0
	for i, w := range writes {
		guards += 2
		ops += 1 + len(w.Put) + len(w.Drop)
		if w.Epoch == 0 || e.slots[w.Slot].epoch != w.Epoch {
			err := refuse("not the owner", codes.Unavailable)
			err.Moved, err.Write = true, i
			return 0, err
		}
		var rev int64
		if ent := e.entities[entityID{w.Slot.Type, w.Key}]; ent != nil {
			rev = ent.rev
		}
		if rev != w.Revision {
			err := refuse("changed meanwhile", codes.Aborted)
			err.Changed, err.Write = true, i
			return 0, err
		}
	}
	if guards > maxParts || ops > maxParts {
		return 0, refuse("too many parts for a transaction", codes.ResourceExhausted)
	}
	e.rev++
	for _, w := range writes {
		e.write(w)
	}
	e.touched()
	return e.rev, nil
}

func (e *Etcd) write(w fenced.Write) {
	id := entityID{w.Slot.Type, w.Key}
	ent := e.entities[id]
	if ent == nil {
		ent = &entity{cells: map[string][]byte{}}
	}
	for _, prefix := range w.Drop {
		maps.DeleteFunc(ent.cells, func(name string, _ []byte) bool { return strings.HasPrefix(name, prefix) })
	}
	for _, c := range w.Put {
		ent.cells[c.Name] = slices.Clone(c.Value)
	}
	switch {
	case w.Keep:
	case w.Head == nil:
		ent.head, ent.rev = nil, 0
	default:
		ent.head, ent.rev = slices.Clone(w.Head), e.rev
	}
	e.entities[id] = ent
	if ent.rev == 0 && len(ent.cells) == 0 {
		delete(e.entities, id)
	}
	marks := e.marks[id.typ]
	if marks == nil {
		marks = map[fenced.Mark]struct{}{}
		e.marks[id.typ] = marks
	}
	if w.Unmark != 0 {
		delete(marks, fenced.Mark{At: w.Unmark, Slot: w.Slot.Number, Key: w.Key})
	}
	if w.Mark != 0 {
		marks[fenced.Mark{At: w.Mark, Slot: w.Slot.Number, Key: w.Key}] = struct{}{}
	}
}

// ErrLost is a commit whose answer never came.
var ErrLost = errors.New("no answer from etcd")
