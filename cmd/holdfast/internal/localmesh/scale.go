package localmesh

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/holdfast-mesh/holdfast/internal/supervise"
)

// errBusy says that the mesh is being changed already.
var errBusy = errors.New("the mesh is starting, stopping or being scaled: try again when that is done")

// Scale brings the mesh to n nodes. Nodes come and go at the end: node-n is the last one to stay. Data of nodes that go
// stays on disk, and a node that returns starts with it.
func (m *Mesh) Scale(ctx context.Context, n int) error {
	if n < 1 || n > MaxNodes {
		return fmt.Errorf("%d nodes: must be between 1 and %d", n, MaxNodes)
	}
	if !m.change.TryLock() {
		return errBusy
	}
	defer m.change.Unlock()
	m.mu.Lock()
	have, ready := len(m.nodes), m.ready
	m.mu.Unlock()
	switch {
	case !ready:
		return errBusy
	case n > have:
		return m.grow(ctx, have, n)
	case n < have:
		return m.shrink(ctx, n)
	}
	return nil
}

// grow adds nodes have+1 to n: services and stores first, then the topology (by which the control plane learns of them and
// configures the stores), then the Envoys. Until an Envoy listens, calls to it fail to connect and go to the next node.
func (m *Mesh) grow(ctx context.Context, have, n int) (err error) {
	var added []*node
	defer func() {
		if err == nil {
			return
		}
		m.mu.Lock()
		m.nodes = m.nodes[:have]
		m.mu.Unlock()
		err = errors.Join(err, m.writeTopology())
		for _, a := range added {
			m.stopNode(a)
		}
	}()
	var first, second []*supervise.Process
	for i := have + 1; i <= n; i++ {
		if err := m.ports.checkIngress(i, nodeName(i)+"'s ingress"); err != nil {
			return err
		}
		m.mu.Lock()
		a, err := m.newNodeLocked(i)
		m.mu.Unlock()
		if err != nil {
			return err
		}
		added = append(added, a)
		services, err := m.startServices(a)
		if err != nil {
			return err
		}
		if err := m.startStore(a); err != nil {
			return err
		}
		first = append(first, services...)
		second = append(second, a.store)
	}
	if err := m.waitAll(ctx, first...); err != nil {
		return err
	}
	for _, a := range added {
		// It listens before it is configured, and so before it is ready.
		until(ctx, readyTimeout, func(context.Context) bool { _, err := os.Stat(a.StoreSocket); return err == nil })
	}
	m.mu.Lock()
	m.nodes = append(m.nodes, added...)
	m.mu.Unlock()
	if err := m.writeTopology(); err != nil {
		return err
	}
	if err := m.waitConfigured(ctx, second...); err != nil {
		return err
	}
	var third []*supervise.Process
	for _, a := range added {
		if err := m.startEnvoy(a); err != nil {
			return err
		}
		third = append(third, a.envoy)
	}
	if err := m.waitConfigured(ctx, third...); err != nil {
		return err
	}
	return m.waitProgrammed(ctx, n+1)
}

// shrink removes the last nodes, one after the other, so that there is always one whose store can take what the others
// hand over.
func (m *Mesh) shrink(ctx context.Context, n int) error {
	for {
		m.mu.Lock()
		have := len(m.nodes)
		if have <= n {
			m.mu.Unlock()
			return nil
		}
		leaving := m.nodes[have-1]
		m.nodes = m.nodes[:have-1]
		m.mu.Unlock()
		if err := m.writeTopology(); err != nil {
			return err
		}
		if !until(ctx, programmedTimeout, func(ctx context.Context) bool { return m.programmed(ctx, leaving.Name) }) {
			// An Envoy or the control plane is away. Whoever still sends here fails to connect and goes to the next node.
			m.progress("warning: not every Envoy has confirmed that %s leaves; going on", leaving.Name)
		}
		until(ctx, drainTimeout, func(ctx context.Context) bool { return idle(ctx, leaving.AdminSocket) })
		m.stopNode(leaving)
		if st := leaving.store.Status(); !st.Clean() {
			m.progress("warning: %s's store may not have handed over all it had (%s, see %s); it keeps it on disk and brings it back with the node",
				leaving.Name, st.LastExit, m.paths.Log(leaving.store.Name()))
		}
		m.progress("%s has left; its data stays in %s", leaving.Name, m.paths.StoreData(leaving.Name))
	}
}

// stopNode stops a node's processes: no more requests, then nobody who makes changes, then the store, which pushes what
// the others lack before it ends.
func (m *Mesh) stopNode(n *node) {
	m.mu.Lock()
	envoy, store := n.envoy, n.store
	services := make([]*supervise.Process, 0, len(n.services))
	for _, p := range n.services {
		services = append(services, p)
	}
	m.mu.Unlock()
	stopAll(envoy)
	stopAll(services...)
	stopAll(store)
}

// idle says whether an Envoy has no request under way.
func idle(ctx context.Context, adminSocket string) bool {
	body, err := call(ctx, http.MethodGet, adminSocket, "/stats?filter=downstream_rq_active")
	if err != nil {
		return true // Nobody is there to be busy.
	}
	for line := range strings.Lines(string(body)) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), ": ")
		if n, err := strconv.Atoi(value); ok && err == nil && n > 0 && !strings.HasPrefix(name, "http.admin.") {
			return false
		}
	}
	return true
}

// programmed asks the control plane whether it has seen that a node leaves, and every other Envoy has taken it.
func (m *Mesh) programmed(ctx context.Context, leaving string) bool {
	client := Client{Paths: m.paths}
	var config Configuration
	if err := client.Admin(ctx, http.MethodGet, "/v1/config", nil, &config); err != nil || leaving != "" && slices.Contains(config.Nodes, leaving) {
		return false
	}
	var list ProxyList
	if err := client.Admin(ctx, http.MethodGet, "/v1/proxies", nil, &list); err != nil {
		return false
	}
	for _, p := range list.Proxies {
		for _, t := range p.Types {
			if p.Connected && p.Name != leaving && t.State != Acked {
				return false
			}
		}
	}
	return true
}
