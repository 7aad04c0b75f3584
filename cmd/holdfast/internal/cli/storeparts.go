package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/holdfast-mesh/holdfast/cmd/holdfast/internal/localmesh"
	"github.com/holdfast-mesh/holdfast/cmd/holdfast/internal/probe"
	"github.com/holdfast-mesh/holdfast/internal/etcd"
	"github.com/holdfast-mesh/holdfast/internal/mesh"
	"github.com/holdfast-mesh/holdfast/internal/peercred"
	"github.com/holdfast-mesh/holdfast/replication/gossip"
	"github.com/holdfast-mesh/holdfast/replication/gossip/grpcpeer"
	"github.com/holdfast-mesh/holdfast/replication/strong"
	"github.com/holdfast-mesh/holdfast/statestore"
	"github.com/holdfast-mesh/holdfast/statestore/serve"
)

// handOverTimeout bounds what a store that ends takes to hand over what its peers lack. `up` waits longer before it kills.
const handOverTimeout = 8 * time.Second

// joinPeers makes this store a member of the mesh. The links lack the committer; close hands over what the others lack,
// leaves and waits.
func joinPeers(f storeFlags, paths localmesh.Paths, t *mesh.Topology, engine *statestore.Engine, server *serve.Server,
	registry prometheus.Registerer, log *slog.Logger,
) (links statestore.Links, closePeers func() error, err error) {
	file, err := os.ReadFile(paths.GossipKey())
	if err != nil {
		return links, nil, fmt.Errorf("gossip key: %w", err)
	}
	keys, err := gossip.ParseKeys(file)
	if err != nil {
		return links, nil, err
	}
	var join []string
	for _, n := range t.Nodes {
		join = append(join, n.Gossip)
	}
	peerSocket := filepath.Join(paths.Node(f.node), "peer.sock")
	listener, err := peercred.Listen(peerSocket, log)
	if err != nil {
		return links, nil, err
	}
	var node *gossip.Node
	client := grpcpeer.NewClient(grpcpeer.ClientConfig{Resolve: func(name string) (string, bool) {
		if address, ok := node.PeerAddress(name); ok {
			return address, true
		}
		if node.Dead(name) {
			return "", false
		}
		// Not seen yet: gossip may be slower than the placement.
		return placedAt(engine, name)
	}})
	node, err = gossip.Start(gossip.Config{
		Node: f.node, Replica: engine.Replica(), Bind: f.gossip, PeerAddress: "unix:" + peerSocket, Join: join, Keys: keys,
		Engine: engine, Dialer: client, Logger: log, Metrics: registry,
	})
	if err != nil {
		client.Close()
		return links, nil, errors.Join(err, listener.Close())
	}
	peers := grpcpeer.NewServer(grpcpeer.ServerConfig{Accept: node.Accept, Peer: func() grpcpeer.Peer { return server.NewPeer() }, Logger: log})
	done := make(chan error, 1)
	go func() { done <- peers.Serve(listener) }()
	links = statestore.Links{Publisher: node, Forwarder: client, Peers: node.Peers}
	return links, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), handOverTimeout)
		defer cancel()
		err := node.HandOver(ctx)
		peers.Stop()
		client.Close()
		return errors.Join(err, <-done)
	}, nil
}

// placedAt finds a store that gossip does not know (yet) by the placement.
func placedAt(engine *statestore.Engine, node string) (string, bool) {
	for _, m := range engine.Configuration().GetPlacement().GetMembers() {
		if m.GetName() == node {
			return m.GetPeerAddress(), m.GetPeerAddress() != ""
		}
	}
	return "", false
}

func newCommitter(f storeFlags, t *mesh.Topology, registry prometheus.Registerer, log *slog.Logger) (*strong.Committer, func() error, error) {
	client, err := etcd.Dial(t.Etcd)
	if err != nil {
		return nil, nil, err
	}
	hostname, err := os.Hostname()
	if err != nil {
		return nil, nil, err
	}
	data, err := filepath.Abs(f.data)
	if err != nil {
		return nil, nil, err
	}
	c, err := strong.New(strong.Config{Node: f.node, Home: hostname + ":" + data, Etcd: client, Logger: log, Metrics: registry})
	if err != nil {
		return nil, nil, errors.Join(err, client.Close())
	}
	return c, func() error { return errors.Join(c.Close(), client.Close()) }, nil
}

// startProbe serves the probe; no address means no probe.
func startProbe(ctx context.Context, address string) (stop func() error, err error) {
	if address == "" {
		return func() error { return nil }, nil
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("probe: %w", err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = probe.Serve(ctx, l)
	}()
	return func() error { cancel(); <-done; return nil }, nil
}
