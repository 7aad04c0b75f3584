package localmesh

import (
	"github.com/holdfast-mesh/holdfast/controlplane/api/v1alpha1"
	"github.com/holdfast-mesh/holdfast/internal/supervise"
)

// Status is what `holdfast status -o json` prints.
type Status struct {
	// Ready is true once everything was started.
	Ready        bool          `json:"ready"`
	Nodes        []NodeStatus  `json:"nodes"`
	Gateway      GatewayStatus `json:"gateway"`
	ControlPlane ProcessStatus `json:"controlPlane"`
	// Etcd is etcd's process. Where it has several members it is the first, and EtcdMembers has them all by their names.
	Etcd        ProcessStatus            `json:"etcd"`
	EtcdMembers map[string]ProcessStatus `json:"etcdMembers,omitempty"`
	UpPID       int                      `json:"upPid"`
	DataDir     string                   `json:"dataDir"`
	RunDir      string                   `json:"runDir"`
	// Page is the address of the page that shows replicas, with the token that it needs.
	Page string `json:"page,omitempty"`
	// Partition are the groups of stores that were cut off from each other on purpose, as `fault partition` was told.
	Partition [][]string `json:"partition,omitempty"`
}

// NodeStatus is one node. A pid is 0 while its process does not run.
type NodeStatus struct {
	Name        string         `json:"name"`
	Ingress     string         `json:"ingress"`
	EnvoyPID    int            `json:"envoyPid"`
	StorePID    int            `json:"storePid"`
	ServicePIDs map[string]int `json:"servicePids"`
	// Processes has the same processes ("envoy", "store", a workload's name) with their state and restarts.
	Processes map[string]ProcessStatus `json:"processes"`
}

// GatewayStatus is the gateway and the workloads beside it.
type GatewayStatus struct {
	Address     string                   `json:"address"`
	EnvoyPID    int                      `json:"envoyPid"`
	ServicePIDs map[string]int           `json:"servicePids"`
	Processes   map[string]ProcessStatus `json:"processes"`
}

// ProcessStatus is one process.
type ProcessStatus struct {
	PID      int    `json:"pid"`
	State    string `json:"state"`
	Restarts int    `json:"restarts"`
	// LastExit says how it ended last, if it ever did.
	LastExit string `json:"lastExit,omitempty"`
	Log      string `json:"log,omitempty"`
}

// External is the state of a service, or of an etcd, that others run.
const External = "external"

// Status returns what runs now.
func (m *Mesh) Status() *Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := &Status{
		Ready: m.ready, UpPID: pid, DataDir: m.paths.Data, RunDir: m.paths.Run, Nodes: []NodeStatus{},
		Page: m.page.address(), Partition: m.partition,
		ControlPlane: m.processStatus(m.single[controlPlaneName]),
		Gateway: GatewayStatus{
			Address: m.topology.Gateway.Address, ServicePIDs: map[string]int{}, Processes: map[string]ProcessStatus{},
		},
	}
	s.Etcd, s.EtcdMembers = m.etcdStatus()
	s.Gateway.Processes["envoy"] = m.processStatus(m.single[gatewayName])
	s.Gateway.EnvoyPID = s.Gateway.Processes["envoy"].PID
	for _, w := range m.workloads(v1alpha1.ScopeGateway) {
		st := m.workloadStatus(w, m.single[gatewayName+"/"+w.Name])
		s.Gateway.Processes[w.Name] = st
		s.Gateway.ServicePIDs[w.Name] = st.PID
	}
	for _, n := range m.nodes {
		ns := NodeStatus{Name: n.Name, Ingress: n.Ingress, ServicePIDs: map[string]int{}, Processes: map[string]ProcessStatus{}}
		ns.Processes["envoy"], ns.Processes["store"] = m.processStatus(n.envoy), m.processStatus(n.store)
		ns.EnvoyPID, ns.StorePID = ns.Processes["envoy"].PID, ns.Processes["store"].PID
		for _, w := range m.workloads(v1alpha1.ScopeNode) {
			st := m.workloadStatus(w, n.services[w.Name])
			ns.Processes[w.Name] = st
			ns.ServicePIDs[w.Name] = st.PID
		}
		s.Nodes = append(s.Nodes, ns)
	}
	return s
}

func (m *Mesh) workloadStatus(w *v1alpha1.Workload, p *supervise.Process) ProcessStatus {
	if w.Address != "" {
		return ProcessStatus{State: External}
	}
	return m.processStatus(p)
}

func (m *Mesh) processStatus(p *supervise.Process) ProcessStatus {
	if p == nil {
		return ProcessStatus{State: "waiting"}
	}
	st := p.Status()
	return ProcessStatus{PID: st.PID, State: string(st.State), Restarts: st.Restarts, LastExit: st.LastExit, Log: m.paths.Log(p.Name())}
}
