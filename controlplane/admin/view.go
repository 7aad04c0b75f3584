package admin

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/holdfast-mesh/holdfast/xds/serve"
)

// ProxyList is the answer to GET /v1/proxies.
type ProxyList struct {
	Proxies []serve.ProxyStatus `json:"proxies"`
}

// Config is the answer to GET /v1/config.
type Config struct {
	// Accepted is true where the last file is in use.
	Accepted bool `json:"accepted"`
	// Error is why the last file was refused, empty if it was not. The last good configuration stays.
	Error string `json:"error"`
	// TopologyError is why the topology can't be read.
	TopologyError string `json:"topologyError,omitempty"`
	// Applied says since when the Envoys are given the present configuration; zero before the first.
	Applied time.Time `json:"applied,omitzero"`
	// Nodes are those that the Envoys' present configuration was made for.
	Nodes []string `json:"nodes"`
	// Gateway and Ingresses are where callers enter.
	Gateway   string            `json:"gateway"`
	Ingresses map[string]string `json:"ingresses"`
	Services  []Service         `json:"services"`
	Placement *Placement        `json:"placement,omitempty"`
	// PlacementError is why a new placement can't be kept; the last one stays.
	PlacementError string  `json:"placementError,omitempty"`
	Stores         []Store `json:"stores"`
}

// States of a service.
const (
	ServiceOK = "ok"
	// ServiceWaiting: its descriptors can't be had yet; the others go on without it.
	ServiceWaiting = "waiting"
	// ServiceStale: it goes on with what was known before, because of the error.
	ServiceStale   = "stale"
	ServiceRefused = "refused"
)

// Service is one StatefulService.
type Service struct {
	Name       string `json:"name"`
	Service    string `json:"service"`
	EntityType string `json:"entityType"`
	Mode       string `json:"mode"`
	State      string `json:"state"`
	Error      string `json:"error,omitempty"`
	// Digest pins the descriptors in use.
	Digest string `json:"digest,omitempty"`
	// Methods are the keyed ones, Unkeyed those that pass untouched.
	Methods []string `json:"methods"`
	Unkeyed []string `json:"unkeyed"`
	// REST is false where no method has a google.api.http binding, or where RESTError says why it is not served.
	REST      bool   `json:"rest"`
	RESTError string `json:"restError,omitempty"`
}

// Placement is the placement in use.
type Placement struct {
	Epoch   uint64   `json:"epoch"`
	Members []string `json:"members"`
}

// Store is one node's store.
type Store struct {
	Node string `json:"node"`
	Up   bool   `json:"up"`
	// Configured is true where it has taken the present entity types and placement.
	Configured bool   `json:"configured"`
	Error      string `json:"error,omitempty"`
	// Status is its own word, a holdfast.store.v1.StoreStatus.
	Status json.RawMessage `json:"status,omitempty"`
}

// Key is the answer to GET /v1/keys/{type}/{key}.
type Key struct {
	Type        string          `json:"type"`
	Key         string          `json:"key"`
	Slot        uint32          `json:"slot"`
	Epoch       uint64          `json:"epoch"`
	Consistency string          `json:"consistency"`
	Exists      bool            `json:"exists"`
	Value       json.RawMessage `json:"value,omitempty"`
	Version     string          `json:"version"`
	Owner       string          `json:"owner"`
	Replicas    []string        `json:"replicas"`
	Active      bool            `json:"active"`
	// Copies are what each node's store has, in the order of the placement.
	Copies []Copy `json:"copies"`
	// Agreement compares the copies; nil for a strong entity.
	Agreement *Agreement `json:"agreement,omitempty"`
}

// Copy is an entity as one node's store has it.
type Copy struct {
	Node    string          `json:"node"`
	Exists  bool            `json:"exists"`
	Value   json.RawMessage `json:"value,omitempty"`
	Version string          `json:"version"`
	Active  bool            `json:"active"`
	// Role is RolePlaced, RoleJoined or RoleNone; empty for a strong entity.
	Role string `json:"role,omitempty"`
	// Hash of what the store holds of the entity, as 16 hex digits: equal where replicas agree.
	Hash string `json:"hash,omitempty"`
	// Seen says what the store has seen of each replica identity in the entity's slot.
	Seen  []Seen `json:"seen,omitempty"`
	Error string `json:"error,omitempty"`
}

// Seen is what a store has seen of a replica identity's changes: all up to Upto, and Beyond later ones.
type Seen struct {
	Replica string `json:"replica"`
	Node    string `json:"node"`
	Upto    uint64 `json:"upto"`
	Beyond  uint64 `json:"beyond,omitempty"`
}

// Check is the answer to POST /v1/check: what the control plane sees, part by part.
type Check struct {
	OK    bool   `json:"ok"`
	Parts []Part `json:"parts"`
}

// Part is one thing that was looked at.
type Part struct {
	Part    string `json:"part"`
	OK      bool   `json:"ok"`
	Message string `json:"message,omitempty"`
}

// Error is the body of every answer but 200.
type Error struct {
	Error string `json:"error"`
}

// KeyPath is where the API has the entity TYPE/KEY.
func KeyPath(name string) (string, error) {
	typ, key, ok := strings.Cut(name, "/")
	if !ok || typ == "" || key == "" {
		return "", fmt.Errorf("want TYPE/KEY, for example qa.Presentation/kubecon, not %q", name)
	}
	return "/v1/keys/" + url.PathEscape(typ) + "/" + url.PathEscape(key), nil
}
