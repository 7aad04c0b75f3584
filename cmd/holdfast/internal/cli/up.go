package cli

import (
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/holdfast-mesh/holdfast/cmd/holdfast/internal/localmesh"
	"github.com/holdfast-mesh/holdfast/cmd/holdfast/internal/page"
	"github.com/holdfast-mesh/holdfast/replication/gossip"
)

// The variables that say where Envoy and the module are.
const (
	envoyVar     = "HOLDFAST_ENVOY"
	moduleDirVar = "HOLDFAST_MODULE_DIR"
	moduleFile   = "libholdfast.so"
)

type upFlags struct {
	file, dataDir    string
	nodes, portBase  int
	reset, headless  bool
	envoy, moduleDir string
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
	out := cmd.OutOrStdout()
	display := newDisplay(out, f.headless)
	m, err := localmesh.New(localmesh.Options{
		File: f.file, Nodes: f.nodes, PortBase: f.portBase, DataDir: f.dataDir, Reset: f.reset,
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
