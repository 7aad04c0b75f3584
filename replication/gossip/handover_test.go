package gossip_test

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/holdfast-mesh/holdfast/internal/peercred"
	"github.com/holdfast-mesh/holdfast/replication/gossip"
	"github.com/holdfast-mesh/holdfast/replication/gossip/grpcpeer"
	"github.com/holdfast-mesh/holdfast/replication/gossip/sim"
)

// A store that leaves gives what nobody was told of: nothing here is ever published, and rounds of anti-entropy are rarer
// than the test is long.
func TestHandOver(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	dir := t.TempDir()
	start := func(index int, join ...string) (*gossip.Node, *sim.Counters) {
		engine := sim.NewCounters("t", "u", "empty")
		client := grpcpeer.NewClient(grpcpeer.ClientConfig{Resolve: func(string) (string, bool) { return "", false }})
		socket := filepath.Join(dir, fmt.Sprint(index))
		l, err := peercred.Listen(socket, log)
		if err != nil {
			t.Fatal(err)
		}
		n, err := gossip.Start(gossip.Config{
			Node: fmt.Sprint("node-", index), Replica: uint64(index), Keys: keys(t), Engine: engine, Dialer: client, Join: join,
			Bind: "127.0.0.1:0", PeerAddress: "unix:" + socket, Logger: log,
		})
		if err != nil {
			t.Fatal(err)
		}
		server := grpcpeer.NewServer(grpcpeer.ServerConfig{Accept: n.Accept, Logger: log})
		done := make(chan error, 1)
		go func() { done <- server.Serve(l) }()
		t.Cleanup(func() {
			_ = n.Close()
			server.Stop()
			client.Close()
			<-done
		})
		return n, engine
	}
	first, mine := start(1)
	second, theirs := start(2, first.Address())
	third, others := start(3, first.Address())
	wait(t, func() bool { return streams(first) == 2 && streams(second) == 2 && streams(third) == 2 })
	for i := range 500 {
		mine.Add("t", fmt.Sprint("key-", i), 1, 1)
	}
	mine.Add("u", "only", 1, 7)
	theirs.Add("t", "key-0", 2, 5)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := first.HandOver(ctx); err != nil {
		t.Fatal(err)
	}
	for name, e := range map[string]*sim.Counters{"second": theirs, "third": others} {
		for i := range 500 {
			key := fmt.Sprint("key-", i)
			if have, want := e.Values()["t/"+key], mine.Values()["t/"+key]; have < want {
				t.Errorf("%s has %s = %d, want at least %d", name, key, have, want)
			}
		}
		if got := e.Values()["u/only"]; got != 7 {
			t.Errorf("%s has only = %d, want 7", name, got)
		}
	}
}

func streams(n *gossip.Node) (count int) {
	for _, p := range n.Peers() {
		if p.GetConnected() {
			count++
		}
	}
	return count
}

func wait(t *testing.T, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatal("not within 10s")
		}
		time.Sleep(time.Millisecond)
	}
}

func TestHandOverToNobody(t *testing.T) {
	client := grpcpeer.NewClient(grpcpeer.ClientConfig{Resolve: func(string) (string, bool) { return "", false }})
	n, err := gossip.Start(gossip.Config{
		Node: "alone", Replica: 1, Keys: keys(t), Engine: sim.NewCounters("t"), Dialer: client,
		Bind: "127.0.0.1:0", PeerAddress: "unix:/nowhere", Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := n.HandOver(t.Context()); err != nil {
		t.Error(err)
	}
}
