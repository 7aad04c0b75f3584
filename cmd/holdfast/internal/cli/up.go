package cli

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-mesh/holdfast/cmd/holdfast/internal/localmesh"
	"github.com/holdfast-mesh/holdfast/cmd/holdfast/internal/page"
	"github.com/holdfast-mesh/holdfast/internal/mesh"
	"github.com/holdfast-mesh/holdfast/replication/gossip"
)

// The variables that say where Envoy and the module are.
const (
	envoyVar     = "HOLDFAST_ENVOY"
	moduleDirVar = "HOLDFAST_MODULE_DIR"
	moduleFile   = "libholdfast.so"
)

// etcdWait is how long an etcd that others run has to answer.
const etcdWait = 10 * time.Second

type upFlags struct {
	file, dataDir    string
	nodes, portBase  int
	reset, headless  bool
	envoy, moduleDir string
	etcd             localmesh.EtcdOptions
}

func newUp() *cobra.Command {
	var f upFlags
	c := &cobra.Command{
		Use:     "up -f FILE",
		GroupID: "mesh",
		Short:   "Start a mesh on this machine and stay with it",
		Long: `Starts etcd, the control plane, a gateway Envoy and, for each node, an Envoy with the filter, a state store and a
replica of each workload of FILE's LocalMesh. What dies is started again with its data. Ctrl-C stops everything.

The gateway listens on 127.0.0.1:P (--port-base), node i's own ingress on P+i, the page that shows entities' replicas on
P+100; all else on Unix sockets or on ports above that. Data and logs are kept in --data-dir: a new or empty folder, or one that up has used before.`,
		Example: `  holdfast up -f holdfast.yaml
  holdfast up -f examples/demo/holdfast.yaml --nodes 6
  holdfast up -f holdfast.yaml --nodes 3 --etcd-members 3
  holdfast up -f holdfast.yaml --etcd-endpoints https://10.0.0.1:2379,https://10.0.0.2:2379,https://10.0.0.3:2379 \
    --etcd-ca ca.pem --etcd-user holdfast --etcd-password-file password --etcd-prefix /shop
  holdfast up -f holdfast.yaml --port-base 9080 --data-dir /var/tmp/mesh --headless`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runUp(cmd, f) },
	}
	fl := c.Flags()
	fl.StringVarP(&f.file, "file", "f", "", "configuration: StatefulService documents and a LocalMesh (required)")
	fl.IntVar(&f.nodes, "nodes", 1, "how many nodes to start with")
	fl.IntVar(&f.portBase, "port-base", 8080, "the gateway's port; node i's is this plus i")
	fl.BoolVar(&f.reset, "reset", false, "remove the data of earlier runs from --data-dir first")
	fl.BoolVar(&f.headless, "headless", false, "print plain lines instead of a live table, on a terminal too")
	fl.StringVar(&f.envoy, "envoy", "", "Envoy's binary (default: $"+envoyVar+", then beside holdfast, then PATH)")
	fl.StringVar(&f.moduleDir, "module-dir", "", "folder of "+moduleFile+" (default: $"+moduleDirVar+", then ../lib beside holdfast)")
	fl.StringSliceVar(&f.etcd.Endpoints, "etcd-endpoints", nil, "use this etcd and start none: URLs of its members")
	fl.StringVar(&f.etcd.Access.CA, "etcd-ca", "", "CA of that etcd's certificates, in PEM")
	fl.StringVar(&f.etcd.Access.Cert, "etcd-cert", "", "certificate that is shown to that etcd, in PEM")
	fl.StringVar(&f.etcd.Access.Key, "etcd-key", "", "key of --etcd-cert, in PEM")
	fl.StringVar(&f.etcd.Access.User, "etcd-user", "", "user to log in as at that etcd")
	fl.StringVar(&f.etcd.Access.PasswordFile, "etcd-password-file", "", "file whose first line is that user's password")
	fl.StringVar(&f.etcd.Access.Prefix, "etcd-prefix", "", "put this before all keys in that etcd: meshes that share one need different ones")
	fl.IntVar(&f.etcd.Members, "etcd-members", 0, "start an etcd of 1, 3 or 5 members; 3 and 5 talk by TLS (default 1)")
	fl.Int64Var(&f.etcd.QuotaBytes, "etcd-quota-bytes", 0, "how large the file of each member of the mesh's own etcd may become (default 2 GiB)")
	dataDirFlag(c, &f.dataDir)
	_ = c.MarkFlagRequired("file")
	_ = c.MarkFlagFilename("file", "yaml", "yml")
	return c
}

func runUp(cmd *cobra.Command, f upFlags) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this binary: %w", err)
	}
	envoy, err := findEnvoy(f.envoy, self)
	if err != nil {
		return err
	}
	moduleDir, err := findModule(f.moduleDir, self)
	if err != nil {
		return err
	}
	if err := checkEtcd(cmd.Context(), &f.etcd); err != nil {
		return err
	}
	out := cmd.OutOrStdout()
	display := newDisplay(out, f.headless)
	m, err := localmesh.New(localmesh.Options{
		File: f.file, Nodes: f.nodes, PortBase: f.portBase, DataDir: f.dataDir, Reset: f.reset, Etcd: f.etcd,
		Executable: self, Envoy: envoy, ModuleDir: moduleDir, NewGossipKey: gossip.NewKeyFile, Progress: display.line,
		Logger: slog.New(display.handler()),
		Page:   func(m *localmesh.Mesh, address, token string) http.Handler { return page.Handler(address, token, m) },
	})
	if err != nil {
		return err
	}
	display.start(m.Status)
	ctx := cmd.Context()
	err = m.Start(ctx)
	if err == nil {
		display.line(addresses(m.Status()))
		<-ctx.Done()
	}
	interrupted := ctx.Err() != nil
	display.line("stopping")
	forceOnSecondSignal()
	m.Close()
	display.stop()
	if interrupted {
		return nil // Asked to stop, also while still starting.
	}
	return err
}

// checkEtcd makes the files of an etcd that others run absolute, and says what is wrong where it can't be reached.
func checkEtcd(ctx context.Context, o *localmesh.EtcdOptions) error {
	if len(o.Endpoints) == 0 {
		return nil
	}
	for _, file := range []*string{&o.Access.CA, &o.Access.Cert, &o.Access.Key, &o.Access.PasswordFile} {
		if *file == "" {
			continue
		}
		abs, err := filepath.Abs(*file)
		if err != nil {
			return fmt.Errorf("etcd: %w", err)
		}
		*file = abs
	}
	client, err := dialEtcd(&mesh.Topology{Etcd: o.Endpoints, EtcdAccess: &o.Access}, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer client.Close()
	if err := waitEtcd(ctx, client); err != nil {
		return fmt.Errorf("--etcd-endpoints: %w", err)
	}
	// What its user may not read it may not write either.
	if _, err := client.Get(ctx, placementKey); err != nil {
		return fmt.Errorf("--etcd-endpoints: %w: may the user read and write what begins with %s/holdfast/?", err, o.Access.Prefix)
	}
	return nil
}

// forceOnSecondSignal ends this process at once when it is told to stop again; the guard then ends the others.
func forceOnSecondSignal() {
	again := make(chan os.Signal, 1)
	signal.Notify(again, os.Interrupt, syscall.SIGTERM)
	go func() {
		// The first signal may be delivered to this channel as well only if it comes after Notify: any here is a second.
		<-again
		os.Exit(exitFailed)
	}()
}

// findEnvoy returns Envoy's binary: what the user named, or the first that is there.
func findEnvoy(flag, self string) (string, error) {
	for _, named := range []string{flag, os.Getenv(envoyVar)} {
		if named != "" {
			path, err := exec.LookPath(named)
			if err != nil {
				return "", fmt.Errorf("can't run %s as Envoy: %w", named, err)
			}
			return filepath.Abs(path)
		}
	}
	beside := filepath.Join(filepath.Dir(self), "envoy")
	if _, err := os.Stat(beside); err == nil {
		return beside, nil
	}
	if path, err := exec.LookPath("envoy"); err == nil {
		return filepath.Abs(path)
	}
	return "", fmt.Errorf("no Envoy found: run `make build`, which puts Envoy 1.39.3 beside this binary, or name one with --envoy or %s", envoyVar)
}

// findModule returns the folder of the filter module.
func findModule(flag, self string) (string, error) {
	for _, named := range []string{flag, os.Getenv(moduleDirVar)} {
		if named != "" {
			if _, err := os.Stat(filepath.Join(named, moduleFile)); err != nil {
				return "", fmt.Errorf("no filter module in %s: %w", named, err)
			}
			return filepath.Abs(named)
		}
	}
	for _, dir := range []string{filepath.Join(filepath.Dir(self), "..", "lib"), filepath.Dir(self)} {
		if _, err := os.Stat(filepath.Join(dir, moduleFile)); err == nil {
			return filepath.Abs(dir)
		}
	}
	return "", fmt.Errorf("the filter module %s is not beside this binary: run `make build`, or name its folder with --module-dir or %s", moduleFile, moduleDirVar)
}
