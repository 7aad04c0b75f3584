package localmesh

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/holdfast-mesh/holdfast/cmd/holdfast/internal/probe"
	"github.com/holdfast-mesh/holdfast/controlplane/api/v1alpha1"
	"github.com/holdfast-mesh/holdfast/internal/mesh"
	"github.com/holdfast-mesh/holdfast/internal/supervise"
)

// layOut gives every process its address and fills the topology.
func (m *Mesh) layOut() (err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.topology = mesh.Topology{
		Mesh: m.paths.MeshName(), Gateway: mesh.Gateway{
			Name: gatewayName, Address: m.ports.ingress(0), AdminSocket: filepath.Join(m.paths.Node(gatewayName), "envoy-admin.sock"),
		},
		GatewayWorkloads: map[string]string{},
	}
	if err := m.layOutEtcd(); err != nil {
		return err
	}
	for _, w := range m.workloads(v1alpha1.ScopeGateway) {
		if m.topology.GatewayWorkloads[w.Name], err = m.addressOf(w); err != nil {
			return err
		}
	}
	for i := 1; i <= m.opts.Nodes; i++ {
		n, err := m.newNodeLocked(i)
		if err != nil {
			return err
		}
		m.nodes = append(m.nodes, n)
	}
	return nil
}

func nodeName(i int) string { return fmt.Sprintf("node-%d", i) }

// newNodeLocked lays out node i and makes its run folder.
// +checklocks:m.mu
func (m *Mesh) newNodeLocked(i int) (*node, error) {
	name := nodeName(i)
	dir := m.paths.Node(name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("run folder: %w", err)
	}
	if err := m.certify(name, time.Now()); err != nil {
		return nil, err
	}
	if old := m.addresses[name]; old != nil {
		n := &node{Node: *old, services: map[string]*supervise.Process{}}
		m.addresses[name] = &n.Node
		return n, m.addressWorkloads(n)
	}
	gossip, err := m.ports.free()
	if err != nil {
		return nil, err
	}
	peer, err := m.ports.free()
	if err != nil {
		return nil, err
	}
	n := &node{services: map[string]*supervise.Process{}, Node: mesh.Node{
		Name: name, Ingress: m.ports.ingress(i), Gossip: gossip, Peer: peer, StoreSocket: filepath.Join(dir, "store.sock"),
		ServeSocket: filepath.Join(dir, "serve.sock"), AdminSocket: filepath.Join(dir, "envoy-admin.sock"),
		Services: map[string]string{},
	}}
	if err := m.addressWorkloads(n); err != nil {
		return nil, err
	}
	if n.Services[probe.Workload], err = m.ports.free(); err != nil {
		return nil, err
	}
	m.addresses[name] = &n.Node
	return n, nil
}

// addressWorkloads gives a node's replicas their addresses: those that they had, where the node was here before.
func (m *Mesh) addressWorkloads(n *node) (err error) {
	current := map[string]string{}
	if a, ok := n.Services[probe.Workload]; ok {
		current[probe.Workload] = a
	}
	for _, w := range m.workloads(v1alpha1.ScopeNode) {
		a := n.Services[w.Name]
		if a == "" || w.Address != "" {
			if a, err = m.addressOf(w); err != nil {
				return err
			}
		}
		current[w.Name] = a
	}
	n.Services = current
	return nil
}

func (m *Mesh) workloads(scope string) []*v1alpha1.Workload {
	var out []*v1alpha1.Workload
	spec := &m.config.Load().Mesh.Spec
	for i := range spec.Workloads {
		if w := &spec.Workloads[i]; w.Scope == scope {
			out = append(out, w)
		}
	}
	return out
}

func (m *Mesh) addressOf(w *v1alpha1.Workload) (string, error) {
	if w.Address != "" {
		return w.Address, nil
	}
	return m.ports.free()
}

func (m *Mesh) writeTopology() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.topology
	t.Nodes = nil
	for _, n := range m.nodes {
		t.Nodes = append(t.Nodes, n.Node)
	}
	return mesh.Write(m.paths.Topology(), &t)
}
