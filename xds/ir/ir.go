// Package ir says what one proxy must do, in our own words: what it listens on, which services it leads to and where
// these are. It knows nothing of Envoy; xds/translate turns it into Envoy's resources.
//
// The control plane makes a Proxy for each Envoy and calls Validate before it hands it on. What Validate let through
// can be translated. A Proxy is never changed after that.
package ir

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"regexp"
	"strings"

	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
)

// Proxy is one Envoy.
type Proxy struct {
	// Name is the node's name: the id that the Envoy asks with.
	Name      string
	Listeners []Listener
	// Services in the order of the configuration: the first that answers for reflection or health does so for all.
	Services  []Service
	Workloads []Workload
	// Waiting holds the services that are configured and not known well enough yet: their callers are told to come again.
	Waiting []string
	// Transcoder says which services have a REST form.
	Transcoder Transcoder
}

// Listener is one place where requests enter.
type Listener struct {
	// Name is unique in the proxy: "edge" or "serve".
	Name string
	// Edge: outsiders enter here. Otherwise only peers of the mesh do.
	Edge bool
	// Address is host:port, or the path of a Unix socket.
	Address string
	// Filter is the configuration of our filter on this listener.
	Filter *configv1.FilterConfig
}

// Service is one gRPC service and where it is.
type Service struct {
	// Name is the full name, for example qa.v1.Questions.
	Name string
	// Serve holds every node's serve address, this one's included.
	Serve []string
	// Local holds this node's own replicas; empty at the gateway.
	Local []string
	// Streaming holds the paths of methods whose replies may pause for long.
	Streaming []string
	// Beside holds the full names of the well-known services (reflection, health) that the same process answers.
	Beside []string
}

// Transcoder holds the services that JSON callers reach, with what it needs to know of them.
type Transcoder struct {
	// Descriptors is a serialised FileDescriptorSet, whole: each file after what it imports.
	Descriptors []byte
	Services    []string
}

// Workload is a plain HTTP server that the gateway leads to, such as a web page.
type Workload struct {
	Name      string
	Prefix    string
	Addresses []string
}

// LocalCluster is the name by which our filter calls a node's own replicas of a service (for watches).
func LocalCluster(service string) string { return "local/" + service }

// Names of the well-known services that processes answer beside their own.
const (
	ReflectionV1      = "grpc.reflection.v1.ServerReflection"
	ReflectionV1Alpha = "grpc.reflection.v1alpha.ServerReflection"
	Health            = "grpc.health.v1.Health"
)

var name = regexp.MustCompile(`^[A-Za-z0-9_]([-A-Za-z0-9_.]*[A-Za-z0-9_])?$`)

// Validate reports the first thing that can't be translated.
func (p *Proxy) Validate() error {
	if !name.MatchString(p.Name) {
		return fmt.Errorf("proxy name %q is not a name", p.Name)
	}
	taken := map[string]bool{}
	once := func(kind, s string) error {
		if !name.MatchString(s) || len(s) > maxName {
			return fmt.Errorf("proxy %s: %s name %q is not a name", p.Name, kind, s)
		}
		if taken[kind+s] {
			return fmt.Errorf("proxy %s: %s %s is listed twice", p.Name, kind, s)
		}
		taken[kind+s] = true
		return nil
	}
	for _, l := range p.Listeners {
		if err := once("listener", l.Name); err != nil {
			return err
		}
		if err := address(l.Address); err != nil {
			return fmt.Errorf("proxy %s: listener %s: %w", p.Name, l.Name, err)
		}
		if l.Filter == nil {
			return fmt.Errorf("proxy %s: listener %s has no filter configuration", p.Name, l.Name)
		}
	}
	for _, s := range p.Services {
		if err := once("service", s.Name); err != nil {
			return err
		}
		for _, a := range append(append([]string(nil), s.Serve...), s.Local...) {
			if err := address(a); err != nil {
				return fmt.Errorf("proxy %s: service %s: %w", p.Name, s.Name, err)
			}
			if taken["address of "+s.Name+a] {
				return fmt.Errorf("proxy %s: service %s: address %s is listed twice", p.Name, s.Name, a)
			}
			taken["address of "+s.Name+a] = true
		}
		for _, path := range s.Streaming {
			if !strings.HasPrefix(path, "/"+s.Name+"/") {
				return fmt.Errorf("proxy %s: service %s: method path %q is another service's", p.Name, s.Name, path)
			}
		}
	}
	for _, s := range p.Waiting {
		if err := once("service", s); err != nil {
			return err
		}
	}
	for _, w := range p.Workloads {
		if err := once("workload", w.Name); err != nil {
			return err
		}
		if !strings.HasPrefix(w.Prefix, "/") || strings.ContainsFunc(w.Prefix, func(r rune) bool { return r <= ' ' || r > '~' || r == '?' || r == '#' }) {
			return fmt.Errorf("proxy %s: workload %s: prefix %q is no path", p.Name, w.Name, w.Prefix)
		}
		for _, a := range w.Addresses {
			if err := address(a); err != nil {
				return fmt.Errorf("proxy %s: workload %s: %w", p.Name, w.Name, err)
			}
		}
	}
	return nil
}

func address(a string) error {
	if filepath.IsAbs(a) {
		if len(a) > maxSocketPath || strings.ContainsFunc(a, func(r rune) bool { return r <= ' ' || r > '~' || r == ',' }) {
			return fmt.Errorf("address %q is no path of a Unix socket of at most %d bytes", a, maxSocketPath)
		}
		return nil
	}
	ap, err := netip.ParseAddrPort(a)
	if err != nil || ap.Port() == 0 || ap.Addr().Zone() != "" {
		return fmt.Errorf("address %q is neither IP:port nor an absolute path", a)
	}
	return nil
}
