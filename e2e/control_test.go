package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-mesh/holdfast/e2e/rig"
)

// The control plane pauses, dies and comes back: no call notices.
func TestControlPlaneKilled(t *testing.T) {
	m := mesh(t)
	account, key := newKey(t), newKey(t)
	s, err := m.Status()
	if err != nil {
		t.Fatal(err)
	}
	money := rig.StartLoad(2, 20*time.Millisecond, func(worker, n int) (*rig.Reply, error) {
		return deposit(m, m.Ingress(1+(worker+n)%nodes), account, 1)
	})
	defer money.Stop()
	voting := rig.StartLoad(4, 20*time.Millisecond, func(worker, n int) (*rig.Reply, error) {
		return vote(m, m.Ingress(1+(worker+n)%nodes), key, question)
	})
	defer voting.Stop()

	if err := m.Pause(s.ControlPlane.PID); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = m.Resume(s.ControlPlane.PID) }()
	within(t, 30*time.Second, atLeast(money, 100))
	if err := m.Kill(s.ControlPlane.PID); err != nil {
		t.Fatal(err)
	}
	within(t, 30*time.Second, func() error {
		now, err := m.Status()
		if err != nil {
			return err
		}
		if now.ControlPlane.PID == 0 || now.ControlPlane.PID == s.ControlPlane.PID {
			return fmt.Errorf("the control plane's process is %d, was %d", now.ControlPlane.PID, s.ControlPlane.PID)
		}
		return nil
	})
	within(t, 45*time.Second, func() error { return allAcked(m) })
	within(t, 30*time.Second, atLeast(money, money.Acked()+50))
	money.Stop()
	voting.Stop()
	if money.Refused()+money.Unknown()+voting.Refused()+voting.Unknown() > 0 {
		t.Errorf("without the control plane: money %v; votes %v; want no failure", &money.Tally, &voting.Tally)
	}
	within(t, 20*time.Second, agree(m.Ingresses(), balanceOf(m, account), exactly(int64(money.Acked()))))
	within(t, 20*time.Second, agree(m.Ingresses(), votesOf(m, key, question), counted(&voting.Tally)))
}

// The configuration changes under load and no request fails; a broken one is refused with its reason and the last good one
// stays; and the next good one is taken.
func TestConfigurationChanges(t *testing.T) {
	m := mesh(t)
	key := newKey(t)
	original, err := os.ReadFile(m.Config)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := os.WriteFile(m.Config, original, 0o644); err != nil {
			t.Error(err)
		}
		within(t, 30*time.Second, func() error { return limitIs(m, 4096) })
	}()
	load := rig.StartLoad(6, 10*time.Millisecond, func(worker, n int) (*rig.Reply, error) {
		return vote(m, m.Ingress(1+(worker+n)%nodes), key, question)
	})
	defer load.Stop()
	within(t, 30*time.Second, atLeast(load, 100))

	// No account with money in it fits into one byte, so the new limit is noticed from outside.
	edit(t, m, original, "    carriage: {metadata: {encoding: proto}}\n    maxStateBytes: 4096", "    carriage: {metadata: {encoding: proto}}\n    maxStateBytes: 1")
	within(t, 30*time.Second, func() error { return limitIs(m, 1) })
	at := load.Acked()
	within(t, 30*time.Second, atLeast(load, at+100))

	edit(t, m, original, "    affinity: local\n", "    affinity: lokal\n")
	within(t, 20*time.Second, func() error {
		out, err := m.Run("proxy", "status")
		if err != nil {
			return err
		}
		if !strings.Contains(out, "holdfast.yaml:") || !strings.Contains(out, "lokal") {
			return fmt.Errorf("proxy status tells no reason with file and line:\n%s", out)
		}
		return nil
	})
	if err := limitIs(m, 1); err != nil {
		t.Errorf("the last good configuration did not stay: %v", err)
	}
	at = load.Acked()
	within(t, 30*time.Second, atLeast(load, at+100))

	if err := os.WriteFile(m.Config, original, 0o644); err != nil {
		t.Fatal(err)
	}
	within(t, 30*time.Second, func() error { return limitIs(m, 4096) })
	at = load.Acked()
	within(t, 30*time.Second, atLeast(load, at+100))
	load.Stop()
	if load.Refused()+load.Unknown() > 0 {
		t.Errorf("while the configuration changed: %v, want no failure", &load.Tally)
	}
	within(t, 20*time.Second, agree(m.Ingresses(), votesOf(m, key, question), exactly(load.Acked())))
}

// edit writes the original configuration with one change.
func edit(t *testing.T, m *rig.Mesh, original []byte, old, now string) {
	t.Helper()
	changed := strings.Replace(string(original), old, now, 1)
	if changed == string(original) {
		t.Fatalf("the demo's configuration has no %q", old)
	}
	// Written beside and renamed, as editors do.
	if err := os.WriteFile(m.Config+".new", []byte(changed), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(m.Config+".new", m.Config); err != nil {
		t.Fatal(err)
	}
}

// limitIs tells whether every node works with that maxStateBytes of accounts.
func limitIs(m *rig.Mesh, limit int) error {
	for i := range nodes {
		r, err := deposit(m, m.Ingress(1+i), fmt.Sprintf("limit-%d", keys.Add(1)), 1_000_000)
		if err != nil {
			return err
		}
		if small := r.Status == 429; small != (limit == 1) {
			return fmt.Errorf("deposit by node %d: %d %s; want the limit to be %d", i+1, r.Status, r.Body, limit)
		}
	}
	return nil
}

// allAcked tells whether every Envoy has acknowledged all it was sent.
func allAcked(m *rig.Mesh) error {
	out, err := m.Run("proxy", "status", "-o", "json")
	if err != nil {
		return err
	}
	var any any
	if err := json.Unmarshal([]byte(out), &any); err != nil {
		return fmt.Errorf("decode %s: %w", out, err)
	}
	for i := range nodes {
		if node := fmt.Sprintf("node-%d", i+1); !strings.Contains(out, node) {
			return fmt.Errorf("proxy status has no %s: %s", node, out)
		}
	}
	if !strings.Contains(out, "gateway") || !strings.Contains(out, "ACKED") || strings.Contains(out, "NACKED") || strings.Contains(out, "PENDING") {
		return fmt.Errorf("not everything is acknowledged: %s", out)
	}
	return nil
}
