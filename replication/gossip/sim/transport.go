// Package sim puts stores' replication on a simulated network: simnet's hosts in the shape that package gossip wants, and
// a small model of mergeable state. For tests.
package sim

import (
	"context"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/holdfast-mesh/holdfast/internal/simnet"
	"github.com/holdfast-mesh/holdfast/replication/gossip"
)

// Transport carries memberlist's packets and streams over a simulated host.
type Transport struct {
	host    *simnet.Host
	packets chan *gossip.Packet
	streams chan net.Conn
	over    chan struct{}
	once    sync.Once
	done    sync.WaitGroup
}

var _ gossip.Transport = (*Transport)(nil)

// NewTransport makes the transport of one incarnation; Shutdown ends it.
func NewTransport(host *simnet.Host) *Transport {
	t := &Transport{host: host, packets: make(chan *gossip.Packet), streams: make(chan net.Conn), over: make(chan struct{})}
	t.done.Go(func() {
		for {
			select {
			case p := <-host.Packets():
				select {
				case t.packets <- &gossip.Packet{Buf: p.Data, From: p.From, Timestamp: p.At}:
				case <-t.over:
					return
				}
			case c := <-host.Streams():
				select {
				case t.streams <- c:
				case <-t.over:
					return
				}
			case <-t.over:
				return
			}
		}
	})
	return t
}

// FinalAdvertiseAddr implements gossip.Transport.
func (t *Transport) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return t.host.Address().IP, t.host.Address().Port, nil
}

// WriteTo implements gossip.Transport.
func (t *Transport) WriteTo(b []byte, addr string) (time.Time, error) {
	t.host.Send(b, addr)
	return time.Now(), nil
}

// PacketCh implements gossip.Transport.
func (t *Transport) PacketCh() <-chan *gossip.Packet { return t.packets }

// DialTimeout implements gossip.Transport.
func (t *Transport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return t.host.DialStream(addr, timeout)
}

// StreamCh implements gossip.Transport.
func (t *Transport) StreamCh() <-chan net.Conn { return t.streams }

// Shutdown implements gossip.Transport.
func (t *Transport) Shutdown() error {
	t.once.Do(func() { close(t.over) })
	t.done.Wait()
	return nil
}

type dialer struct{ host *simnet.Host }

func (d dialer) Dial(ctx context.Context, address string) (gossip.Conn, error) {
	return d.host.DialMessages(ctx, address)
}

// Member is one incarnation of a node: a simulated host and a gossip node on it.
type Member struct {
	Host *simnet.Host
	Node *gossip.Node
	stop func()
	done sync.WaitGroup
}

// Close leaves the mesh in good order.
func (m *Member) Close() { m.end(func() { _ = m.Node.Close() }) }

// Crash ends the member without a word to the others.
func (m *Member) Crash() {
	m.Host.Detach()
	m.end(m.Node.Kill)
}

func (m *Member) end(node func()) {
	node()
	m.Host.Detach()
	m.stop()
	m.done.Wait()
}

// Start attaches a host and starts the member on it. Of cfg, only what concerns the network is filled in.
func Start(n *simnet.Net, index int, cfg gossip.Config) (*Member, error) {
	host := n.Attach(cfg.Node, index)
	cfg.Bind = net.JoinHostPort(host.Address().IP.String(), strconv.Itoa(host.Address().Port))
	cfg.PeerAddress = host.Address().String()
	cfg.Dialer = dialer{host}
	transport := NewTransport(host)
	cfg.Transport = transport
	node, err := gossip.Start(cfg)
	if err != nil {
		host.Detach()
		_ = transport.Shutdown()
		return nil, err
	}
	m := &Member{Host: host, Node: node}
	over := make(chan struct{})
	m.done.Go(func() {
		for {
			select {
			case c := <-host.Calls():
				m.done.Go(func() { _ = node.Accept(context.Background(), c) })
			case <-over:
				return
			}
		}
	})
	m.stop = sync.OnceFunc(func() { close(over) })
	return m, nil
}
