package controlplane

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/holdfast-mesh/holdfast/internal/mesh"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
)

// Stores calls the stores' API.
type Stores interface {
	// Call makes one call to the store that listens on socket. An error in the answer may be left there.
	Call(ctx context.Context, socket string, req *storev1.Request) (*storev1.Response, error)
}

// storeError is a store's refusal.
type storeError struct{ inner *storev1.Error }

func (e *storeError) Error() string { return e.inner.GetMessage() }

func callStore(ctx context.Context, s Stores, socket string, req *storev1.Request) (*storev1.Response, error) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	resp, err := s.Call(ctx, socket, req)
	if err != nil {
		return nil, err
	}
	if resp.GetError() != nil {
		return nil, &storeError{resp.GetError()}
	}
	return resp, nil
}

// storeState is what is known of one store.
type storeState struct {
	node string
	// asked is false before the first answer, or the first failure to get one.
	asked, up bool
	// done is true where it has taken the present wish.
	done bool
	// refusal is its own word against the wish, err why it can't be asked.
	refusal, err error
	status       *storev1.StoreStatus
}

// store keeps one node's store configured: it is asked for its status at each tick and told its configuration when that
// changed, and again when the process is another one.
type store struct {
	node, socket string
	stores       Stores
	changed      func()
	wake         chan struct{}

	// mu guards the fields below.
	mu sync.Mutex
	// +checklocks:mu
	want *storev1.Configure
	// +checklocks:mu
	state storeState
}

func newStore(n *mesh.Node, stores Stores, changed func()) *store {
	return &store{
		node: n.Name, socket: n.StoreSocket, stores: stores, changed: changed, wake: make(chan struct{}, 1),
		state: storeState{node: n.Name, err: errors.New("not asked yet")},
	}
}

// configure sets what the store should have.
func (s *store) configure(c *storev1.Configure) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if proto.Equal(s.want, c) {
		return
	}
	s.want, s.state.done, s.state.refusal = c, false, nil
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *store) get() storeState {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

func (s *store) run(ctx context.Context) {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for {
		if s.step(ctx) {
			s.changed()
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		case <-s.wake:
		}
	}
}

// step asks, tells where needed, and reports whether anything that matters to others changed.
func (s *store) step(ctx context.Context) bool {
	resp, err := callStore(ctx, s.stores, s.socket, &storev1.Request{Call: &storev1.Request_GetStatus{GetStatus: &storev1.GetStatus{}}})
	if ctx.Err() != nil {
		return false
	}
	s.mu.Lock()
	before := s.state
	s.state.asked, s.state.up, s.state.err = true, err == nil, err
	if err == nil {
		now := resp.GetStatus()
		if before.status.GetReplicaId() != now.GetReplicaId() || now.GetEpoch() < s.want.GetPlacement().GetEpoch() {
			s.state.done = false
		}
		s.state.status = now
	}
	want, done := s.want, s.state.done
	s.mu.Unlock()
	if err == nil && want != nil && !done {
		_, err := callStore(ctx, s.stores, s.socket, &storev1.Request{Call: &storev1.Request_Configure{Configure: want}})
		s.mu.Lock()
		var refusal *storeError
		switch {
		case s.want != want:
			// A newer wish came meanwhile; the next step tells it.
		case err == nil:
			s.state.done, s.state.refusal = true, nil
		case errors.As(err, &refusal):
			s.state.refusal = refusal
		default:
			s.state.up, s.state.err = false, fmt.Errorf("configure: %w", err)
		}
		s.mu.Unlock()
	}
	after := s.get()
	return after.asked != before.asked || after.up != before.up || after.done != before.done || text(after.refusal) != text(before.refusal) ||
		after.status.GetEpoch() != before.status.GetEpoch()
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
