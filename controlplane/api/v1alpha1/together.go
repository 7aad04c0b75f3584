package v1alpha1

import (
	"fmt"
	"net"
	"strconv"
	"strings"
)

// validateMesh fills in the defaults and reports what can't work.
func (d *document) validateMesh(m *LocalMesh) {
	d.validateName(m.Metadata.Name)
	names, prefixes := map[string]bool{}, map[string]string{}
	for i := range m.Spec.Workloads {
		w := &m.Spec.Workloads[i]
		at := fmt.Sprintf("spec.workloads[%d]", i)
		switch {
		case !dnsLabel.MatchString(w.Name) || len(w.Name) > maxNameBytes:
			d.errorf(at+".name", "%q is no name; write 1 to %d of a-z, 0-9 and -, with no - at either end", w.Name, maxNameBytes)
		case names[w.Name]:
			d.errorf(at+".name", "%q is taken by a workload above; choose another", w.Name)
		}
		names[w.Name] = true
		switch {
		case len(w.Command) > 0 == (w.Address != ""):
			d.errorf(at, "%s command or address; write exactly one of the two", map[bool]string{true: "has both", false: "has no"}[w.Address != ""])
		case w.Address != "":
			d.validateAddress(at+".address", w.Address)
			if len(w.Env) > 0 {
				d.errorf(at+".env", "is for a command, and this workload already runs; remove it")
			}
		case w.Command[0] == "":
			d.errorf(at+".command[0]", "is empty; write the program's name or path")
		}
		for name := range w.Env {
			if name == "HOST" || name == "PORT" || strings.HasPrefix(name, "HOLDFAST_") {
				d.errorf(at+".env."+name, "is set by holdfast; choose another name")
			}
		}
		setDefault(&w.Scope, ScopeNode)
		if !d.word(at+".scope", w.Scope, []string{ScopeNode, ScopeGateway}, nil) {
			continue
		}
		d.validateRoute(at, w, prefixes)
	}
}

func (d *document) validateRoute(at string, w *Workload, prefixes map[string]string) {
	switch {
	case w.Scope == ScopeNode && w.Route != nil:
		d.errorf(at+".route", "is for scope: gateway; remove it, or write scope: gateway (services are routed by their names)")
	case w.Scope == ScopeNode:
	case w.Route == nil:
		d.errorf(at+".route", "is missing; write {prefix: /}")
	case !strings.HasPrefix(w.Route.Prefix, "/") || strings.ContainsAny(w.Route.Prefix, "?# \t\r\n\x00"):
		d.errorf(at+".route.prefix", "%q is no path; write it like / or /page/", w.Route.Prefix)
	case prefixes[w.Route.Prefix] != "":
		d.errorf(at+".route.prefix", "%q is taken by workload %s; choose another", w.Route.Prefix, prefixes[w.Route.Prefix])
	default:
		prefixes[w.Route.Prefix] = w.Name
	}
}

func (d *document) validateAddress(field, address string) {
	host, port, err := net.SplitHostPort(address)
	n, perr := strconv.ParseUint(port, 10, 16)
	if err != nil || perr != nil || n == 0 || net.ParseIP(host) == nil {
		d.errorf(field, "%q is no address; write an IP address and a port, for example 127.0.0.1:50051", address)
	}
}

// validateTogether reports where documents contradict each other.
func (c *Config) validateTogether(docs map[*StatefulService]*document) {
	workloads := map[string]string{}
	if c.Mesh != nil {
		for _, w := range c.Mesh.Spec.Workloads {
			workloads[w.Name] = w.Scope
		}
	}
	names, services, types := map[string]bool{}, map[string]string{}, map[string]*StatefulService{}
	for _, s := range c.Services {
		d := docs[s]
		if names[s.Metadata.Name] {
			d.errorf("metadata.name", "%q is taken by a StatefulService above; choose another", s.Metadata.Name)
		}
		names[s.Metadata.Name] = true
		if other, taken := services[s.Spec.Service]; taken {
			d.errorf("spec.service", "%s is given its state by StatefulService %s already; remove one of the two", s.Spec.Service, other)
		}
		services[s.Spec.Service] = s.Metadata.Name
		ref := s.Spec.WorkloadRef
		switch scope, known := workloads[ref.Name]; {
		case !known:
			d.errorf("spec.workloadRef.name", "there is no workload %q; add it to the LocalMesh, or correct the name", ref.Name)
		case scope != ScopeNode:
			d.errorf("spec.workloadRef.name", "workload %q has scope gateway, and a service with state runs on every node; write scope: node", ref.Name)
		}
		if first, ok := types[s.Spec.Entity.Type]; !ok {
			types[s.Spec.Entity.Type] = s
		} else if field, a, b := difference(&first.Spec.Entity, &s.Spec.Entity); field != "" {
			d.errorf("spec.entity."+field, "%s, but StatefulService %s says %s for the same type %s; services that share a type share its contract: make them equal", b, first.Metadata.Name, a, s.Spec.Entity.Type)
		}
	}
}

// difference names the first field in which two contracts of one type differ, and both values.
func difference(a, b *Entity) (field, av, bv string) {
	for _, f := range []struct {
		name string
		get  func(*Entity) string
	}{
		{"model", func(e *Entity) string { return e.Model.String() }},
		{"consistency", func(e *Entity) string { return e.Consistency }},
		{"write", func(e *Entity) string { return e.Write }},
		{"affinity", func(e *Entity) string { return e.Affinity }},
		{"replicas", func(e *Entity) string { return e.Replicas.String() }},
		{"maxStateBytes", func(e *Entity) string { return strconv.Itoa(e.MaxStateBytes) }},
		{"ttl", func(e *Entity) string { return e.TTL.String() }},
		{"ttlFrom", func(e *Entity) string { return e.TTLFrom }},
		{"passivateAfter", func(e *Entity) string { return e.PassivateAfter.String() }},
		{"onUnavailable", func(e *Entity) string { return e.OnUnavailable }},
	} {
		if av, bv := f.get(a), f.get(b); av != bv {
			return f.name, av, bv
		}
	}
	return "", "", ""
}
