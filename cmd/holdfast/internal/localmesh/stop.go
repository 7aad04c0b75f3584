package localmesh

import (
	"os"
	"slices"
	"sync"

	"github.com/holdfast-mesh/holdfast/internal/supervise"
)

// Close stops everything, bounded: first what takes requests, then what serves them, then what keeps the state.
func (m *Mesh) Close() {
	m.end()
	m.followed.Wait()
	m.change.Lock()
	defer m.change.Unlock()
	if m.sup != nil {
		m.mu.Lock()
		nodes := append([]*node(nil), m.nodes...)
		single := map[string]*supervise.Process{}
		for name, p := range m.single {
			single[name] = p
		}
		m.ready = false
		m.mu.Unlock()

		first := []*supervise.Process{single[gatewayName]}
		var second, third []*supervise.Process
		for _, n := range nodes {
			first = append(first, n.envoy)
			for _, p := range n.services {
				second = append(second, p)
			}
			third = append(third, n.store)
		}
		var etcd []*supervise.Process
		for _, name := range m.etcdNames() {
			etcd = append(etcd, single[name])
		}
		for name, p := range single {
			if name != gatewayName && name != controlPlaneName && !slices.Contains(m.etcdNames(), name) {
				second = append(second, p)
			}
		}
		for _, stage := range [][]*supervise.Process{first, second, third, {single[controlPlaneName]}} {
			stopAll(stage...)
		}
		// One after the other: a leader that ends looks for a successor, and waits long for one that is ending too.
		for _, p := range etcd {
			stopAll(p)
		}
		m.sup.Close()
	}
	m.page.close()
	if m.api != nil {
		m.api.close()
	}
	if m.claimed {
		_ = os.RemoveAll(m.paths.Run)
	}
	m.lock.Close()
}

func stopAll(processes ...*supervise.Process) {
	var wg sync.WaitGroup
	for _, p := range processes {
		if p != nil {
			wg.Go(p.Stop)
		}
	}
	wg.Wait()
}
