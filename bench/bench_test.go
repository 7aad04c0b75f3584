package main

import (
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	countersv1 "github.com/holdfast-mesh/holdfast/bench/counters/v1"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
)

func startService(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	countersv1.RegisterEventualServer(s, &eventual{})
	countersv1.RegisterStrongServer(s, &strong{})
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
	return l.Addr().String()
}

// Every call of the generator arrives once: what it counts is what the service counted.
func TestGeneratorCountsCalls(t *testing.T) {
	conns, err := connect(startService(t), 2)
	if err != nil {
		t.Fatal(err)
	}
	g := &generator{method: strongIncrement, keys: []*countersv1.Request{{Counter: "a"}, {Counter: "b"}}}
	m := g.run(t.Context(), conns, 4, 50*time.Millisecond)
	if m.Failed != 0 || m.Requests == 0 || m.P50 > m.P99 {
		t.Fatalf("got %+v", m)
	}
	sum := uint64(0)
	for _, k := range g.keys {
		c, err := countersv1.NewStrongClient(conns[0]).Read(t.Context(), k)
		if err != nil {
			t.Fatal(err)
		}
		sum += c.GetValue()
	}
	if sum != uint64(m.Requests) {
		t.Errorf("the service counted %d, the generator %d", sum, m.Requests)
	}
}

// A failing call is shown, not counted as one more answer.
func TestGeneratorShowsFailures(t *testing.T) {
	conns, err := connect(startService(t), 1)
	if err != nil {
		t.Fatal(err)
	}
	g := &generator{method: "/counters.v1.Eventual/Nothing", keys: []*countersv1.Request{{Counter: "a"}}}
	m := g.run(t.Context(), conns, 1, 20*time.Millisecond)
	if m.Failed != m.Requests || m.PerSec != 0 || !strings.Contains(m.Problem, "Unimplemented") {
		t.Errorf("got %+v, want every request failed with Unimplemented", m)
	}
}

// With state in its metadata the service answers from that and hands back its change.
func TestServiceWithState(t *testing.T) {
	conns, err := connect(startService(t), 1)
	if err != nil {
		t.Fatal(err)
	}
	in, err := proto.Marshal(&holdfastv1.StateIn{Exists: true, Value: &holdfastv1.Value{Kind: &holdfastv1.Value_Gcounter{Gcounter: 41}}})
	if err != nil {
		t.Fatal(err)
	}
	ctx := metadata.AppendToOutgoingContext(t.Context(), stateKey, string(in))
	var trailer metadata.MD
	c, err := countersv1.NewEventualClient(conns[0]).Increment(ctx, &countersv1.Request{Counter: "a"}, grpc.Trailer(&trailer))
	if err != nil || c.GetValue() != 42 {
		t.Fatalf("got %v, %v; want 42", c, err)
	}
	out := &holdfastv1.StateOut{}
	if values := trailer.Get(stateKey); len(values) != 1 || proto.Unmarshal([]byte(values[0]), out) != nil {
		t.Fatalf("trailers are %v", trailer)
	}
	if ops := out.GetOperations(); len(ops) != 1 || ops[0].GetIncrement().GetBy() != 1 {
		t.Errorf("operations are %v, want one increment by 1", ops)
	}
}

func TestTable(t *testing.T) {
	rows := chosen([]row{{Name: "d"}, {Name: "p", direct: "d"}, {Name: "x", direct: "d", plain: "p"}, {Name: "y"}}, "x")
	if len(rows) != 3 {
		t.Errorf("chose %v, want x and its controls", rows)
	}
	r := &result{Row: "x", Callers: 1, Direct: []float64{0.5, 0.1, 0.3}, Runs: []ran{{measured: measured{PerSec: 1, Failed: 2, Requests: 7, Problem: "why"}}}}
	got := markdown([]*result{r})
	for _, want := range []string{"0.10/**0.30**/0.50", "2 of 7", "why"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
}
