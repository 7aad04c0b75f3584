package serve_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/holdfast-mesh/holdfast/internal/frame"
	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
	"github.com/holdfast-mesh/holdfast/statestore"
	"github.com/holdfast-mesh/holdfast/statestore/serve"
	"github.com/holdfast-mesh/holdfast/statestore/strong/strongtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func start(t *testing.T) (*statestore.Engine, *serve.Server, string) {
	t.Helper()
	e := engine(t, "node-1")
	s, socket := listen(t, e)
	return e, s, socket
}

func engine(t *testing.T, node string) *statestore.Engine {
	t.Helper()
	e, err := statestore.Open(statestore.Config{Node: node, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	err = e.Configure(context.Background(), &storev1.Configure{
		Types: []*configv1.EntityType{
			{Type: "count", Model: configv1.Model_MODEL_GCOUNTER},
			{Type: "account", Model: configv1.Model_MODEL_VALUE, Consistency: configv1.Consistency_CONSISTENCY_STRONG},
		},
		Placement: &configv1.Placement{Epoch: 1, Members: []*configv1.Member{{Name: "node-1"}, {Name: "node-2"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func listen(t *testing.T, e *statestore.Engine) (*serve.Server, string) {
	t.Helper()
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
	})
	return s, socket
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

// call sends and waits for the answer, past pushes.
func (c *client) call(req *storev1.Request) *storev1.Response {
	c.t.Helper()
	id := c.send(req)
	for {
		if r := c.receive(); r.Id == id {
			return r
		}
	}
}

func wantCode(t *testing.T, what string, r *storev1.Response, code codes.Code, outcome storev1.Outcome) {
	t.Helper()
	if got := codes.Code(r.GetError().GetCode()); got != code || r.GetError().GetOutcome() != outcome {
		t.Errorf("%s: got %v, want %s, %s", what, r, code, outcome)
	}
}

const notApplied = storev1.Outcome_OUTCOME_NOT_APPLIED

func TestCalls(t *testing.T) {
	e, _, socket := start(t)
	c := dial(t, socket)
	count := &storev1.Entity{Type: "count", Key: "k"}
	wantCode(t, "no call", c.call(&storev1.Request{}), codes.Unimplemented, notApplied)
	wantCode(t, "no entity", c.call(get("", true)), codes.InvalidArgument, notApplied)
	wantCode(t, "begin of a type that is not strong", c.call(&storev1.Request{Call: &storev1.Request_Begin{Begin: &storev1.Begin{Entity: count}}}), codes.FailedPrecondition, notApplied)
	if r := c.call(commit("k", 2)); r.GetCommitted() == nil {
		t.Errorf("commit: %v", r)
	}
	if r := c.call(&storev1.Request{Call: &storev1.Request_Inspect{Inspect: &storev1.Inspect{Entity: count}}}); !r.GetInspection().GetActive() {
		t.Errorf("inspect: %v", r)
	}
	if r := c.call(&storev1.Request{Call: &storev1.Request_GetStatus{GetStatus: &storev1.GetStatus{}}}); r.GetStatus().GetNode() != "node-1" || r.GetStatus().GetCommits()["count"] != 1 {
		t.Errorf("status: %v", r)
	}
	old := proto.Clone(e.Configuration()).(*storev1.Configure)
	old.Placement.Epoch = 0
	wantCode(t, "older placement", c.call(&storev1.Request{Call: &storev1.Request_Configure{Configure: old}}), codes.FailedPrecondition, notApplied)
	old.Placement.Epoch = 2
	if r := c.call(&storev1.Request{Call: &storev1.Request_Configure{Configure: old}}); r.GetDone() == nil || e.Configuration().GetPlacement().GetEpoch() != 2 {
		t.Errorf("configure: %v", r)
	}
}

func TestUnsubscribeEndsPushes(t *testing.T) {
	_, _, socket := start(t)
	a, b := dial(t, socket), dial(t, socket)
	b.call(get("k", true))
	b.call(&storev1.Request{Call: &storev1.Request_Unsubscribe{Unsubscribe: &storev1.Unsubscribe{Entity: &storev1.Entity{Type: "count", Key: "k"}}}})
	a.call(commit("k", 1))
	id := b.send(get("k", false))
	if r := b.receive(); r.Id != id || r.GetState().GetValue().GetGcounter() != 1 {
		t.Errorf("got %v, want the answer and no push", r)
	}
}

// A subscriber that does not read for a while gets the latest state, not all of them; others are not held up.
func TestSlowSubscriberSkips(t *testing.T) {
	_, _, socket := start(t)
	slow, fast := dial(t, socket), dial(t, socket)
	slow.call(get("k", true))
	const commits = 1500
	for range commits {
		fast.send(commit("k", 1))
		if r := fast.receive(); r.GetCommitted() == nil {
			t.Fatal(r)
		}
	}
	pushes := 0
	for last := uint64(0); last < commits; pushes++ {
		n := slow.receive().GetState().GetValue().GetGcounter()
		if n <= last {
			t.Fatalf("%d after %d", n, last)
		}
		last = n
	}
	if pushes > commits {
		t.Errorf("%d pushes for %d commits", pushes, commits)
	}
}

func TestTooManyUnderWay(t *testing.T) {
	e, _, socket := start(t)
	etcd := strongtest.New()
	e.Connect(statestore.Links{Committer: etcd.Store("node-1")})
	c := dial(t, socket)
	begin := func(key string) *storev1.Request {
		return &storev1.Request{Call: &storev1.Request_Begin{Begin: &storev1.Begin{Entity: &storev1.Entity{Type: "account", Key: key}, TimeoutMs: 60_000}}}
	}
	for i := range 10 {
		c.call(begin(string(rune('a' + i))))
	}
	refused := 0
	for i := range 1100 {
		c.send(begin(string(rune('a' + i%10))))
	}
	for range 1100 - 1024 {
		r := c.receive()
		wantCode(t, "one too many", r, codes.ResourceExhausted, notApplied)
		refused++
	}
	// Hanging up ends all turns: another connection need not wait for a minute.
	c.nc.Close()
	other := dial(t, socket)
	if r := other.call(begin("a")); r.GetBegun() == nil {
		t.Errorf("after the other hung up: %v", r)
	}
}

func TestBrokenFramesDropTheConnection(t *testing.T) {
	_, _, socket := start(t)
	for what, b := range map[string][]byte{
		"too large":     binary.BigEndian.AppendUint32(nil, frame.Max+1),
		"not a request": append(binary.BigEndian.AppendUint32(nil, 3), 0xff, 0xff, 0xff),
	} {
		c := dial(t, socket)
		if _, err := c.nc.Write(b); err != nil {
			t.Fatal(err)
		}
		if err := c.nc.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.nc.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("%s: got %v, want the connection closed", what, err)
		}
	}
	if r := dial(t, socket).call(commit("k", 1)); r.GetCommitted() == nil {
		t.Errorf("others are affected: %v", r)
	}
}

func TestSocketIsPrivateAndTaken(t *testing.T) {
	e, _, socket := start(t)
	for path, want := range map[string]os.FileMode{socket: 0o600, filepath.Dir(socket): 0o700} {
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: mode %v, %v, want %v", path, info.Mode().Perm(), err, want)
		}
	}
	if _, err := serve.New(serve.Options{Engine: e, Socket: socket}); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("a second server on the socket: %v", err)
	}
}

func TestCloseAnswersWhatIsUnderWay(t *testing.T) {
	e := engine(t, "node-1")
	s, socket := listen(t, e)
	c := dial(t, socket)
	const sent = 200
	for range sent {
		c.send(commit("k", 1))
	}
	// The first answer shows that the server reads.
	c.receive()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	answered := uint64(1)
	for {
		b, err := frame.Read(c.nc, nil)
		if err != nil {
			break
		}
		r := &storev1.Response{}
		if err := proto.Unmarshal(b, r); err != nil || r.GetCommitted() == nil {
			t.Fatal(r, err)
		}
		answered++
	}
	state, err := e.Get(&storev1.Entity{Type: "count", Key: "k"})
	if err != nil {
		t.Fatal(err)
	}
	if got := state.GetValue().GetGcounter(); got != answered {
		t.Errorf("%d applied, %d answered", got, answered)
	}
}

// peer is the other store, without a network between.
type peer struct{ *serve.Peer }

func (p *peer) Call(ctx context.Context, _ string, req *storev1.Request) (*storev1.Response, error) {
	return p.Handle(ctx, req), nil
}

func TestStrongThroughTheOtherStore(t *testing.T) {
	etcd := strongtest.New()
	e1, e2 := engine(t, "node-1"), engine(t, "node-2")
	s1, socket1 := listen(t, e1)
	s2, socket2 := listen(t, e2)
	e1.Connect(statestore.Links{Committer: etcd.Store("node-1"), Forwarder: &peer{s2.NewPeer()}})
	e2.Connect(statestore.Links{Committer: etcd.Store("node-2"), Forwarder: &peer{s1.NewPeer()}})
	account := &storev1.Entity{Type: "account", Key: "k"}
	for i, socket := range []string{socket1, socket2, socket2, socket1} {
		c := dial(t, socket)
		begun := c.call(&storev1.Request{Call: &storev1.Request_Begin{Begin: &storev1.Begin{Entity: account, RequestId: string(rune('a' + i))}}}).GetBegun()
		if got := len(begun.GetState().GetValue().GetValue()); got != i {
			t.Fatalf("command %d begins with %v", i, begun)
		}
		r := c.call(&storev1.Request{Call: &storev1.Request_Commit{Commit: &storev1.Commit{
			Entity: account, RequestId: string(rune('a' + i)), Token: begun.Token,
			Operations: []*holdfastv1.Operation{{Operation: &holdfastv1.Operation_Set{Set: &holdfastv1.Set{Value: make([]byte, i+1)}}}},
		}}})
		if r.GetCommitted() == nil {
			t.Fatalf("commit %d: %v", i, r)
		}
		// A turn that is left behind goes with the connection, also at the other store.
		c.call(&storev1.Request{Call: &storev1.Request_Begin{Begin: &storev1.Begin{Entity: account, RequestId: "left", TimeoutMs: 60_000}}})
		c.nc.Close()
	}
	c := dial(t, socket2)
	if r := c.call(&storev1.Request{Call: &storev1.Request_Get{Get: &storev1.Get{Entity: account}}}); len(r.GetState().GetValue().GetValue()) != 4 {
		t.Errorf("get: %v", r)
	}
	wantCode(t, "subscribe", c.call(&storev1.Request{Call: &storev1.Request_Get{Get: &storev1.Get{Entity: account, Subscribe: true}}}), codes.Unimplemented, notApplied)
	wantCode(t, "configure from a peer", s1.NewPeer().Handle(context.Background(), &storev1.Request{Call: &storev1.Request_Configure{}}), codes.PermissionDenied, notApplied)
	in := c.call(&storev1.Request{Call: &storev1.Request_Inspect{Inspect: &storev1.Inspect{Entity: account}}}).GetInspection()
	if in.GetOwner() != "node-1" || in.GetActive() || !in.GetState().GetExists() {
		t.Errorf("inspect: %v", in)
	}
}

func TestHTTP(t *testing.T) {
	e := engine(t, "node-1")
	reg := prometheus.NewRegistry()
	s, err := serve.New(serve.Options{Engine: e, Socket: filepath.Join(t.TempDir(), "s.sock"), Registerer: reg})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	s.NewPeer().Handle(context.Background(), &storev1.Request{})
	h := serve.HTTP(e, reg)
	for path, want := range map[string]string{"/readyz": "ok", "/metrics": `holdfast_store_calls_total{call="unknown",code="PermissionDenied"} 1`} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		if w.Code != 200 || !strings.Contains(w.Body.String(), want) {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
}
