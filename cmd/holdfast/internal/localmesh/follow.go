package localmesh

import (
	"bytes"
	"context"
	"os"
	"reflect"
	"time"

	"github.com/holdfast-mesh/holdfast/controlplane/api/v1alpha1"
	"github.com/holdfast-mesh/holdfast/internal/supervise"
)

// follow watches the configuration file for workloads that come, change and go. All else in it is the control plane's, which
// watches it too; a broken file changes nothing.
func (m *Mesh) follow(ctx context.Context, seen []byte) {
	m.followed.Go(func() { m.report(ctx) })
	refused := false
	tick := time.NewTicker(pollFile)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		data, err := os.ReadFile(m.opts.File)
		if err != nil || bytes.Equal(data, seen) {
			continue
		}
		seen = data
		config, err := v1alpha1.Parse(m.opts.File, data)
		switch {
		case err != nil:
			refused = true
			m.progress("the changed configuration is refused, the last good one stays:\n%v", err)
		case config.Mesh == nil:
			refused = true
			m.progress("the changed configuration has no LocalMesh any more: the workloads stay as they are")
		default:
			if refused {
				refused = false
				m.progress("configuration accepted again")
			}
			m.apply(ctx, config)
		}
	}
}

// place is where replicas of workloads run: a node, or beside the gateway.
type place struct {
	name      string
	addresses map[string]string
	process   func(workload string) *supervise.Process
	set       func(workload string, p *supervise.Process)
}

// placesLocked lists the places of a scope. Their maps are guarded by mu.
// +checklocks:m.mu
func (m *Mesh) placesLocked(scope string) []place {
	if scope == v1alpha1.ScopeGateway {
		return []place{{
			name: gatewayName, addresses: m.topology.GatewayWorkloads,
			process: func(w string) *supervise.Process { return m.single[gatewayName+"/"+w] },
			set:     func(w string, p *supervise.Process) { m.single[gatewayName+"/"+w] = p },
		}}
	}
	var out []place
	for _, n := range m.nodes {
		out = append(out, place{
			name: n.Name, addresses: n.Services,
			process: func(w string) *supervise.Process { return n.services[w] },
			set:     func(w string, p *supervise.Process) { n.services[w] = p },
		})
	}
	return out
}

// apply brings the workloads to what config says: new ones are there before anybody is told of them, changed ones are
// started again one place after the other, and those that go end when no Envoy knows them any more.
func (m *Mesh) apply(ctx context.Context, config *v1alpha1.Config) {
	m.change.Lock()
	defer m.change.Unlock()
	old := byName(m.config.Load())
	for _, w := range config.Mesh.Spec.Workloads {
		before := old[w.Name]
		if before != nil && before.Scope == w.Scope {
			delete(old, w.Name)
			if reflect.DeepEqual(*before, w) {
				continue
			}
		}
		m.mu.Lock()
		places := m.placesLocked(w.Scope)
		m.mu.Unlock()
		for _, p := range places {
			if ctx.Err() != nil {
				return
			}
			if err := m.place(ctx, &w, before, p); err != nil {
				m.progress("warning: workload %s: %v", w.Name, err)
			}
		}
		m.progress("workload %s is as the changed configuration says", w.Name)
	}
	m.config.Store(config)
	var gone []*supervise.Process
	m.mu.Lock()
	for name, w := range old {
		for _, p := range m.placesLocked(w.Scope) {
			gone = append(gone, p.process(name))
			p.set(name, nil)
			delete(p.addresses, name)
		}
	}
	m.mu.Unlock()
	if err := m.writeTopology(); err != nil {
		m.progress("warning: %v", err)
		return
	}
	if len(old) > 0 {
		until(ctx, programmedTimeout, func(ctx context.Context) bool { return m.programmed(ctx, "") })
		stopAll(gone...)
	}
}

// place starts a workload at a place, or starts it again.
func (m *Mesh) place(ctx context.Context, w, before *v1alpha1.Workload, p place) (err error) {
	m.mu.Lock()
	running, address := p.process(w.Name), p.addresses[w.Name]
	m.mu.Unlock()
	stopAll(running)
	if address == "" || w.Address != "" || before != nil && before.Address != "" {
		if address, err = m.addressOf(w); err != nil {
			return err
		}
	}
	var started *supervise.Process
	if w.Address != "" {
		m.checkExternal(w)
	} else if started, err = m.sup.Run(m.workloadSpec(w, p.name, address)); err != nil {
		return err
	}
	m.mu.Lock()
	p.set(w.Name, started)
	p.addresses[w.Name] = address
	m.mu.Unlock()
	if started != nil {
		if err := m.waitAll(ctx, started); err != nil {
			return err
		}
	}
	return m.writeTopology()
}

func byName(config *v1alpha1.Config) map[string]*v1alpha1.Workload {
	out := map[string]*v1alpha1.Workload{}
	for i := range config.Mesh.Spec.Workloads {
		w := &config.Mesh.Spec.Workloads[i]
		out[w.Name] = w
	}
	return out
}
