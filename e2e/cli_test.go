package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-mesh/holdfast/e2e/rig"
)

func TestCheck(t *testing.T) {
	m := mesh(t)
	out, err := m.Run("check")
	if err != nil {
		t.Fatalf("check of a healthy mesh: %v", err)
	}
	t.Log(out)
	out, err = m.Run("check", "-o", "json")
	if err != nil || !json.Valid([]byte(out)) {
		t.Errorf("check -o json: %v, %s", err, out)
	}
}

// key get tells of both kinds of entity and activates none.
func TestKeyGet(t *testing.T) {
	m := mesh(t)
	key := newKey(t)
	must(t)(vote(m, m.Ingress(1), key, question))
	within(t, 10*time.Second, func() error {
		out, err := m.Run("key", "get", presentationType+"/"+key, "-o", "json")
		if err != nil {
			return err
		}
		var k struct {
			Replicas []string        `json:"replicas"`
			Version  string          `json:"version"`
			Value    json.RawMessage `json:"value"`
		}
		if err := json.Unmarshal([]byte(out), &k); err != nil {
			return fmt.Errorf("decode %s: %w", out, err)
		}
		if len(k.Replicas) != nodes || k.Version == "" || !strings.Contains(string(k.Value), question) {
			return fmt.Errorf("key get says %s; want the question, a version and six replicas", out)
		}
		return nil
	})
	before := entities(t, m)
	unknown := newKey(t)
	if out, err := m.Run("key", "get", presentationType+"/"+unknown, "-o", "json"); err != nil {
		t.Errorf("key get of an entity that nobody touched: %v %s", err, out)
	}
	if after := entities(t, m); after != before {
		t.Errorf("key get made %d entities of %d", after, before)
	}
	if _, err := m.Run("key", "get", "no.SuchType/x"); err == nil {
		t.Error("key get of an unknown type succeeded")
	}
}

// entities is how many entities all stores hold.
func entities(t *testing.T, m *rig.Mesh) (n uint64) {
	t.Helper()
	for i := range nodes {
		s, err := m.StoreStatus(fmt.Sprintf("node-%d", i+1))
		if err != nil {
			t.Fatal(err)
		}
		n += s.GetEntities()
	}
	return n
}

func TestProxyStatus(t *testing.T) {
	m := mesh(t)
	within(t, 20*time.Second, func() error { return allAcked(m) })
	out, err := m.Run("proxy", "status")
	if err != nil {
		t.Fatal(err)
	}
	t.Log(out)
}

// What needs no mesh.
func TestCommandsAlone(t *testing.T) {
	m := mesh(t)
	for _, c := range []struct {
		args string
		want string
	}{
		{"version", "holdfast"},
		{"completion bash", "holdfast"},
		{"completion zsh", "holdfast"},
		{"completion fish", "holdfast"},
		{"--help", "Examples:"},
		{"up --help", "Examples:"},
		{"status --help", "Examples:"},
		{"scale --help", "Examples:"},
		{"key get --help", "Examples:"},
		{"proxy status --help", "Examples:"},
		{"check --help", "Examples:"},
	} {
		out, err := m.RunBare(strings.Fields(c.args)...)
		if err != nil || !strings.Contains(out, c.want) {
			t.Errorf("holdfast %s: %v, want %q in\n%s", c.args, err, c.want, out)
		}
	}
	if out, err := m.RunBare("version", "-o", "json"); err != nil || !json.Valid([]byte(out)) {
		t.Errorf("version -o json: %v %s", err, out)
	}
	if _, err := m.RunBare("status", "--data-dir", "/nonexistent-for-sure"); err == nil {
		t.Error("status of a mesh that doesn't run succeeded")
	}
}
