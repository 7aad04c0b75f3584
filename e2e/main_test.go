// Package e2e tests the whole product on real processes: Envoys with the filter, stores, etcd, the control plane and the
// demo's services, started by `holdfast up` as a user starts them.
//
// The tests build nothing: `make e2e` builds first. Most share one mesh of six nodes and leave it healthy; those that end it
// have their own.
package e2e

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-mesh/holdfast/e2e/rig"
)

const nodes = 6

var shared struct {
	once sync.Once
	mesh *rig.Mesh
	err  error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if shared.mesh != nil {
		if err := shared.mesh.Close(); err != nil {
			fmt.Printf("e2e: taking the mesh down: %v\n", err)
			code = 1
		}
	}
	os.Exit(code)
}

// mesh returns the shared mesh, healthy, and sees to it that a failed test prints the logs.
func mesh(t *testing.T) *rig.Mesh {
	t.Helper()
	shared.once.Do(func() {
		shared.mesh, shared.err = rig.Start(context.Background(), rig.Options{Nodes: nodes, Copy: true})
		if shared.err == nil {
			t.Logf("six nodes ready in %v", shared.mesh.ReadyIn)
		}
	})
	if shared.err != nil {
		t.Fatalf("no mesh: %v", shared.err)
	}
	watchOver(t, shared.mesh)
	if err := shared.mesh.WaitReady(t.Context(), nodes); err != nil {
		t.Fatal(err)
	}
	return shared.mesh
}

// own starts a mesh for this test alone.
func own(t *testing.T, opts rig.Options) *rig.Mesh {
	t.Helper()
	m, err := rig.Start(t.Context(), opts)
	if err != nil {
		t.Fatalf("no mesh: %v", err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Errorf("taking the mesh down: %v", err)
		}
	})
	watchOver(t, m)
	return m
}

func watchOver(t *testing.T, m *rig.Mesh) {
	t.Helper()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the end of each log:\n%s", m.Logs(logLines))
		}
	})
}

// logLines is how much of each log a failed test shows.
const logLines = 15

// within fails the test unless f succeeds in time.
func within(t *testing.T, d time.Duration, f func() error) {
	t.Helper()
	if err := rig.PollFor(d, f); err != nil {
		t.Fatal(err)
	}
}
