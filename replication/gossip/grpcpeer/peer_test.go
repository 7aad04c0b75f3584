package grpcpeer

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/holdfast-mesh/holdfast/internal/peercred"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
	"github.com/holdfast-mesh/holdfast/replication/gossip"
)

type fakePeer struct {
	calls int
	gone  chan struct{}
}

func (p *fakePeer) Handle(_ context.Context, req *storev1.Request) *storev1.Response {
	p.calls++
	return &storev1.Response{Id: req.GetId()}
}

func (p *fakePeer) Gone() { close(p.gone) }

// TestPeerOfAConnection: all calls of one connection have one Peer, which learns of the end.
func TestPeerOfAConnection(t *testing.T) {
	socket := filepath.Join(runtimeDir(t), "p")
	listener, err := peercred.Listen(socket, quiet)
	if err != nil {
		t.Fatal(err)
	}
	peers := make(chan *fakePeer, 10)
	server := NewServer(ServerConfig{
		Accept: func(context.Context, gossip.Conn) error { return nil },
		Peer: func() Peer {
			p := &fakePeer{gone: make(chan struct{})}
			peers <- p
			return p
		},
		Logger: quiet,
	})
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	defer func() {
		server.Stop()
		<-served
	}()
	for range 2 {
		c := NewClient(ClientConfig{Resolve: func(string) (string, bool) { return "unix:" + socket, true }})
		for i := range 3 {
			if r, err := c.Call(context.Background(), "n", &storev1.Request{Id: uint64(i + 1)}); err != nil || r.GetId() != uint64(i+1) {
				t.Fatalf("call: %v, %v", r, err)
			}
		}
		p := <-peers
		c.Close()
		select {
		case <-p.gone:
		case <-time.After(10 * time.Second):
			t.Fatal("the connection's end is not told")
		}
		if p.calls != 3 {
			t.Errorf("%d calls, want 3", p.calls)
		}
	}
}
