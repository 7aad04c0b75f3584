package etcd_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/holdfast-mesh/holdfast/internal/etcd"
	"github.com/holdfast-mesh/holdfast/internal/etcd/etcdtest"
)

func put(ctx context.Context, c *etcd.Client, key string) error {
	_, err := c.Txn(ctx, nil, []etcd.Op{etcd.Put(key, []byte("x"), 0)}, nil)
	return err
}

// writers write all the time until stop; they note the longest time that passed between two successes, and how many
// calls took longer than 10 s to end.
type writers struct {
	stop    context.CancelFunc
	wg      sync.WaitGroup
	mu      sync.Mutex
	last    time.Time
	gap     time.Duration
	slowest time.Duration
	unknown int
}

func write(c *etcd.Client) *writers {
	ctx, cancel := context.WithCancel(context.Background())
	w := &writers{stop: cancel, last: time.Now()}
	for range 4 {
		w.wg.Go(func() {
			for ctx.Err() == nil {
				// No deadline of its own: that a call ends is the client's doing.
				began := time.Now()
				err := put(ctx, c, "/w")
				w.mu.Lock()
				if ctx.Err() == nil {
					w.slowest = max(w.slowest, time.Since(began))
				}
				var e *etcd.Error
				switch {
				case err == nil:
					w.gap = max(w.gap, time.Since(w.last))
					w.last = time.Now()
				case ctx.Err() == nil && errors.As(err, &e) && e.Sent:
					w.unknown++
				}
				w.mu.Unlock()
				if err != nil {
					select {
					case <-time.After(5 * time.Millisecond):
					case <-ctx.Done():
					}
				}
			}
		})
	}
	return w
}

func (w *writers) since(t time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last.After(t)
}

func (w *writers) end() (gap, slowest time.Duration, unknown int) {
	w.stop()
	w.wg.Wait()
	return w.gap, w.slowest, w.unknown
}

// leader returns the leader's endpoint.
func leader(t *testing.T, c *etcdtest.Cluster) string {
	t.Helper()
	cfg := c.Config()
	tls, err := cfg.TLS.Client()
	if err != nil {
		t.Fatal(err)
	}
	var found string
	eventually(t, 20*time.Second, "a leader", func() bool {
		for _, e := range c.Endpoints() {
			raw, err := clientv3.New(clientv3.Config{Endpoints: []string{e}, TLS: tls, Logger: zap.NewNop()})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			s, err := raw.Status(ctx, e)
			cancel()
			raw.Close()
			if err == nil && s.Leader != 0 && s.Leader == s.Header.MemberId {
				found = e
			}
		}
		return found != ""
	})
	return found
}

// TestAnotherMember takes the member that is used, or the leader, away from a client that writes all the time.
func TestAnotherMember(t *testing.T) {
	cluster := etcdtest.StartCluster(t, false, 0)
	c := cluster.Dial()
	for _, tc := range []struct {
		name   string
		signal syscall.Signal
		leader bool
	}{
		{"the member in use hangs", syscall.SIGSTOP, false},
		{"the member in use is killed", syscall.SIGKILL, false},
		{"the leader hangs", syscall.SIGSTOP, true},
		{"the leader is killed", syscall.SIGKILL, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := write(c)
			defer w.end()
			eventually(t, 10*time.Second, "writes", func() bool { return w.since(time.Now().Add(-time.Second)) })
			used, chief := c.Endpoint(), leader(t, cluster)
			victim := cluster.Member(used)
			if tc.leader {
				victim = cluster.Member(chief)
			}
			at := time.Now()
			victim.Signal(tc.signal)
			took := eventually(t, 30*time.Second, "writes again", func() bool { return w.since(at.Add(50 * time.Millisecond)) })
			if tc.signal == syscall.SIGSTOP {
				victim.Signal(syscall.SIGCONT)
			} else {
				victim.Restart()
			}
			eventually(t, 30*time.Second, "writes after the victim is back", func() bool { return w.since(time.Now().Add(-time.Second)) })
			gap, slowest, unknown := w.end()
			t.Logf("victim in use: %v, leader: %v; another success after %s; longest time without one %s; slowest call %s; %d unknown",
				victim.Endpoint == used, victim.Endpoint == chief, took, gap, slowest, unknown)
			if slowest > 15*time.Second {
				t.Errorf("a call took %s to end", slowest)
			}
		})
	}
}

// TestStaysWithItsMember: what does not concern the member in use changes nothing.
func TestStaysWithItsMember(t *testing.T) {
	cluster := etcdtest.StartCluster(t, false, 0)
	c := cluster.Dial()
	used, chief := c.Endpoint(), leader(t, cluster)
	for _, m := range cluster.Members {
		if m.Endpoint != used && m.Endpoint != chief {
			m.Signal(syscall.SIGSTOP)
			defer m.Signal(syscall.SIGCONT)
			break
		}
	}
	until := time.Now().Add(2 * time.Second)
	for time.Now().Before(until) {
		if err := put(within(t, 10*time.Second), c, "/a"); err != nil {
			t.Fatal(err)
		}
	}
	if now := c.Endpoint(); now != used {
		t.Errorf("uses %s, was %s", now, used)
	}
}

// TestTLSAndLogin goes through certificates and passwords, right and wrong.
func TestTLSAndLogin(t *testing.T) {
	cluster := etcdtest.StartCluster(t, true, 0)
	tls, err := cluster.TLS.Client()
	if err != nil {
		t.Fatal(err)
	}
	admin, err := clientv3.New(clientv3.Config{Endpoints: cluster.Endpoints(), TLS: tls, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	ctx := within(t, 60*time.Second)

	before := cluster.Dial() // Has no user, and will need one.
	if err := put(ctx, before, "/a"); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "password")
	password := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	password("secret\n")
	cfg := cluster.Config()
	cfg.User, cfg.PasswordFile, cfg.Prefix = "holdfast", file, "/mesh"
	c := etcdtest.Dial(t, cfg) // Needs no login yet.
	if err := put(ctx, c, "/a"); err != nil {
		t.Fatalf("before logins are needed: %v", err)
	}

	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(admin.UserAdd(ctx, "root", "root"))
	must(admin.UserGrantRole(ctx, "root", "root"))
	must(admin.UserAdd(ctx, "holdfast", "secret"))
	must(admin.RoleAdd(ctx, "holdfast"))
	must(admin.RoleGrantPermission(ctx, "holdfast", "/mesh/", clientv3.GetPrefixRangeEnd("/mesh/"), clientv3.PermissionType(clientv3.PermReadWrite)))
	must(admin.UserGrantRole(ctx, "holdfast", "holdfast"))
	must(admin.AuthEnable(ctx))

	if err := put(ctx, c, "/a"); err != nil {
		t.Errorf("once logins are needed: %v", err)
	}
	if kv, err := c.Get(ctx, "/a"); err != nil || kv.Key != "/a" {
		t.Errorf("get: %+v, %v", kv, err)
	}
	if page, err := c.Range(ctx, "/", etcd.PrefixEnd("/"), 10); err != nil || len(page.KVs) != 1 || page.KVs[0].Key != "/a" {
		t.Errorf("range: %+v, %v", page, err)
	}
	if lease, _, err := c.Grant(ctx, 5*time.Second); err != nil {
		t.Errorf("grant: %v", err)
	} else if _, err := c.KeepAlive(ctx, lease); err != nil {
		t.Errorf("keep alive: %v", err)
	}
	var e *etcd.Error
	if err := put(ctx, before, "/a"); !errors.As(err, &e) || e.Sent {
		t.Errorf("a client without a user: %v", err)
	}
	outside := cfg
	outside.Prefix = "/elsewhere"
	if err := put(ctx, etcdtest.Dial(t, outside), "/a"); !errors.As(err, &e) || e.Sent || !strings.Contains(err.Error(), "permission denied") {
		t.Errorf("outside of what the user may: %v", err)
	}

	// Members forget their tokens when they end.
	watched := make(chan error, 1)
	kv, err := c.Get(ctx, "/a")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		_, err := c.WaitChange(ctx, "/a", kv.ModRev)
		watched <- err
	}()
	for _, m := range cluster.Members {
		m.Signal(syscall.SIGKILL)
		m.Restart()
	}
	eventually(t, 20*time.Second, "a write after all members forgot the token", func() bool { return put(within(t, 5*time.Second), c, "/a") == nil })
	if err := <-watched; err != nil {
		t.Errorf("watch: %v", err)
	}

	// A password that changes, and one that is wrong.
	tokenAdmin, err := clientv3.New(clientv3.Config{Endpoints: cluster.Endpoints(), TLS: tls, Logger: zap.NewNop(), Username: "root", Password: "root"})
	if err != nil {
		t.Fatal(err)
	}
	defer tokenAdmin.Close()
	must(tokenAdmin.UserChangePassword(ctx, "holdfast", "changed"))
	if err := put(ctx, c, "/a"); !errors.Is(err, etcd.ErrLogin) {
		t.Errorf("with a password that is wrong by now: %v", err)
	}
	password("changed")
	eventually(t, 20*time.Second, "a write with the new password", func() bool { return put(within(t, 5*time.Second), c, "/a") == nil })

	for name, bad := range map[string]func(*etcd.ClientConfig){
		"no certificate":   func(c *etcd.ClientConfig) { c.TLS.Cert, c.TLS.Key = "", "" },
		"the system's CAs": func(c *etcd.ClientConfig) { c.TLS.CA = "" },
		"no TLS at all": func(c *etcd.ClientConfig) {
			c.TLS = etcd.TLS{}
			c.Endpoints = []string{strings.TrimPrefix(c.Endpoints[0], "https://")}
		},
		"name not in the certificate": func(c *etcd.ClientConfig) {
			c.Endpoints = []string{strings.Replace(c.Endpoints[0], "127.0.0.1", "localhost", 1)}
		},
	} {
		cfg := cfg
		bad(&cfg)
		c, err := etcd.Dial(cfg)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		eventually(t, 10*time.Second, name+": a reason", func() bool {
			err := put(within(t, time.Second), c, "/a")
			if err == nil {
				t.Fatalf("%s: written", name)
			}
			return errors.Is(err, etcd.ErrDown) && err.Error() != "etcd txn: "+etcd.ErrDown.Error()
		})
		t.Logf("%s: %v", name, put(within(t, time.Second), c, "/a"))
		c.Close()
	}
}

func TestDialRefuses(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, []byte("\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	secure := []string{"https://127.0.0.1:1"}
	for name, cfg := range map[string]etcd.ClientConfig{
		"no endpoint":                {},
		"no port":                    {Endpoints: []string{"127.0.0.1"}},
		"no host":                    {Endpoints: []string{"http://:1"}},
		"a path":                     {Endpoints: []string{"http://127.0.0.1:1/x"}},
		"another scheme":             {Endpoints: []string{"unix:///x"}},
		"TLS for nobody":             {Endpoints: []string{"http://127.0.0.1:1"}, TLS: etcd.TLS{CA: "x"}},
		"a CA that is not there":     {Endpoints: secure, TLS: etcd.TLS{CA: "/nowhere"}},
		"a CA without a certificate": {Endpoints: secure, TLS: etcd.TLS{CA: empty}},
		"a certificate without key":  {Endpoints: secure, TLS: etcd.TLS{Cert: empty}},
		"a key without certificate":  {Endpoints: secure, TLS: etcd.TLS{Key: empty}},
		"no certificate in its file": {Endpoints: secure, TLS: etcd.TLS{Cert: empty, Key: empty}},
		"a user without password":    {Endpoints: secure, User: "x"},
		"a password without user":    {Endpoints: secure, PasswordFile: empty},
		"an empty password":          {Endpoints: secure, User: "x", PasswordFile: empty},
	} {
		c, err := etcd.Dial(cfg)
		if err == nil {
			c.Close()
			t.Errorf("%s: no error", name)
			continue
		}
		t.Logf("%s: %v", name, err)
	}
}
