package localmesh

import (
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
)

func TestReportsServices(t *testing.T) {
	bad := func(reason string) ConfiguredService {
		return ConfiguredService{Name: "stock", Service: "shop.v1.Stok", State: "stale", Error: reason}
	}
	ok := ConfiguredService{Name: "stock", Service: "shop.v1.Stock", State: "ok"}
	var r reporter
	for i, c := range []struct {
		service ConfiguredService
		want    string
	}{
		{ok, ""},
		{bad("asked for"), ""},
		{bad("not there"), ""},
		{bad("not there"), "WARN service stock is not as configured (stale): not there"},
		{bad("not there"), ""},
		{bad("asked for"), ""},
		{bad("not there"), ""},
		{bad("not there"), ""},
		{bad("no key"), ""},
		{bad("no key"), "WARN service stock is not as configured (stale): no key"},
		{ok, "service stock is as configured again"},
		{bad("a moment"), ""},
		{ok, ""},
	} {
		if got := strings.Join(r.services([]ConfiguredService{c.service}), "\n"); got != c.want {
			t.Errorf("look %d: got %q, want %q", i, got, c.want)
		}
	}
	r.services([]ConfiguredService{bad("x")})
	r.services([]ConfiguredService{bad("x")})
	if got := append(r.services(nil), r.services([]ConfiguredService{ok})...); len(got) != 0 {
		t.Errorf("removed: got %q", got)
	}
}

func TestReportsProcesses(t *testing.T) {
	var r reporter
	for i, c := range []struct {
		state    string
		restarts int
		want     string
	}{
		{"ready", 1, ""},
		{"down", 2, ""},
		{"starting", 2, ""},
		{"ready", 2, "process node-1/store is back (pid 7)"},
		{"ready", 2, ""},
		{"starting", 0, ""},
		{"ready", 0, ""},
		{"ready", 1, "process node-1/store is back (pid 7)"},
	} {
		s := &Status{Nodes: []NodeStatus{{Name: "node-1", Processes: map[string]ProcessStatus{"store": {PID: 7, State: c.state, Restarts: c.restarts}}}}}
		if got := strings.Join(r.processes(s), "\n"); got != c.want {
			t.Errorf("look %d: got %q, want %q", i, got, c.want)
		}
	}
}

// What a running mesh says of a file that is refused and corrected, and of a process that ends.
func TestReportsWhileRunning(t *testing.T) {
	data := t.TempDir()
	t.Setenv("JOURNAL", data+"/journal")
	o := testOptions(data, 1, testBase(t))
	var mu sync.Mutex
	var lines []string
	o.Progress = func(line string) { mu.Lock(); defer mu.Unlock(); lines = append(lines, line) }
	said := func(text string) func() bool {
		return func() bool {
			mu.Lock()
			defer mu.Unlock()
			return slices.ContainsFunc(lines, func(l string) bool { return strings.HasPrefix(l, text) })
		}
	}
	m, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	if err := m.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(m.opts.File, []byte("nonsense: true"), 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "told of the refusal", said("the changed configuration is refused"))
	writeConfig(data, "service")
	eventually(t, "told of the correction", said("configuration accepted again"))
	if err := syscall.Kill(m.Status().Nodes[0].StorePID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "told that it is back", said("process node-1/store is back"))
}
