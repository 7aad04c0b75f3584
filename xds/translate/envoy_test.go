package translate

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	"github.com/holdfast-mesh/holdfast/xds/bootstrap"
	"github.com/holdfast-mesh/holdfast/xds/ir"
)

// TestEnvoyTakesIt lets the real Envoy validate what random proxies translate to. HOLDFAST_ENVOY names the binary,
// HOLDFAST_ENVOY_SAMPLES how many (3).
func TestEnvoyTakesIt(t *testing.T) {
	envoy := os.Getenv("HOLDFAST_ENVOY")
	if envoy == "" {
		t.Skip("HOLDFAST_ENVOY is not set")
	}
	samples, seed := 3, rand.Uint64()
	if n, err := strconv.Atoi(os.Getenv("HOLDFAST_ENVOY_SAMPLES")); err == nil {
		samples = n
	}
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for i := range samples {
		p := randomProxy(random)
		r, err := Proxy(p)
		if err != nil {
			t.Fatalf("sample %d: %v", i, err)
		}
		path := filepath.Join(t.TempDir(), "bootstrap.json")
		if err := os.WriteFile(path, static(t, p, r), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.CommandContext(t.Context(), envoy, "--mode", "validate", "-l", "warn", "--disable-hot-restart", "-c", path).CombinedOutput()
		if err != nil {
			t.Fatalf("sample %d: %v\n%s", i, err, out)
		}
	}
}

// static puts what would come by xDS into the bootstrap file, but for our filter, whose module isn't here.
func static(t *testing.T, p *ir.Proxy, r *Resources) []byte {
	t.Helper()
	raw, err := bootstrap.JSON(bootstrap.Config{NodeName: p.Name, XDSSocket: "/xds.sock", AdminSocket: "/admin.sock"})
	if err != nil {
		t.Fatal(err)
	}
	var file map[string]any
	if err := json.Unmarshal(raw, &file); err != nil {
		t.Fatal(err)
	}
	resources := file["staticResources"].(map[string]any)
	for _, m := range r.ByType[TypeCluster] {
		resources["clusters"] = append(resources["clusters"].([]any), generic(t, m))
	}
	listeners := []any{}
	for _, m := range r.ByType[TypeListener] {
		l := proto.CloneOf(m.(*listenerv3.Listener))
		packed := l.FilterChains[0].Filters[0].GetTypedConfig()
		manager := &hcmv3.HttpConnectionManager{}
		if err := packed.UnmarshalTo(manager); err != nil {
			t.Fatal(err)
		}
		for _, route := range r.ByType[TypeRoute] {
			if route := route.(*routev3.RouteConfiguration); route.Name == l.Name {
				manager.RouteSpecifier = &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: route}
			}
		}
		var filters []*hcmv3.HttpFilter
		for _, f := range manager.HttpFilters {
			for _, x := range r.ByType[TypeExtension] {
				if x := x.(*corev3.TypedExtensionConfig); x.Name == f.Name && f.Name == transcoderName {
					f = &hcmv3.HttpFilter{Name: f.Name, ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: x.TypedConfig}}
				}
			}
			if f.GetConfigDiscovery() == nil {
				filters = append(filters, f)
			}
		}
		manager.HttpFilters = filters
		if l.FilterChains[0].Filters[0].ConfigType, err = typed(manager); err != nil {
			t.Fatal(err)
		}
		listeners = append(listeners, generic(t, l))
	}
	resources["listeners"] = listeners
	out, err := json.Marshal(file)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func typed(m proto.Message) (*listenerv3.Filter_TypedConfig, error) {
	packed, err := pack(m)
	return &listenerv3.Filter_TypedConfig{TypedConfig: packed}, err
}

func generic(t *testing.T, m proto.Message) any {
	t.Helper()
	raw, err := protojson.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	var out any
	if err := json.Unmarshal(raw, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

func randomProxy(r *rand.Rand) *ir.Proxy {
	address := func() string {
		switch r.IntN(3) {
		case 0:
			return fmt.Sprintf("/tmp/%x.sock", r.Uint64())
		case 1:
			return fmt.Sprintf("[fd00::%x]:%d", r.IntN(1<<16), 1+r.IntN(65535))
		}
		return fmt.Sprintf("10.%d.%d.%d:%d", r.IntN(256), r.IntN(256), r.IntN(256), 1+r.IntN(65535))
	}
	addresses := func(n int) []string {
		var out []string
		for range r.IntN(n) {
			out = append(out, address())
		}
		return out
	}
	p := &ir.Proxy{Name: fmt.Sprintf("node-%d", r.IntN(100))}
	edge, serve := r.IntN(4) > 0, r.IntN(2) > 0
	if edge {
		p.Listeners = append(p.Listeners, ir.Listener{Name: "edge", Edge: true, Address: address(), Filter: &configv1.FilterConfig{Edge: true}})
	}
	if serve {
		p.Listeners = append(p.Listeners, ir.Listener{Name: "serve", Address: address(), Filter: &configv1.FilterConfig{Serve: true}})
	}
	for i := range r.IntN(6) {
		s := ir.Service{Name: fmt.Sprintf("pkg%d.v1.Service_%c", i, 'A'+r.IntN(26)), Serve: addresses(8)}
		if serve {
			s.Local = addresses(3)
		}
		for j := range r.IntN(4) {
			s.Streaming = append(s.Streaming, fmt.Sprintf("/%s/Watch%d", s.Name, j))
		}
		for _, name := range wellKnown {
			if r.IntN(2) == 0 {
				s.Beside = append(s.Beside, name)
			}
		}
		p.Services = append(p.Services, s)
	}
	for i := range r.IntN(3) {
		p.Waiting = append(p.Waiting, fmt.Sprintf("waiting%d.Service", i))
	}
	for i := range r.IntN(3) {
		if edge {
			p.Workloads = append(p.Workloads, ir.Workload{Name: fmt.Sprintf("page-%d", i), Prefix: []string{"/", "/docs/", "/a.b~c"}[i], Addresses: addresses(3)})
		}
	}
	return p
}
