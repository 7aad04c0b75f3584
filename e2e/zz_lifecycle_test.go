package e2e

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-mesh/holdfast/e2e/rig"
)

// A mesh that is stopped and started has all its data; --reset wipes it; and a killed `up` leaves no process behind.
func TestRestart(t *testing.T) {
	m := own(t, rig.Options{Nodes: 2})
	key := newKey(t)
	for i := range 3 {
		must(t)(vote(m, m.Ingress(1+i%2), key, question))
		must(t)(deposit(m, m.Ingress(1+i%2), key, 5))
		must(t)(visit(m, m.Ingress(1+i%2), key))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := m.Interrupt(ctx); err != nil {
		t.Fatal(err)
	}
	if code := m.ExitCode(); code != 0 && code != 130 {
		t.Errorf("up ended with %d after an interrupt, want 0 or 130", code)
	}
	if folder, err := m.RunFolder(); err != nil {
		t.Error(err)
	} else if _, err := os.Stat(folder); !os.IsNotExist(err) {
		t.Errorf("the run folder %s is still there: %v", folder, err)
	}

	if err := m.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Logf("started again in %v", m.ReadyIn.Round(time.Millisecond))
	kept(t, m, key, 3, 15, 3)

	if err := m.Kill(m.UpPID()); err != nil {
		t.Fatal(err)
	}
	<-m.Exited()
	gone, stop := context.WithTimeout(t.Context(), 20*time.Second)
	defer stop()
	if err := m.WaitGone(gone); err != nil {
		t.Fatalf("after kill -9 of up: %v", err)
	}

	if err := m.Up(t.Context()); err != nil {
		t.Fatalf("after kill -9 of up: %v", err)
	}
	kept(t, m, key, 3, 15, 3)
	must(t)(vote(m, m.Ingress(1), key, question))
	ctx2, cancel2 := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel2()
	if err := m.Interrupt(ctx2); err != nil {
		t.Fatal(err)
	}
	if err := m.Up(t.Context(), "--reset"); err != nil {
		t.Fatal(err)
	}
	kept(t, m, key, 0, 0, 0)
}

func kept(t *testing.T, m *rig.Mesh, key string, wantVotes int, wantCents int64, wantVisits int) {
	t.Helper()
	addresses := append(m.Ingresses(), m.Gateway())
	within(t, 20*time.Second, agree(addresses, votesOf(m, key, question), exactly(wantVotes)))
	within(t, 20*time.Second, agree(addresses, balanceOf(m, key), exactly(wantCents)))
	within(t, 20*time.Second, agree(addresses, func(a string) (int, error) { return visits(m, a, key) }, exactly(wantVisits)))
}

// What makes `up` impossible is said clearly, and nothing stays behind.
func TestUpRefusals(t *testing.T) {
	t.Run("port taken", func(t *testing.T) {
		m := prepared(t, rig.Options{Nodes: 1})
		l, err := net.Listen("tcp", m.Gateway())
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		refused(t, m, fmt.Sprint(m.Base))
		if _, err := os.Stat(m.Data); !os.IsNotExist(err) {
			t.Errorf("the new data folder is still there: %v", err)
		}
	})
	t.Run("somebody else's folder", func(t *testing.T) {
		m := prepared(t, rig.Options{Nodes: 1, Args: []string{"--reset"}})
		theirs := filepath.Join(m.Data, "nodes", "theirs")
		if err := os.MkdirAll(theirs, 0o700); err != nil {
			t.Fatal(err)
		}
		refused(t, m, "is not a data directory of holdfast", "--data-dir")
		if _, err := os.Stat(theirs); err != nil {
			t.Errorf("it was removed: %v", err)
		}
	})
	t.Run("no Envoy", func(t *testing.T) {
		refused(t, prepared(t, rig.Options{Nodes: 1, Env: []string{"HOLDFAST_ENVOY=/nonexistent/envoy"}}), "/nonexistent/envoy")
	})
	t.Run("no module", func(t *testing.T) {
		refused(t, prepared(t, rig.Options{Nodes: 1, Env: []string{"HOLDFAST_MODULE_DIR=/nonexistent"}}), "/nonexistent")
	})
	t.Run("broken configuration", func(t *testing.T) {
		m := prepared(t, rig.Options{Nodes: 1, Copy: true})
		data, err := os.ReadFile(m.Config)
		if err != nil {
			t.Fatal(err)
		}
		broken := strings.Replace(string(data), "consistency: eventual", "consistancy: eventual", 1)
		if err := os.WriteFile(m.Config, []byte(broken), 0o644); err != nil {
			t.Fatal(err)
		}
		refused(t, m, "holdfast.yaml:", "consistancy")
	})
	t.Run("twice", func(t *testing.T) {
		m := own(t, rig.Options{Nodes: 1})
		out, err := m.RunBare("up", "-f", m.Config, "--nodes", "1", "--headless", "--data-dir", m.Data, "--port-base", fmt.Sprint(m.Base))
		if err == nil {
			t.Errorf("a second up on the same data folder started: %s", out)
		}
		if err := m.WaitReady(t.Context(), 1); err != nil {
			t.Errorf("the first one suffered: %v", err)
		}
	})
}

func prepared(t *testing.T, opts rig.Options) *rig.Mesh {
	t.Helper()
	m, err := rig.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

// refused starts `up`, which must end by itself with a code other than 0 and say these words.
func refused(t *testing.T, m *rig.Mesh, words ...string) {
	t.Helper()
	if err := m.Launch(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-m.Exited():
	case <-time.After(45 * time.Second):
		t.Fatalf("up still runs:\n%s", m.Output())
	}
	if m.ExitCode() == 0 {
		t.Errorf("up ended with 0")
	}
	for _, word := range words {
		if !strings.Contains(m.Output(), word) {
			t.Errorf("up does not say %q:\n%s", word, m.Output())
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	if err := m.WaitGone(ctx); err != nil {
		t.Error(err)
	}
}
