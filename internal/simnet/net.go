// Package simnet is a network in memory, for simulations inside a testing/synctest bubble: packets, byte streams and
// message streams between named hosts, with delay, loss, repetition, replay, cuts, freezes and resets.
//
// Time is the bubble's, so minutes of it pass in milliseconds; choices come from a seed, for each link its own. Packets may be
// lost, repeated and reordered. Streams keep order and lose nothing while they live; across a cut they stall, and a reset ends
// them together with what was under way. A frozen host is what others see of a paused one: nothing from or to it is lost, all
// of it is late.
package simnet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
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
	// Late is the probability that after a packet, or after a message of deltas, an older one of the same link comes again:
	// from any time since Late was first above 0, and from earlier streams.
	Late float64
}

// Net is the network.
type Net struct {
	seed uint64
	mu   sync.Mutex
	// +checklocks:mu
	links map[[2]string]*link
	// +checklocks:mu
	faults Faults
	// +checklocks:mu
	hosts map[string]*Host
	// cut has the directed links that carry nothing.
	// +checklocks:mu
	cut map[[2]string]bool
	// keep is set once something may come late: from then on links keep what passes.
	// +checklocks:mu
	keep bool
	// frozen has the hosts whose links wait.
	// +checklocks:mu
	frozen map[string]bool
	// changed is closed and replaced when cut or frozen changes.
	// +checklocks:mu
	changed chan struct{}
}

// New makes a network without hosts.
func New(seed uint64, faults Faults) *Net {
	return &Net{
		seed: seed, links: map[[2]string]*link{}, faults: faults, hosts: map[string]*Host{}, cut: map[[2]string]bool{},
		frozen: map[string]bool{}, changed: make(chan struct{}),
	}
}

// link is one direction between two hosts, for as long as the network lives.
type link struct {
	random *rand.Rand
	// packets and deltas are some of those that went over it, to come late.
	packets, deltas kept
}

// kept holds some of what passed: once full, a new one takes the place of a random one.
type kept [][]byte

// keptSize is how many a link keeps of each kind.
const keptSize = 16

func (k *kept) add(data []byte, random *rand.Rand) {
	if len(*k) < keptSize {
		*k = append(*k, data)
		return
	}
	(*k)[random.IntN(keptSize)] = data
}

// link returns one direction between two hosts.
//
// +checklocks:n.mu
func (n *Net) link(from, to string) *link {
	l := n.links[[2]string{from, to}]
	if l == nil {
		h := fnv.New64a()
		_, _ = io.WriteString(h, from+">"+to)
		l = &link{random: rand.New(rand.NewPCG(n.seed, h.Sum64()))}
		n.links[[2]string{from, to}] = l
	}
	return l
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
	n.tell()
}

// Mend ends what Cut did to one direction.
func (n *Net) Mend(from, to string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.cut, [2]string{from, to})
	n.tell()
}

// Heal mends all links. Frozen hosts stay so.
func (n *Net) Heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.cut)
	n.tell()
}

// Freeze holds up what goes from and to a host, or lets it go on, in order.
func (n *Net) Freeze(host string, on bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.frozen[host] = on
	n.tell()
}

// Thawed waits until a host is not frozen; false where over closes first.
func (n *Net) Thawed(host string, over <-chan struct{}) bool {
	return n.wait(over, func() bool { return n.frozen[host] })
}

// +checklocks:n.mu
func (n *Net) tell() {
	close(n.changed)
	n.changed = make(chan struct{})
}

// wait waits while something, read under the lock, holds; false where over closes first.
func (n *Net) wait(over <-chan struct{}, while func() bool) bool {
	for {
		n.mu.Lock()
		held, changed := while(), n.changed
		n.mu.Unlock()
		if !held {
			return true
		}
		select {
		case <-changed:
		case <-over:
			return false
		}
	}
}

// flight is what the network decided about one thing sent.
type flight struct {
	lost, repeated, reset, replayed bool
	delay, again                    time.Duration
	// late is an older one that comes after it; nil: none.
	late []byte
}

// plan decides about data; which says where such data is kept for later, nil where it is not.
func (n *Net) plan(from, to string, data []byte, which func(*link) *kept) flight {
	n.mu.Lock()
	defer n.mu.Unlock()
	f, l := n.faults, n.link(from, to)
	delay := func() time.Duration {
		if f.MaxDelay <= f.MinDelay {
			return f.MinDelay
		}
		return f.MinDelay + time.Duration(l.random.Int64N(int64(f.MaxDelay-f.MinDelay)))
	}
	out := flight{
		lost:     l.random.Float64() < f.Loss || n.cut[[2]string{from, to}],
		repeated: l.random.Float64() < f.Repeat,
		reset:    l.random.Float64() < f.Reset,
		replayed: l.random.Float64() < f.Replay,
		delay:    delay(),
		again:    delay(),
	}
	if which != nil {
		k := which(l)
		if f.Late > 0 && l.random.Float64() < f.Late && len(*k) > 0 {
			out.late = (*k)[l.random.IntN(len(*k))]
		}
		if n.keep = n.keep || f.Late > 0; n.keep {
			k.add(data, l.random)
		}
	}
	return out
}

func packets(l *link) *kept { return &l.packets }
func deltas(l *link) *kept  { return &l.deltas }

func (n *Net) isCut(from, to string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.cut[[2]string{from, to}]
}

// passable waits until the link carries again; false where over closes first.
func (n *Net) passable(from, to string, over <-chan struct{}) bool {
	return n.wait(over, func() bool { return n.cut[[2]string{from, to}] || n.frozen[from] || n.frozen[to] })
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
func (n *Net) Attach(name string, index int) *Host {
	h := &Host{
		net: n, name: name, addr: &net.TCPAddr{IP: net.IPv4(10, 0, byte(index>>8), byte(index)), Port: 7946},
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
	data = bytes.Clone(data)
	f := h.net.plan(h.name, peer.name, data, packets)
	if f.lost {
		return
	}
	h.deliver(data, peer, f.delay)
	if f.repeated {
		h.deliver(data, peer, f.again)
	}
	if f.late != nil {
		h.deliver(f.late, peer, f.again)
	}
}

func (h *Host) deliver(data []byte, to *Host, after time.Duration) {
	time.AfterFunc(after, func() {
		if !h.net.Thawed(h.name, to.over) || !h.net.Thawed(to.name, to.over) {
			return
		}
		p := Packet{Data: bytes.Clone(data), From: h.addr, At: time.Now()}
		select {
		case <-to.over:
		case <-h.over:
		case to.packets <- p:
		default:
		}
	})
}

// dial finds a host and waits for the way there and back, until ctx ends or this host goes down.
func (h *Host) dial(ctx context.Context, to string) (*Host, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-h.over:
			cancel()
		case <-ctx.Done():
		}
	}()
	peer := h.net.host(to)
	if peer == nil {
		return nil, fmt.Errorf("dial %s: %w", to, ErrRefused)
	}
	if !h.net.passable(h.name, peer.name, ctx.Done()) || !h.net.passable(peer.name, h.name, ctx.Done()) {
		return nil, fmt.Errorf("dial %s: %w", to, ctx.Err())
	}
	f := h.net.plan(h.name, peer.name, nil, nil)
	time.Sleep(f.delay + f.again)
	return peer, nil
}
