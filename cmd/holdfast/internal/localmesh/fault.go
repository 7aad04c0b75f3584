package localmesh

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
)

// Fault is what is broken on purpose.
type Fault struct {
	// Groups of stores that can't reach each other; empty where nothing is broken. Every node is in one.
	Groups [][]string `json:"groups"`
	// Waiting names the stores that are not cut off as they should be: they don't answer, and will be once they do.
	Waiting []string `json:"waiting,omitempty"`
}

func (f *Fault) String() string {
	if len(f.Groups) == 0 {
		return "no fault: all stores can reach each other"
	}
	groups := make([]string, len(f.Groups))
	for i, g := range f.Groups {
		groups[i] = strings.Join(g, ", ")
	}
	return "partition: " + strings.Join(groups, " | ")
}

// CutRequest is the body of PUT /v1/cut at a store's HTTP socket, and the answer to GET: the nodes whose stores it neither
// talks nor listens to.
type CutRequest struct {
	Nodes []string `json:"nodes"`
}

// sides is the partition with every node in a group: those that are not named are the last one. Groups without a node that
// is there are left out.
func sides(groups [][]string, nodes []string) [][]string {
	if len(groups) == 0 {
		return nil
	}
	var out [][]string
	named := map[string]bool{}
	add := func(in func(string) bool) {
		var g []string
		for _, n := range nodes {
			if in(n) {
				g = append(g, n)
				named[n] = true
			}
		}
		if g != nil {
			out = append(out, g)
		}
	}
	for _, g := range groups {
		add(func(n string) bool { return slices.Contains(g, n) })
	}
	add(func(n string) bool { return !named[n] })
	return out
}

// checkGroups says what is wrong with a partition.
func checkGroups(groups [][]string, nodes []string) error {
	seen := map[string]bool{}
	for _, g := range groups {
		for _, n := range g {
			switch {
			case !slices.Contains(nodes, n):
				return fmt.Errorf("no node %q in this mesh; there are %s", n, strings.Join(nodes, ", "))
			case seen[n]:
				return fmt.Errorf("%s is named twice: a node is on one side", n)
			}
			seen[n] = true
		}
	}
	if len(sides(groups, nodes)) < 2 {
		return fmt.Errorf("that leaves all nodes on one side; there are %s", strings.Join(nodes, ", "))
	}
	return nil
}

// nodeNames lists the nodes.
func (m *Mesh) nodeNames() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	names := make([]string, len(m.nodes))
	for i, n := range m.nodes {
		names[i] = n.Name
	}
	return names
}

// Partition cuts the stores of each group off from all others; no groups heal. What can't be done at once is done when the
// store answers: see Fault.Waiting.
func (m *Mesh) Partition(ctx context.Context, groups [][]string) (*Fault, error) {
	if len(groups) > 0 {
		if err := checkGroups(groups, m.nodeNames()); err != nil {
			return nil, err
		}
	}
	m.mu.Lock()
	ready := m.ready
	if ready {
		m.partition, m.uncut = groups, true
	}
	m.mu.Unlock()
	if !ready {
		return nil, errBusy
	}
	_ = m.cutAll(ctx)
	f := m.Fault(ctx)
	m.progress("%s", f)
	return f, nil
}

// Fault tells what is broken now.
func (m *Mesh) Fault(ctx context.Context) *Fault {
	names := m.nodeNames()
	f := &Fault{Groups: m.groups(names)}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for node, want := range cuts(f.Groups, names) {
		wg.Go(func() {
			if has, err := m.cutOf(ctx, node); err != nil || !slices.Equal(has, want) {
				mu.Lock()
				defer mu.Unlock()
				f.Waiting = append(f.Waiting, node)
			}
		})
	}
	wg.Wait()
	slices.Sort(f.Waiting)
	if f.Groups == nil {
		f.Groups = [][]string{}
	}
	return f
}

func (m *Mesh) groups(names []string) [][]string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return sides(m.partition, names)
}

// cuts says for each node which others it is cut off from, sorted.
func cuts(groups [][]string, nodes []string) map[string][]string {
	out := map[string][]string{}
	for _, n := range nodes {
		out[n] = nil
	}
	for _, g := range groups {
		for _, n := range g {
			for _, other := range nodes {
				if !slices.Contains(g, other) {
					out[n] = append(out[n], other)
				}
			}
			slices.Sort(out[n])
		}
	}
	return out
}

// keepCut sees to stores that did not answer when the partition changed, and while there is one to those that start anew.
func (m *Mesh) keepCut(ctx context.Context) {
	m.mu.Lock()
	needed := m.uncut || len(m.partition) > 0
	m.mu.Unlock()
	if needed {
		_ = m.cutAll(ctx) // Who does not answer now is asked again.
	}
}

// cutAll brings every store to where it should be. Errors are of those that don't answer.
func (m *Mesh) cutAll(ctx context.Context) error {
	names := m.nodeNames()
	groups := m.groups(names)
	var mu sync.Mutex
	var wg sync.WaitGroup
	var errs []error
	for node, want := range cuts(groups, names) {
		wg.Go(func() {
			has, err := m.cutOf(ctx, node)
			if err == nil && !slices.Equal(has, want) {
				err = m.cut(ctx, node, want)
			}
			if err != nil {
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, fmt.Errorf("store of %s: %w", node, err))
			}
		})
	}
	wg.Wait()
	if len(errs) == 0 && groups == nil {
		m.mu.Lock()
		m.uncut = len(m.partition) > 0
		m.mu.Unlock()
	}
	return errors.Join(errs...)
}

func (m *Mesh) cutOf(ctx context.Context, node string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	var has CutRequest
	err := (Client{Paths: m.paths}).json(ctx, http.MethodGet, m.paths.StoreHTTPSocket(node), "/v1/cut", nil, &has)
	slices.Sort(has.Nodes)
	return has.Nodes, err
}

func (m *Mesh) cut(ctx context.Context, node string, from []string) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	return (Client{Paths: m.paths}).json(ctx, http.MethodPut, m.paths.StoreHTTPSocket(node), "/v1/cut", CutRequest{from}, nil)
}
