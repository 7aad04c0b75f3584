package ownership

import (
	"errors"
	"time"

	"github.com/holdfast-mesh/holdfast/internal/fenced"
)

const (
	// MinTTL is the shortest lease that etcd grants with its default election timeout of 1 s.
	MinTTL = 2 * time.Second
	// marginPart: the margin is TTL divided by it; see the package comment for the bound on clock rates that it buys.
	marginPart = 10
	// keepAlivesPerTTL is how many keep-alives are sent in one TTL while all goes well.
	keepAlivesPerTTL = 6
	// Retry is the pause after a request for the lease that failed or had no answer.
	Retry = 50 * time.Millisecond
)

// Config says who the store is.
type Config struct {
	// Node is this node's name.
	Node string
	// Home names what only one process at a time can have, its data directory: a former process that registered with the
	// same node and home has exited, so its lease may be revoked. Empty: never revoke.
	Home string
	// TTL of the lease, at least MinTTL.
	TTL time.Duration
}

// stage is how far the store is with its lease.
type stage int

const (
	wantsGrant stage = iota
	wantsFormer
	wantsRevoke
	wantsRegister
	// leased is when slots are claimed.
	leased
	// leaving is after Leave: the lease is to be revoked.
	leaving
	left
)

// Machine is one store's ownership. It is not safe for concurrent use.
type Machine struct {
	cfg   Config
	stage stage
	// lease is not 0 from wantsFormer to leaving, former only in wantsRevoke.
	lease, former int64
	// deadline: until then what lease holds is surely held. Never later than send time of an answered request + TTL - margin.
	deadline time.Duration
	// next is when the next request for the lease is due.
	next time.Duration
	// deaf: the last keep-alive had no answer, and nothing else since.
	deaf bool
	// closed: no new claims.
	closed bool
	// claims are the epochs of the slots that were claimed under lease. Invariant: empty unless leased.
	claims map[fenced.Slot]int64
}

// New returns the machine of a store that has no lease.
func New(cfg Config) *Machine {
	return &Machine{cfg: cfg, claims: map[fenced.Slot]int64{}}
}

// Next returns the request for the lease that is due, and counts it as sent; or None and how long there is nothing to do.
// The next call comes after Done.
func (m *Machine) Next(now time.Duration) (req Request, wait time.Duration) {
	if m.stage == left {
		return Request{}, m.cfg.TTL
	}
	if now < m.next {
		return Request{}, m.next - now
	}
	req = Request{Lease: m.lease, sent: now}
	switch m.stage {
	case wantsGrant:
		req.Kind, req.TTL = Grant, m.cfg.TTL
	case wantsFormer:
		req.Kind = ReadFormer
	case wantsRevoke:
		req.Kind, req.Lease = Revoke, m.former
	case wantsRegister:
		req.Kind = Register
	case leased:
		if req.Kind = KeepAlive; m.deaf {
			req.Kind = Probe
		}
	case leaving:
		req.Kind = Revoke
	}
	return req, 0
}

// Done takes the answer to what Next returned. Lost is the number of claims that went with a lease.
func (m *Machine) Done(now time.Duration, req Request, a Answer) (lost int) {
	switch {
	case m.stage == left || req.Kind != Grant && req.Kind != Revoke && req.Lease != m.lease:
		return 0 // Of a lease that is not this store's any more.
	case errors.Is(a.Err, ErrLeaseGone):
		return m.lose(now, req.Lease)
	case a.Err != nil:
		m.deaf = m.deaf || req.Kind == KeepAlive
		m.next = now + Retry
		return 0
	}
	// The margin is taken of what etcd granted; it may be longer than asked for.
	deadline := req.sent + a.TTL - a.TTL/marginPart
	switch req.Kind {
	case Grant:
		if m.stage == wantsGrant {
			m.stage, m.lease, m.deadline = wantsFormer, a.Lease, deadline
		}
	case ReadFormer:
		if m.stage == wantsFormer {
			m.stage = wantsRegister
			// The key is under this very lease where an earlier Register was done, but not answered.
			if f := a.Key.Lease; f != 0 && f != m.lease && m.cfg.Home != "" && a.Key.Value == m.cfg.Home {
				m.stage, m.former = wantsRevoke, f
			}
		}
	case Revoke:
		switch {
		case m.stage == wantsRevoke && req.Lease == m.former:
			m.stage, m.former = wantsRegister, 0
		case m.stage == leaving && req.Lease == m.lease:
			m.stage, m.lease = left, 0
		}
	case Register:
		if m.stage == wantsRegister {
			m.stage = leased
			m.next = req.sent + m.cfg.TTL/keepAlivesPerTTL
		}
	case Probe:
		m.deaf = false
	case KeepAlive:
		m.deaf = false
		m.deadline = max(m.deadline, deadline)
		m.next = req.sent + m.cfg.TTL/keepAlivesPerTTL
	}
	return 0
}

// lose forgets a lease and all that it held.
func (m *Machine) lose(now time.Duration, lease int64) (lost int) {
	switch {
	case lease == 0 || lease != m.lease:
		return 0
	case m.stage == leaving:
		m.stage = left
	default:
		m.stage = wantsGrant
	}
	lost = len(m.claims)
	m.lease, m.former, m.deadline, m.next, m.deaf = 0, 0, 0, now, false
	clear(m.claims)
	return lost
}

// Lease returns the lease under which slots are claimed, 0 where there is none.
func (m *Machine) Lease() int64 {
	if m.stage != leased {
		return 0
	}
	return m.lease
}

// Held tells whether reads of the slot may be served from memory under the claim epoch. Ask it after the read arrived.
func (m *Machine) Held(now time.Duration, slot fenced.Slot, epoch int64) bool {
	return epoch != 0 && m.claims[slot] == epoch && now < m.deadline
}

// Close lets no more slots be claimed; those that are stay.
func (m *Machine) Close() { m.closed = true }

// Leave gives all slots back: nothing is held from now on, and the lease is revoked by the next request, if there is one.
func (m *Machine) Leave(now time.Duration) {
	m.closed = true
	clear(m.claims)
	m.deadline, m.next = 0, now
	if m.lease == 0 {
		m.stage = left
	} else if m.stage != left {
		m.stage = leaving
	}
}
