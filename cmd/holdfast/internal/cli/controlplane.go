package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/holdfast-mesh/holdfast/cmd/holdfast/internal/localmesh"
	"github.com/holdfast-mesh/holdfast/cmd/holdfast/internal/probe"
	"github.com/holdfast-mesh/holdfast/controlplane"
	"github.com/holdfast-mesh/holdfast/filter"
	"github.com/holdfast-mesh/holdfast/filter/stateclient"
	"github.com/holdfast-mesh/holdfast/internal/etcd"
	"github.com/holdfast-mesh/holdfast/internal/mesh"
	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
)

func newControlPlane() *cobra.Command {
	var file, data, runDir string
	c := &cobra.Command{
		Use:     "controlplane",
		GroupID: "process",
		Short:   "Run the control plane: configuration in, xDS and placement out",
		Example: `  holdfast controlplane --file holdfast.yaml --data .holdfast/controlplane --run-dir "$(readlink .holdfast/run)"`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runControlPlane(cmd.Context(), file, data, localmesh.Paths{Run: runDir}, newLogger(cmd.ErrOrStderr()))
		},
	}
	f := c.Flags()
	f.StringVar(&file, "file", "", "configuration (required)")
	f.StringVar(&data, "data", "", "data directory (required)")
	f.StringVar(&runDir, "run-dir", "", "the mesh's run folder with mesh.json (required)")
	for _, name := range []string{"file", "data", "run-dir"} {
		_ = c.MarkFlagRequired(name)
	}
	return c
}

func runControlPlane(ctx context.Context, file, data string, paths localmesh.Paths, log *slog.Logger) error {
	topology, err := mesh.Read(paths.Topology())
	if err != nil {
		return err
	}
	builtIn, err := probe.Config()
	if err != nil {
		return err
	}
	client, err := dialEtcd(topology, nil, log)
	if err != nil {
		return err
	}
	defer client.Close()
	// Stores come and go; one of the mesh's processes makes room in its own etcd's files.
	own := topology.EtcdAccess == nil || !topology.EtcdAccess.External
	defer keepEtcd(client, etcd.KeepConfig{Name: "control plane", Own: own})()
	stores := &storeClients{clients: map[string]*stateclient.Client{}}
	defer stores.close()
	return controlplane.Run(ctx, controlplane.Config{
		File: file, Topology: paths.Topology(), XDSSocket: paths.XDSSocket(), AdminSocket: paths.AdminSocket(), StateDir: data,
		Placements: placements{client}, Stores: stores, BuiltIn: builtIn, Log: log,
		CheckFilter: func(raw []byte) error { _, err := filter.ParseConfig(raw); return err },
	})
}

// placementKey is where etcd has the placement.
const placementKey = "/holdfast/placement"

// placements keeps the placement in etcd.
type placements struct{ client *etcd.Client }

func (p placements) Load(ctx context.Context) (*configv1.Placement, int64, error) {
	kv, err := p.client.Get(ctx, placementKey)
	if err != nil || kv.ModRev == 0 {
		return nil, 0, err
	}
	out := &configv1.Placement{}
	if err := proto.Unmarshal(kv.Value, out); err != nil {
		return nil, 0, fmt.Errorf("placement in etcd: %w", err)
	}
	return out, kv.ModRev, nil
}

func (p placements) Save(ctx context.Context, placement *configv1.Placement, revision int64) (int64, error) {
	value, err := proto.Marshal(placement)
	if err != nil {
		return 0, err
	}
	r, err := p.client.Txn(ctx, []etcd.Guard{etcd.ModifiedAt(placementKey, revision)}, []etcd.Op{etcd.Put(placementKey, value, 0)}, nil)
	switch {
	case err != nil:
		return 0, err
	case !r.Held:
		return 0, controlplane.ErrConflict
	}
	return r.Rev, nil
}

// storeClients keeps a client for each store that the control plane calls.
type storeClients struct {
	// mu guards clients; nil once closed.
	mu sync.Mutex
	// +checklocks:mu
	clients map[string]*stateclient.Client
}

func (s *storeClients) Call(ctx context.Context, socket string, req *storev1.Request) (*storev1.Response, error) {
	s.mu.Lock()
	if s.clients == nil {
		s.mu.Unlock()
		return nil, errors.New("the control plane is stopping")
	}
	c := s.clients[socket]
	if c == nil {
		c = stateclient.New(socket, stateclient.Options{})
		s.clients[socket] = c
	}
	s.mu.Unlock()
	return c.Call(ctx, req)
}

func (s *storeClients) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.clients {
		c.Close()
	}
	s.clients = nil
}
