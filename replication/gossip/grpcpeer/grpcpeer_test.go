package grpcpeer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/holdfast-mesh/holdfast/internal/identity"
	"github.com/holdfast-mesh/holdfast/internal/peercred"
	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	replicationv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/replication/v1"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
	"github.com/holdfast-mesh/holdfast/replication/gossip"
	"github.com/holdfast-mesh/holdfast/replication/gossip/sim"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var quiet = slog.New(slog.DiscardHandler)

// store is one node on real sockets.
type store struct {
	name   string
	engine *sim.Store
	node   *gossip.Node
	client *Client
	server *Server
	served chan error
}

// config is what the test's stores are told: one type, all three of them placed.
func config() *storev1.Configure {
	c := &storev1.Configure{
		Types:     []*configv1.EntityType{{Type: "t", Model: configv1.Model_MODEL_GCOUNTER, Consistency: configv1.Consistency_CONSISTENCY_EVENTUAL}},
		Placement: &configv1.Placement{Epoch: 1},
	}
	for i := range 3 {
		c.Placement.Members = append(c.Placement.Members, &configv1.Member{Name: fmt.Sprint("n", i), Weight: 1})
	}
	return c
}

func counters(name string, replica uint64) *sim.Store {
	return sim.NewStore(name, replica, sim.Types(configv1.Model_MODEL_GCOUNTER, "t"))
}

// start starts a store: on TCP where it has an identity, else on a Unix socket in dir.
func start(t *testing.T, dir, name string, join []string, engine *sim.Store, id *identity.Source, call func(context.Context, *storev1.Request) *storev1.Response) *store {
	t.Helper()
	s := &store{name: name, engine: engine, served: make(chan error, 1)}
	listen := func() (net.Listener, error) { return peercred.Listen(filepath.Join(dir, name), quiet) }
	if id != nil {
		listen = func() (net.Listener, error) { return net.Listen("tcp", "127.0.0.1:0") }
	}
	listener, err := listen()
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	if id == nil {
		address = "unix:" + address
	}
	s.client = NewClient(ClientConfig{Identity: id, Resolve: func(node string) (string, bool) { return s.node.PeerAddress(node) }})
	s.node, err = gossip.Start(gossip.Config{
		Node: name, Replica: engine.Replica(), Bind: "127.0.0.1:0", PeerAddress: address, Join: join,
		Keys: [][]byte{[]byte("0123456789abcdef")}, Engine: engine, Dialer: s.client, Logger: quiet,
	})
	if err != nil {
		t.Fatal(err)
	}
	s.node.Configure(config())
	s.server = NewServer(ServerConfig{Accept: s.node.Accept, Call: call, Identity: id, Logger: quiet})
	go func() { s.served <- s.server.Serve(listener) }()
	return s
}

func (s *store) stop(t *testing.T) {
	t.Helper()
	_ = s.node.Close()
	s.server.Stop()
	s.client.Close()
	if err := <-s.served; err != nil {
		t.Errorf("%s: %v", s.name, err)
	}
}

func eventually(t *testing.T, d time.Duration, what string, ok func() bool) time.Duration {
	t.Helper()
	start := time.Now()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(d); !ok(); {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not within %s: %s", d, what)
		}
	}
	return time.Since(start)
}

// runtimeDir is short: socket paths hold 108 bytes.
func runtimeDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "hf")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func connected(s *store, others int) func() bool {
	return func() bool {
		n := 0
		for _, p := range s.node.Peers() {
			if p.Connected {
				n++
			}
		}
		return n == others
	}
}

func TestThreeStores(t *testing.T) {
	t.Run("on Unix sockets", func(t *testing.T) { threeStores(t, func(string) *identity.Source { return nil }) })
	t.Run("by TLS", func(t *testing.T) {
		ca := authority(t)
		threeStores(t, func(name string) *identity.Source { return member(t, ca, ca, name) })
	})
}

func threeStores(t *testing.T, id func(name string) *identity.Source) {
	dir := runtimeDir(t)
	var stores []*store
	var join []string
	for i := range 3 {
		name := fmt.Sprint("n", i)
		s := start(t, dir, name, join, counters(name, uint64(i+1)), id(name), nil)
		join = append(join, s.node.Address())
		stores = append(stores, s)
	}
	defer func() {
		for _, s := range stores {
			s.stop(t)
		}
	}()
	for _, s := range stores {
		eventually(t, 10*time.Second, "connected", connected(s, 2))
	}
	all := func() bool {
		return maps.Equal(stores[0].engine.Values(), stores[1].engine.Values()) && maps.Equal(stores[0].engine.Values(), stores[2].engine.Values())
	}
	var longest time.Duration
	for i := range 50 {
		s := stores[i%3]
		s.node.Publish([]*replicationv1.Delta{s.engine.Add("t", "k", 1)})
		longest = max(longest, eventually(t, 5*time.Second, "everywhere", all))
	}
	t.Logf("slowest of 50 deltas was everywhere after %s", longest)
	// Restart under the same name, at another gossip port, with a new identity; meanwhile things happen.
	stores[2].stop(t)
	stores[0].node.Publish([]*replicationv1.Delta{stores[0].engine.Add("t", "other", 5)})
	stores[2] = start(t, dir, "n2", join[:2], stores[2].engine.Restart(99), id("n2"), nil)
	eventually(t, 10*time.Second, "equal after a restart", all)
	for _, s := range stores {
		eventually(t, 10*time.Second, "connected", connected(s, 2))
	}
}

func TestCallIsForwarded(t *testing.T) {
	dir := runtimeDir(t)
	held, release := make(chan struct{}), make(chan struct{})
	answer := func(ctx context.Context, req *storev1.Request) *storev1.Response {
		if c := req.GetCommit(); c != nil {
			close(held)
			select {
			case <-release: // Who forwarded it is gone by now.
			case <-ctx.Done():
			}
			if ctx.Err() != nil {
				t.Error("the commit was cancelled with its caller")
			}
		}
		return &storev1.Response{Id: req.GetId(), Result: &storev1.Response_Done{Done: &storev1.Done{}}}
	}
	a := start(t, dir, "a", nil, counters("a", 1), nil, answer)
	b := start(t, dir, "b", []string{a.node.Address()}, counters("b", 2), nil, answer)
	defer b.stop(t)
	eventually(t, 10*time.Second, "connected", connected(b, 1))
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	get := &storev1.Request{Id: 7, Call: &storev1.Request_Get{Get: &storev1.Get{}}}
	commit := &storev1.Request{Id: 8, Call: &storev1.Request_Commit{Commit: &storev1.Commit{}}}
	if resp, err := b.client.Call(ctx, "a", get); err != nil || resp.GetId() != 7 {
		t.Fatalf("call: %v, %v", resp, err)
	}
	outcome := func(err error) storev1.Outcome {
		var e *Error
		if !errors.As(err, &e) {
			t.Fatalf("%v is not an Error", err)
		}
		return e.Outcome()
	}
	if _, err := b.client.Call(ctx, "c", commit); outcome(err) != storev1.Outcome_OUTCOME_NOT_APPLIED {
		t.Errorf("call of an unknown node: %v", err)
	}
	gone, leave := context.WithCancel(ctx)
	go func() {
		<-held
		leave()
	}()
	if _, err := b.client.Call(gone, "a", commit); outcome(err) != storev1.Outcome_OUTCOME_UNKNOWN {
		t.Errorf("commit whose caller went away: %v", err)
	}
	close(release)
	// The socket is gone, but the membership does not know yet. Until the connection is seen closed nobody can tell.
	a.server.Stop()
	eventually(t, 5*time.Second, "a commit at a store that is gone is not applied", func() bool {
		_, err := b.client.Call(ctx, "a", commit)
		return outcome(err) == storev1.Outcome_OUTCOME_NOT_APPLIED
	})
	a.stop(t)
}

// TestCallOfADeadMember: a stopped process keeps its connections; who waits for it is let go when it is declared dead.
func TestCallOfADeadMember(t *testing.T) {
	dir := runtimeDir(t)
	entered, release := make(chan struct{}), make(chan struct{})
	hang := func(context.Context, *storev1.Request) *storev1.Response {
		entered <- struct{}{}
		<-release
		return &storev1.Response{}
	}
	a := start(t, dir, "a", nil, counters("a", 1), nil, hang)
	b := start(t, dir, "b", []string{a.node.Address()}, counters("b", 2), nil, nil)
	defer b.stop(t)
	eventually(t, 10*time.Second, "connected", connected(b, 1))
	for _, c := range []struct {
		req  *storev1.Request
		want storev1.Outcome
	}{
		{&storev1.Request{Call: &storev1.Request_Begin{Begin: &storev1.Begin{}}}, storev1.Outcome_OUTCOME_NOT_APPLIED},
		{&storev1.Request{Call: &storev1.Request_Commit{Commit: &storev1.Commit{}}}, storev1.Outcome_OUTCOME_UNKNOWN},
	} {
		dead := make(chan struct{})
		client := NewClient(ClientConfig{Resolve: func(string) (string, bool) {
			select {
			case <-dead:
				return "", false
			default:
				return "unix:" + filepath.Join(dir, "a"), true
			}
		}})
		answered := make(chan error, 1)
		go func() {
			_, err := client.Call(context.Background(), "a", c.req)
			answered <- err
		}()
		<-entered
		close(dead)
		var e *Error
		if err := <-answered; !errors.As(err, &e) || e.Outcome() != c.want {
			t.Errorf("%v: %v, want %v", c.req, err, c.want)
		}
		client.Close()
	}
	close(release)
	a.stop(t)
}

func TestPlainTCPIsRefused(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c := NewClient(ClientConfig{Resolve: func(string) (string, bool) { return l.Addr().String(), true }})
	defer c.Close()
	if _, err := c.Dial(context.Background(), l.Addr().String()); err == nil {
		t.Error("dialed a TCP address without credentials")
	}
	if _, err := c.Call(context.Background(), "n", &storev1.Request{}); err == nil {
		t.Error("called over TCP without credentials")
	}
}
