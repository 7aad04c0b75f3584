package gossip

import (
	"errors"
	"log"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
)

// cutset is who is cut off: nil while nobody is, so that it costs a load.
type cutset struct {
	names map[string]bool
	// addresses of their memberlists, and the hosts of those.
	addresses, hosts map[string]bool
}

// Cut makes nothing pass between this store and some nodes any more: gossip and streams, in both directions, until it is
// called again. It is for people who try what a partition does.
func (n *Node) Cut(nodes []string) {
	var c *cutset
	n.mu.Lock()
	if len(nodes) > 0 {
		c = &cutset{names: map[string]bool{}, addresses: map[string]bool{}, hosts: map[string]bool{}}
		for _, name := range nodes {
			c.names[name] = true
			if m := n.members[name]; m != nil {
				c.addresses[m.address] = true
				host, _, _ := net.SplitHostPort(m.address)
				c.hosts[host] = true
			}
		}
	}
	n.cutset.Store(c)
	var ended []*session
	for s := range n.sessions {
		if c != nil && c.names[s.peer] {
			ended = append(ended, s)
		}
	}
	for _, m := range n.members {
		if m.peer != nil {
			signal(m.peer.redial)
		}
	}
	n.mu.Unlock()
	for _, s := range ended {
		n.metrics.streamsCut.Inc()
		_ = s.conn.Close()
	}
	signal(n.rejoin)
}

// Cutting lists the nodes that are cut off, in order.
func (n *Node) Cutting() []string {
	c := n.cutset.Load()
	if c == nil {
		return nil
	}
	var out []string
	for name := range c.names {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

func (n *Node) isCut(name string) bool {
	c := n.cutset.Load()
	return c != nil && c.names[name]
}

// cuttable is memberlist's transport, with what is cut off left out.
type cuttable struct {
	memberlist.NodeAwareTransport
	cutset  *atomic.Pointer[cutset]
	packets chan *memberlist.Packet
	streams chan net.Conn
	over    chan struct{}
}

// nodeAware makes any transport one that is told names.
type nodeAware struct{ memberlist.Transport }

func (t nodeAware) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	return t.WriteTo(b, a.Addr)
}

func (t nodeAware) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	return t.DialTimeout(a.Addr, timeout)
}

// newCuttable wraps a transport; without one it opens memberlist's own sockets.
func newCuttable(inner memberlist.Transport, cut *atomic.Pointer[cutset], mc *memberlist.Config, l *log.Logger) (*cuttable, error) {
	if inner == nil {
		nt, err := listen(mc, l)
		if err != nil {
			return nil, err
		}
		inner = nt
	}
	aware, ok := inner.(memberlist.NodeAwareTransport)
	if !ok {
		aware = nodeAware{inner}
	}
	t := &cuttable{
		NodeAwareTransport: aware, cutset: cut,
		packets: make(chan *memberlist.Packet), streams: make(chan net.Conn), over: make(chan struct{}),
	}
	return t, nil
}

// listen opens sockets as memberlist does: a port that was found free for TCP may be taken for UDP.
func listen(mc *memberlist.Config, l *log.Logger) (*memberlist.NetTransport, error) {
	tries := 1
	if mc.BindPort == 0 {
		tries = bindTries
	}
	for {
		nt, err := memberlist.NewNetTransport(&memberlist.NetTransportConfig{BindAddrs: []string{mc.BindAddr}, BindPort: mc.BindPort, Logger: l})
		tries--
		if err != nil && tries > 0 && strings.Contains(err.Error(), "address already in use") {
			continue
		}
		if err == nil && mc.BindPort == 0 {
			mc.BindPort = nt.GetAutoBindPort()
			mc.AdvertisePort = mc.BindPort
		}
		return nt, err
	}
}

// run carries what arrives, until Shutdown.
func (t *cuttable) run() {
	for {
		select {
		case p := <-t.NodeAwareTransport.PacketCh():
			if c := t.cutset.Load(); c != nil && c.addresses[p.From.String()] {
				continue
			}
			select {
			case t.packets <- p:
			case <-t.over:
				return
			}
		case s := <-t.NodeAwareTransport.StreamCh():
			// A stream comes from any port of its host: while somebody on that host is cut off, none is taken.
			host, _, _ := net.SplitHostPort(s.RemoteAddr().String())
			if c := t.cutset.Load(); c != nil && c.hosts[host] {
				_ = s.Close()
				continue
			}
			select {
			case t.streams <- s:
			case <-t.over:
				_ = s.Close()
				return
			}
		case <-t.over:
			return
		}
	}
}

func (t *cuttable) PacketCh() <-chan *memberlist.Packet { return t.packets }
func (t *cuttable) StreamCh() <-chan net.Conn           { return t.streams }

func (t *cuttable) isCut(name, address string) bool {
	c := t.cutset.Load()
	return c != nil && (c.names[name] || c.addresses[address])
}

func (t *cuttable) WriteTo(b []byte, address string) (time.Time, error) {
	return t.WriteToAddress(b, memberlist.Address{Addr: address})
}

func (t *cuttable) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	if t.isCut(a.Name, a.Addr) {
		return time.Now(), nil // Lost, as a packet is.
	}
	return t.NodeAwareTransport.WriteToAddress(b, a)
}

func (t *cuttable) DialTimeout(address string, timeout time.Duration) (net.Conn, error) {
	return t.DialAddressTimeout(memberlist.Address{Addr: address}, timeout)
}

func (t *cuttable) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	if t.isCut(a.Name, a.Addr) {
		return nil, errCut
	}
	return t.NodeAwareTransport.DialAddressTimeout(a, timeout)
}

func (t *cuttable) Shutdown() error {
	select {
	case <-t.over:
		return errors.New("shut down twice")
	default:
		close(t.over)
	}
	// The inner transport waits for its readers, which wait for somebody to take what they read.
	done := make(chan error, 1)
	go func() { done <- t.NodeAwareTransport.Shutdown() }()
	for {
		select {
		case <-t.NodeAwareTransport.PacketCh():
		case s := <-t.NodeAwareTransport.StreamCh():
			_ = s.Close()
		case err := <-done:
			return err
		}
	}
}
