package serve

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"go.uber.org/goleak"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	"github.com/holdfast-mesh/holdfast/xds/ir"
	"github.com/holdfast-mesh/holdfast/xds/translate"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 10 * time.Second

func start(t *testing.T) *Server {
	t.Helper()
	s := New(Options{Socket: filepath.Join(t.TempDir(), "xds.sock"), Log: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return s
}

func resources(t *testing.T, node string) *translate.Resources {
	t.Helper()
	r, err := translate.Proxy(&ir.Proxy{
		Name:      "node-1",
		Listeners: []ir.Listener{{Name: "edge", Edge: true, Address: "127.0.0.1:8081", Filter: &configv1.FilterConfig{Node: node}}},
		Services:  []ir.Service{{Name: "qa.v1.Questions", Serve: []string{"/tmp/s.sock"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// envoy is the other end: it asks like an Envoy.
type envoy struct {
	t      *testing.T
	stream discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesClient
	first  bool
	name   string
	hangUp func()
}

func dial(t *testing.T, s *Server, name string) *envoy {
	t.Helper()
	cc, err := grpc.NewClient("unix:"+s.opts.Socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(cc).DeltaAggregatedResources(ctx, grpc.WaitForReady(true))
	if err != nil {
		t.Fatal(err)
	}
	hangUp := func() { cancel(); cc.Close() }
	t.Cleanup(hangUp)
	return &envoy{t: t, stream: stream, first: true, name: name, hangUp: hangUp}
}

func (e *envoy) send(r *discoveryv3.DeltaDiscoveryRequest) {
	e.t.Helper()
	if e.first {
		r.Node = &corev3.Node{Id: e.name}
		e.first = false
	}
	if err := e.stream.Send(r); err != nil {
		e.t.Fatal(err)
	}
}

func (e *envoy) recv() *discoveryv3.DeltaDiscoveryResponse {
	e.t.Helper()
	r, err := e.stream.Recv()
	if err != nil {
		e.t.Fatal(err)
	}
	return r
}

func (e *envoy) answer(r *discoveryv3.DeltaDiscoveryResponse, refusal string) {
	e.t.Helper()
	req := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: r.TypeUrl, ResponseNonce: r.Nonce}
	if refusal != "" {
		req.ErrorDetail = &rpcstatus.Status{Code: 13, Message: refusal}
	}
	e.send(req)
}

// until waits for a type of node-1 to be as the condition says.
func until(t *testing.T, s *Server, what string, cond func(ProxyStatus) bool) ProxyStatus {
	t.Helper()
	deadline := time.After(patience)
	for {
		changed := s.Changed()
		for _, p := range s.Status() {
			if p.Name == "node-1" && cond(p) {
				return p
			}
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("never %s: %+v", what, s.Status())
		}
	}
}

func typ(p ProxyStatus, name string) TypeStatus {
	for _, t := range p.Types {
		if t.Type == name {
			return t
		}
	}
	return TypeStatus{}
}

func TestAckAndNack(t *testing.T) {
	s := start(t)
	if err := s.Set(resources(t, "a")); err != nil {
		t.Fatal(err)
	}
	e := dial(t, s, "node-1")
	e.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: translate.TypeExtension, ResourceNamesSubscribe: []string{"holdfast/edge"}})
	first := e.recv()
	if len(first.Resources) != 1 || first.Resources[0].Name != "holdfast/edge" {
		t.Fatalf("got %v", first)
	}
	until(t, s, "pending", func(p ProxyStatus) bool { return typ(p, "ECDS").State == Pending })
	e.answer(first, "")
	good := typ(until(t, s, "acked", func(p ProxyStatus) bool { return typ(p, "ECDS").State == Acked }), "ECDS")
	if good.LastGood != good.Version || good.Version == "" {
		t.Errorf("got %+v", good)
	}

	if err := s.Set(resources(t, "b")); err != nil {
		t.Fatal(err)
	}
	e.answer(e.recv(), "Failed to initialize dynamic module")
	bad := typ(until(t, s, "nacked", func(p ProxyStatus) bool { return typ(p, "ECDS").State == Nacked }), "ECDS")
	if bad.Reason != "Failed to initialize dynamic module" || bad.LastGood != good.Version || bad.Version == good.Version {
		t.Errorf("got %+v", bad)
	}

	// The same again is not sent again: the next response is for the other type.
	if err := s.Set(resources(t, "b")); err != nil {
		t.Fatal(err)
	}
	e.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: translate.TypeRoute, ResourceNamesSubscribe: []string{"edge"}})
	r := e.recv()
	if r.TypeUrl != translate.TypeRoute {
		t.Fatalf("a refused resource was sent again: %v", r)
	}
	e.answer(r, "")

	// The good one again is: the Envoy must be told that the refused one is off the table.
	if err := s.Set(resources(t, "a")); err != nil {
		t.Fatal(err)
	}
	back := e.recv()
	e.answer(back, "")
	until(t, s, "acked again", func(p ProxyStatus) bool {
		c := typ(p, "ECDS")
		return c.State == Acked && c.Version == good.Version && c.Reason == ""
	})
	if acks, nacks := s.Answers(); acks != 3 || nacks != 1 {
		t.Errorf("got %d acks, %d nacks", acks, nacks)
	}
}

func TestComesBack(t *testing.T) {
	s := start(t)
	if err := s.Set(resources(t, "a")); err != nil {
		t.Fatal(err)
	}
	e := dial(t, s, "node-1")
	e.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: translate.TypeRoute, ResourceNamesSubscribe: []string{"edge"}})
	r := e.recv()
	version := r.Resources[0].Version
	e.answer(r, "")
	until(t, s, "acked", func(p ProxyStatus) bool { return typ(p, "RDS").State == Acked })
	e.hangUp()
	until(t, s, "gone", func(p ProxyStatus) bool { return !p.Connected })

	// To a new control plane the Envoy tells what it has; that must count although nothing is sent, whether the control
	// plane knows what it wants before the Envoy comes or after.
	for _, before := range []bool{true, false} {
		s2 := start(t)
		set := func() {
			if err := s2.Set(resources(t, "a")); err != nil {
				t.Fatal(err)
			}
		}
		if before {
			set()
		}
		e2 := dial(t, s2, "node-1")
		e2.send(&discoveryv3.DeltaDiscoveryRequest{
			TypeUrl: translate.TypeRoute, ResourceNamesSubscribe: []string{"edge"},
			InitialResourceVersions: map[string]string{"edge": version},
		})
		until(t, s2, "connected", func(p ProxyStatus) bool { return p.Connected })
		if !before {
			set()
		}
		until(t, s2, "acked by what it has", func(p ProxyStatus) bool { return typ(p, "RDS").State == Acked })
	}
}

func TestWaitsForResources(t *testing.T) {
	s := start(t)
	e := dial(t, s, "node-1")
	e.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: translate.TypeListener})
	until(t, s, "seen", func(p ProxyStatus) bool { return p.Connected && !p.Known })
	if err := s.Set(resources(t, "a")); err != nil {
		t.Fatal(err)
	}
	r := e.recv()
	if len(r.Resources) != 1 {
		t.Errorf("got %v", r)
	}
	e.answer(r, "")
	// A proxy that leaves and comes back on the same stream is not forgotten.
	s.Remove("node-1")
	until(t, s, "forgotten", func(p ProxyStatus) bool { return !p.Known })
	again, err := translate.Proxy(&ir.Proxy{Name: "node-1"})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Set(again); err != nil {
		t.Fatal(err)
	}
	if r = e.recv(); len(r.RemovedResources) != 1 {
		t.Errorf("got %v", r)
	}
	s.Remove("node-1")
	e.hangUp()
	deadline := time.After(patience)
	for len(s.Status()) != 0 {
		select {
		case <-s.Changed():
		case <-deadline:
			t.Fatalf("still there: %+v", s.Status())
		}
	}
}

func TestRefusesInconsistent(t *testing.T) {
	s := New(Options{})
	r := resources(t, "a")
	r.ByType[translate.TypeEndpoint] = nil
	if err := s.Set(r); err == nil {
		t.Error("clusters without endpoints were accepted")
	}
	if got := s.Status(); len(got) != 0 {
		t.Errorf("got %+v", got)
	}
	r = resources(t, "a")
	r.ByType[translate.TypeRoute] = append(r.ByType[translate.TypeRoute], r.ByType[translate.TypeRoute][0])
	if err := s.Set(r); err == nil {
		t.Error(fmt.Errorf("a name that is there twice was accepted"))
	}
}
