// Package mesh is the local mesh's topology: the file that the supervisor writes and the control plane watches.
//
// The supervisor writes it atomically (temporary file, rename) at each change; readers take the whole file or none.
package mesh

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// Topology lists what runs, and where. Addresses are "host:port"; sockets are absolute paths of Unix sockets.
type Topology struct {
	// Mesh is the mesh's name: its certificates and its gossip carry it. Empty means DefaultName.
	Mesh    string  `json:"mesh,omitempty"`
	Gateway Gateway `json:"gateway"`
	// Etcd has the members' addresses, or their URLs.
	Etcd []string `json:"etcd"`
	// EtcdAccess is what it takes to reach etcd beside its addresses; nil: nothing.
	EtcdAccess *EtcdAccess `json:"etcdAccess,omitempty"`
	Nodes      []Node      `json:"nodes"`
	// GatewayWorkloads maps a gateway-scoped workload's name to its address.
	GatewayWorkloads map[string]string `json:"gatewayWorkloads,omitempty"`
}

// DefaultName is the name of a mesh that has none.
const DefaultName = "local"

// Name is the mesh's name.
func (t *Topology) Name() string {
	if t.Mesh == "" {
		return DefaultName
	}
	return t.Mesh
}

// Node returns the node of that name, nil where there is none.
func (t *Topology) Node(name string) *Node {
	for i := range t.Nodes {
		if t.Nodes[i].Name == name {
			return &t.Nodes[i]
		}
	}
	return nil
}

// Gateway is the gateway Envoy.
type Gateway struct {
	Name        string `json:"name"`
	Address     string `json:"address"`
	AdminSocket string `json:"adminSocket"`
}

// Node is one Envoy, one store and its service replicas.
type Node struct {
	Name        string `json:"name"`
	Ingress     string `json:"ingress"`
	StoreSocket string `json:"storeSocket"`
	// Peer is where other stores reach this node's: "host:port", which needs certificates, or "unix:/path".
	Peer        string `json:"peer"`
	ServeSocket string `json:"serveSocket"`
	AdminSocket string `json:"adminSocket"`
	Gossip      string `json:"gossip"`
	// Services maps a workload's name to the address of this node's replica of it.
	Services map[string]string `json:"services"`
}

// EtcdAccess says how etcd is reached. Files are in PEM; what is "" is not used.
type EtcdAccess struct {
	// External is true where etcd is not the mesh's own: others look after its file and its quota.
	External bool `json:"external,omitempty"`
	// CA is what the members' certificates are checked against; Cert and Key are shown to them.
	CA   string `json:"ca,omitempty"`
	Cert string `json:"cert,omitempty"`
	Key  string `json:"key,omitempty"`
	// User logs in with the password that is PasswordFile's first line.
	User         string `json:"user,omitempty"`
	PasswordFile string `json:"passwordFile,omitempty"`
	// Prefix is put before all of the mesh's keys.
	Prefix string `json:"prefix,omitempty"`
}

// EventLogSocket is where a store serves its event log: beside the socket of its API.
func EventLogSocket(storeSocket string) string {
	return filepath.Join(filepath.Dir(storeSocket), "events.sock")
}

// Read reads the topology at path.
func Read(path string) (*Topology, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read topology: %w", err)
	}
	t := &Topology{}
	if err := json.Unmarshal(data, t); err != nil {
		return nil, fmt.Errorf("read topology %s: %w", path, err)
	}
	return t, nil
}

// Write replaces the topology at path.
func Write(path string, t *Topology) error {
	data, err := json.MarshalIndent(t, "", "  ")
	if err != nil {
		return fmt.Errorf("write topology: %w", err)
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".mesh-*")
	if err != nil {
		return fmt.Errorf("write topology: %w", err)
	}
	defer os.Remove(tmp.Name())
	if _, err := tmp.Write(data); err != nil {
		tmp.Close()
		return fmt.Errorf("write topology: %w", err)
	}
	if err := tmp.Close(); err != nil {
		return fmt.Errorf("write topology: %w", err)
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return fmt.Errorf("write topology: %w", err)
	}
	return nil
}
