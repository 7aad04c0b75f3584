package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/holdfast-mesh/holdfast/cmd/holdfast/internal/probe"
	"github.com/holdfast-mesh/holdfast/internal/etcd"
	"github.com/holdfast-mesh/holdfast/internal/mesh"
	"github.com/holdfast-mesh/holdfast/replication/strong"
	"github.com/holdfast-mesh/holdfast/statestore"
)

// placedAt finds a store that gossip does not know (yet) by the placement.
func placedAt(engine *statestore.Engine, node string) (string, bool) {
	for _, m := range engine.Configuration().GetPlacement().GetMembers() {
		if m.GetName() == node {
			return m.GetPeerAddress(), m.GetPeerAddress() != ""
		}
	}
	return "", false
}

// dialEtcd makes a client for the mesh's etcd.
func dialEtcd(t *mesh.Topology, registry prometheus.Registerer, log *slog.Logger) (*etcd.Client, error) {
	cfg := etcd.ClientConfig{Endpoints: t.Etcd, Logger: log, Metrics: registry}
	if a := t.EtcdAccess; a != nil {
		cfg.TLS = etcd.TLS{CA: a.CA, Cert: a.Cert, Key: a.Key}
		cfg.User, cfg.PasswordFile, cfg.Prefix = a.User, a.PasswordFile, a.Prefix
	}
	return etcd.Dial(cfg)
}

func newCommitter(f storeFlags, t *mesh.Topology, registry prometheus.Registerer, log *slog.Logger) (*strong.Committer, func() error, error) {
	client, err := dialEtcd(t, registry, log)
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
	c, err := strong.New(strong.Config{Node: f.node, Home: hostname + ":" + data, Etcd: client, Admit: client.Room, Logger: log, Metrics: registry})
	if err != nil {
		return nil, nil, errors.Join(err, client.Close())
	}
	endKeep := keepEtcd(client, etcd.KeepConfig{Name: f.node})
	return c, func() error {
		endKeep()
		return errors.Join(c.Close(), client.Close())
	}, nil
}

// keepEtcd looks after etcd's history and its quota until it is told to end.
func keepEtcd(client *etcd.Client, cfg etcd.KeepConfig) (end func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		client.Keep(ctx, cfg)
	}()
	return func() {
		cancel()
		<-done
	}
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
