package gossip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/prometheus/client_golang/prometheus"

	replicationv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/replication/v1"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
)

// Config configures a Node.
type Config struct {
	// Node is this member's name: stable across restarts, unique in the mesh.
	Node string
	// Replica is the identity of this incarnation: another one at every start.
	Replica uint64
	// Bind is the address of memberlist's UDP and TCP sockets, "127.0.0.1:8201". Port 0 takes a free one.
	Bind string
	// PeerAddress is where other stores dial this one, in the Dialer's terms.
	PeerAddress string
	// Join lists addresses of other members to start from, tried for ever; its own is skipped.
	Join []string
	// Keys encrypt memberlist's messages, see ParseKeys. Without keys Insecure must be set.
	Keys     [][]byte
	Insecure bool
	// Label keeps meshes apart that share a network; "holdfast" if empty.
	Label  string
	Engine Engine
	Dialer Dialer
	Logger *slog.Logger
	// Metrics registers the node's metrics; nil keeps them to itself.
	Metrics prometheus.Registerer
	// Transport replaces memberlist's sockets, in simulations.
	Transport Transport
	// Seed seeds the choices of peers and pauses; 0 draws one.
	Seed uint64
}

// Node is this store's part in the mesh. It is safe for concurrent use.
type Node struct {
	cfg      Config
	exchange *exchange
	metrics  *metrics
	list     *memberlist.Memberlist
	ctx      context.Context
	cancel   context.CancelFunc
	wg       sync.WaitGroup

	// mu guards what follows. Memberlist's callbacks take it while memberlist's own locks are held: nothing of memberlist
	// may be called under it.
	mu sync.Mutex
	// +checklocks:mu
	closed bool
	// +checklocks:mu
	members map[string]*member
	// accepted has the newest stream of each peer that dialed this store.
	// +checklocks:mu
	accepted map[string]*session
	// +checklocks:mu
	random *rand.Rand
}

// Start makes this store a member and returns at once; others are joined in the background.
func Start(cfg Config) (*Node, error) {
	switch {
	case cfg.Node == "" || cfg.Replica == 0 || cfg.PeerAddress == "":
		return nil, errors.New("gossip: node, replica and peer address are needed")
	case cfg.Engine == nil || cfg.Dialer == nil:
		return nil, errors.New("gossip: engine and dialer are needed")
	case len(cfg.Keys) == 0 && !cfg.Insecure:
		return nil, errors.New("gossip: refusing to run without a key; whoever reaches the port could join")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.Label == "" {
		cfg.Label = "holdfast"
	}
	if cfg.Seed == 0 {
		cfg.Seed = rand.Uint64()
	}
	n := &Node{
		cfg: cfg, metrics: newMetrics(cfg.Metrics), members: map[string]*member{}, accepted: map[string]*session{},
		random: rand.New(rand.NewPCG(cfg.Seed, cfg.Replica)),
	}
	n.exchange = &exchange{engine: cfg.Engine, metrics: n.metrics}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	n.metrics.members.Set(1)
	list, err := n.createList()
	if err != nil {
		n.cancel()
		return nil, fmt.Errorf("gossip: %w", err)
	}
	n.list = list
	n.wg.Go(n.keepJoined)
	n.wg.Go(n.repair)
	return n, nil
}

// Address is where memberlist listens.
func (n *Node) Address() string { return n.list.LocalNode().Address() }

// Publish pushes deltas to all peers. It never blocks; what a peer's queue can't take anti-entropy brings.
func (n *Node) Publish(deltas []*replicationv1.Delta) {
	if len(deltas) == 0 {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, m := range n.members {
		if m.peer != nil {
			n.metrics.dropped.Add(float64(m.peer.queue.add(deltas)))
		}
	}
}

// Accept serves a stream that another store dialed, until it ends or ctx does.
func (n *Node) Accept(ctx context.Context, conn Conn) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(n.ctx, cancel)()
	hello, err := greet(ctx, conn, n.hello())
	if err != nil {
		_ = conn.Close()
		return err
	}
	s := newSession(n.exchange, conn, nil)
	name := hello.GetNode()
	ctx, replace := context.WithCancelCause(ctx)
	defer replace(nil)
	s.stop = replace
	n.mu.Lock()
	if n.closed || n.accepted[name] == nil && len(n.accepted) >= maxMembers {
		n.mu.Unlock()
		_ = conn.Close()
		return errors.New("gossip: closed, or too many streams")
	}
	if old := n.accepted[name]; old != nil {
		old.stop(errReplaced)
	}
	n.accepted[name] = s
	n.wg.Add(1)
	n.mu.Unlock()
	defer n.wg.Done()
	defer func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.accepted[name] == s {
			delete(n.accepted, name)
		}
	}()
	return s.run(ctx)
}

// Peers tells the state of all other members: alive (and this store pushes to it), suspect (said to be alive, but there is
// no stream to it), dead (or gone).
func (n *Node) Peers() []*storev1.Peer {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []*storev1.Peer
	for name, m := range n.members {
		p := &storev1.Peer{Name: name, State: "dead"}
		if m.peer != nil {
			p.Connected = m.peer.current() != nil
			p.State = "suspect"
			if p.Connected {
				p.State = "alive"
			}
		}
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b *storev1.Peer) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// PeerAddress returns where a live member's store is dialed.
func (n *Node) PeerAddress(node string) (string, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if m := n.members[node]; m != nil && m.peer != nil {
		return m.peer.meta.Peer, true
	}
	return "", false
}

// Dead reports whether a node was a member and is no longer. One that was never seen is not dead.
func (n *Node) Dead(node string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	m := n.members[node]
	return m != nil && m.peer == nil
}

// Close tells the others that this member leaves, ends all streams and waits for them.
func (n *Node) Close() error {
	if !n.close() {
		return nil
	}
	err := n.list.Leave(leaveTimeout)
	n.stop()
	if err != nil {
		return fmt.Errorf("gossip: %w", err)
	}
	return nil
}

// Kill ends all streams without a word to the others, as a crash does.
func (n *Node) Kill() {
	if n.close() {
		n.stop()
	}
}

func (n *Node) stop() {
	n.cancel()
	_ = n.list.Shutdown()
	n.wg.Wait()
}

// close makes the node take nobody in any more; false where it was closed before.
func (n *Node) close() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	was := n.closed
	n.closed = true
	return !was
}

func (n *Node) hello() *replicationv1.Hello {
	return &replicationv1.Hello{Version: wireVersion, Node: n.cfg.Node, Replica: n.cfg.Replica}
}

// repair opens rounds of anti-entropy with random peers.
func (n *Node) repair() {
	for n.ctx.Err() == nil {
		pause(n.ctx, antiEntropyInterval-antiEntropySpread+n.random63(2*antiEntropySpread))
		n.mu.Lock()
		var streams []*session
		for _, m := range n.members {
			if m.peer != nil {
				if s := m.peer.current(); s != nil {
					streams = append(streams, s)
				}
			}
		}
		n.mu.Unlock()
		if len(streams) > 0 {
			streams[int(n.random63(time.Duration(len(streams))))].round()
		}
	}
}

// jitter is between half of d and one and a half.
func (n *Node) jitter(d time.Duration) time.Duration { return d/2 + n.random63(d) }

func (n *Node) random63(below time.Duration) time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	return time.Duration(n.random.Int64N(int64(below)))
}
