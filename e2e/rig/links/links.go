// Package links puts TCP links between processes that a test can cut, one way or both, and slow down.
//
// A Net listens in a server's place and carries what arrives to the server's own address. Who connected is found by the
// socket's owner in /proc, so that many processes use one address and each pair of them has a link of its own. A cut holds
// bytes back and forgets none: as on a network that lost its packets for a while, what was sent arrives when the cut ends, or
// the connection ends before. What was held is counted: a cut that held nothing broke nothing.
package links

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// chunk is how many bytes are carried at once.
const chunk = 32 << 10

// Way is one direction of a link: what one process sends to another.
type Way struct{ From, To string }

// Net is links between processes. Close ends it.
type Net struct {
	who func(port int) string

	// mu guards what follows.
	mu        sync.Mutex
	cuts      map[Way]bool
	delays    map[Way]time.Duration
	held      map[Way]int64
	changed   chan struct{}
	listeners []net.Listener
	conns     map[*conn]struct{}
	closed    bool
	wg        sync.WaitGroup
}

// conn is a connection through the net: from who dialed to the server.
type conn struct {
	from, to   string
	near, far  net.Conn
	closedOnce sync.Once
}

func (c *conn) close() {
	c.closedOnce.Do(func() {
		c.near.Close()
		c.far.Close()
	})
}

// New returns a net without links. who names the process that has the loopback TCP socket with that local port.
func New(who func(port int) string) *Net {
	return &Net{
		who: who, cuts: map[Way]bool{}, delays: map[Way]time.Duration{}, held: map[Way]int64{}, changed: make(chan struct{}),
		conns: map[*conn]struct{}{},
	}
}

// Serve carries what connects to listen, host:port, to a server of that name at target.
func (n *Net) Serve(name, listen, target string) error {
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return fmt.Errorf("link to %s: %w", name, err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		l.Close()
		return errors.New("net is closed")
	}
	n.listeners = append(n.listeners, l)
	n.wg.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			n.mu.Lock()
			if n.closed {
				n.mu.Unlock()
				near.Close()
				return
			}
			n.wg.Go(func() { n.carry(name, near, target) })
			n.mu.Unlock()
		}
	})
	return nil
}

// carry connects to the server and carries both ways until either end closes.
func (n *Net) carry(name string, near net.Conn, target string) {
	from := n.who(near.RemoteAddr().(*net.TCPAddr).Port)
	far, err := net.Dial("tcp", target)
	if err != nil {
		near.Close()
		return
	}
	c := &conn{from: from, to: name, near: near, far: far}
	n.mu.Lock()
	if n.closed {
		n.mu.Unlock()
		c.close()
		return
	}
	n.conns[c] = struct{}{}
	n.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { n.pump(c, Way{from, name}, near, far) })
	both.Go(func() { n.pump(c, Way{name, from}, far, near) })
	both.Wait()
	n.mu.Lock()
	delete(n.conns, c)
	n.mu.Unlock()
}

func (n *Net) pump(c *conn, w Way, from, to net.Conn) {
	defer c.close()
	buf := make([]byte, chunk)
	for {
		size, err := from.Read(buf)
		if size > 0 {
			if !n.pass(w, size) {
				return
			}
			if _, err := to.Write(buf[:size]); err != nil {
				return
			}
		}
		if err != nil {
			// An end that closed while its link is cut is not seen at the other end before the cut ends.
			n.pass(w, 0)
			return
		}
	}
}

// pass waits while the way is cut, and then as long as it is slow. False: the net is closed.
func (n *Net) pass(w Way, size int) bool {
	first := true
	for {
		n.mu.Lock()
		closed, cut, delay, changed := n.closed, n.cuts[w], n.delays[w], n.changed
		if first && (cut || delay > 0) {
			n.held[w] += int64(size)
			first = false
		}
		n.mu.Unlock()
		switch {
		case closed:
			return false
		case cut:
			<-changed
		case delay > 0:
			select {
			case <-time.After(delay):
				n.mu.Lock()
				cut := n.cuts[w]
				n.mu.Unlock()
				if !cut {
					return true
				}
			case <-changed:
			}
		default:
			return true
		}
	}
}

// Cut holds back what is sent on these ways.
func (n *Net) Cut(ways ...Way) {
	n.change(func() {
		for _, w := range ways {
			n.cuts[w] = true
			n.held[w] = 0
		}
	})
}

// Slow delays each piece of what is sent on these ways.
func (n *Net) Slow(by time.Duration, ways ...Way) {
	n.change(func() {
		for _, w := range ways {
			n.delays[w] = by
			n.held[w] = 0
		}
	})
}

// Heal ends cuts and delays on these ways.
func (n *Net) Heal(ways ...Way) {
	n.change(func() {
		for _, w := range ways {
			delete(n.cuts, w)
			delete(n.delays, w)
		}
	})
}

// Reset ends the connections that have a part on these ways: what was held on them is lost.
func (n *Net) Reset(ways ...Way) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for c := range n.conns {
		for _, w := range ways {
			if w == (Way{c.from, c.to}) || w == (Way{c.to, c.from}) {
				c.close()
			}
		}
	}
}

func (n *Net) change(what func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	what()
	close(n.changed)
	n.changed = make(chan struct{})
}

// Held is how many bytes have waited on these ways since they were last cut or slowed down.
func (n *Net) Held(ways ...Way) (bytes int64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, w := range ways {
		bytes += n.held[w]
	}
	return bytes
}

// Connected lists the links that have connections now, each by who dialed, with their numbers.
func (n *Net) Connected() map[Way]int {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := map[Way]int{}
	for c := range n.conns {
		out[Way{c.from, c.to}]++
	}
	return out
}

// Both are the two directions between one process and others.
func Both(one string, others ...string) []Way {
	return append(Out(one, others...), In(one, others...)...)
}

// Out is what one process sends to others.
func Out(one string, others ...string) (ways []Way) {
	for _, other := range others {
		ways = append(ways, Way{one, other})
	}
	return ways
}

// In is what one process hears from others.
func In(one string, others ...string) (ways []Way) {
	for _, other := range others {
		ways = append(ways, Way{other, one})
	}
	return ways
}

// Close ends all links and waits for their goroutines.
func (n *Net) Close() {
	n.change(func() {
		n.closed = true
		for _, l := range n.listeners {
			l.Close()
		}
		for c := range n.conns {
			c.close()
		}
	})
	n.wg.Wait()
}
