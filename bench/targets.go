package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	countersv1 "github.com/holdfast-mesh/holdfast/bench/counters/v1"
	"github.com/holdfast-mesh/holdfast/e2e/rig"
)

// target is something that answers the calls, with the processes that it costs.
type target struct {
	name    string
	address string
	// envoys and others are the process ids whose CPU time counts.
	envoys, others []int
}

// targets are the three that are compared, all up at the same time.
type targets struct {
	direct, plain, ours target
	mesh                *rig.Mesh
	folder              string
	children            []child
}

type child struct {
	cmd    *exec.Cmd
	exited <-chan struct{}
}

func startTargets(ctx context.Context) (_ *targets, err error) {
	t := &targets{}
	defer func() {
		if err != nil {
			err = errors.Join(err, t.close())
		}
	}()
	if t.folder, err = os.MkdirTemp("", "hf-bench-"); err != nil {
		return nil, err
	}
	if err := t.startDirect(ctx); err != nil {
		return nil, fmt.Errorf("start the service: %w", err)
	}
	if err := t.startPlain(ctx); err != nil {
		return nil, fmt.Errorf("start plain Envoy: %w", err)
	}
	if err := t.startMesh(ctx); err != nil {
		return nil, err
	}
	return t, nil
}

func (t *targets) startDirect(ctx context.Context) error {
	port, err := freePort()
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self, "serve")
	cmd.Env = append(os.Environ(), "HOST=127.0.0.1", "PORT="+strconv.Itoa(port))
	if err := t.spawn(cmd); err != nil {
		return err
	}
	t.direct = target{name: "direct", address: fmt.Sprintf("127.0.0.1:%d", port), others: []int{cmd.Process.Pid}}
	return answers(ctx, t.direct.address)
}

func (t *targets) startPlain(ctx context.Context) error {
	port, err := freePort()
	if err != nil {
		return err
	}
	config, err := json.Marshal(plainConfig(port, t.direct.address))
	if err != nil {
		return err
	}
	path := filepath.Join(t.folder, "plain.json")
	if err := os.WriteFile(path, config, 0o600); err != nil {
		return err
	}
	root, err := rig.Root()
	if err != nil {
		return err
	}
	cmd := exec.Command(filepath.Join(root, "bin/envoy"), "-c", path, "--concurrency", "1", "--disable-hot-restart", "--log-level", "warning")
	if err := t.spawn(cmd); err != nil {
		return err
	}
	t.plain = target{
		name: "plain Envoy", address: fmt.Sprintf("127.0.0.1:%d", port),
		envoys: []int{cmd.Process.Pid}, others: t.direct.others,
	}
	return answers(ctx, t.plain.address)
}

func (t *targets) startMesh(ctx context.Context) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	config := filepath.Join(t.folder, "holdfast.yaml")
	if err := os.WriteFile(config, fmt.Appendf(nil, meshConfig, self), 0o600); err != nil {
		return err
	}
	if t.mesh, err = rig.Start(ctx, rig.Options{Nodes: 1, Config: config}); err != nil {
		return err
	}
	t.ours = target{name: "ours", address: t.mesh.Ingress(1)}
	if err := answers(ctx, t.ours.address); err != nil {
		return fmt.Errorf("%w\n%s", err, t.mesh.Logs(20))
	}
	s, err := t.mesh.Status()
	if err != nil {
		return err
	}
	for _, n := range s.Nodes {
		t.ours.envoys = append(t.ours.envoys, n.EnvoyPID)
		t.ours.others = append(t.ours.others, n.StorePID, s.Etcd.PID)
		for _, pid := range n.ServicePIDs {
			t.ours.others = append(t.ours.others, pid)
		}
	}
	return nil
}

// spawn starts a child that ends with this process.
func (t *targets) spawn(cmd *exec.Cmd) error {
	cmd.Stderr = os.Stderr
	exited, err := rig.StartTied(cmd)
	if err != nil {
		return err
	}
	t.children = append(t.children, child{cmd, exited})
	return nil
}

func (t *targets) close() error {
	var problem error
	if t.mesh != nil {
		problem = t.mesh.Close()
	}
	for _, c := range t.children {
		_ = c.cmd.Process.Signal(syscall.SIGTERM)
	}
	for _, c := range t.children {
		<-c.exited
	}
	return errors.Join(problem, os.RemoveAll(t.folder))
}

// answers waits until all four calls work at an address.
func answers(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, startWait)
	defer cancel()
	conns, err := connect(address, 1)
	if err != nil {
		return err
	}
	defer conns[0].Close()
	return rig.Poll(ctx, func() error {
		for _, method := range []string{eventualRead, eventualIncrement, strongRead, strongIncrement} {
			call, done := context.WithTimeout(ctx, 2*time.Second)
			err := conns[0].Invoke(call, method, &countersv1.Request{Counter: "warm"}, &countersv1.Count{})
			done()
			if err != nil {
				return fmt.Errorf("%s at %s: %w", method, address, err)
			}
		}
		return nil
	})
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

const (
	eventualRead      = countersv1.Eventual_Read_FullMethodName
	eventualIncrement = countersv1.Eventual_Increment_FullMethodName
	strongRead        = countersv1.Strong_Read_FullMethodName
	strongIncrement   = countersv1.Strong_Increment_FullMethodName
)

// meshConfig is what a user would write for this service; %s is the service's command.
const meshConfig = `apiVersion: holdfast.dev/v1alpha1
kind: StatefulService
metadata: {name: eventual}
spec:
  service: counters.v1.Eventual
  descriptors: {reflection: true}
  mode: commit
  entity:
    type: counters.Eventual
    key: {option: true}
    model: {gcounter: {}}
    consistency: eventual
    write: LOCAL
    affinity: local
    replicas: all
    carriage: {metadata: {encoding: proto}}
    maxStateBytes: 4096
  workloadRef: {kind: Local, name: counters}
---
apiVersion: holdfast.dev/v1alpha1
kind: StatefulService
metadata: {name: strong}
spec:
  service: counters.v1.Strong
  descriptors: {reflection: true}
  mode: commit
  entity:
    type: counters.Strong
    key: {option: true}
    model: {value: {}}
    consistency: strong
    carriage: {metadata: {encoding: proto}}
    maxStateBytes: 4096
  workloadRef: {kind: Local, name: counters}
---
apiVersion: holdfast.dev/v1alpha1
kind: LocalMesh
metadata: {name: bench}
spec:
  workloads:
  - name: counters
    command: [%s, serve]
`
