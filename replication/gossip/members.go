package gossip

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/memberlist"
)

// Transport and Packet are memberlist's seams, for simulations: nobody else imports memberlist.
type (
	Transport = memberlist.Transport
	Packet    = memberlist.Packet
)

// meta is what a member tells of itself by gossip; it must fit in memberlist's 512 bytes.
type meta struct {
	Peer    string `json:"peer"`
	Replica string `json:"replica"`
}

// member is another member, alive while peer is set.
type member struct {
	address string // Of its memberlist.
	peer    *peer
	gone    time.Time
}

func (n *Node) createList() (*memberlist.Memberlist, error) {
	mc := memberlist.DefaultLANConfig()
	mc.Name = n.cfg.Node
	mc.Label = n.cfg.Label
	mc.GossipInterval, mc.GossipNodes = gossipInterval, gossipNodes
	mc.ProbeInterval, mc.ProbeTimeout = probeInterval, probeTimeout
	mc.SuspicionMult = suspicionMult
	mc.PushPullInterval = pushPullInterval
	mc.TCPTimeout = streamTimeout
	mc.DeadNodeReclaimTime = reclaimAfter
	// Probes and member lists are small: compressing them costs a fifth of the gossip's CPU and saves no packet.
	mc.EnableCompression = false
	mc.Logger = log.New(&logWriter{n.cfg.Logger.With("node", n.cfg.Node)}, "", 0)
	mc.Delegate, mc.Events = delegate{n}, delegate{n}
	host, port, err := net.SplitHostPort(n.cfg.Bind)
	if err != nil {
		return nil, fmt.Errorf("bind address: %w", err)
	}
	if mc.BindPort, err = strconv.Atoi(port); err != nil {
		return nil, fmt.Errorf("bind address: %w", err)
	}
	mc.BindAddr = host
	mc.AdvertisePort = mc.BindPort
	if len(n.cfg.Keys) > 0 {
		if mc.Keyring, err = memberlist.NewKeyring(n.cfg.Keys, n.cfg.Keys[0]); err != nil {
			return nil, fmt.Errorf("keys: %w", err)
		}
		n.keyring = mc.Keyring
	}
	mc.GossipVerifyIncoming, mc.GossipVerifyOutgoing = true, true
	if m, err := json.Marshal(n.meta()); err != nil || len(m) > memberlist.MetaMaxSize {
		return nil, fmt.Errorf("peer address %q is too long", n.cfg.PeerAddress)
	}
	transport, err := newCuttable(n.cfg.Transport, &n.cutset, mc, mc.Logger)
	if err != nil {
		return nil, err
	}
	mc.Transport = transport
	n.wg.Go(transport.run)
	list, err := memberlist.Create(mc)
	if err != nil {
		_ = transport.Shutdown()
		n.wg.Wait()
		return nil, err
	}
	return list, nil
}

func (n *Node) meta() meta {
	return meta{Peer: n.cfg.PeerAddress, Replica: fmt.Sprintf("%016x", n.cfg.Replica)}
}

// present is called when a member appeared, or says something else of itself.
func (n *Node) present(node *memberlist.Node) {
	if node.Name == n.cfg.Node {
		return
	}
	var told meta
	if err := json.Unmarshal(node.Meta, &told); err != nil || told.Peer == "" {
		n.cfg.Logger.Warn("member without a peer address", "member", node.Name)
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return
	}
	m := n.members[node.Name]
	if m == nil {
		if len(n.members) >= maxMembers {
			n.cfg.Logger.Error("too many members", "member", node.Name, "limit", maxMembers)
			return
		}
		m = &member{}
		n.members[node.Name] = m
	}
	m.address = node.Address()
	if m.peer != nil {
		if m.peer.meta == told {
			return
		}
		m.peer.cancel()
	}
	ctx, cancel := context.WithCancel(n.ctx)
	p := &peer{node: n, name: node.Name, meta: told, queue: newPushQueue(), cancel: cancel, redial: make(chan struct{}, 1)}
	m.peer = p
	n.wg.Go(func() { p.run(ctx) })
	n.countLocked()
}

// absent is called when a member died or left.
func (n *Node) absent(node *memberlist.Node) {
	n.mu.Lock()
	defer n.mu.Unlock()
	m := n.members[node.Name]
	if m == nil || m.peer == nil {
		return
	}
	m.peer.cancel()
	m.peer, m.gone = nil, time.Now()
	if s := n.accepted[node.Name]; s != nil {
		s.stop(errReplaced)
	}
	n.countLocked()
}

func (n *Node) countLocked() {
	alive := 1
	for _, m := range n.members {
		if m.peer != nil {
			alive++
		}
	}
	n.metrics.members.Set(float64(alive))
}

// keepJoined looks for the members that are configured, or were known, and are not there.
func (n *Node) keepJoined() {
	for n.ctx.Err() == nil {
		missing, alone := n.missing()
		if len(missing) > 0 {
			address := missing[int(n.random63(time.Duration(len(missing))))]
			if _, err := n.list.Join([]string{address}); err != nil {
				n.cfg.Logger.Debug("member not reached", "address", address, "error", err)
			}
		}
		wait := joinOthers
		if alone {
			wait = joinAlone
		}
		pauseUntil(n.ctx, n.jitter(wait), n.rejoin)
	}
}

// missing lists, in memberlist's form "name/address" where a name is known, where members should be and are not.
func (n *Node) missing() (addresses []string, alone bool) {
	// Before the lock: memberlist calls absent and present with its own lock held.
	present := map[string]bool{n.Address(): true}
	n.mu.Lock()
	defer n.mu.Unlock()
	alone = true
	for name, m := range n.members {
		if m.peer != nil {
			alone = false
			present[m.address] = true
		} else if time.Since(m.gone) > forgetAfter {
			delete(n.members, name)
		}
	}
	for name, m := range n.members {
		if m.peer == nil && !present[m.address] {
			present[m.address] = true
			addresses = append(addresses, name+"/"+m.address)
		}
	}
	for _, a := range n.cfg.Join {
		if _, address, named := strings.Cut(a, "/"); named && present[address] || present[a] {
			continue
		}
		addresses = append(addresses, a)
	}
	return addresses, alone
}

// delegate is what memberlist calls. It must not block, and nothing of memberlist may be called from it.
type delegate struct{ node *Node }

func (d delegate) NodeMeta(int) []byte {
	m, _ := json.Marshal(d.node.meta())
	return m
}
func (d delegate) NotifyMsg([]byte)                {}
func (d delegate) GetBroadcasts(int, int) [][]byte { return nil }
func (d delegate) LocalState(bool) []byte          { return nil }
func (d delegate) MergeRemoteState([]byte, bool)   {}
func (d delegate) NotifyJoin(m *memberlist.Node)   { d.node.present(m) }
func (d delegate) NotifyUpdate(m *memberlist.Node) { d.node.present(m) }
func (d delegate) NotifyLeave(m *memberlist.Node)  { d.node.absent(m) }

// logWriter turns memberlist's lines into records. All are of debug level: what matters shows in Peers and the metrics.
type logWriter struct{ log *slog.Logger }

func (w *logWriter) Write(line []byte) (int, error) {
	w.log.Debug("memberlist", "line", strings.TrimSpace(string(line)))
	return len(line), nil
}
