package e2e

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-mesh/holdfast/e2e/rig"
)

// The README's quickstart: one's own Python service that runs already, one YAML, and it has state.
func TestQuickstart(t *testing.T) {
	root, err := rig.Root()
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	server := exec.Command(filepath.Join(root, "examples/demo/bin/python3"), filepath.Join(root, "examples/quickstart/server.py"))
	_, port, _ := net.SplitHostPort(address)
	server.Env = append(os.Environ(), "HOST=127.0.0.1", "PORT="+port)
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = server.Process.Kill()
		_ = server.Wait()
	})
	data, err := os.ReadFile(filepath.Join(root, "examples/quickstart/holdfast.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(t.TempDir(), "holdfast.yaml")
	changed := strings.Replace(string(data), "127.0.0.1:50051", address, 1)
	if err := os.WriteFile(config, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
	within(t, 30*time.Second, func() error {
		c, err := net.Dial("tcp", address)
		if err == nil {
			c.Close()
		}
		return err
	})

	m := own(t, rig.Options{Nodes: 2, Config: config})
	greeted := &rig.Tally{}
	within(t, 30*time.Second, func() error {
		r, err := ok(m.Post(m.Ingress(1), "/v1/hello/ready", map[string]string{}))
		if err == nil && len(r.Body) == 0 {
			err = fmt.Errorf("an empty greeting")
		}
		return err
	})
	for i := range 4 {
		r, err := m.Post(m.Ingress(1+i%2), "/v1/hello/ada", map[string]string{})
		if greeted.Add(r, err) != rig.Acked {
			t.Fatalf("greeting %d: %v", i+1, greeted)
		}
		want := "Nice to meet you"
		if i > 0 {
			want = fmt.Sprintf("visit %d", i+1)
		}
		if r.Status != http.StatusOK || !strings.Contains(string(r.Body), want) {
			t.Errorf("greeting %d: %s, want %q", i+1, r.Body, want)
		}
	}
}
