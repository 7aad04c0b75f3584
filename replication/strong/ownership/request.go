package ownership

import (
	"errors"
	"fmt"
	"time"

	"github.com/holdfast-mesh/holdfast/internal/fenced"
)

// Kind says what a request asks of etcd.
type Kind int

// The kinds of requests.
const (
	// None: there is nothing to send.
	None Kind = iota
	// Grant gets a lease of TTL. Answer: Lease, TTL.
	Grant
	// ReadFormer reads the node's store key. Answer: Key.
	ReadFormer
	// Revoke ends Lease and what it holds; it succeeds where the lease is gone already.
	Revoke
	// Register writes the node's store key with its home under Lease.
	Register
	// KeepAlive renews Lease. Answer: TTL.
	KeepAlive
	// Probe reads something, to learn whether answers arrive.
	Probe
	// Look reads the key of Slot. Answer: Key.
	Look
	// Take writes the key of Slot under Lease with the node as its value, where there is none. Answer: Key, as it then is.
	Take
)

func (k Kind) String() string {
	return [...]string{"none", "grant", "read-former", "revoke", "register", "keep-alive", "probe", "look", "take"}[k]
}

// Request is a call to etcd that shall be made now.
type Request struct {
	Kind  Kind
	Lease int64
	TTL   time.Duration
	Slot  fenced.Slot
	// sent is when it was handed out: no later than when it is sent.
	sent time.Duration
}

func (r Request) String() string {
	switch r.Kind {
	case None:
		return "none"
	case Grant:
		return fmt.Sprintf("%s %s", r.Kind, r.TTL)
	case ReadFormer, Probe:
		return r.Kind.String()
	case Look:
		return fmt.Sprintf("%s %s/%d", r.Kind, r.Slot.Type, r.Slot.Number)
	case Take:
		return fmt.Sprintf("%s %s/%d under %d", r.Kind, r.Slot.Type, r.Slot.Number, r.Lease)
	}
	return fmt.Sprintf("%s %d", r.Kind, r.Lease)
}

// Key is a key in etcd. The zero Key does not exist.
type Key struct {
	Value string
	// Created is its create revision.
	Created int64
	Lease   int64
}

// Answer is what became of a request.
type Answer struct {
	// Err is nil where etcd did it, ErrLeaseGone where it refused for that, anything else where it refused for another
	// reason, or did not answer: then nobody knows whether it was done.
	Err   error
	Lease int64
	TTL   time.Duration
	Key   Key
}

// Why a slot can't be claimed now.
var (
	// ErrLeaseGone: etcd let the lease go, and with it all claims.
	ErrLeaseGone = errors.New("the lease is gone")
	// ErrNoLease: there is no lease yet.
	ErrNoLease = errors.New("no lease yet")
	// ErrFormer: the slot is held by this node's former process until its lease expires.
	ErrFormer = errors.New("the slot is held by this node's former process until its lease expires")
	// ErrLeaving: the store is giving its slots back.
	ErrLeaving = errors.New("this store is giving its slots back")
)
