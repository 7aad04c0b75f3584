package serve_test

import (
	"context"
	"net"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"github.com/holdfast-mesh/holdfast/internal/frame"
	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
	"github.com/holdfast-mesh/holdfast/statestore"
	"github.com/holdfast-mesh/holdfast/statestore/serve"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func start(t *testing.T) (*statestore.Engine, *serve.Server, string) {
	t.Helper()
	e, err := statestore.Open(statestore.Config{Node: "node-1", Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	err = e.Configure(context.Background(), &storev1.Configure{
		Types: []*configv1.EntityType{
			{Type: "count", Model: configv1.Model_MODEL_GCOUNTER},
			{Type: "account", Model: configv1.Model_MODEL_VALUE, Consistency: configv1.Consistency_CONSISTENCY_STRONG},
		},
		Placement: &configv1.Placement{Epoch: 1, Members: []*configv1.Member{{Name: "node-1"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(t.TempDir(), "s", "store.sock")
	s, err := serve.New(serve.Options{Engine: e, Socket: socket})
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve() }()
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e, s, socket
}

// client is a blocking caller for tests.
type client struct {
	t  *testing.T
	nc net.Conn
	id uint64
}

func dial(t *testing.T, socket string) *client {
	t.Helper()
	nc, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	return &client{t: t, nc: nc}
}

func (c *client) send(req *storev1.Request) uint64 {
	c.t.Helper()
	c.id++
	req.Id = c.id
	b, err := frame.Append(nil, req)
	if err != nil {
		c.t.Fatal(err)
	}
	if _, err := c.nc.Write(b); err != nil {
		c.t.Fatal(err)
	}
	return c.id
}

func (c *client) receive() *storev1.Response {
	c.t.Helper()
	if err := c.nc.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		c.t.Fatal(err)
	}
	b, err := frame.Read(c.nc, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	r := &storev1.Response{}
	if err := proto.Unmarshal(b, r); err != nil {
		c.t.Fatal(err)
	}
	return r
}

func get(key string, subscribe bool) *storev1.Request {
	return &storev1.Request{Call: &storev1.Request_Get{Get: &storev1.Get{Entity: &storev1.Entity{Type: "count", Key: key}, Subscribe: subscribe}}}
}

func commit(key string, by uint64) *storev1.Request {
	return &storev1.Request{Call: &storev1.Request_Commit{Commit: &storev1.Commit{
		Entity:     &storev1.Entity{Type: "count", Key: key},
		Operations: []*holdfastv1.Operation{{Operation: &holdfastv1.Operation_Increment{Increment: &holdfastv1.Increment{By: by}}}},
	}}}
}

func TestCommitIsPushedThenAnswered(t *testing.T) {
	_, _, socket := start(t)
	a, b := dial(t, socket), dial(t, socket)
	b.send(get("k", true))
	if r := b.receive(); r.GetState() == nil || r.GetState().Exists {
		t.Fatalf("first get: %v", r)
	}
	id := a.send(commit("k", 5))
	if r := a.receive(); r.Id != id || r.GetCommitted().GetState().GetValue().GetGcounter() != 5 {
		t.Fatalf("commit: %v", r)
	}
	if r := b.receive(); r.Id != 0 || r.GetState().GetValue().GetGcounter() != 5 {
		t.Fatalf("push: %v", r)
	}
}
