package linear

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast-mesh/holdfast/e2e/rig"
	"github.com/holdfast-mesh/holdfast/e2e/rig/links"
	"github.com/holdfast-mesh/holdfast/e2e/rig/members"
)

const (
	nodeCount   = 3
	memberCount = 3
	// logLines is how much of each log a failed test shows.
	logLines = 15
	// allLines is as much of each log as is searched.
	allLines = 100_000
	// setUpWait bounds how long a mesh may take until its registers can be read everywhere.
	setUpWait = 60 * time.Second
)

// disgrace in a log is what no fault excuses, with the lines after it.
var disgrace = regexp.MustCompile(`(?m)^(?:panic: |fatal error: |WARNING: DATA RACE)(?:.*\n?){1,40}`)

const configuration = `apiVersion: holdfast.dev/v1alpha1
kind: StatefulService
metadata: {name: registers}
spec:
  service: register.v1.Registers
  descriptors: {reflection: true}
  mode: commit
  entity:
    type: test.Register
    key: {option: true}
    model: {value: {}}
    consistency: strong
    carriage: {metadata: {encoding: proto}}
    maxStateBytes: 1024
  workloadRef: {kind: Local, name: registers}
---
apiVersion: holdfast.dev/v1alpha1
kind: StatefulService
metadata: {name: counters}
spec:
  service: register.v1.Counters
  descriptors: {reflection: true}
  mode: commit
  entity:
    type: test.Counter
    key: {option: true}
    model: {gcounter: {}}
    consistency: eventual
    write: LOCAL
    affinity: local
    replicas: all
    carriage: {metadata: {encoding: proto}}
    maxStateBytes: 4096
  workloadRef: {kind: Local, name: registers}
---
apiVersion: holdfast.dev/v1alpha1
kind: LocalMesh
metadata: {name: registers}
spec:
  workloads:
  - name: registers
    command: [%s]
    env: {%s: "1"}
`

// world is a mesh with registers on an etcd cluster whose links can be cut.
type world struct {
	*rig.Mesh
	etcd *members.Cluster
	net  *links.Net
}

// newWorld starts one for this test alone. Env is added to the environment of the mesh's processes.
func newWorld(t *testing.T, env ...string) *world {
	t.Helper()
	w, err := startWorld(t.Context(), t.TempDir(), env)
	if err != nil {
		t.Fatalf("no mesh: %v", err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the end of each log:\n%s\n%s", w.Logs(logLines), w.etcd.Logs())
		}
		if problem := disgrace.FindString(w.Logs(allLines)); problem != "" {
			t.Errorf("a log has this:\n%s", problem)
		}
		if err := w.close(); err != nil {
			t.Errorf("taking the mesh down: %v", err)
		}
	})
	return w
}

func startWorld(ctx context.Context, folder string, env []string) (w *world, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	config := filepath.Join(folder, "holdfast.yaml")
	if err := os.WriteFile(config, fmt.Appendf(nil, configuration, self, serveVariable), 0o600); err != nil {
		return nil, err
	}
	base := *root
	if base == "" {
		if base, err = rig.Root(); err != nil {
			return nil, err
		}
	}
	w = &world{}
	// The links name who connects to etcd; there is nobody but its members before there is a mesh.
	var etcd atomic.Pointer[members.Cluster]
	var mesh atomic.Pointer[rig.Mesh]
	w.net = links.New(func(port int) string { return whose(etcd.Load(), mesh.Load(), port) })
	w.etcd, err = members.Start(ctx, members.Options{
		Count: memberCount, Binary: filepath.Join(base, "bin/holdfast"), Links: w.net, Starting: etcd.Store,
	})
	if err != nil {
		w.net.Close()
		return nil, err
	}
	w.Mesh, err = rig.New(rig.Options{
		Nodes: nodeCount, Config: config, Root: base, Env: env, Args: []string{"--etcd-endpoints", strings.Join(w.etcd.Endpoints(), ",")},
	})
	if err == nil {
		mesh.Store(w.Mesh)
		err = w.Up(ctx)
	}
	if err == nil {
		err = w.settled(ctx)
	}
	if err != nil {
		logs := ""
		if w.Mesh != nil {
			logs = w.Logs(logLines)
		}
		return nil, errors.Join(fmt.Errorf("%w\n%s", err, logs), w.close())
	}
	return w, nil
}

// settled waits until a register can be read at every address.
func (w *world) settled(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, setUpWait)
	defer cancel()
	return rig.Poll(ctx, func() error {
		for _, address := range w.addresses() {
			r, err := w.Get(address, "/v1/registers/ready")
			if err != nil {
				return err
			}
			if r.Status != 200 {
				return fmt.Errorf("read at %s: %d %s", address, r.Status, r.Body)
			}
		}
		return nil
	})
}

// addresses are where callers call: the gateway and each node's ingress.
func (w *world) addresses() []string { return append([]string{w.Gateway()}, w.Ingresses()...) }

func (w *world) close() error {
	var problem error
	if w.Mesh != nil {
		problem = w.Mesh.Close()
	}
	problem = errors.Join(problem, w.etcd.Close())
	w.net.Close()
	return problem
}

// whose names the process that has the socket: a member, a node for its store, or "other".
func whose(etcd *members.Cluster, mesh *rig.Mesh, port int) string {
	var names []string
	var pids []int
	if etcd != nil {
		names, pids = etcd.Names(), etcd.PIDs()
	}
	if mesh != nil {
		for _, p := range mesh.Processes() {
			if node := storeOf(p.Command); node != "" {
				names, pids = append(names, node), append(pids, p.PID)
			}
		}
	}
	if i := links.Owner(port, pids); i >= 0 {
		return names[i]
	}
	return "other"
}

// storeOf is the node whose store this command line is, "" where it is none.
func storeOf(command string) string {
	words := strings.Fields(command)
	if len(words) < 2 || words[1] != "store" {
		return ""
	}
	for i, word := range words[:len(words)-1] {
		if word == "--node" {
			return words[i+1]
		}
	}
	return ""
}
