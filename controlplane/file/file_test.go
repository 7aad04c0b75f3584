package file

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/holdfast-mesh/holdfast/controlplane/api/v1alpha1"
	"github.com/holdfast-mesh/holdfast/internal/mesh"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 10 * time.Second

func TestWatch(t *testing.T) {
	dir := t.TempDir()
	config, topology := filepath.Join(dir, "holdfast.yaml"), filepath.Join(dir, "mesh.json")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const good = "apiVersion: holdfast.dev/v1alpha1\nkind: LocalMesh\nmetadata: {name: a}\nspec: {workloads: []}\n"
	write(good)
	ctx, cancel := context.WithCancel(t.Context())
	events, done := make(chan Event, 16), make(chan error, 1)
	go func() { done <- Watch(ctx, config, topology, func(e Event) { events <- e }) }()
	next := func() Event {
		t.Helper()
		select {
		case e := <-events:
			return e
		case <-time.After(patience):
			t.Fatal("no event")
			panic("unreachable")
		}
	}
	if e := next(); e.Config == nil || string(e.Source) != good {
		t.Errorf("got %+v", e)
	}
	if e := next(); !errors.Is(e.TopologyErr, os.ErrNotExist) {
		t.Errorf("got %+v", e)
	}
	if err := mesh.Write(topology, &mesh.Topology{Nodes: []mesh.Node{{Name: "node-1"}}}); err != nil {
		t.Fatal(err)
	}
	if e := next(); e.Topology == nil || e.Topology.Nodes[0].Name != "node-1" {
		t.Errorf("got %+v", e)
	}
	write("kind: Nothing\n")
	var errs v1alpha1.Errors
	if e := next(); !errors.As(e.ConfigErr, &errs) {
		t.Errorf("got %+v", e)
	}
	write(good)
	if e := next(); e.Config == nil {
		t.Errorf("got %+v", e)
	}
	// The same again is nothing new.
	write(good)
	write(good + "# more\n")
	if e := next(); e.Config == nil || string(e.Source) == good {
		t.Errorf("got %+v", e)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
