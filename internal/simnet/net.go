// Package simnet is a network in memory, for simulations inside a testing/synctest bubble: packets, byte streams and
// message streams between named hosts, with delay, loss, repetition, cuts and resets.
//
// Time is the bubble's, so minutes of it pass in milliseconds; choices come from a seed. Packets may be lost, repeated and
// reordered. Streams keep order and lose nothing while they live; across a cut they stall, and a reset ends them together
// with what was under way.
package simnet

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// Faults are what the network does to what it carries.
type Faults struct {
	// MinDelay and MaxDelay bound the one-way delay.
	MinDelay, MaxDelay time.Duration
	// Loss and Repeat are the probabilities that a packet is lost, or delivered twice.
	Loss, Repeat float64
	// Reset is the probability that a message breaks the stream it is sent on; Replay that a message is delivered twice.
	Reset, Replay float64
}

// Net is the network.
type Net struct {
	mu sync.Mutex
	// +checklocks:mu
	random *rand.Rand
	// +checklocks:mu
	faults Faults
	// +checklocks:mu
	hosts map[string]*Host
	// cut has the directed links that carry nothing.
	// +checklocks:mu
	cut map[[2]string]bool
	// changed is closed and replaced when cut changes.
	// +checklocks:mu
	changed chan struct{}
}

// New makes a network without hosts.
func New(seed uint64, faults Faults) *Net {
	return &Net{
		random: rand.New(rand.NewPCG(seed, 1)), faults: faults, hosts: map[string]*Host{}, cut: map[[2]string]bool{},
		changed: make(chan struct{}),
	}
}

// SetFaults changes what happens to what is sent from now on.
func (n *Net) SetFaults(f Faults) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.faults = f
}

// Cut stops what goes from one host to another; the other direction is another link.
func (n *Net) Cut(from, to string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut[[2]string{from, to}] = true
	close(n.changed)
	n.changed = make(chan struct{})
}

// Heal mends all links.
func (n *Net) Heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.cut)
	close(n.changed)
	n.changed = make(chan struct{})
}

// flight is what the network decided about one thing sent.
type flight struct {
	lost, repeated, reset, replayed bool
	delay, again                    time.Duration
}

func (n *Net) plan(from, to string) flight {
	n.mu.Lock()
	defer n.mu.Unlock()
	f := n.faults
	delay := func() time.Duration {
		if f.MaxDelay <= f.MinDelay {
			return f.MinDelay
		}
		return f.MinDelay + time.Duration(n.random.Int64N(int64(f.MaxDelay-f.MinDelay)))
	}
	return flight{
		lost:     n.cut[[2]string{from, to}] || n.random.Float64() < f.Loss,
		repeated: n.random.Float64() < f.Repeat,
		reset:    n.random.Float64() < f.Reset,
		replayed: n.random.Float64() < f.Replay,
		delay:    delay(),
		again:    delay(),
	}
}

func (n *Net) isCut(from, to string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.cut[[2]string{from, to}]
}

// passable waits until the link carries again; false where over closes first.
func (n *Net) passable(from, to string, over <-chan struct{}) bool {
	for {
		n.mu.Lock()
		cut, changed := n.cut[[2]string{from, to}], n.changed
		n.mu.Unlock()
		if !cut {
			return true
		}
		select {
		case <-changed:
		case <-over:
			return false
		}
	}
}

func (n *Net) host(name string) *Host {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.hosts[name]
}

// ErrRefused: nobody listens there.
var ErrRefused = errors.New("connection refused")

// Host is one incarnation of a machine on the network.
type Host struct {
	net  *Net
	name string
	addr *net.TCPAddr

	packets chan Packet
	streams chan net.Conn
	calls   chan *MessageConn
	over    chan struct{}
	close   sync.Once
}

// Packet is a datagram that arrived.
type Packet struct {
	Data []byte
	From net.Addr
	At   time.Time
}

// queued bounds what waits at a host for its reader; more packets are lost, more streams refused.
const queued = 1024

// Attach brings a host up under a name, in place of an earlier one of that name. Its address is made from index.
func (n *Net) Attach(name string, index byte) *Host {
	h := &Host{
		net: n, name: name, addr: &net.TCPAddr{IP: net.IPv4(10, 0, 0, index), Port: 7946},
		packets: make(chan Packet, queued), streams: make(chan net.Conn, queued), calls: make(chan *MessageConn, queued),
		over: make(chan struct{}),
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hosts[name] = h
	n.hosts[h.addr.String()] = h
	return h
}

// Detach takes the host down: its streams break, nothing arrives any more.
func (h *Host) Detach() {
	h.close.Do(func() {
		close(h.over)
		h.net.mu.Lock()
		defer h.net.mu.Unlock()
		for _, k := range []string{h.name, h.addr.String()} {
			if h.net.hosts[k] == h {
				delete(h.net.hosts, k)
			}
		}
	})
}

// Address is the host's address.
func (h *Host) Address() *net.TCPAddr { return h.addr }

// Packets delivers what arrives.
func (h *Host) Packets() <-chan Packet { return h.packets }

// Streams delivers byte streams that others dialed.
func (h *Host) Streams() <-chan net.Conn { return h.streams }

// Calls delivers message streams that others dialed.
func (h *Host) Calls() <-chan *MessageConn { return h.calls }

// Send sends a packet. It never fails: what is lost is lost.
func (h *Host) Send(data []byte, to string) {
	peer := h.net.host(to)
	if peer == nil {
		return
	}
	f := h.net.plan(h.name, peer.name)
	if f.lost {
		return
	}
	p := Packet{Data: append([]byte(nil), data...), From: h.addr}
	h.deliver(p, peer, f.delay)
	if f.repeated {
		p.Data = append([]byte(nil), data...)
		h.deliver(p, peer, f.again)
	}
}

func (h *Host) deliver(p Packet, to *Host, after time.Duration) {
	time.AfterFunc(after, func() {
		p.At = time.Now()
		select {
		case <-to.over:
		case <-h.over:
		case to.packets <- p:
		default:
		}
	})
}

// dial finds a host and waits for the way there and back.
func (h *Host) dial(to string, timeout time.Duration) (*Host, error) {
	over := make(chan struct{})
	t := time.AfterFunc(timeout, func() { close(over) })
	defer t.Stop()
	peer := h.net.host(to)
	if peer == nil {
		return nil, fmt.Errorf("dial %s: %w", to, ErrRefused)
	}
	if !h.net.passable(h.name, peer.name, over) || !h.net.passable(peer.name, h.name, over) {
		return nil, fmt.Errorf("dial %s: timeout", to)
	}
	f := h.net.plan(h.name, peer.name)
	time.Sleep(f.delay + f.again)
	return peer, nil
}
