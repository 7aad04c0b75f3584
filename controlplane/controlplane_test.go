package controlplane

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"
	"google.golang.org/protobuf/proto"

	"github.com/holdfast-mesh/holdfast/controlplane/admin"
	"github.com/holdfast-mesh/holdfast/internal/mesh"
	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 15 * time.Second

// fakeStores are all nodes' stores. A socket that is not in up refuses connections.
type fakeStores struct {
	mu sync.Mutex
	// the fields below are guarded by mu
	up     map[string]bool
	ids    map[string]string
	have   map[string]*storev1.Configure
	refuse string
	calls  []string
	// took lists what types each store took, in order: a step may be over before somebody looks.
	took map[string][]string
}

func newFakeStores() *fakeStores {
	return &fakeStores{up: map[string]bool{}, ids: map[string]string{}, have: map[string]*storev1.Configure{}, took: map[string][]string{}}
}

func (f *fakeStores) Call(_ context.Context, socket string, req *storev1.Request) (*storev1.Response, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.up[socket] {
		return nil, errors.New("connection refused")
	}
	switch c := req.GetCall().(type) {
	case *storev1.Request_GetStatus:
		return &storev1.Response{Result: &storev1.Response_Status{Status: &storev1.StoreStatus{
			ReplicaId: f.ids[socket], Epoch: f.have[socket].GetPlacement().GetEpoch(),
		}}}, nil
	case *storev1.Request_Configure:
		f.calls = append(f.calls, socket)
		for _, t := range c.Configure.GetTypes() {
			if t.GetType() == f.refuse {
				return &storev1.Response{Error: &storev1.Error{Code: 9, Message: fmt.Sprintf("configure: entity type %q has entities of another model", t.GetType())}}, nil
			}
		}
		if have := f.have[socket].GetPlacement().GetEpoch(); c.Configure.GetPlacement().GetEpoch() < have {
			return &storev1.Response{Error: &storev1.Error{Code: 9, Message: "configure: older epoch"}}, nil
		}
		f.have[socket] = proto.CloneOf(c.Configure)
		f.took[socket] = append(f.took[socket], f.typesLocked(socket))
		return &storev1.Response{Result: &storev1.Response_Done{Done: &storev1.Done{}}}, nil
	case *storev1.Request_Inspect:
		if strings.HasPrefix(c.Inspect.GetEntity().GetKey(), "none") {
			return &storev1.Response{Result: &storev1.Response_Inspection{Inspection: &storev1.Inspection{}}}, nil
		}
		return &storev1.Response{Result: &storev1.Response_Inspection{Inspection: &storev1.Inspection{
			Active: true, State: &storev1.State{
				Entity: c.Inspect.GetEntity(), Exists: true, Version: socket,
				Value: &holdfastv1.Value{Kind: &holdfastv1.Value_Gcounter{Gcounter: 7}},
			},
		}}}, nil
	}
	return nil, errors.New("unexpected call")
}

// set makes a store come up as a new process, or go down.
func (f *fakeStores) set(socket string, up bool, id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.up[socket], f.ids[socket] = up, id
	if id != "" {
		delete(f.have, socket)
	}
}

func (f *fakeStores) types(socket string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.typesLocked(socket)
}

// tookOnce reports whether a store once had exactly these types.
func (f *fakeStores) tookOnce(socket, types string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Contains(f.took[socket], types)
}

func (f *fakeStores) typesLocked(socket string) string {
	var out []string
	for _, t := range f.have[socket].GetTypes() {
		out = append(out, t.GetType())
	}
	return strings.Join(out, " ")
}

// rig is a control plane with everything around it but Envoys.
type rig struct {
	t      *testing.T
	cfg    Config
	stores *fakeStores
	stop   func()
}

// healthService answers health and reflection: health is the service that gets state here.
func healthService(t *testing.T) string {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	healthv1.RegisterHealthServer(s, health.NewServer())
	reflection.Register(s)
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(lis) }()
	t.Cleanup(func() { s.Stop(); <-done })
	return lis.Addr().String()
}

const healthYAML = `apiVersion: holdfast.dev/v1alpha1
kind: StatefulService
metadata: {name: checks}
spec:
  service: grpc.health.v1.Health
  mode: MODE
  entity: {type: TYPE, key: {field: service}, model: {gcounter: {}}, carriage: {metadata: {}}}
  workloadRef: {kind: Local, name: checks}
---
apiVersion: holdfast.dev/v1alpha1
kind: LocalMesh
metadata: {name: mesh}
spec:
  workloads:
  - {name: checks, command: [checks]}
  - {name: page, command: [page], scope: gateway, route: {prefix: /}}
`

const brokenService = `---
apiVersion: holdfast.dev/v1alpha1
kind: StatefulService
metadata: {name: absent}
spec:
  service: nobody.Has
  entity: {type: absent.Type, model: {gcounter: {}}, carriage: {metadata: {}}}
  workloadRef: {kind: Local, name: checks}
`

func yamlFor(mode, typ string) string {
	return strings.NewReplacer("MODE", mode, "TYPE", typ).Replace(healthYAML)
}

func newRig(t *testing.T) *rig {
	t.Helper()
	dir, err := os.MkdirTemp("", "hf")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	r := &rig{t: t, stores: newFakeStores()}
	r.cfg = Config{
		File: filepath.Join(dir, "holdfast.yaml"), Topology: filepath.Join(dir, "mesh.json"),
		XDSSocket: filepath.Join(dir, "xds.sock"), AdminSocket: filepath.Join(dir, "admin.sock"), StateDir: filepath.Join(dir, "state"),
		Stores: r.stores, CheckFilter: func([]byte) error { return nil },
	}
	return r
}

func (r *rig) start() {
	r.t.Helper()
	ctx, cancel := context.WithCancel(r.t.Context())
	done := make(chan error, 1)
	go func() { done <- Run(ctx, r.cfg) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			r.t.Errorf("Run: %v", err)
		}
	})
	r.t.Cleanup(r.stop)
}

func (r *rig) write(yaml string) {
	r.t.Helper()
	if err := os.WriteFile(r.cfg.File, []byte(yaml), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) mesh(address string, nodes ...string) {
	r.t.Helper()
	top := &mesh.Topology{Gateway: mesh.Gateway{Name: "gateway", Address: "127.0.0.1:22000"}, GatewayWorkloads: map[string]string{"page": "127.0.0.1:22099"}}
	for i, n := range nodes {
		top.Nodes = append(top.Nodes, mesh.Node{
			Name: n, Ingress: fmt.Sprintf("127.0.0.1:%d", 22001+i), StoreSocket: "/" + n + "/store", Peer: "unix:/" + n + "/peer",
			ServeSocket: "/" + n + "/serve", Services: map[string]string{"checks": address},
		})
	}
	if err := mesh.Write(r.cfg.Topology, top); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) do(method, path string, out any) int {
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", r.cfg.AdminSocket)
		},
	}}
	req, err := http.NewRequestWithContext(r.t.Context(), method, "http://admin"+path, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0
	}
	if s, ok := out.(*string); ok {
		*s = string(body)
	} else if out != nil {
		if err := json.Unmarshal(body, out); err != nil {
			r.t.Errorf("%s: %v: %s", path, err, body)
		}
	}
	return resp.StatusCode
}

// until polls the API until the configuration is as cond says.
func (r *rig) until(what string, cond func(admin.Config) bool) admin.Config {
	r.t.Helper()
	deadline := time.Now().Add(patience)
	var c admin.Config
	for time.Now().Before(deadline) {
		c = admin.Config{}
		if r.do(http.MethodGet, "/v1/config", &c) == http.StatusOK && cond(c) {
			return c
		}
		<-time.After(10 * time.Millisecond)
	}
	r.t.Fatalf("never %s: %+v", what, c)
	return c
}

func applied(nodes ...string) func(admin.Config) bool {
	return func(c admin.Config) bool { return slices.Equal(c.Nodes, nodes) && !c.Applied.IsZero() }
}

func TestWholeWay(t *testing.T) {
	r := newRig(t)
	address := healthService(t)
	r.write(yamlFor("commit", "demo.Check"))
	r.mesh(address, "node-1", "node-2")
	r.stores.set("/node-1/store", true, "a")
	r.stores.set("/node-2/store", true, "b")
	r.start()
	c := r.until("applied", applied("node-1", "node-2"))
	if c.Error != "" || !c.Accepted || c.Services[0].State != admin.ServiceOK || c.Placement.Epoch != 1 || c.Gateway == "" || c.Ingresses["node-2"] == "" {
		t.Errorf("got %+v", c)
	}
	// Health.Check has the key, Health.Watch too; List, if it is there, has none.
	if !slices.Contains(c.Services[0].Methods, "/grpc.health.v1.Health/Check") {
		t.Errorf("got %+v", c.Services[0])
	}
	if got := r.stores.types("/node-1/store"); got != "demo.Check" {
		t.Errorf("store has %q", got)
	}
	if code := r.do(http.MethodGet, "/readyz", nil); code != http.StatusOK {
		t.Errorf("readyz: %d", code)
	}
	var proxies admin.ProxyList
	r.do(http.MethodGet, "/v1/proxies", &proxies)
	if len(proxies.Proxies) != 3 {
		t.Errorf("got %+v", proxies)
	}

	// A broken file is refused, with the reason, and changes nothing.
	r.write("kind: Nonsense\n")
	broken := r.until("refused", func(c admin.Config) bool { return c.Error != "" })
	if !strings.Contains(broken.Error, "holdfast.yaml:1") || broken.Accepted || len(broken.Services) != 1 {
		t.Errorf("got %+v", broken)
	}

	// A service whose descriptors can't be had does not hold the others up.
	r.write(yamlFor("route", "demo.Check") + brokenService)
	c = r.until("changed", func(c admin.Config) bool {
		return c.Error == "" && len(c.Services) == 2 && c.Services[1].Error != "" && c.Services[0].Mode == "route"
	})
	if c.Services[0].State != admin.ServiceOK || c.Services[1].State != admin.ServiceWaiting {
		t.Errorf("got %+v", c.Services)
	}

	// A node comes, another goes: the epoch grows, and stores hear of it.
	r.stores.set("/node-3/store", true, "c")
	r.mesh(address, "node-2", "node-3")
	c = r.until("applied", applied("node-2", "node-3"))
	if c.Placement.Epoch != 2 || !slices.Equal(c.Placement.Members, []string{"node-2", "node-3"}) {
		t.Errorf("got %+v", c.Placement)
	}
	r.until("configured", func(c admin.Config) bool {
		return len(c.Stores) == 2 && c.Stores[0].Configured && c.Stores[1].Configured
	})

	// A store that starts again is told again.
	r.stores.set("/node-3/store", true, "d")
	r.until("configured again", func(admin.Config) bool { return r.stores.types("/node-3/store") == "demo.Check" })
}

func TestTypesComeFirstAndGoLast(t *testing.T) {
	r := newRig(t)
	r.mesh(healthService(t), "node-1")
	r.stores.set("/node-1/store", true, "a")
	r.write(yamlFor("commit", "old.Type"))
	r.start()
	r.until("applied", applied("node-1"))
	r.write(yamlFor("commit", "new.Type"))
	r.until("known before", func(admin.Config) bool { return r.stores.tookOnce("/node-1/store", "new.Type old.Type") })
	r.until("gone after", func(admin.Config) bool { return r.stores.types("/node-1/store") == "new.Type" })
}

func TestServesFromWhatItSaved(t *testing.T) {
	r := newRig(t)
	r.write(yamlFor("commit", "demo.Check"))
	r.mesh(healthService(t), "node-1")
	r.stores.set("/node-1/store", true, "a")
	r.start()
	r.until("applied", applied("node-1"))
	r.stop()

	// Now the file is broken, the service is gone and so is etcd.
	r.write("nonsense: [")
	r.mesh("127.0.0.1:1", "node-1")
	r.cfg.Placements = goneEtcd{}
	r.start()
	c := r.until("applied", applied("node-1"))
	if c.Services[0].State != admin.ServiceOK || c.Placement.Epoch != 1 {
		t.Errorf("got %+v", c)
	}
	c = r.until("told", func(c admin.Config) bool { return c.Error != "" && c.PlacementError != "" })
	if !strings.Contains(c.PlacementError, "etcd is away") {
		t.Errorf("got %+v", c)
	}
	// A new node has to wait for a placement that can be kept.
	r.mesh("127.0.0.1:1", "node-1", "node-2")
	r.until("still the last placement", func(c admin.Config) bool { return len(c.Ingresses) == 2 && slices.Equal(c.Nodes, []string{"node-1"}) })
}

type goneEtcd struct{}

func (goneEtcd) Load(context.Context) (*configv1.Placement, int64, error) {
	return nil, 0, errors.New("etcd is away")
}

func (goneEtcd) Save(context.Context, *configv1.Placement, int64) (int64, error) {
	return 0, errors.New("etcd is away")
}

func TestRefusedByFilterOrStore(t *testing.T) {
	r := newRig(t)
	r.cfg.CheckFilter = func(raw []byte) error {
		c := &configv1.FilterConfig{}
		if err := proto.Unmarshal(raw, c); err != nil {
			return err
		}
		for _, s := range c.GetServices() {
			if s.GetMode() == configv1.Mode_MODE_ENRICH {
				return errors.New("no enriching today")
			}
		}
		return nil
	}
	r.write(yamlFor("commit", "demo.Check"))
	r.mesh(healthService(t), "node-1")
	r.stores.set("/node-1/store", true, "a")
	r.start()
	r.until("applied", applied("node-1"))
	r.write(yamlFor("enrich", "demo.Check"))
	c := r.until("refused by the filter", func(c admin.Config) bool { return c.Services[0].Error == "no enriching today" })
	if c.Services[0].State != admin.ServiceStale {
		t.Errorf("got %+v", c.Services[0])
	}
	r.write(yamlFor("commit", "demo.Check"))
	r.until("good again", func(c admin.Config) bool { return c.Services[0].State == admin.ServiceOK })

	r.stores.mu.Lock()
	r.stores.refuse = "bad.Type"
	r.stores.mu.Unlock()
	r.write(yamlFor("commit", "bad.Type"))
	c = r.until("refused by the store", func(c admin.Config) bool { return strings.Contains(c.Services[0].Error, "another model") })
	if c.Services[0].State != admin.ServiceStale {
		t.Errorf("got %+v", c.Services[0])
	}
	r.until("the store goes on", func(c admin.Config) bool {
		return c.Stores[0].Configured && r.stores.types("/node-1/store") == "demo.Check"
	})
}

func TestKeys(t *testing.T) {
	r := newRig(t)
	r.write(yamlFor("commit", "demo.Check"))
	r.mesh(healthService(t), "node-1", "node-2")
	r.stores.set("/node-1/store", true, "a")
	r.start()
	r.until("applied", applied("node-1", "node-2"))
	var k admin.Key
	if code := r.do(http.MethodGet, "/v1/keys/demo.Check/"+url.PathEscape("a/b c"), &k); code != http.StatusOK {
		t.Fatalf("got %d", code)
	}
	if k.Key != "a/b c" || !k.Exists || string(k.Value) == "" || k.Consistency != "eventual" || len(k.Replicas) != 2 || len(k.Copies) != 2 {
		t.Errorf("got %+v", k)
	}
	for _, c := range k.Copies {
		if (c.Node == "node-1") != (c.Error == "") {
			t.Errorf("got %+v", c)
		}
	}
	var e admin.Error
	if code := r.do(http.MethodGet, "/v1/keys/no.Type/x", &e); code != http.StatusNotFound || !strings.Contains(e.Error, "demo.Check") {
		t.Errorf("got %d %+v", code, e)
	}
	if code := r.do(http.MethodGet, "/v1/keys/demo.Check/", &e); code != http.StatusBadRequest {
		t.Errorf("got %d", code)
	}
	k = admin.Key{}
	if r.do(http.MethodGet, "/v1/keys/demo.Check/none", &k); k.Exists || k.Value != nil {
		t.Errorf("got %+v", k)
	}
	var check admin.Check
	r.do(http.MethodPost, "/v1/check", &check)
	if check.OK || len(check.Parts) < 5 {
		t.Errorf("got %+v", check)
	}
	var metrics string
	r.do(http.MethodGet, "/metrics", &metrics)
	for _, want := range []string{"holdfast_controlplane_placement_epoch 1", `holdfast_controlplane_store_up{node="node-2"} 0`, `holdfast_controlplane_services{state="ok"} 1`} {
		if !strings.Contains(metrics, want) {
			t.Errorf("no %q in\n%s", want, metrics)
		}
	}
}
