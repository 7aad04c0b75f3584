package translate

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/holdfast-mesh/holdfast/xds/ir"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func readIR(t testing.TB, path string) *ir.Proxy {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	p := &ir.Proxy{}
	if err := dec.Decode(p); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return p
}

func render(t testing.TB, r *Resources) string {
	t.Helper()
	all := map[string][]json.RawMessage{}
	for url, list := range r.ByType {
		name := url[strings.LastIndexByte(url, '.')+1:]
		all[name] = []json.RawMessage{}
		for _, m := range list {
			raw, err := protojson.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			all[name] = append(all[name], raw)
		}
	}
	out, err := json.MarshalIndent(all, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(out) + "\n"
}

func TestGolden(t *testing.T) {
	ins, err := filepath.Glob("testdata/*.in.json")
	if err != nil || len(ins) == 0 {
		t.Fatal("no golden pairs", err)
	}
	for _, in := range ins {
		t.Run(filepath.Base(in), func(t *testing.T) {
			p := readIR(t, in)
			r, err := Proxy(p)
			if err != nil {
				t.Fatal(err)
			}
			got := render(t, r)
			golden := strings.TrimSuffix(in, ".in.json") + ".out.json"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("differs from %s (rewrite with -update, then read the difference)", golden)
			}
			again, err := Proxy(p)
			if err != nil {
				t.Fatal(err)
			}
			for url, list := range r.ByType {
				for i, m := range list {
					a, _ := proto.MarshalOptions{Deterministic: true}.Marshal(m)
					b, _ := proto.MarshalOptions{Deterministic: true}.Marshal(again.ByType[url][i])
					if !bytes.Equal(a, b) {
						t.Errorf("%s %d: not the same bytes twice", url, i)
					}
				}
			}
		})
	}
}

// A configuration change must not touch listeners and clusters: the one drains connections, the other warms up anew.
func TestStable(t *testing.T) {
	p := readIR(t, "testdata/node.in.json")
	before, err := Proxy(p)
	if err != nil {
		t.Fatal(err)
	}
	p.Listeners[0].Filter.Node = "changed"
	p.Transcoder.Services = []string{"qa.v1.Questions"}
	p.Services[0].Serve = append(p.Services[0].Serve, "/tmp/hf/node-3/serve.sock")
	p.Services[0].Local = append(p.Services[0].Local, "127.0.0.1:9")
	p.Services[0].Streaming = nil
	after, err := Proxy(p)
	if err != nil {
		t.Fatal(err)
	}
	for _, url := range []string{TypeListener, TypeCluster} {
		if !slices.EqualFunc(before.ByType[url], after.ByType[url], proto.Equal) {
			t.Errorf("%s changed", url)
		}
	}
}

func TestStrips(t *testing.T) {
	// Envoy matches the whole name.
	re := regexp.MustCompile("^(?:" + strings.Join(notOurs, "|") + ")$")
	for _, keep := range []string{"holdfast-session", "holdfast-explain", "holdfast", "x-holdfast-key"} {
		if re.MatchString(keep) {
			t.Errorf("%s is stripped", keep)
		}
	}
	for _, strip := range []string{
		"holdfast-", "holdfast-key", "holdfast-e", "holdfast-explai", "holdfast-explains", "holdfast-s", "holdfast-sessio",
		"holdfast-sessions", "holdfast-session-", "holdfast-state", "holdfast-state-bin", "holdfast-request-id", "holdfast-outcome",
	} {
		if !re.MatchString(strip) {
			t.Errorf("%s gets through", strip)
		}
	}
}

func TestRefuses(t *testing.T) {
	for _, tc := range []struct {
		name string
		edit func(*ir.Proxy)
		want string
	}{
		{"no name", func(p *ir.Proxy) { p.Name = "" }, "is not a name"},
		{"listener twice", func(p *ir.Proxy) { p.Listeners[1].Name = "edge" }, "listed twice"},
		{"listener without filter", func(p *ir.Proxy) { p.Listeners[0].Filter = nil }, "no filter configuration"},
		{"host name for an address", func(p *ir.Proxy) { p.Listeners[0].Address = "localhost:1" }, "neither IP:port"},
		{"path too long", func(p *ir.Proxy) { p.Services[0].Serve[0] = "/" + strings.Repeat("a", 108) }, "no path of a Unix socket"},
		{"comma in a path", func(p *ir.Proxy) { p.Services[0].Serve[0] = "/a,b" }, "no path of a Unix socket"},
		{"service twice", func(p *ir.Proxy) { p.Services[1].Name = p.Services[0].Name }, "listed twice"},
		{"address twice", func(p *ir.Proxy) { p.Services[0].Serve[1] = p.Services[0].Serve[0] }, "listed twice"},
		{"another's method", func(p *ir.Proxy) { p.Services[0].Streaming[0] = "/bank.v1.Accounts/Watch" }, "another service's"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := readIR(t, "testdata/node.in.json")
			tc.edit(p)
			if _, err := Proxy(p); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want an error with %q", err, tc.want)
			}
		})
	}
}

func FuzzProxy(f *testing.F) {
	for _, name := range []string{"node", "gateway", "empty"} {
		data, err := os.ReadFile("testdata/" + name + ".in.json")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		p := &ir.Proxy{}
		if json.Unmarshal(data, p) != nil || p.Validate() != nil {
			return
		}
		// Whatever Validate lets through can be translated, and Proxy runs ValidateAll on each resource.
		if _, err := Proxy(p); err != nil {
			t.Errorf("valid by its own word, but: %v", err)
		}
	})
}
