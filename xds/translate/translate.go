// Package translate turns what a proxy must do (xds/ir) into Envoy's resources. It is pure: equal input gives equal output,
// byte for byte.
//
// The shape is chosen so that a change of the configuration never touches a listener, which would drain its
// connections: routes come by RDS, addresses by EDS, the transcoder and our filter by ECDS. Listeners change only with
// their addresses.
//
//	edge listener   transcoder (ECDS) → holdfast (ECDS) → router, routes to edge/SERVICE and workload/NAME
//	serve listener  holdfast (ECDS) → router, routes to local/SERVICE
//	edge/SERVICE    every node's serve address, and on a node its own replicas as well, which are marked unhealthy: only
//	                our filter's choice (override_host ignores health) reaches them, never the fallback, because a
//	                request may not get to a service without its state
//	local/SERVICE   this node's own replicas
package translate

import (
	"fmt"
	"net/netip"
	"path/filepath"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/holdfast-mesh/holdfast/xds/ir"
)

// The types of resources, as Envoy names them.
const (
	TypeListener  = "type.googleapis.com/envoy.config.listener.v3.Listener"
	TypeRoute     = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
	TypeCluster   = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
	TypeEndpoint  = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
	TypeExtension = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig"
)

// Resources is everything one Envoy gets.
type Resources struct {
	// Proxy is the id of the Envoy.
	Proxy string
	// ByType holds the resources of each type, in a fixed order.
	ByType map[string][]proto.Message
}

// validator is what protoc-gen-validate made of Envoy's messages.
type validator interface{ ValidateAll() error }

// Proxy translates p. An error is a mistake in p, or in this package; no resource of a proxy with an error may be used.
func Proxy(p *ir.Proxy) (*Resources, error) {
	if err := p.Validate(); err != nil {
		return nil, fmt.Errorf("translate: %w", err)
	}
	r := &Resources{Proxy: p.Name, ByType: map[string][]proto.Message{
		TypeListener: {}, TypeRoute: {}, TypeCluster: {}, TypeEndpoint: {}, TypeExtension: {},
	}}
	edge, serve := false, false
	for i := range p.Listeners {
		l := &p.Listeners[i]
		if err := r.addListener(l); err != nil {
			return nil, fmt.Errorf("translate: proxy %s: listener %s: %w", p.Name, l.Name, err)
		}
		r.add(TypeRoute, routes(p, l))
		edge, serve = edge || l.Edge, serve || !l.Edge
	}
	if edge {
		transcoder, err := transcoder(&p.Transcoder)
		if err != nil {
			return nil, fmt.Errorf("translate: proxy %s: transcoder: %w", p.Name, err)
		}
		r.add(TypeExtension, transcoder)
	}
	for i := range p.Services {
		if err := r.addService(&p.Services[i], edge, serve); err != nil {
			return nil, fmt.Errorf("translate: proxy %s: service %s: %w", p.Name, p.Services[i].Name, err)
		}
	}
	for i := range p.Workloads {
		if err := r.addWorkload(&p.Workloads[i]); err != nil {
			return nil, fmt.Errorf("translate: proxy %s: workload %s: %w", p.Name, p.Workloads[i].Name, err)
		}
	}
	for url, list := range r.ByType {
		for _, m := range list {
			if err := m.(validator).ValidateAll(); err != nil {
				return nil, fmt.Errorf("translate: proxy %s: %s: %w", p.Name, url, err)
			}
		}
	}
	return r, nil
}

func (r *Resources) add(typeURL string, m proto.Message) {
	r.ByType[typeURL] = append(r.ByType[typeURL], m)
}

// address turns an address that ir.Validate let through into Envoy's.
func address(a string) *corev3.Address {
	if filepath.IsAbs(a) {
		return &corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: a}}}
	}
	ap := netip.MustParseAddrPort(a)
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address:       ap.Addr().String(),
		PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(ap.Port())},
	}}}
}

// ads makes a resource wait for the control plane for as long as it takes: a listener that starts to answer without its
// routes or its filter would answer wrongly.
func ads() *corev3.ConfigSource {
	return &corev3.ConfigSource{
		ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
		ResourceApiVersion:    corev3.ApiVersion_V3,
		InitialFetchTimeout:   durationpb.New(0),
	}
}

// pack is deterministic, unlike anypb.New: versions are hashes of the bytes.
func pack(m proto.Message) (*anypb.Any, error) {
	out := &anypb.Any{}
	if err := anypb.MarshalFrom(out, m, proto.MarshalOptions{Deterministic: true}); err != nil {
		return nil, fmt.Errorf("pack %s: %w", m.ProtoReflect().Descriptor().FullName(), err)
	}
	return out, nil
}
