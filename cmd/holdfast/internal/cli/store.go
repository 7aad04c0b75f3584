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
	"github.com/spf13/cobra"

	"github.com/holdfast-mesh/holdfast/cmd/holdfast/internal/localmesh"
	"github.com/holdfast-mesh/holdfast/cmd/holdfast/internal/probe"
	"github.com/holdfast-mesh/holdfast/internal/etcd"
	"github.com/holdfast-mesh/holdfast/internal/mesh"
	"github.com/holdfast-mesh/holdfast/replication/strong"
	"github.com/holdfast-mesh/holdfast/statestore"
	"github.com/holdfast-mesh/holdfast/statestore/serve"
)

// handOverTimeout bounds what a store that ends takes to hand over what its peers lack. `up` waits longer before it kills.
const handOverTimeout = 8 * time.Second

type storeFlags struct{ node, data, runDir, gossip, probe string }

func newStore() *cobra.Command {
	var f storeFlags
	c := &cobra.Command{
		Use:     "store",
		GroupID: "process",
		Short:   "Run a node's state store",
		Long: `Runs the state store of one node of a local mesh. The run folder's mesh.json says where its sockets, its peers and etcd are;
types and placement come from the control plane.`,
		Example: `  holdfast store --node node-1 --data .holdfast/nodes/node-1/store --run-dir "$(readlink .holdfast/run)" --gossip 127.0.0.1:8201`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runStore(cmd.Context(), f, newLogger(cmd.ErrOrStderr()))
		},
	}
	fl := c.Flags()
	fl.StringVar(&f.node, "node", "", "the node's name (required)")
	fl.StringVar(&f.data, "data", "", "data directory (required)")
	fl.StringVar(&f.runDir, "run-dir", "", "the mesh's run folder with mesh.json (required)")
	fl.StringVar(&f.gossip, "gossip", "", "address for gossip, UDP and TCP (required)")
	fl.StringVar(&f.probe, "probe", "", "address for the service that holdfast check calls")
	for _, name := range []string{"node", "data", "run-dir", "gossip"} {
		_ = c.MarkFlagRequired(name)
	}
	return c
}

// runStore starts the store's parts, each before those that call it, and ends them the other way round.
func runStore(ctx context.Context, f storeFlags, log *slog.Logger) (err error) {
	paths := localmesh.Paths{Run: f.runDir}
	topology, err := mesh.Read(paths.Topology())
	if err != nil {
		return err
	}
	registry := newRegistry()
	var ends []func() error
	defer func() {
		for i := len(ends) - 1; i >= 0; i-- {
			err = errors.Join(err, ends[i]())
		}
	}()

	// 1. The engine replays its log. It has the data directory's lock from here on.
	engine, err := statestore.Open(statestore.Config{Node: f.node, Dir: f.data, Logger: log})
	if err != nil {
		return err
	}
	ends = append(ends, engine.Close)

	// 2. Strong entities.
	committer, closeStrong, err := newCommitter(f, topology, registry, log)
	if err != nil {
		return err
	}
	ends = append(ends, closeStrong)

	// 3. From here the engine calls others, and may be called.
	engine.Connect(statestore.Links{Committer: committer})
	server, err := serve.New(serve.Options{Engine: engine, Socket: filepath.Join(paths.Node(f.node), "store.sock"), Logger: log, Registerer: registry})
	if err != nil {
		return err
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve() }()
	ends = append(ends, server.Close)

	// 4. What looks at it from outside.
	stop, err := serveUnix(paths.StoreHTTPSocket(f.node), serve.HTTP(engine, registry), log)
	if err != nil {
		return err
	}
	ends = append(ends, func() error { stop(); return nil })
	stopProbe, err := startProbe(ctx, f.probe)
	if err != nil {
		return err
	}
	ends = append(ends, stopProbe)
	log.Info("store is up", "node", f.node)
	select {
	case <-ctx.Done():
		log.Info("store is stopping", "node", f.node)
		return nil
	case err := <-served:
		return fmt.Errorf("store's API ended: %w", err)
	}
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
