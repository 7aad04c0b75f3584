package grpcpeer

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-mesh/holdfast/internal/identity"
	replicationv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/replication/v1"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
	"github.com/holdfast-mesh/holdfast/replication/gossip"
)

func authority(t *testing.T) *identity.Authority {
	t.Helper()
	ca, err := identity.NewAuthority("m", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// member writes the files of a node that trusts ca and has a certificate of signer.
func member(t *testing.T, ca, signer *identity.Authority, node string) *identity.Source {
	t.Helper()
	dir := t.TempDir()
	s := &identity.Source{Self: identity.ID{Mesh: "m", Node: node}, CA: filepath.Join(dir, "ca"), Identity: filepath.Join(dir, "id")}
	renew(t, s, ca, signer, time.Now())
	return s
}

func renew(t *testing.T, s *identity.Source, ca, signer *identity.Authority, now time.Time) {
	t.Helper()
	cert, err := signer.Issue(s.Self.Node, now)
	if err != nil {
		t.Fatal(err)
	}
	for path, data := range map[string][]byte{s.CA: ca.Certificate(), s.Identity: cert} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// hello is a message that says who sends it.
func hello(node string) *replicationv1.Message {
	return &replicationv1.Message{Kind: &replicationv1.Message_Hello{Hello: &replicationv1.Hello{Node: node}}}
}

// serveTLS serves on TCP. Its streams answer each hello with one of the name says, and tell what they got.
func serveTLS(t *testing.T, id *identity.Source, says string) (address string, got chan error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	got = make(chan error, 64)
	server := NewServer(ServerConfig{
		Identity: id, Logger: quiet,
		Accept: func(_ context.Context, c gossip.Conn) error {
			_, err := c.Recv()
			got <- err
			if err != nil {
				return err
			}
			if err := c.Send(hello(says)); err != nil {
				return err
			}
			_, err = c.Recv()
			return err
		},
		Call: func(_ context.Context, req *storev1.Request) *storev1.Response {
			return &storev1.Response{Id: req.GetId()}
		},
	})
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Stop()
		<-served
	})
	return l.Addr().String(), got
}

func clientTLS(t *testing.T, id *identity.Source, address string) *Client {
	t.Helper()
	c := NewClient(ClientConfig{Resolve: func(string) (string, bool) { return address, true }, Identity: id})
	t.Cleanup(c.Close)
	return c
}

// greeted dials a stream, says hello and returns what came back.
func greeted(t *testing.T, c *Client, address, as string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	conn, err := c.Dial(ctx, address)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.Send(hello(as)); err != nil {
		return err
	}
	_, err = conn.Recv()
	return err
}

func TestNamesOnStreams(t *testing.T) {
	ca, other := authority(t), authority(t)
	b := member(t, ca, ca, "b")
	cases := []struct {
		what       string
		client     *identity.Source
		says       string // What the server's hello says.
		as         string // What the client's hello says.
		serverWant string // What the server says of it.
		clientWant string
	}{
		{"well", member(t, ca, ca, "a"), "b", "a", "", ""},
		{"a client that names itself c", member(t, ca, ca, "a"), "b", "c", `names a, its hello says "c"`, `names a, its hello says "c"`},
		{"a server that names itself c", member(t, ca, ca, "a"), "c", "a", "", `names b, its hello says "c"`},
		// How the client learns of it depends on who is faster.
		{"a client of another CA", member(t, ca, other, "a"), "b", "a", "", "127.0.0.1"},
		{"a client that trusts another CA", member(t, other, ca, "a"), "b", "a", "", "unknown authority"},
	}
	for _, c := range cases {
		t.Run(c.what, func(t *testing.T) {
			address, got := serveTLS(t, b, c.says)
			err := greeted(t, clientTLS(t, c.client, address), address, c.as)
			if c.clientWant == "" && err != nil || c.clientWant != "" && (err == nil || !strings.Contains(err.Error(), c.clientWant)) {
				t.Errorf("client: got %v, want %q", err, c.clientWant)
			}
			if c.serverWant == "" {
				if err != nil && len(got) > 0 && <-got == nil && c.says == "b" {
					t.Error("a stream of who was refused reached the server")
				}
				return
			}
			if err := <-got; err == nil || !strings.Contains(err.Error(), c.serverWant) {
				t.Errorf("server: got %v, want %q", err, c.serverWant)
			}
		})
	}
}

// TestCallsReachTheirNodeOnly: the placement names b, and c's store answers there.
func TestCallsReachTheirNodeOnly(t *testing.T) {
	ca := authority(t)
	c := member(t, ca, ca, "c")
	address, _ := serveTLS(t, c, "c")
	client := clientTLS(t, member(t, ca, ca, "a"), address)
	req := &storev1.Request{Id: 3, Call: &storev1.Request_Commit{Commit: &storev1.Commit{}}}
	_, err := client.Call(t.Context(), "b", req)
	if err == nil || !strings.Contains(err.Error(), "names c, not b") {
		t.Errorf("got %v, want both names", err)
	}
	if e, ok := err.(*Error); !ok || e.Outcome() != storev1.Outcome_OUTCOME_NOT_APPLIED {
		t.Errorf("%v: want not applied", err)
	}
	if r, err := client.Call(t.Context(), "c", req); err != nil || r.GetId() != 3 {
		t.Errorf("c itself: %v, %v", r, err)
	}
	if _, err := clientTLS(t, nil, address).Call(t.Context(), "c", req); err == nil {
		t.Error("called without a certificate")
	}
}

// TestRenewedUnderUse: certificates, and the CA in three steps, change while every call makes a new connection.
func TestRenewedUnderUse(t *testing.T) {
	ca, next := authority(t), authority(t)
	a, b := member(t, ca, ca, "a"), member(t, ca, ca, "b")
	address, _ := serveTLS(t, b, "b")
	call := func() error {
		c := NewClient(ClientConfig{Resolve: func(string) (string, bool) { return address, true }, Identity: a})
		defer c.Close()
		_, err := c.Call(t.Context(), "b", &storev1.Request{Id: 1})
		return err
	}
	for i := range 20 {
		renew(t, []*identity.Source{a, b}[i%2], ca, ca, time.Now())
		if err := call(); err != nil {
			t.Fatalf("after renewal %d: %v", i, err)
		}
	}
	both := append(ca.Certificate(), next.Certificate()...)
	steps := []func() error{
		func() error { return os.WriteFile(a.CA, both, 0o600) },
		func() error { return os.WriteFile(b.CA, both, 0o600) },
		func() error { renew(t, a, next, next, time.Now()); return os.WriteFile(a.CA, both, 0o600) },
		func() error { renew(t, b, next, next, time.Now()); return nil },
		func() error { return os.WriteFile(a.CA, next.Certificate(), 0o600) },
	}
	for i, step := range steps {
		if err := step(); err != nil {
			t.Fatal(err)
		}
		if err := call(); err != nil {
			t.Errorf("step %d: %v", i+1, err)
		}
	}
	// The CA is down: what it signed goes on until it runs out.
	renew(t, b, next, next, time.Now().Add(-identity.Life-time.Minute))
	if err := call(); err == nil || !strings.Contains(err.Error(), "expired") {
		t.Errorf("an expired certificate: %v", err)
	}
	if fmt.Sprint(a.Check()) != "<nil>" {
		t.Error(a.Check())
	}
}

// TestHandshakesTakeTurns: many at once are all served, a few at a time, and those that say nothing hold up nobody.
func TestHandshakesTakeTurns(t *testing.T) {
	ca := authority(t)
	address, _ := serveTLS(t, member(t, ca, ca, "b"), "b")
	for range 2 * serverTurns {
		silent, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer silent.Close()
	}
	client := clientTLS(t, member(t, ca, ca, "a"), address)
	const many = 40
	done := make(chan error, many)
	for range many {
		go func() { done <- greeted(t, client, address, "a") }()
	}
	for range many {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if n := len(client.turns); n != 0 {
		t.Errorf("%d turns are still taken", n)
	}
	// One that nobody answers gives its turn back.
	nobody := clientTLS(t, member(t, ca, ca, "a"), "127.0.0.1:1")
	for range 2 * clientTurns {
		if err := greeted(t, nobody, "127.0.0.1:1", "a"); err == nil {
			t.Fatal("greeted nobody")
		}
	}
}
