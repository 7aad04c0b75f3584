package identity

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// node has its files in a folder of its own.
type node struct {
	t   *testing.T
	dir string
	now time.Time
	*Source
}

func newNode(t *testing.T, ca *Authority, mesh, name string, now time.Time) *node {
	t.Helper()
	dir := t.TempDir()
	n := &node{t: t, dir: dir, now: now}
	n.Source = &Source{
		Self: ID{mesh, name}, CA: filepath.Join(dir, "ca.pem"), Identity: filepath.Join(dir, "identity.pem"),
		Now: func() time.Time { return n.now },
	}
	n.trust(ca)
	n.renew(ca)
	return n
}

func (n *node) write(path string, data []byte) {
	n.t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) trust(cas ...*Authority) {
	n.t.Helper()
	var bundle []byte
	for _, ca := range cas {
		bundle = append(bundle, ca.Certificate()...)
	}
	n.write(n.CA, bundle)
}

func (n *node) renew(ca *Authority) {
	n.t.Helper()
	data, err := ca.Issue(n.Self.Node, n.now)
	if err != nil {
		n.t.Fatal(err)
	}
	n.write(n.Identity, data)
}

func authority(t *testing.T, mesh string, now time.Time) *Authority {
	t.Helper()
	ca, err := NewAuthority(mesh, now)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// shake connects two ends and returns what each said of the other. Each reads a byte, since a client learns of the
// server's refusal only then.
func shake(t *testing.T, client, server *tls.Config) (seen tls.ConnectionState, clientErr, serverErr error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	done := make(chan error, 1)
	go func() {
		nc, err := l.Accept()
		if err != nil {
			done <- err
			return
		}
		defer nc.Close()
		c := tls.Server(nc, server)
		if err := c.Handshake(); err != nil {
			done <- err
			return
		}
		seen = c.ConnectionState()
		_, err = c.Write([]byte{1})
		done <- err
	}()
	c, clientErr := tls.Dial("tcp", l.Addr().String(), client)
	if clientErr == nil {
		_, clientErr = c.Read(make([]byte, 1))
		c.Close()
	}
	serverErr = <-done
	return seen, clientErr, serverErr
}

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func TestBothSidesCheckTheOther(t *testing.T) {
	ca, other, stranger := authority(t, "m", start), authority(t, "m", start), authority(t, "w", start)
	cases := map[string]struct {
		change func(client, server *node)
		// dial is the node that the client wants; want is in the error of the side that refuses.
		dial       string
		clientWant string
		serverWant string
	}{
		"well":            {dial: "b"},
		"any node":        {dial: ""},
		"wrong node":      {dial: "c", clientWant: "names b, not c"},
		"client behind":   {dial: "b", change: func(c, _ *node) { c.now = start.Add(-14 * time.Minute) }},
		"client too slow": {dial: "b", clientWant: "not yet valid", change: func(c, _ *node) { c.now = start.Add(-16 * time.Minute) }},
		"server ahead":    {dial: "b", change: func(_, s *node) { s.now = start.Add(Life - time.Minute) }},
		"client expired":  {dial: "b", serverWant: "has expired", change: func(_, s *node) { s.now = start.Add(Life + time.Minute) }},
		"server expired":  {dial: "b", clientWant: "has expired", change: func(c, _ *node) { c.now = start.Add(Life + time.Minute) }},
		"client's other CA": {dial: "b", serverWant: "unknown authority", change: func(c, _ *node) {
			c.renew(other)
		}},
		"server's other CA": {dial: "b", clientWant: "unknown authority", change: func(_, s *node) { s.renew(other) }},
		"other mesh, trusted CA": {dial: "b", clientWant: "of the mesh m, not w", change: func(c, s *node) {
			c.Self.Mesh = "w"
			c.renew(stranger)
			s.trust(ca, stranger)
		}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			client, server := newNode(t, ca, "m", "a", start), newNode(t, ca, "m", "b", start)
			if c.change != nil {
				c.change(client, server)
			}
			seen, clientErr, serverErr := shake(t, client.Client(c.dial), server.Server())
			switch {
			case c.clientWant != "":
				if clientErr == nil || !strings.Contains(clientErr.Error(), c.clientWant) {
					t.Errorf("client: got %v, want %q", clientErr, c.clientWant)
				}
				if !errors.Is(clientErr, ErrUntrusted) && !errors.Is(clientErr, ErrWrongName) {
					t.Errorf("%v is of no kind", clientErr)
				}
			case c.serverWant != "":
				if serverErr == nil || !strings.Contains(serverErr.Error(), c.serverWant) {
					t.Errorf("server: got %v, want %q", serverErr, c.serverWant)
				}
				if clientErr == nil {
					t.Error("the client was served")
				}
			default:
				if clientErr != nil || serverErr != nil {
					t.Fatalf("client %v, server %v", clientErr, serverErr)
				}
				if id, err := Of(seen); err != nil || id != (ID{"m", "a"}) {
					t.Errorf("the server saw %v, %v", id, err)
				}
			}
		})
	}
}

func TestNoCertificate(t *testing.T) {
	ca := authority(t, "m", start)
	server := newNode(t, ca, "m", "b", start)
	_, clientErr, serverErr := shake(t, &tls.Config{InsecureSkipVerify: true}, server.Server())
	if clientErr == nil || serverErr == nil {
		t.Errorf("client %v, server %v, want both refused", clientErr, serverErr)
	}
	_, clientErr, serverErr = shake(t, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12}, server.Server())
	if clientErr == nil || serverErr == nil {
		t.Errorf("TLS 1.2: client %v, server %v, want both refused", clientErr, serverErr)
	}
}

// A change of the CA in three steps, and renewed certificates, with the same configurations.
func TestFilesAreReadAtEachHandshake(t *testing.T) {
	ca, next := authority(t, "m", start), authority(t, "m", start)
	client, server := newNode(t, ca, "m", "a", start), newNode(t, ca, "m", "b", start)
	clientConfig, serverConfig := client.Client("b"), server.Server()
	for _, step := range []struct {
		what string
		do   func()
	}{
		{"as it was", func() {}},
		{"the client trusts both", func() { client.trust(ca, next) }},
		{"the server trusts both", func() { server.trust(ca, next) }},
		{"the server has a new one", func() { server.renew(next) }},
		{"the client has a new one", func() { client.renew(next) }},
		{"the client trusts the new one", func() { client.trust(next) }},
		{"the server trusts the new one", func() { server.trust(next) }},
		{"a day later", func() {
			for _, n := range []*node{client, server} {
				n.now = n.now.Add(Life / 2)
				n.renew(next)
				n.now = n.now.Add(Life - time.Minute)
			}
		}},
	} {
		step.do()
		if _, c, s := shake(t, clientConfig, serverConfig); c != nil || s != nil {
			t.Errorf("%s: client %v, server %v", step.what, c, s)
		}
	}
	if err := os.WriteFile(server.Identity, []byte("half a fi"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, c, _ := shake(t, clientConfig, serverConfig); c == nil {
		t.Error("served with a broken file")
	}
	server.renew(next)
	if _, c, s := shake(t, clientConfig, serverConfig); c != nil || s != nil {
		t.Errorf("after it was mended: client %v, server %v", c, s)
	}
}

func TestOwnCertificate(t *testing.T) {
	ca := authority(t, "m", start)
	n := newNode(t, ca, "m", "a", start)
	if err := n.Check(); err != nil {
		t.Fatal(err)
	}
	n.Self.Node = "b"
	if err := n.Check(); err == nil || !strings.Contains(err.Error(), "node/a") || !strings.Contains(err.Error(), "node/b") {
		t.Errorf("another node's: got %v, want both names", err)
	}
	n.Self.Node = "a"
	if err := os.Chmod(n.Identity, 0o640); err != nil {
		t.Fatal(err)
	}
	if err := n.Check(); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("others may read it: got %v", err)
	}
}

func TestNames(t *testing.T) {
	ca := authority(t, "m", start)
	for _, bad := range []string{"", "a/b", "a b", ".", "-a", "a\x00", "é", strings.Repeat("a", 64), "a%2fb"} {
		if _, err := ca.Issue(bad, start); err == nil {
			t.Errorf("issued a certificate for %q", bad)
		}
		if _, err := NewAuthority(bad, start); err == nil {
			t.Errorf("made a CA for %q", bad)
		}
	}
	for _, bad := range []string{
		"spiffe://holdfast.dev/mesh/m/node", "spiffe://holdfast.dev/mesh/m/node/", "spiffe://holdfast.dev/mesh/m/node/a/b",
		"spiffe://example.com/mesh/m/node/a", "https://holdfast.dev/mesh/m/node/a", "spiffe://holdfast.dev/mesh/m/node/a?x=1",
		"spiffe://holdfast.dev/mesh/m/node/a#x", "spiffe://u@holdfast.dev/mesh/m/node/a", "spiffe://holdfast.dev/mesh/m/node/%61",
		"spiffe://holdfast.dev/mesh/m/pod/a",
	} {
		u, err := url.Parse(bad)
		if err != nil {
			t.Fatal(err)
		}
		if id, err := parse(u); !errors.Is(err, ErrWrongName) {
			t.Errorf("%s: got %v, %v", bad, id, err)
		}
	}
	id := ID{"m", "node-1"}
	if got, err := parse(id.URI()); err != nil || got != id {
		t.Errorf("got %v, %v, want %v", got, err, id)
	}
	two := &x509.Certificate{URIs: []*url.URL{id.URI(), id.URI()}}
	if _, err := Of(tls.ConnectionState{PeerCertificates: []*x509.Certificate{two}}); !errors.Is(err, ErrWrongName) {
		t.Errorf("two names: got %v", err)
	}
}
