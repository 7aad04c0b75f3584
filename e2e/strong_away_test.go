package e2e

import (
	"fmt"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-mesh/holdfast/e2e/rig"
)

// pageAt is a strong entity that exists, and the ingress of the node that owns it.
func pageAt(t *testing.T, m *rig.Mesh) (key, ingress string) {
	t.Helper()
	key = newKey(t)
	must(t)(doThing(m, m.Gateway(), "Page", key, setTo("before")))
	var node int
	if _, err := fmt.Sscanf(ownerOf(t, m, "things.Page", key), "node-%d", &node); err != nil {
		t.Fatal(err)
	}
	return key, m.Ingress(node)
}

func readPage(m *rig.Mesh, address, key string) (*rig.Reply, error) {
	return m.Do(http.MethodGet, address, thingPath("Page", key), nil, http.Header{"Grpc-Timeout": {"1S"}})
}

// backAgain waits until a write at each node is acknowledged, and checks that no process was started anew for it.
func backAgain(t *testing.T, m *rig.Mesh, key string, before map[string]int) {
	t.Helper()
	start := time.Now()
	for _, address := range everyEntry(m) {
		within(t, 30*time.Second, func() error {
			_, err := ok(doThing(m, address, "Page", key, setTo("after"), "Grpc-Timeout", "2S"))
			return err
		})
	}
	t.Logf("strong works at every node %v after etcd's return", time.Since(start).Round(time.Millisecond))
	if after := storePIDs(t, m); !maps.Equal(before, after) {
		t.Errorf("the stores were %v, are %v", before, after)
	}
	within(t, 10*time.Second, thingIs(m, everyEntry(m), "Page", key, `{"value":"`+b64("after")+`"}`))
}

func storePIDs(t *testing.T, m *rig.Mesh) map[string]int {
	t.Helper()
	s, err := m.Status()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]int{}
	for _, n := range s.Nodes {
		out[n.Name] = n.StorePID
	}
	return out
}

// Etcd stands still and says nothing. What was sent to it ends at the caller's deadline, as unknown; what the owner has in
// memory is read on until its lease may have ended; and then all goes on without a restart.
func TestEtcdSilent(t *testing.T) {
	m := startStrong(t)
	s, err := m.Status()
	if err != nil {
		t.Fatal(err)
	}
	key, owner := pageAt(t, m)
	must(t)(readPage(m, owner, key))
	before := storePIDs(t, m)
	if err := m.Pause(s.Etcd.PID); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = m.Resume(s.Etcd.PID) }()
	paused := time.Now()

	r, err := doThing(m, owner, "Page", key, setTo("unknown"), "Grpc-Timeout", "1S", "Idempotency-Key", "silent")
	took := time.Since(paused)
	if err != nil || r.Status != http.StatusGatewayTimeout || statusCode(r) != 4 || r.Header.Get("Holdfast-Outcome") != "unknown" {
		t.Fatalf("a write while etcd is silent: %s after %v; want 504 with code 4 and outcome unknown", describe(r, err), took)
	}
	t.Logf("a write with a deadline of 1s was answered after %v: %s", took.Round(time.Millisecond), r.Body)
	if took > 3*time.Second {
		t.Errorf("a write with a deadline of 1s took %v", took)
	}
	within(t, 20*time.Second, func() error {
		r, err := readPage(m, owner, key)
		if err != nil || r.Status == http.StatusOK {
			return fmt.Errorf("still read: %s", describe(r, err))
		}
		if r.Status != http.StatusServiceUnavailable && r.Status != http.StatusGatewayTimeout {
			t.Errorf("a read while etcd is silent: %s, want 503 or 504", describe(r, err))
		}
		return nil
	})
	t.Logf("reads were refused %v after etcd stood still", time.Since(paused).Round(time.Millisecond))

	if err := m.Resume(s.Etcd.PID); err != nil {
		t.Fatal(err)
	}
	// Whatever became of it, the same request again ends the doubt: it is applied once.
	within(t, 30*time.Second, func() error {
		r, err := doThing(m, owner, "Page", key, setTo("unknown"), "Grpc-Timeout", "2S", "Idempotency-Key", "silent")
		if err == nil && (r.Status == http.StatusOK || r.Status == http.StatusConflict && statusCode(r) == 6) {
			return nil
		}
		return fmt.Errorf("the same request again: %s", describe(r, err))
	})
	within(t, 10*time.Second, thingIs(m, everyEntry(m), "Page", key, `{"value":"`+b64("unknown")+`"}`))
	backAgain(t, m, key, before)
}

// What the owner has in memory is read while its lease lasts, also where etcd does not answer.
func TestReadsWhileEtcdIsSilent(t *testing.T) {
	m := startStrong(t)
	s, err := m.Status()
	if err != nil {
		t.Fatal(err)
	}
	key, owner := pageAt(t, m)
	must(t)(readPage(m, owner, key))
	if err := m.Pause(s.Etcd.PID); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = m.Resume(s.Etcd.PID) }()
	paused := time.Now()
	reads, last := 0, time.Duration(0)
	within(t, 20*time.Second, func() error {
		for {
			r, err := readPage(m, owner, key)
			if err != nil || r.Status != http.StatusOK {
				return nil
			}
			if !strings.Contains(string(r.Body), b64("before")) {
				t.Errorf("read %s, want what was written before", r.Body)
			}
			reads, last = reads+1, time.Since(paused)
		}
	})
	t.Logf("%d reads from memory, the last %v after etcd stood still", reads, last.Round(time.Millisecond))
	if reads == 0 {
		t.Error("nothing was read from memory")
	}
}

// Etcd is known to be gone: strong calls are refused at once, and were surely not applied.
func TestEtcdKnownToBeGone(t *testing.T) {
	m := startStrong(t)
	s, err := m.Status()
	if err != nil {
		t.Fatal(err)
	}
	key, _ := pageAt(t, m)
	before := storePIDs(t, m)
	// Who would start it again stands still.
	if err := m.Pause(m.UpPID()); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = m.Resume(m.UpPID()) }()
	if err := m.Kill(s.Etcd.PID); err != nil {
		t.Fatal(err)
	}
	refused := func(address string) (time.Duration, error) {
		start := time.Now()
		r, err := doThing(m, address, "Page", key, setTo("no"), "Grpc-Timeout", "2S")
		if err != nil || r.Status != http.StatusServiceUnavailable || statusCode(r) != 14 {
			return 0, fmt.Errorf("a write without etcd at %s: %s, want 503 with code 14", address, describe(r, err))
		}
		return time.Since(start), nil
	}
	for _, address := range everyEntry(m) {
		within(t, 20*time.Second, func() error {
			_, err := refused(address)
			return err
		})
	}
	var best, worst time.Duration
	for i := range 20 {
		address := everyEntry(m)[i%4]
		took, err := refused(address)
		if err != nil {
			t.Error(err)
			continue
		}
		if worst = max(worst, took); best == 0 || took < best {
			best = took
		}
	}
	t.Logf("20 writes were refused in %v to %v each", best.Round(time.Microsecond), worst.Round(time.Millisecond))
	if best > 500*time.Millisecond {
		t.Errorf("no refusal came sooner than %v", best)
	}
	if err := m.Resume(m.UpPID()); err != nil {
		t.Fatal(err)
	}
	backAgain(t, m, key, before)
}
