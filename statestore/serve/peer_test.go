package serve_test

import (
	"context"
	"testing"
	"time"

	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
	"github.com/holdfast-mesh/holdfast/statestore"
	"github.com/holdfast-mesh/holdfast/statestore/strong/strongtest"
)

// TestPeerDies: a store forwards a begin and dies. Who waits for the entity goes on as soon as the connection is gone.
func TestPeerDies(t *testing.T) {
	e := engine(t, "node-1")
	e.Connect(statestore.Links{Committer: strongtest.New().Store("node-1")})
	s, _ := listen(t, e)
	begin := func(id string) *storev1.Request {
		return &storev1.Request{Call: &storev1.Request_Begin{Begin: &storev1.Begin{
			Entity: &storev1.Entity{Type: "account", Key: "k"}, RequestId: id, TimeoutMs: 60_000,
		}}}
	}
	dead, alive := s.NewPeer(), s.NewPeer()
	defer alive.Gone()
	if r := dead.Handle(context.Background(), begin("1")); r.GetBegun() == nil {
		t.Fatal(r)
	}
	waited := make(chan *storev1.Response, 1)
	go func() { waited <- alive.Handle(context.Background(), begin("2")) }()
	dead.Gone()
	select {
	case r := <-waited:
		if r.GetBegun() == nil {
			t.Error(r)
		}
	case <-time.After(10 * time.Second):
		t.Error("the entity waits for a store that is gone")
	}
}

func TestPeerOfAClosedServer(t *testing.T) {
	e := engine(t, "node-1")
	e.Connect(statestore.Links{Committer: strongtest.New().Store("node-1")})
	s, _ := listen(t, e)
	before := s.NewPeer()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for _, p := range []interface {
		Handle(context.Context, *storev1.Request) *storev1.Response
		Gone()
	}{before, s.NewPeer()} {
		r := p.Handle(context.Background(), &storev1.Request{Call: &storev1.Request_Begin{Begin: &storev1.Begin{
			Entity: &storev1.Entity{Type: "account", Key: "k"}, RequestId: "1",
		}}})
		if r.GetError() == nil {
			t.Errorf("began at a store that is closing: %v", r)
		}
		p.Gone()
	}
}
