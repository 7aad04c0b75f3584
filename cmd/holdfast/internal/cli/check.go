package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-mesh/holdfast/cmd/holdfast/internal/localmesh"
	"github.com/holdfast-mesh/holdfast/cmd/holdfast/internal/probe"
	"github.com/holdfast-mesh/holdfast/filter/stateclient"
	"github.com/holdfast-mesh/holdfast/internal/mesh"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
)

const (
	// checkTimeout bounds each single check.
	checkTimeout = 5 * time.Second
	// seenPoll is the pause between two reads while a write is on its way to the other node.
	seenPoll = 2 * time.Millisecond
)

// finding is one line of a check.
type finding struct {
	Group  string `json:"group"`
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail,omitempty"`
}

// checker goes over the parts, those first on which the others depend.
type checker struct {
	client   localmesh.Client
	findings []finding
	group    string
}

func newCheck() *cobra.Command {
	var dataDir string
	var output format
	c := &cobra.Command{
		Use:     "check",
		GroupID: "look",
		Short:   "Check every part, with a real write and read through two nodes",
		Long: `Asks every process of the mesh whether it is well, then adds one to a counter of Holdfast's own through one node and reads it
through another: through Envoy, filter, store and replication, as a caller would. Your services' state is not touched.
The exit code is 1 when something is wrong.`,
		Example: `  holdfast check
  holdfast check -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := clientFor(dataDir)
			if err != nil {
				return err
			}
			k := &checker{client: client}
			if err := k.all(cmd.Context()); err != nil {
				return err
			}
			return k.print(cmd.OutOrStdout(), output)
		},
	}
	dataDirFlag(c, &dataDir)
	outputFlag(c, &output)
	return c
}

// check runs one check and notes what it found.
func (k *checker) check(ctx context.Context, name string, f func(ctx context.Context) (detail string, err error)) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	detail, err := f(ctx)
	if err != nil {
		detail = err.Error()
	}
	k.findings = append(k.findings, finding{Group: k.group, Name: name, OK: err == nil, Detail: detail})
}

func (k *checker) readyz(ctx context.Context, name, socket string) {
	k.check(ctx, name, func(ctx context.Context) (string, error) {
		_, err := k.client.Get(ctx, socket, "/readyz")
		return "", err
	})
}

func (k *checker) all(ctx context.Context) error {
	s, err := k.client.Status(ctx)
	if err != nil {
		return err
	}
	topology, err := mesh.Read(k.client.Paths.Topology())
	if err != nil {
		return err
	}
	k.controlPlane(ctx, s)
	k.group = "gateway"
	k.envoy(ctx, s.Gateway.Processes["envoy"], topology.Gateway.AdminSocket, topology.Gateway.Address)
	for _, name := range sortedKeys(topology.GatewayWorkloads) {
		k.listens(ctx, name, topology.GatewayWorkloads[name])
	}
	for i := range topology.Nodes {
		k.node(ctx, s, topology, &topology.Nodes[i])
	}
	k.state(ctx, topology)
	return nil
}

func (k *checker) controlPlane(ctx context.Context, s *localmesh.Status) {
	k.group = "control"
	k.check(ctx, "everything was started", func(context.Context) (string, error) {
		if !s.Ready {
			return "", fmt.Errorf("the mesh is still starting")
		}
		return fmt.Sprintf("by holdfast up, pid %d", s.UpPID), nil
	})
	for _, name := range sortedKeys(s.EtcdProcesses()) {
		if s.Etcd.State != localmesh.External {
			k.readyz(ctx, name+" answers", k.client.Paths.EtcdHTTPSocket(name))
		}
	}
	k.readyz(ctx, "control plane answers", k.client.Paths.AdminSocket())
	k.check(ctx, "configuration was accepted", func(ctx context.Context) (string, error) {
		var c localmesh.Configuration
		if err := k.client.Admin(ctx, http.MethodGet, "/v1/config", nil, &c); err != nil {
			return "", err
		}
		if c.Error != "" {
			return "", fmt.Errorf("refused, the last good one stays: %s", c.Error)
		}
		if t := c.Troubles(); len(t) > 0 {
			return "", errors.New(strings.Join(t, "; "))
		}
		return "", nil
	})
	k.check(ctx, "every Envoy has its configuration", func(ctx context.Context) (string, error) {
		var list localmesh.ProxyList
		if err := k.client.Admin(ctx, http.MethodGet, "/v1/proxies", nil, &list); err != nil {
			return "", err
		}
		want := len(s.Nodes) + 1
		if what := list.Behind(want); what != "" {
			return "", errors.New(what)
		}
		return fmt.Sprintf("%d connected", want), nil
	})
}

func (k *checker) envoy(ctx context.Context, p localmesh.ProcessStatus, admin, address string) {
	k.check(ctx, "Envoy answers", func(ctx context.Context) (string, error) {
		if err := localmesh.EnvoyReady(ctx, admin); err != nil {
			return "", fmt.Errorf("%w; see %s", err, p.Log)
		}
		return address, localmesh.Listens(ctx, address)
	})
}

func (k *checker) listens(ctx context.Context, name, address string) {
	k.check(ctx, name+" listens", func(ctx context.Context) (string, error) {
		return address, localmesh.Listens(ctx, address)
	})
}

func (k *checker) node(ctx context.Context, s *localmesh.Status, t *mesh.Topology, n *mesh.Node) {
	k.group = n.Name
	for _, ns := range s.Nodes {
		if ns.Name == n.Name {
			k.envoy(ctx, ns.Processes["envoy"], n.AdminSocket, n.Ingress)
		}
	}
	k.readyz(ctx, "store is ready", k.client.Paths.StoreHTTPSocket(n.Name))
	for _, name := range sortedKeys(n.Services) {
		if name != probe.Workload {
			k.listens(ctx, name, n.Services[name])
		}
	}
	var st *storev1.StoreStatus
	k.check(ctx, "store's disk and etcd", func(ctx context.Context) (_ string, err error) {
		st, err = storeStatus(ctx, n.StoreSocket)
		if err != nil {
			return "", err
		}
		if st.GetDisk() != "ok" || st.GetEtcd() != "ok" {
			return "", fmt.Errorf("disk: %s, etcd: %s", st.GetDisk(), st.GetEtcd())
		}
		return fmt.Sprintf("%d entities in memory", st.GetEntities()), nil
	})
	if others := len(t.Nodes) - 1; others > 0 {
		k.check(ctx, "store sees the others", func(context.Context) (string, error) {
			var seen []string
			for _, p := range st.GetPeers() {
				if p.GetConnected() {
					seen = append(seen, p.GetName())
				}
			}
			for _, o := range t.Nodes {
				if o.Name != n.Name && !slices.Contains(seen, o.Name) {
					return "", fmt.Errorf("no stream to %s; it sees %s", o.Name, strings.Join(seen, ", "))
				}
			}
			return fmt.Sprintf("%d of %d", others, others), nil
		})
	}
}

func storeStatus(ctx context.Context, socket string) (*storev1.StoreStatus, error) {
	c := stateclient.New(socket, stateclient.Options{})
	defer c.Close()
	// The client connects in the background, and refuses calls until it has.
	for {
		resp, err := c.Call(ctx, &storev1.Request{Call: &storev1.Request_GetStatus{GetStatus: &storev1.GetStatus{}}})
		if err == nil {
			return resp.GetStatus(), nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("store does not answer: %w", err)
		case <-time.After(seenPoll):
		}
	}
}

// state writes through the first node and reads through the last.
func (k *checker) state(ctx context.Context, t *mesh.Topology) {
	k.group = "state"
	if len(t.Nodes) == 0 {
		return
	}
	first, last := t.Nodes[0], t.Nodes[len(t.Nodes)-1]
	var count uint64
	k.check(ctx, "write through "+first.Name, func(ctx context.Context) (string, error) {
		start := time.Now()
		n, err := callProbe(ctx, first.Ingress, (*probe.Client).Touch)
		count = n
		return fmt.Sprintf("count %d, %s", n, since(start)), err
	})
	written := time.Now()
	k.check(ctx, "read through "+last.Name, func(ctx context.Context) (string, error) {
		c, err := probe.NewClient(last.Ingress)
		if err != nil {
			return "", err
		}
		defer c.Close()
		for {
			n, err := c.Read(ctx)
			if err == nil && n >= count {
				return fmt.Sprintf("count %d, seen after %s", n, since(written)), nil
			}
			select {
			case <-ctx.Done():
				return "", fmt.Errorf("saw %d, want at least %d: %v", n, count, err)
			case <-time.After(seenPoll):
			}
		}
	})
	k.check(ctx, "read through the gateway", func(ctx context.Context) (string, error) {
		n, err := callProbe(ctx, t.Gateway.Address, (*probe.Client).Read)
		return fmt.Sprintf("count %d", n), err
	})
}

func callProbe(ctx context.Context, address string, call func(*probe.Client, context.Context) (uint64, error)) (uint64, error) {
	c, err := probe.NewClient(address)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	return call(c, ctx)
}

func since(t time.Time) time.Duration { return time.Since(t).Round(100 * time.Microsecond) }

func (k *checker) print(w io.Writer, output format) error {
	ok := !slices.ContainsFunc(k.findings, func(f finding) bool { return !f.OK })
	if output == "json" {
		if err := printJSON(w, map[string]any{"ok": ok, "checks": k.findings}); err != nil {
			return err
		}
	} else {
		k.printTable(w)
	}
	if !ok {
		return errSilent
	}
	return nil
}

func (k *checker) printTable(w io.Writer) {
	group, bad := "", 0
	for _, f := range k.findings {
		if f.Group != group {
			group = f.Group
			fmt.Fprintln(w, group)
		}
		mark := "✓"
		if !f.OK {
			mark = "✗"
			bad++
		}
		line := fmt.Sprintf("  %s %s", mark, f.Name)
		if f.Detail != "" {
			line += ": " + f.Detail
		}
		fmt.Fprintln(w, line)
	}
	if bad == 0 {
		fmt.Fprintf(w, "\nAll %d checks passed.\n", len(k.findings))
		return
	}
	fmt.Fprintf(w, "\n%d of %d checks failed.\n", bad, len(k.findings))
}
