package controlplane

import (
	"fmt"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/holdfast-mesh/holdfast/controlplane/api/v1alpha1"
	"github.com/holdfast-mesh/holdfast/controlplane/resolve"
	"github.com/holdfast-mesh/holdfast/internal/mesh"
	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
	"github.com/holdfast-mesh/holdfast/xds/ir"
	"github.com/holdfast-mesh/holdfast/xds/translate"
)

// member is a service that takes part, with the workload that implements it.
type member struct {
	// name of the StatefulService.
	name     string
	workload string
	service  *resolve.Service
	// former: the service is what an earlier configuration says, since the present one is not to be had.
	former bool
}

// input is all that the Envoys' and the stores' configuration depends on.
type input struct {
	topology  *mesh.Topology
	placement *configv1.Placement
	workloads []v1alpha1.Workload
	members   []member
	// waiting are the gRPC services that can't take part yet.
	waiting []string
}

// output is that configuration.
type output struct {
	proxies   []*translate.Resources
	configure *storev1.Configure
	// members that are in it.
	members []member
	// nodes that it was made for.
	nodes []string
	// restErrors tell which gRPC services have no REST, and why.
	restErrors map[string]error
	// filters are the filters' configurations, for the check by the filter's own parser.
	filters [][]byte
}

// assemble makes the output of an input. It is pure.
func assemble(in input) (*output, error) {
	placed := map[string]bool{}
	for _, m := range in.placement.GetMembers() {
		placed[m.GetName()] = true
	}
	if err := sameValues(in.members); err != nil {
		return nil, err
	}
	out := &output{members: in.members, configure: &storev1.Configure{Types: entityTypes(in.members), Placement: in.placement}}
	services := make([]*resolve.Service, 0, len(in.members))
	for _, m := range in.members {
		services = append(services, m.service)
	}
	merged := resolve.Merge(services)
	out.restErrors = merged.Left
	transcoder := ir.Transcoder{Descriptors: merged.Set, Services: merged.Services}

	types := filterTypes(out.configure.GetTypes())
	var proxies []*ir.Proxy
	if g := in.topology.Gateway; g.Address != "" {
		proxies = append(proxies, gateway(in, types, transcoder))
	}
	for i := range in.topology.Nodes {
		// A node that the placement doesn't list yet is given nothing: its filter could not tell what it keeps.
		if n := &in.topology.Nodes[i]; placed[n.Name] {
			proxies = append(proxies, node(in, n, types, transcoder))
			out.nodes = append(out.nodes, n.Name)
		}
	}
	for _, p := range proxies {
		p.Waiting = in.waiting
		r, err := translate.Proxy(p)
		if err != nil {
			return nil, err
		}
		out.proxies = append(out.proxies, r)
		for _, l := range p.Listeners {
			raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(l.Filter)
			if err != nil {
				return nil, fmt.Errorf("encode filter configuration: %w", err)
			}
			out.filters = append(out.filters, raw)
		}
	}
	return out, nil
}

// entityTypes are the types of all members, each once. Members of one type have the same contract, but for former ones, which
// the present contract is for as well.
func entityTypes(members []member) []*configv1.EntityType {
	byName := map[string]*configv1.EntityType{}
	for _, former := range []bool{true, false} {
		for _, m := range members {
			if m.former == former {
				byName[m.service.Type.GetType()] = m.service.Type
			}
		}
	}
	var out []*configv1.EntityType
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		out = append(out, byName[name])
	}
	return out
}

// sameValues refuses services that share a type and take its values for different messages. What else a contract has is
// compared where it is written.
func sameValues(members []member) error {
	first := map[string]member{}
	for _, m := range members {
		t := m.service.Type
		other, shared := first[t.GetType()]
		switch {
		case m.former:
		case !shared:
			first[t.GetType()] = m
		case other.service.Type.GetValueMessage() != t.GetValueMessage():
			return fmt.Errorf("StatefulService %s: the values of %s are of the message %s, and StatefulService %s says %s; services that share a type share its contract: make them equal",
				m.name, t.GetType(), t.GetValueMessage(), other.name, other.service.Type.GetValueMessage())
		}
	}
	return nil
}

// filterTypes are the types as filters are told of them: what a value's message is like is the stores' affair, and large.
func filterTypes(types []*configv1.EntityType) []*configv1.EntityType {
	out := make([]*configv1.EntityType, 0, len(types))
	for _, t := range types {
		if len(t.GetValueDescriptors()) > 0 {
			t = proto.CloneOf(t)
			t.ValueDescriptors = nil
		}
		out = append(out, t)
	}
	return out
}

func filterConfig(in input, types []*configv1.EntityType, n *mesh.Node) *configv1.FilterConfig {
	c := &configv1.FilterConfig{Types: types, Placement: in.placement}
	for _, m := range in.members {
		s := proto.CloneOf(m.service.Config)
		if n != nil {
			s.LocalCluster = ir.LocalCluster(s.GetName())
			s.LocalAddresses = localAddresses(n, m)
		}
		c.Services = append(c.Services, s)
	}
	return c
}

func localAddresses(n *mesh.Node, m member) []string {
	if a := n.Services[m.workload]; a != "" {
		return []string{a}
	}
	return nil
}

func services(in input, n *mesh.Node) []ir.Service {
	var serve []string
	for _, p := range in.placement.GetMembers() {
		serve = append(serve, p.GetServeAddress())
	}
	out := make([]ir.Service, 0, len(in.members))
	for _, m := range in.members {
		s := ir.Service{
			Name:      m.service.Config.GetName(),
			Serve:     serve,
			Streaming: m.service.Streaming,
			Beside:    m.service.Beside(ir.ReflectionV1, ir.ReflectionV1Alpha, ir.Health),
		}
		if n != nil {
			s.Local = localAddresses(n, m)
		}
		out = append(out, s)
	}
	return out
}

func gateway(in input, types []*configv1.EntityType, t ir.Transcoder) *ir.Proxy {
	filter := filterConfig(in, types, nil)
	filter.Edge = true
	p := &ir.Proxy{
		Name:       in.topology.Gateway.Name,
		Listeners:  []ir.Listener{{Name: "edge", Edge: true, Address: in.topology.Gateway.Address, Filter: filter}},
		Services:   services(in, nil),
		Transcoder: t,
	}
	for _, w := range in.workloads {
		address := in.topology.GatewayWorkloads[w.Name]
		if address == "" {
			address = w.Address
		}
		if w.Scope == v1alpha1.ScopeGateway && address != "" {
			p.Workloads = append(p.Workloads, ir.Workload{Name: w.Name, Prefix: w.Route.Prefix, Addresses: []string{address}})
		}
	}
	return p
}

func node(in input, n *mesh.Node, types []*configv1.EntityType, t ir.Transcoder) *ir.Proxy {
	serve := filterConfig(in, types, n)
	serve.Node, serve.Serve, serve.StoreSocket = n.Name, true, n.StoreSocket
	edge := proto.CloneOf(serve)
	edge.Edge = true
	return &ir.Proxy{
		Name: n.Name,
		Listeners: []ir.Listener{
			{Name: "edge", Edge: true, Address: n.Ingress, Filter: edge},
			{Name: "serve", Address: n.ServeSocket, Filter: serve},
		},
		Services:   services(in, n),
		Transcoder: t,
	}
}

// checked assembles with as many members as the filter's parser lets through. A member that it refuses is left out, or
// keeps the form that it had in previous; the reasons are returned by StatefulService.
func checked(in input, previous map[string]*resolve.Service, check func([]byte) error) (out *output, refused map[string]error, err error) {
	try := func(members []member) (*output, error) {
		in := in
		in.members = members
		out, err := assemble(in)
		if err != nil {
			return nil, err
		}
		for _, raw := range out.filters {
			if err := check(raw); err != nil {
				return nil, err
			}
		}
		return out, nil
	}
	if out, err = try(in.members); err == nil {
		return out, nil, nil
	}
	refused = map[string]error{}
	var good []member
	for _, m := range in.members {
		with := append(slices.Clone(good), m)
		_, err := try(with)
		if err == nil {
			good = with
			continue
		}
		refused[m.name] = err
		if old := previous[m.name]; old != nil {
			m.service = old
			if with = append(slices.Clone(good), m); second(try(with)) == nil {
				good = with
				continue
			}
		}
		in.waiting = append(slices.Clone(in.waiting), m.service.Config.GetName())
	}
	out, err = try(good)
	if err != nil {
		// Not any service's fault: the topology's, or our own.
		return nil, refused, err
	}
	return out, refused, nil
}

func second[T any](_ T, err error) error { return err }
