package localmesh

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/holdfast-mesh/holdfast/cmd/holdfast/internal/probe"
	"github.com/holdfast-mesh/holdfast/controlplane/api/v1alpha1"
	"github.com/holdfast-mesh/holdfast/internal/mesh"
	"github.com/holdfast-mesh/holdfast/internal/supervise"
	"github.com/holdfast-mesh/holdfast/xds/bootstrap"
)

// The names of the processes that are there once. Of several members of etcd each has a number. A node's are "node-1/envoy", "node-1/store" and "node-1/<workload>".
const (
	etcdName         = "etcd"
	controlPlaneName = "controlplane"
	gatewayName      = "gateway"
)

// threads bounds the Go threads of each of our processes: dozens of them share the machine.
func threads() string { return fmt.Sprintf("GOMAXPROCS=%d", min(maxThreads, runtime.NumCPU())) }

// self is a process that runs this binary.
func (m *Mesh) self(name string, args ...string) supervise.Spec {
	return supervise.Spec{
		Name: name, Command: append([]string{m.opts.Executable}, args...), Log: m.paths.Log(name),
		ReadyTimeout: readyTimeout, StopTimeout: stopTimeout, Env: []string{threads()},
	}
}

func (m *Mesh) controlPlaneSpec() supervise.Spec {
	s := m.self(controlPlaneName, "controlplane", "--file", m.opts.File, "--data", filepath.Join(m.paths.Data, "controlplane"), "--run-dir", m.paths.Run)
	s.Env = append(s.Env, controlPlaneMemory)
	s.Ready = readyz(m.paths.AdminSocket())
	return s
}

func (m *Mesh) storeSpec(n *mesh.Node) supervise.Spec {
	s := m.self(n.Name+"/store", "store", "--node", n.Name, "--data", m.paths.StoreData(n.Name), "--run-dir", m.paths.Run, "--gossip", n.Gossip, "--peer", n.Peer, "--probe", n.Services[probe.Workload], "--faults")
	s.Env = append(s.Env, storeMemory)
	s.Ready = readyz(m.paths.StoreHTTPSocket(n.Name))
	s.StopTimeout = storeStopTimeout
	return s
}

// envoySpec is the gateway's Envoy or a node's. Its bootstrap file is written before each start.
func (m *Mesh) envoySpec(process, node, adminSocket, address string) supervise.Spec {
	file := filepath.Join(m.paths.Node(node), "bootstrap.json")
	return supervise.Spec{
		Name: process,
		// One worker: many Envoys share the machine. Hot restart would need an id of its own for each.
		Command: []string{m.opts.Envoy, "-c", file, "--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"},
		// Without cgocheck=0 Envoy aborts when it loads a module in Go.
		Env: []string{
			"GODEBUG=cgocheck=0", "ENVOY_DYNAMIC_MODULES_SEARCH_PATH=" + m.opts.ModuleDir, moduleMemory, moduleGC, threads(),
		},
		Log: m.paths.Log(process), ReadyTimeout: readyTimeout, StopTimeout: stopTimeout,
		Prepare: func() error {
			if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
				return fmt.Errorf("bootstrap: %w", err)
			}
			config, err := bootstrap.JSON(bootstrap.Config{NodeName: node, XDSSocket: m.paths.XDSSocket(), AdminSocket: adminSocket})
			if err != nil {
				return err
			}
			if err := os.Remove(adminSocket); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("old admin socket: %w", err)
			}
			return os.WriteFile(file, config, 0o600)
		},
		Ready: func(ctx context.Context) error {
			if err := EnvoyReady(ctx, adminSocket); err != nil {
				return err
			}
			return Listens(ctx, address)
		},
		Explain: explainEnvoy,
	}
}

// workloadSpec is one replica of a user's service.
func (m *Mesh) workloadSpec(w *v1alpha1.Workload, node, address string) supervise.Spec {
	listenHost, port, _ := net.SplitHostPort(address)
	env := []string{"HOST=" + listenHost, "PORT=" + port, "HOLDFAST_NODE=" + node}
	for _, k := range sortedKeys(w.Env) {
		env = append(env, k+"="+w.Env[k])
	}
	command := slices.Clone(w.Command)
	if strings.Contains(command[0], "/") && !filepath.IsAbs(command[0]) {
		command[0] = filepath.Join(m.dir, command[0])
	}
	name := node + "/" + w.Name
	return supervise.Spec{
		Name: name, Command: command, Dir: m.dir, Env: env, Log: m.paths.Log(name),
		ReadyTimeout: serviceTimeout, StopTimeout: stopTimeout,
		Ready: func(ctx context.Context) error {
			if err := Listens(ctx, address); err != nil {
				return fmt.Errorf("%w (a workload must listen at $HOST:$PORT)", err)
			}
			return nil
		},
	}
}

// explainEnvoy knows the common reasons in Envoy's log.
func explainEnvoy(tail string) string {
	switch {
	case strings.Contains(tail, "unpinned Go pointer"):
		return "The filter module needs GODEBUG=cgocheck=0 in Envoy's environment; holdfast sets it: does a wrapper script around Envoy remove it?"
	case strings.Contains(tail, "Failed to load dynamic module"), strings.Contains(tail, "dynamic module"):
		return "Envoy could not load the filter module libholdfast.so: build it with `make build`, or name its folder with HOLDFAST_MODULE_DIR."
	case strings.Contains(tail, "Address already in use"):
		return "Another program listens on one of this Envoy's ports: stop it, or choose other ports with --port-base."
	case strings.Contains(tail, "GLIBC"):
		return "This Envoy binary does not run with this machine's C library: name another one with HOLDFAST_ENVOY."
	case strings.Contains(tail, "Too many open files"):
		return "Envoy needs more open files: raise the limit with `ulimit -n 65536`."
	}
	return ""
}
