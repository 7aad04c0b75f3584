package localmesh

import (
	"context"
	"encoding/json"
	"os"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-mesh/holdfast/internal/identity"
)

func TestSides(t *testing.T) {
	nodes := []string{"a", "b", "c", "d"}
	for _, c := range []struct {
		groups, want [][]string
		err          string
	}{
		{nil, nil, ""},
		{[][]string{{"a"}}, [][]string{{"a"}, {"b", "c", "d"}}, ""},
		{[][]string{{"b", "a"}, {"c", "d"}}, [][]string{{"a", "b"}, {"c", "d"}}, ""},
		{[][]string{{"a"}, {"b"}}, [][]string{{"a"}, {"b"}, {"c", "d"}}, ""},
		{[][]string{{"a", "x"}}, nil, `no node "x" in this mesh; there are a, b, c, d`},
		{[][]string{{"a"}, {"a", "b"}}, nil, "a is named twice"},
		{[][]string{{"a", "a"}}, nil, "a is named twice"},
		{[][]string{{"a", "b", "c", "d"}}, nil, "all nodes on one side"},
		{[][]string{{}}, nil, "all nodes on one side"},
	} {
		if c.groups != nil {
			err := checkGroups(c.groups, nodes)
			if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
				t.Errorf("%v: got %v, want %q", c.groups, err, c.err)
			}
		}
		if got := sides(c.groups, nodes); c.err == "" && !reflect.DeepEqual(got, c.want) {
			t.Errorf("%v: got %v, want %v", c.groups, got, c.want)
		}
	}
	// A node that left is on no side, one that came is on the last.
	if got, want := sides([][]string{{"a", "gone"}, {"left"}}, nodes), [][]string{{"a"}, {"b", "c", "d"}}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	got := cuts([][]string{{"a", "b"}, {"c", "d"}}, nodes)
	want := map[string][]string{"a": {"c", "d"}, "b": {"c", "d"}, "c": {"a", "b"}, "d": {"a", "b"}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func cutFile(t *testing.T, m *Mesh, node string) []string {
	t.Helper()
	data, err := os.ReadFile(m.paths.Cut(node))
	if err != nil {
		t.Fatal(err)
	}
	var c CutRequest
	if err := json.Unmarshal(data, &c); err != nil {
		t.Fatal(err)
	}
	return c.Nodes
}

func TestPartition(t *testing.T) {
	m, _ := startMesh(t, 3)
	client := Client{Paths: m.paths}
	if f, err := client.Fault(t.Context()); err != nil || len(f.Groups) != 0 || len(f.Waiting) != 0 {
		t.Fatalf("at first: %v, %v", f, err)
	}
	if _, err := client.Partition(t.Context(), [][]string{{"node-9"}}); err == nil || !strings.Contains(err.Error(), `no node "node-9"`) {
		t.Errorf("unknown node: %v", err)
	}
	f, err := client.Partition(t.Context(), [][]string{{"node-2"}})
	if err != nil || f.String() != "partition: node-2 | node-1, node-3" || len(f.Waiting) != 0 {
		t.Fatalf("partition: %v, %v", f, err)
	}
	if got, want := cutFile(t, m, "node-2"), []string{"node-1", "node-3"}; !slices.Equal(got, want) {
		t.Errorf("node-2 is cut off from %v, want %v", got, want)
	}
	// A store that forgot it is told again.
	if err := os.Remove(m.paths.Cut("node-1")); err != nil {
		t.Fatal(err)
	}
	m.keepCut(t.Context())
	if got, want := cutFile(t, m, "node-1"), []string{"node-2"}; !slices.Equal(got, want) {
		t.Errorf("node-1 is cut off from %v, want %v", got, want)
	}
	// A store that does not answer is waited for.
	m.mu.Lock()
	pid := m.nodes[2].store.Status().PID
	m.mu.Unlock()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	f, err = client.Partition(t.Context(), nil)
	if err != nil || len(f.Groups) != 0 || !slices.Equal(f.Waiting, []string{"node-3"}) {
		t.Errorf("healed with a store away: %+v, %v", f, err)
	}
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if !until(t.Context(), 10*time.Second, func(ctx context.Context) bool { m.keepCut(ctx); return len(m.Fault(ctx).Waiting) == 0 }) {
		t.Errorf("not healed: %+v", m.Fault(t.Context()))
	}
	if got := cutFile(t, m, "node-3"); len(got) != 0 {
		t.Errorf("node-3 is still cut off from %v", got)
	}
}

func TestRotate(t *testing.T) {
	m, journal := startMesh(t, 2)
	client := Client{Paths: m.paths}
	before, err := client.Gossip(t.Context())
	if err != nil || len(before.Keys) != 1 || len(before.Stores) != 2 || !slices.Equal(before.Stores[0].Keys, before.Keys) {
		t.Fatalf("before: %+v, %v", before, err)
	}
	var steps []string
	keys, err := client.Rotate(t.Context(), func(s string) { steps = append(steps, s) })
	if err != nil || len(keys) != 1 || keys[0] == before.Keys[0] || len(steps) != 3 {
		t.Fatalf("got %v, %q, %v", keys, steps, err)
	}
	file, err := os.ReadFile(m.paths.GossipKey())
	if err != nil || !slices.Equal(Fingerprints(file), keys) {
		t.Errorf("the file has %v, want %v (%v)", Fingerprints(file), keys, err)
	}
	old, fresh := before.Keys[0], keys[0]
	var seen []string
	for _, line := range journal() {
		if k, ok := strings.CutPrefix(line, "keys node-1 "); ok && (len(seen) == 0 || seen[len(seen)-1] != k) {
			seen = append(seen, k)
		}
		if strings.Contains(line, strings.TrimSpace(string(file))) {
			t.Errorf("a key is told: %s", line)
		}
	}
	if want := []string{old, old + "," + fresh, fresh + "," + old, fresh}; !slices.Equal(seen, want) {
		t.Errorf("keys were, one after the other, %q, want %q", seen, want)
	}
}

func TestCertificates(t *testing.T) {
	m, _ := startMesh(t, 2)
	source := func(node string, now time.Time) *identity.Source {
		return &identity.Source{
			Self: identity.ID{Mesh: m.paths.MeshName(), Node: node}, CA: m.paths.CA(), Identity: m.paths.Identity(node),
			Now: func() time.Time { return now },
		}
	}
	for _, path := range []string{m.paths.CA(), m.paths.Identity("node-1")} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v, want mode 0600", path, info, err)
		}
	}
	if err := source("node-1", time.Now()).Check(); err != nil {
		t.Error(err)
	}
	read := func() string {
		data, err := os.ReadFile(m.paths.Identity("node-2"))
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	first, now := read(), time.Now()
	if err := m.renew(now.Add(identity.Life/2 - time.Minute)); err != nil || read() != first {
		t.Errorf("renewed in its first half (%v)", err)
	}
	if err := m.renew(now.Add(identity.Life/2 + time.Minute)); err != nil || read() == first {
		t.Errorf("not renewed in its second half (%v)", err)
	}
	if err := source("node-2", now).Check(); err != nil {
		t.Error(err)
	}
}
