package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-mesh/holdfast/cmd/holdfast/internal/localmesh"
)

func ready() localmesh.ProcessStatus { return localmesh.ProcessStatus{PID: 1, State: "ready"} }

func TestTable(t *testing.T) {
	restarted := localmesh.ProcessStatus{State: "down", Restarts: 2}
	got := renderTable(&localmesh.Status{
		Etcd: ready(), ControlPlane: ready(),
		Gateway: localmesh.GatewayStatus{
			Address: "127.0.0.1:8080", Processes: map[string]localmesh.ProcessStatus{"envoy": ready(), "page": ready()},
		},
		Nodes: []localmesh.NodeStatus{{
			Name: "node-1", Ingress: "127.0.0.1:8081",
			Processes: map[string]localmesh.ProcessStatus{"envoy": ready(), "store": restarted, "b": ready(), "a": {State: "starting"}},
		}},
	})
	want := `
NAME           ADDRESS         PROCESS  ENVOY  STORE               SERVICES
etcd                           ready                               
control plane                  ready                               
gateway        127.0.0.1:8080           ready                      1 ready
node-1         127.0.0.1:8081           ready  down (restarts: 2)  1 ready, a starting
`
	if got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
}

// The table stays at the bottom: a line goes above it, and only a changed table is drawn again.
func TestLiveTableStaysAtTheBottom(t *testing.T) {
	var out bytes.Buffer
	d := &display{out: &out, live: true}
	d.show("a\nb\n")
	d.show("a\nb\n")
	d.line("hello")
	d.line("etcd is ready (0.1s)")
	d.show("c\n")
	want := "a\nb\n" + "\x1b[2A\x1b[J" + "hello\n" + "a\nb\n" + "\x1b[2A\x1b[J" + "c\n"
	if got := out.String(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestNarrowTerminal(t *testing.T) {
	if got, want := fit("0123456789\nabc   \n", 8), "0123456~\nabc\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestFindsEnvoyAndModule(t *testing.T) {
	dir := t.TempDir()
	bin, lib := filepath.Join(dir, "bin"), filepath.Join(dir, "lib")
	self := filepath.Join(bin, "holdfast")
	t.Setenv("PATH", dir)
	t.Setenv(envoyVar, "")
	t.Setenv(moduleDirVar, "")
	if _, err := findEnvoy("", self); err == nil || !strings.Contains(err.Error(), "run `make build`") {
		t.Errorf("no Envoy anywhere: got %v", err)
	}
	if _, err := findModule("", self); err == nil || !strings.Contains(err.Error(), "run `make build`") {
		t.Errorf("no module anywhere: got %v", err)
	}
	for _, d := range []string{bin, lib} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{filepath.Join(bin, "envoy"), filepath.Join(lib, moduleFile)} {
		if err := os.WriteFile(f, nil, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := findEnvoy("", self); err != nil || got != filepath.Join(bin, "envoy") {
		t.Errorf("beside the binary: got %q, %v", got, err)
	}
	if got, err := findModule("", self); err != nil || got != lib {
		t.Errorf("in ../lib: got %q, %v", got, err)
	}
	t.Setenv(envoyVar, filepath.Join(dir, "none"))
	if _, err := findEnvoy("", self); err == nil {
		t.Error("a named Envoy that is not there: got no error")
	}
	t.Setenv(moduleDirVar, dir)
	if _, err := findModule("", self); err == nil || !strings.Contains(err.Error(), dir) {
		t.Errorf("a named folder without the module: got %v", err)
	}
}
