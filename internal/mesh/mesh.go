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
	Gateway Gateway  `json:"gateway"`
	Etcd    []string `json:"etcd"`
	Nodes   []Node   `json:"nodes"`
	// GatewayWorkloads maps a gateway-scoped workload's name to its address.
	GatewayWorkloads map[string]string `json:"gatewayWorkloads,omitempty"`
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
	PeerSocket  string `json:"peerSocket"`
	ServeSocket string `json:"serveSocket"`
	AdminSocket string `json:"adminSocket"`
	Gossip      string `json:"gossip"`
	// Services maps a workload's name to the address of this node's replica of it.
	Services map[string]string `json:"services"`
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
