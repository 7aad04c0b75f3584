package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-mesh/holdfast/cmd/holdfast/internal/localmesh"
	"github.com/holdfast-mesh/holdfast/internal/mesh"
	"github.com/holdfast-mesh/holdfast/statestore"
	"github.com/holdfast-mesh/holdfast/statestore/serve"
)

// diskLook is how often a store whose disk failed looks whether it is back.
const diskLook = time.Second

type storeFlags struct {
	node, data, runDir, gossip, peer, probe string
	faults                                  bool
}

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
	fl.StringVar(&f.peer, "peer", "", "address for other stores: host:port, by TLS with the run folder's certificates, or unix:/path (default: the run folder's peer.sock)")
	fl.BoolVar(&f.faults, "faults", false, "take orders to cut itself off from other stores (see holdfast fault)")
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

	// 3. The API exists before anybody is told of it; who calls meanwhile waits in the socket's queue.
	socket := filepath.Join(paths.Node(f.node), "store.sock")
	server, err := serve.New(serve.Options{Engine: engine, Socket: socket, Logger: log, Registerer: registry})
	if err != nil {
		return err
	}
	ends = append(ends, server.Close)

	// 4. The other stores, and with them all that the engine calls.
	peers, err := joinPeers(f, paths, topology, engine, server, registry, log)
	if err != nil {
		return err
	}
	links := peers.links()
	links.Committer = committer
	engine.Connect(links)
	served := make(chan error, 1)
	go func() { served <- server.Serve() }()
	// The end: the API, so that what is handed over is the last word; the claims, so that others own this store's slots
	// while it hands over; the other stores.
	ends = append(ends[:1], peers.close, closeStrong, server.Close)

	// 5. What reads it from outside, and what looks at it.
	stopEvents, err := serveEventLog(mesh.EventLogSocket(socket), engine, log)
	if err != nil {
		return err
	}
	ends = append(ends, stopEvents)
	stop, err := serveUnix(paths.StoreHTTPSocket(f.node), peers.http(serve.HTTP(engine, registry)), log)
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
	look := time.NewTicker(diskLook)
	defer look.Stop()
	heap := newHeapTuner()
	for {
		heap.tune()
		select {
		case <-ctx.Done():
			log.Info("store is stopping", "node", f.node)
			return nil
		case err := <-served:
			return fmt.Errorf("store's API ended: %w", err)
		case <-look.C:
			// Nothing to do while the disk is well. Until it is again, reads are answered and writes refused; the status says why.
			_ = engine.Recover(ctx)
		}
	}
}
