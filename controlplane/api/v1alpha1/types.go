// Package v1alpha1 holds the configuration documents that users write: StatefulService and LocalMesh.
//
// It parses them strictly from YAML (several documents in a file), fills in the defaults and refuses what can't work.
// An error names the file, the line, the field, what is wrong and what to do about it. These Go types are the schema's
// one source. The package reads files but asks nobody else: what only descriptors can tell is controlplane/resolve's.
package v1alpha1

// APIVersion and the kinds of documents.
const (
	APIVersion          = "holdfast.dev/v1alpha1"
	KindStatefulService = "StatefulService"
	KindLocalMesh       = "LocalMesh"
)

// Config is one file's documents, valid and with defaults filled in.
type Config struct {
	// Path of the file, as it was given.
	Path     string
	Services []*StatefulService
	// Mesh is nil where the file has no LocalMesh.
	Mesh *LocalMesh
}

// Header is what every document starts with.
type Header struct {
	APIVersion string   `yaml:"apiVersion"`
	Kind       string   `yaml:"kind"`
	Metadata   Metadata `yaml:"metadata"`
}

// Metadata names a document.
type Metadata struct {
	Name string `yaml:"name"`
}

// StatefulService gives one gRPC service its state.
type StatefulService struct {
	Header `yaml:",inline"`
	Spec   ServiceSpec `yaml:"spec"`
}

// ServiceSpec says which service, which entities and which processes.
type ServiceSpec struct {
	// Service is the gRPC service's full name.
	Service     string       `yaml:"service"`
	Descriptors *Descriptors `yaml:"descriptors"`
	// Mode is observe, route, enrich or commit.
	Mode        string       `yaml:"mode"`
	Entity      Entity       `yaml:"entity"`
	WorkloadRef *WorkloadRef `yaml:"workloadRef"`
	Template    *Unsupported `yaml:"template"`
}

// Descriptors says where the service's descriptors come from: exactly one of the fields.
type Descriptors struct {
	Reflection bool `yaml:"reflection"`
	// File is the path of a serialised FileDescriptorSet with imports, relative to the YAML's folder.
	File      string       `yaml:"file"`
	ConfigMap *Unsupported `yaml:"configMap"`
}

// Entity is the contract of an entity type, and how this service takes part in it.
type Entity struct {
	Type           string   `yaml:"type"`
	Key            Key      `yaml:"key"`
	Model          Model    `yaml:"model"`
	Consistency    string   `yaml:"consistency"`
	Write          string   `yaml:"write"`
	Affinity       string   `yaml:"affinity"`
	Replicas       Replicas `yaml:"replicas"`
	TTL            Duration `yaml:"ttl"`
	TTLFrom        string   `yaml:"ttlFrom"`
	Carriage       Carriage `yaml:"carriage"`
	MaxStateBytes  int      `yaml:"maxStateBytes"`
	PassivateAfter Duration `yaml:"passivateAfter"`
	OnUnavailable  string   `yaml:"onUnavailable"`
}

// Key says where a request's entity key is: exactly one of Option, Field and Header.
type Key struct {
	// Option: in the request fields marked (holdfast.v1.entity_key).
	Option bool `yaml:"option"`
	// Field: at this path from the request message, for example presentation.id.
	Field  string `yaml:"field"`
	Header string `yaml:"header"`
	// Others are paths of fields, single or repeated, that name further entities of the type; where there are none, the
	// fields marked (holdfast.v1.other_entity_keys) do.
	Others []string `yaml:"others"`
}

// Carriage says how the state travels to the service and back: exactly one of the fields.
type Carriage struct {
	Field    *Empty            `yaml:"field"`
	Metadata *MetadataCarriage `yaml:"metadata"`
}

// MetadataCarriage is the carriage by gRPC metadata.
type MetadataCarriage struct {
	// Encoding is proto or json.
	Encoding string `yaml:"encoding"`
}

// Empty is a choice that has no settings of its own: {}.
type Empty struct{}

// WorkloadRef names the processes that implement the service.
type WorkloadRef struct {
	// Kind is Local: a workload of the file's LocalMesh.
	Kind string `yaml:"kind"`
	Name string `yaml:"name"`
}

// LocalMesh lists what `holdfast up` starts on this machine.
type LocalMesh struct {
	Header `yaml:",inline"`
	Spec   MeshSpec `yaml:"spec"`
}

// MeshSpec holds the workloads.
type MeshSpec struct {
	Workloads []Workload `yaml:"workloads"`
}

// Scopes of a workload.
const (
	ScopeNode    = "node"
	ScopeGateway = "gateway"
)

// Workload is one local command, or a process that already runs.
type Workload struct {
	Name string `yaml:"name"`
	// Command is the program and its arguments. A program with a slash is relative to the YAML's folder.
	Command []string          `yaml:"command"`
	Env     map[string]string `yaml:"env"`
	// Address is host:port of a process that already runs; every node uses it.
	Address string `yaml:"address"`
	// Scope is node (one replica a node) or gateway (once, beside the gateway, plain HTTP).
	Scope string `yaml:"scope"`
	Route *Route `yaml:"route"`
}

// Route says which requests at the gateway go to a gateway-scoped workload.
type Route struct {
	Prefix string `yaml:"prefix"`
}
