package strong

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	countersv1 "github.com/holdfast-mesh/holdfast/bench/counters/v1"
	"github.com/holdfast-mesh/holdfast/e2e/rig"
)

// targets are all that is called, up at the same time: a mesh of one node with its etcd, and an application.
type targets struct {
	mesh *rig.Mesh
	// ingress, store, etcd and app are where they listen.
	ingress, store, etcd, app string
	// The process ids whose CPU time counts.
	envoyPID, storePID, servicePID, etcdPID, appPID int

	folder string
	child  *exec.Cmd
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
	if err := t.startMesh(ctx); err != nil {
		return nil, err
	}
	if err := t.startApp(); err != nil {
		return nil, fmt.Errorf("start the application: %w", err)
	}
	for _, way := range [][3]string{
		{"grpc", t.ingress, countersv1.Strong_Increment_FullMethodName},
		{"grpc", t.app, countersv1.Strong_Increment_FullMethodName},
		{"store", t.store, ""},
		{"etcd-get-put", t.etcd, ""},
	} {
		if err := answers(ctx, way[0], way[1], way[2]); err != nil {
			return nil, fmt.Errorf("%w\n%s", err, t.mesh.Logs(20))
		}
	}
	return t, nil
}

// activate calls every key once, so that no row pays for the claims of slots and the first loads.
func (t *targets) activate(ctx context.Context, keys int) error {
	for _, way := range [][3]string{
		{"grpc", t.ingress, countersv1.Strong_Increment_FullMethodName},
		{"grpc", t.app, countersv1.Strong_Increment_FullMethodName},
		{"store", t.store, ""},
		{"etcd-get-put", t.etcd, ""},
	} {
		call, done, err := caller(way[0], way[1], way[2], maxConnections, keys)
		if err != nil {
			return err
		}
		problems := make(chan error, activators)
		for w := range activators {
			go func() {
				var problem error
				for k := w; k < keys && problem == nil; k += activators {
					one, cancel := context.WithTimeout(ctx, callDeadline)
					problem = call(one, w, k)
					cancel()
				}
				problems <- problem
			}()
		}
		for range activators {
			err = errors.Join(err, <-problems)
		}
		done()
		if err != nil {
			return fmt.Errorf("activate %s: %w", way[0], err)
		}
	}
	return nil
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
	s, err := t.mesh.Status()
	if err != nil {
		return err
	}
	run, err := t.mesh.RunFolder()
	if err != nil {
		return err
	}
	node := s.Nodes[0]
	t.ingress, t.store, t.etcd = t.mesh.Ingress(1), filepath.Join(run, node.Name, "store.sock"), etcdAddress(s.Etcd.PID)
	t.envoyPID, t.storePID, t.etcdPID = node.EnvoyPID, node.StorePID, s.Etcd.PID
	for _, pid := range node.ServicePIDs {
		t.servicePID = pid
	}
	return nil
}

// etcdAddress is what etcd was told to listen on: nobody else has to know.
func etcdAddress(pid int) string {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return ""
	}
	words := strings.Split(string(data), "\x00")
	for i, w := range words[:len(words)-1] {
		if w == "--client" {
			return strings.TrimPrefix(words[i+1], "http://")
		}
	}
	return ""
}

func (t *targets) startApp() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	t.child = exec.Command(self, "strong", "app")
	t.child.Env = append(os.Environ(), "HOST=127.0.0.1", "PORT="+strconv.Itoa(port), etcdVariable+"="+t.etcd)
	t.child.Stderr = os.Stderr
	if t.exited, err = rig.StartTied(t.child); err != nil {
		t.child = nil
		return err
	}
	t.app, t.appPID = fmt.Sprintf("127.0.0.1:%d", port), t.child.Process.Pid
	return nil
}

func (t *targets) close() error {
	var problem error
	if t.mesh != nil {
		problem = t.mesh.Close()
	}
	if t.child != nil {
		_ = t.child.Process.Signal(syscall.SIGTERM)
		<-t.exited
	}
	return errors.Join(problem, os.RemoveAll(t.folder))
}

// answers waits until a call works.
func answers(ctx context.Context, way, address, method string) error {
	ctx, cancel := context.WithTimeout(ctx, startWait)
	defer cancel()
	call, done, err := caller(way, address, method, 1, 1)
	if err != nil {
		return err
	}
	defer done()
	return rig.Poll(ctx, func() error {
		if err := call(ctx, 0, 0); err != nil {
			return fmt.Errorf("%s at %s: %w", way, address, err)
		}
		return nil
	})
}

// meshConfig is what a user would write for this service; %s is the service's command.
const meshConfig = `apiVersion: holdfast.dev/v1alpha1
kind: StatefulService
metadata: {name: strong}
spec:
  service: counters.v1.Strong
  descriptors: {reflection: true}
  mode: commit
  entity:
    type: ` + entityType + `
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
