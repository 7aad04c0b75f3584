package rig

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Status is what `holdfast status -o json` says, as far as tests need it.
type Status struct {
	// Ready: all that should run runs.
	Ready        bool         `json:"ready"`
	Nodes        []NodeStatus `json:"nodes"`
	Gateway      PartStatus   `json:"gateway"`
	ControlPlane PartStatus   `json:"controlPlane"`
	Etcd         PartStatus   `json:"etcd"`
}

// NodeStatus is one node.
type NodeStatus struct {
	Name        string         `json:"name"`
	Ingress     string         `json:"ingress"`
	EnvoyPID    int            `json:"envoyPid"`
	StorePID    int            `json:"storePid"`
	ServicePIDs map[string]int `json:"servicePids"`
}

// PartStatus is one of the parts that exist once.
type PartStatus struct {
	Address  string `json:"address"`
	PID      int    `json:"pid"`
	EnvoyPID int    `json:"envoyPid"`
}

// Status asks for the mesh's status.
func (m *Mesh) Status() (*Status, error) {
	out, err := m.Run("status", "-o", "json")
	if err != nil {
		return nil, err
	}
	s := &Status{}
	if err := json.Unmarshal([]byte(out), s); err != nil {
		return nil, fmt.Errorf("decode status: %w in %s", err, out)
	}
	return s, nil
}

// Node is the status of one node by its name.
func (m *Mesh) Node(name string) (NodeStatus, error) {
	s, err := m.Status()
	if err != nil {
		return NodeStatus{}, err
	}
	for _, n := range s.Nodes {
		if n.Name == name {
			return n, nil
		}
	}
	return NodeStatus{}, fmt.Errorf("no node %s in the status", name)
}

// Gateway is the gateway's address.
func (m *Mesh) Gateway() string { return fmt.Sprintf("127.0.0.1:%d", m.Base) }

// Ingress is node i's address, counted from 1.
func (m *Mesh) Ingress(i int) string { return fmt.Sprintf("127.0.0.1:%d", m.Base+i) }

// Ingresses are all nodes' addresses.
func (m *Mesh) Ingresses() []string {
	all := make([]string, m.opts.Nodes)
	for i := range all {
		all[i] = m.Ingress(i + 1)
	}
	return all
}

// WaitReady waits until the mesh has that many nodes and each of them and the gateway answers a read of each service.
func (m *Mesh) WaitReady(ctx context.Context, nodes int) error {
	ctx, cancel := context.WithTimeout(ctx, readyWait)
	defer cancel()
	go func() {
		// Nothing to wait for once `up` has given up.
		select {
		case <-m.exited:
			cancel()
		case <-ctx.Done():
		}
	}()
	err := Poll(ctx, func() error {
		s, err := m.Status()
		if err != nil {
			return err
		}
		if len(s.Nodes) != nodes || !s.Ready {
			return fmt.Errorf("status has %d nodes, ready: %v; want %d, all ready", len(s.Nodes), s.Ready, nodes)
		}
		for _, n := range s.Nodes {
			if n.EnvoyPID == 0 || n.StorePID == 0 {
				return fmt.Errorf("%s has no Envoy or no store yet", n.Name)
			}
		}
		if m.opts.Config != "" {
			return nil
		}
		return m.answer(s.Nodes)
	})
	select {
	case <-m.exited:
		return fmt.Errorf("holdfast up has ended with %d", m.up.ProcessState.ExitCode())
	default:
	}
	if err != nil {
		return fmt.Errorf("mesh is not ready after %v: %w", readyWait, err)
	}
	return nil
}

// answer reads one entity of each demo service at the gateway and at each node, where the node itself must answer for those
// that are kept everywhere.
func (m *Mesh) answer(nodes []NodeStatus) error {
	for _, n := range append([]NodeStatus{{Ingress: m.Gateway()}}, nodes...) {
		for path, owned := range map[string]bool{
			"/v1/presentations/ready": false, "/v1/pages/ready": false,
			"/v1/accounts/ready": true, "/v1/accounts/ready/profile": true, "/v1/carts/ready": true,
		} {
			r, err := m.Do(http.MethodGet, n.Ingress, path, nil, http.Header{"Holdfast-Explain": {"1"}})
			if err != nil {
				return err
			}
			if r.Status != http.StatusOK {
				return fmt.Errorf("GET %s%s: %d %s", n.Ingress, path, r.Status, r.Body)
			}
			by := r.Header.Get("Holdfast-Explain")
			if n.Name != "" && by != "node="+n.Name && !owned {
				return fmt.Errorf("GET %s%s was answered by %q, not by %s", n.Ingress, path, by, n.Name)
			}
		}
	}
	return nil
}

// Run runs the command line tool against this mesh and returns what it printed on its standard output.
func (m *Mesh) Run(args ...string) (string, error) {
	return m.RunBare(append(args, "--data-dir", m.Data)...)
}

// RunBare runs the command line tool as it is.
func (m *Mesh) RunBare(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), commandTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(m.root, "bin/holdfast"), args...)
	cmd.Dir = m.folder
	cmd.Env = os.Environ()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), &CommandError{Args: args, Stdout: stdout.String(), Stderr: stderr.String(), Err: err}
	}
	return stdout.String(), nil
}

// CommandError is a command that did not exit with 0.
type CommandError struct {
	Args           []string
	Stdout, Stderr string
	Err            error
}

func (e *CommandError) Error() string {
	return fmt.Sprintf("holdfast %s: %v: %s%s", strings.Join(e.Args, " "), e.Err, e.Stdout, e.Stderr)
}

func (e *CommandError) Unwrap() error { return e.Err }

// ExitCode is the code that the command ended with, -1 where it was killed or not started.
func (e *CommandError) ExitCode() int {
	var exit *exec.ExitError
	if errors.As(e.Err, &exit) {
		return exit.ExitCode()
	}
	return -1
}

// readyWait is how long a mesh may take to start: 30 processes on two cores that compile beside them.
const readyWait = 150 * time.Second
