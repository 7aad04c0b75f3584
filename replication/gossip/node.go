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
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/prometheus/client_golang/prometheus"

	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
	"github.com/holdfast-mesh/holdfast/replication/gossip/settle"
	"github.com/holdfast-mesh/holdfast/statestore/crdt"
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
	// MaxVersion is the newest version of the wire form to speak; 0 is WireVersion.
	MaxVersion uint32
}

// Node is this store's part in the mesh. It is safe for concurrent use.
type Node struct {
	cfg     Config
	metrics *metrics
	list    *memberlist.Memberlist
	keyring *memberlist.Keyring
	started time.Time
	// layout is the placement's, former that of the placement before.
	layout     atomic.Pointer[layout]
	former     atomic.Pointer[layout]
	cutset     atomic.Pointer[cutset]
	identities *identities
	acks       *acks
	claims     *claims
	extras     *extras
	rights     rights
	// rejoin ends the pause before lost members are looked for.
	rejoin chan struct{}
	// dialing has an entry for each peer that is being dialed.
	dialing chan struct{}
	ctx     context.Context
	cancel  context.CancelFunc
	wg      sync.WaitGroup

	// keysMu makes changes of the keyring one after another.
	keysMu sync.Mutex

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
	// sessions has all streams.
	// +checklocks:mu
	sessions map[*session]struct{}
	// interests has what each peer declared on its newest stream.
	// +checklocks:mu
	interests map[string]map[settle.Slot]struct{}
	// told has why each peer was last refused.
	// +checklocks:mu
	told map[string]string
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
	case cfg.MaxVersion != 0 && (cfg.MaxVersion < OldestWireVersion || cfg.MaxVersion > WireVersion):
		return nil, fmt.Errorf("gossip: version %d is not spoken here, %d to %d are", cfg.MaxVersion, OldestWireVersion, WireVersion)
	}
	if cfg.MaxVersion == 0 {
		cfg.MaxVersion = WireVersion
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
		sessions: map[*session]struct{}{}, interests: map[string]map[settle.Slot]struct{}{}, told: map[string]string{},
		identities: newIdentities(cfg.Node, cfg.Replica, cfg.Engine),
		claims:     &claims{self: cfg.Node, slots: map[settle.Slot]*claim{}},
		extras:     newExtras(),
		rights:     rights{asked: map[entity]*question{}},
		rejoin:     make(chan struct{}, 1),
		started:    time.Now(),
		dialing:    make(chan struct{}, maxDialing),
		random:     rand.New(rand.NewPCG(cfg.Seed, cfg.Replica)),
	}
	n.acks = &acks{
		self: cfg.Node, layout: &n.layout, waiting: map[settle.Slot][]*waiter{}, acked: map[string]map[settle.Slot]*crdt.Context{},
	}
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
	n.wg.Go(n.compareExtras)
	n.wg.Go(n.settleDown)
	return n, nil
}

// Configure replaces the entity types and the placement, by which deltas are pushed and slots compared. Until it is first
// called this store is a member and no more.
func (n *Node) Configure(c *storev1.Configure) {
	l, err := newLayout(c)
	if err != nil {
		n.cfg.Logger.Error("placement not taken", "error", err)
		return
	}
	if old := n.layout.Load(); old != nil && old.epoch > l.epoch {
		n.cfg.Logger.Warn("older placement not taken", "epoch", l.epoch, "have", old.epoch)
		return
	}
	if old := n.layout.Load(); old != nil && old.epoch < l.epoch {
		n.former.Store(old)
	}
	n.layout.Store(l)
	n.identities.moved()
	n.acks.changed()
	n.mu.Lock()
	for s := range n.sessions {
		if s.dialed {
			n.declareEpoch(s)
			s.round()
		}
	}
	n.mu.Unlock()
	signal(n.extras.kick)
	signal(n.identities.kick)
}

// Address is where memberlist listens.
func (n *Node) Address() string { return n.list.LocalNode().Address() }

// Accept serves a stream that another store dialed, until it ends or ctx does.
func (n *Node) Accept(ctx context.Context, conn Conn) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(n.ctx, cancel)()
	hello, version, err := greet(ctx, conn, n.hello())
	if err == nil && n.isCut(hello.GetNode()) {
		err = errCut
	}
	if err != nil {
		_ = conn.Close()
		n.refused(acceptedPeer, err)
		return err
	}
	s := n.newSession(conn, hello, version, nil)
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
	delete(n.interests, name) // It declares its interest anew.
	n.wg.Add(1)
	n.mu.Unlock()
	defer n.wg.Done()
	defer func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.accepted[name] == s {
			delete(n.accepted, name)
			delete(n.interests, name)
		}
	}()
	return s.run(ctx)
}

// acceptedPeer stands for who dialed, where refusals are told.
const acceptedPeer = "(who dialed)"

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
	if m := n.members[node]; m != nil && m.peer != nil && !n.isCut(node) {
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
	n.acks.close()
	n.wg.Wait()
}

// begin lets a goroutine of the node's begin; n.wg.Done must follow where it says true.
func (n *Node) begin() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.closed {
		n.wg.Add(1)
	}
	return !n.closed
}

// close makes the node take nobody in any more; false where it was closed before.
func (n *Node) close() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	was := n.closed
	n.closed = true
	return !was
}

// repair opens rounds of anti-entropy with random peers.
func (n *Node) repair() {
	for n.ctx.Err() == nil {
		pause(n.ctx, antiEntropyInterval-antiEntropySpread+n.random63(2*antiEntropySpread))
		n.hold()
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
