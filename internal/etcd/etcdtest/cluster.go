package etcdtest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-mesh/holdfast/internal/etcd"
	"github.com/holdfast-mesh/holdfast/internal/identity"
)

// memberVar holds a member's configuration in its process's environment.
const memberVar = "HOLDFAST_ETCDTEST_MEMBER"

// Main serves as a member where this process was started as one, and does not return then. A package that uses a Cluster
// calls it first in its TestMain.
func Main() {
	text := os.Getenv(memberVar)
	if text == "" {
		return
	}
	var cfg etcd.Config
	if err := json.Unmarshal([]byte(text), &cfg); err != nil {
		panic(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	// A test that is killed leaves nobody: the pipe from it breaks.
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(1)
	}()
	cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	cfg.Ready = func() { fmt.Println("ready") }
	if err := etcd.Serve(ctx, cfg); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// Cluster is an etcd of three members, each a process of its own that can be stopped, paused and killed.
type Cluster struct {
	Members []*Member
	// TLS is what a client needs; zero where the cluster has none.
	TLS etcd.TLS

	t testing.TB
}

// Member is a member of a Cluster.
type Member struct {
	// Endpoint is its URL.
	Endpoint string

	t    testing.TB
	cfg  etcd.Config
	cmd  *exec.Cmd
	pipe io.Closer
}

// StartCluster starts a cluster of three; it ends with the test. quota bounds its members' files, 0 is the default.
func StartCluster(t testing.TB, secure bool, quota int64) *Cluster {
	t.Helper()
	c := &Cluster{t: t}
	scheme := "http://"
	var ca *identity.Authority
	dir := t.TempDir()
	if secure {
		scheme = "https://"
		var err error
		if ca, err = identity.NewAuthority("etcdtest", time.Now()); err != nil {
			t.Fatal(err)
		}
		c.TLS = etcd.TLS{CA: write(t, dir, "ca.pem", ca.Certificate())}
		c.TLS.Cert = certify(t, ca, dir, "client")
		c.TLS.Key = c.TLS.Cert
	}
	var initial []string
	for i := range 3 {
		m := &Member{t: t, cfg: etcd.Config{
			Name: fmt.Sprintf("etcd-%d", i+1), Dir: t.TempDir(), QuotaBytes: quota,
			ClientURL: fmt.Sprintf("%s127.0.0.1:%d", scheme, freePort(t)), PeerURL: fmt.Sprintf("%s127.0.0.1:%d", scheme, freePort(t)),
		}}
		if secure {
			cert := certify(t, ca, dir, m.cfg.Name)
			m.cfg.ClientTLS = etcd.TLS{CA: c.TLS.CA, Cert: cert, Key: cert}
			m.cfg.PeerTLS = m.cfg.ClientTLS
		}
		m.Endpoint = m.cfg.ClientURL
		initial = append(initial, m.cfg.Name+"="+m.cfg.PeerURL)
		c.Members = append(c.Members, m)
	}
	var ready []<-chan struct{}
	for _, m := range c.Members {
		m.cfg.InitialCluster = strings.Join(initial, ",")
		ready = append(ready, m.start())
	}
	for i, r := range ready {
		select {
		case <-r:
		case <-time.After(60 * time.Second):
			t.Fatalf("%s is not ready", c.Members[i].cfg.Name)
		}
	}
	return c
}

// Endpoints are all members' URLs.
func (c *Cluster) Endpoints() (out []string) {
	for _, m := range c.Members {
		out = append(out, m.Endpoint)
	}
	return out
}

// Member returns the one with the endpoint.
func (c *Cluster) Member(endpoint string) *Member {
	for _, m := range c.Members {
		if m.Endpoint == endpoint {
			return m
		}
	}
	c.t.Helper()
	c.t.Fatalf("no member at %q", endpoint)
	return nil
}

// Config is a client's configuration.
func (c *Cluster) Config() etcd.ClientConfig {
	return etcd.ClientConfig{Endpoints: c.Endpoints(), TLS: c.TLS}
}

// Dial makes a client that is connected, and closed with the test.
func (c *Cluster) Dial() *etcd.Client {
	c.t.Helper()
	return Dial(c.t, c.Config())
}

// Signal sends the member's process a signal: SIGSTOP, SIGCONT or SIGKILL.
func (m *Member) Signal(s syscall.Signal) {
	m.t.Helper()
	if err := m.cmd.Process.Signal(s); err != nil {
		m.t.Errorf("%s to %s: %v", s, m.cfg.Name, err)
	}
	if s == syscall.SIGKILL {
		_ = m.cmd.Wait()
	}
}

// Restart starts the member on its data after SIGKILL.
func (m *Member) Restart() {
	m.t.Helper()
	select {
	case <-m.start():
	case <-time.After(60 * time.Second):
		m.t.Fatalf("%s is not ready again", m.cfg.Name)
	}
}

func (m *Member) start() (ready <-chan struct{}) {
	m.t.Helper()
	text, err := json.Marshal(m.cfg)
	if err != nil {
		m.t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), memberVar+"="+string(text), "GORACE=atexit_sleep_ms=0")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		m.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		m.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	m.cmd, m.pipe = cmd, in
	said := make(chan struct{})
	go func() {
		if n, _ := out.Read(make([]byte, 1)); n > 0 {
			close(said)
		}
	}()
	m.t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGCONT)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = in.Close()
	})
	return said
}

func certify(t testing.TB, ca *identity.Authority, dir, name string) string {
	t.Helper()
	cert, err := ca.IssueHost(name, []net.IP{net.IPv4(127, 0, 0, 1)}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return write(t, dir, name+".pem", cert)
}

func write(t testing.TB, dir, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
