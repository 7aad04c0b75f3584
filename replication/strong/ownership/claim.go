package ownership

import (
	"errors"
	"time"

	"github.com/holdfast-mesh/holdfast/internal/fenced"
)

// Step is how far a claim is: a request to send, or its end.
type Step struct {
	// Request is the next one to send; None where the claim is over.
	Request Request
	// Owner of the slot. Epoch is not 0 where it is this store.
	Owner string
	Epoch int64
	// Err is why it can't be told, or claimed: one of this package's, or the answer's.
	Err error
	// Lost is the number of claims that went with a lease.
	Lost int
}

// Claim begins to claim a slot for this store.
func (m *Machine) Claim(slot fenced.Slot) Step {
	switch epoch := m.claims[slot]; {
	case epoch != 0:
		return Step{Owner: m.cfg.Node, Epoch: epoch}
	case m.closed:
		return Step{Err: ErrLeaving}
	case m.stage != leased:
		return Step{Err: ErrNoLease}
	}
	// A look first: a refused Take goes through etcd's log all the same, and most slots are taken.
	return Step{Request: Request{Kind: Look, Lease: m.lease, Slot: slot}}
}

// Claimed takes the answer to a claim's request.
func (m *Machine) Claimed(now time.Duration, req Request, a Answer) Step {
	switch {
	case errors.Is(a.Err, ErrLeaseGone):
		return Step{Err: a.Err, Lost: m.lose(now, req.Lease)}
	case a.Err != nil:
		return Step{Err: a.Err}
	case a.Key.Created == 0 && req.Kind == Look:
		req.Kind = Take
		return Step{Request: req}
	case a.Key.Value != m.cfg.Node:
		return Step{Owner: a.Key.Value}
	case a.Key.Lease != req.Lease:
		return Step{Err: ErrFormer}
	case req.Lease != m.lease || m.stage != leased:
		return Step{Err: ErrLeaseGone}
	case m.closed:
		return Step{Err: ErrLeaving}
	}
	m.claims[req.Slot] = a.Key.Created
	return Step{Owner: m.cfg.Node, Epoch: a.Key.Created}
}

// Epoch returns the slot's claim, 0 where there is none.
func (m *Machine) Epoch(slot fenced.Slot) int64 { return m.claims[slot] }

// Claims is how many slots are claimed.
func (m *Machine) Claims() int { return len(m.claims) }

// Disown drops a claim that etcd showed to be gone.
func (m *Machine) Disown(slot fenced.Slot, epoch int64) {
	if m.claims[slot] == epoch {
		delete(m.claims, slot)
	}
}
