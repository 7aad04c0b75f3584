package page

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/holdfast-mesh/holdfast/cmd/holdfast/internal/localmesh"
	"github.com/holdfast-mesh/holdfast/controlplane/admin"
)

// fakeMesh has two nodes and one entity.
type fakeMesh struct{ groups [][]string }

func (f *fakeMesh) Nodes() []string                        { return []string{"a", "b"} }
func (f *fakeMesh) Fault(context.Context) *localmesh.Fault { return &localmesh.Fault{Groups: f.groups} }

func (f *fakeMesh) Partition(_ context.Context, g [][]string) (*localmesh.Fault, error) {
	if len(g) > 0 && g[0][0] == "x" {
		return nil, errors.New(`no node "x"`)
	}
	f.groups = g
	return f.Fault(context.Background()), nil
}

func (f *fakeMesh) Admin(_ context.Context, _, path string, _, out any) error {
	switch path {
	case "/v1/config":
		out.(*admin.Config).Services = []admin.Service{{EntityType: "t.T"}, {EntityType: "t.T"}, {EntityType: "t.U"}}
	case "/v1/keys/t.T/a%2Fb":
		*out.(*admin.Key) = admin.Key{Type: "t.T", Key: "a/b"}
	default:
		return errors.New("not found: " + path)
	}
	return nil
}

const (
	address = "127.0.0.1:8180"
	token   = "SECRET"
)

// ask makes a request as the page would, changed by change.
func ask(t *testing.T, m *fakeMesh, method, path, body string, change func(*http.Request)) (int, string, http.Header) {
	t.Helper()
	r := httptest.NewRequest(method, "http://"+address+path, strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer "+token)
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	if change != nil {
		change(r)
	}
	w := httptest.NewRecorder()
	Handler(address, token, m).ServeHTTP(w, r)
	data, err := io.ReadAll(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	return w.Code, string(data), w.Header()
}

func TestWhoIsLetIn(t *testing.T) {
	header := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(name, value) }
	}
	cut := `{"groups":[["a"]]}`
	for _, c := range []struct {
		what         string
		method, path string
		body         string
		change       func(*http.Request)
		want         int
	}{
		{"the page without a token", "GET", "/", "", header("Authorization", ""), http.StatusOK},
		{"a look", "GET", "/api/look", "", nil, http.StatusOK},
		{"by the other name", "GET", "/api/look", "", func(r *http.Request) { r.Host = "localhost:8180" }, http.StatusOK},
		{"a cut", "POST", "/api/partition", cut, header("Origin", "http://"+address), http.StatusOK},
		{"mending", "POST", "/api/heal", "", nil, http.StatusOK},
		{"no token", "GET", "/api/look", "", header("Authorization", ""), http.StatusUnauthorized},
		{"a wrong token", "POST", "/api/heal", "", header("Authorization", "Bearer SECRES"), http.StatusUnauthorized},
		{"the token in the query", "GET", "/api/look?token=SECRET", "", header("Authorization", ""), http.StatusUnauthorized},
		{"a name that points here", "GET", "/api/look", "", func(r *http.Request) { r.Host = "evil.example:8180" }, http.StatusForbidden},
		{"another port", "GET", "/", "", func(r *http.Request) { r.Host = "127.0.0.1:8080" }, http.StatusForbidden},
		{"another origin", "POST", "/api/partition", cut, header("Origin", "http://evil.example"), http.StatusForbidden},
		{"another port's page", "POST", "/api/partition", cut, header("Origin", "http://127.0.0.1:8080"), http.StatusForbidden},
		{"a null origin", "POST", "/api/heal", "", header("Origin", "null"), http.StatusForbidden},
		{"a form", "POST", "/api/partition", cut, header("Content-Type", "text/plain"), http.StatusUnsupportedMediaType},
		{"a cut by GET", "GET", "/api/partition", "", nil, http.StatusNotFound},
		{"nothing to cut", "POST", "/api/partition", `{}`, nil, http.StatusBadRequest},
		{"an unknown field", "POST", "/api/partition", `{"groups":[["a"]],"x":1}`, nil, http.StatusBadRequest},
		{"too much", "POST", "/api/partition", `{"groups":[["` + strings.Repeat("a", maxBody) + `"]]}`, nil, http.StatusBadRequest},
		{"a node that is not there", "POST", "/api/partition", `{"groups":[["x"]]}`, nil, http.StatusConflict},
	} {
		code, body, _ := ask(t, &fakeMesh{}, c.method, c.path, c.body, c.change)
		if code != c.want {
			t.Errorf("%s: got %d, want %d: %s", c.what, code, c.want, body)
		}
		if strings.Contains(body, token) {
			t.Errorf("%s: the token is in the answer", c.what)
		}
	}
}

func TestLook(t *testing.T) {
	m := &fakeMesh{}
	look := func(path string) (l Look) {
		t.Helper()
		code, body, _ := ask(t, m, "GET", path, "", nil)
		if err := json.Unmarshal([]byte(body), &l); err != nil || code != http.StatusOK {
			t.Fatalf("%s: %d, %s, %v", path, code, body, err)
		}
		return l
	}
	if l := look("/api/look"); l.Entity != nil || l.Error != "" || strings.Join(l.Types, " ") != "t.T t.U" || strings.Join(l.Nodes, " ") != "a b" {
		t.Errorf("no entity: %+v", l)
	}
	if l := look("/api/look?entity=t.T/a%2Fb"); l.Entity == nil || l.Entity.Key != "a/b" || l.Error != "" {
		t.Errorf("an entity: %+v", l)
	}
	if l := look("/api/look?entity=t.T/nobody"); l.Entity != nil || !strings.Contains(l.Error, "not found") {
		t.Errorf("one that can't be had: %+v", l)
	}
	if l := look("/api/look?entity=nonsense"); !strings.Contains(l.Error, "want TYPE/KEY") {
		t.Errorf("nonsense: %+v", l)
	}
	ask(t, m, "POST", "/api/partition", `{"groups":[["b"]]}`, nil)
	if l := look("/api/look"); len(l.Fault.Groups) != 1 || l.Fault.Groups[0][0] != "b" {
		t.Errorf("after a cut: %+v", l.Fault)
	}
}

func TestHeaders(t *testing.T) {
	_, _, h := ask(t, &fakeMesh{}, "GET", "/", "", nil)
	for name, want := range map[string]string{
		"Content-Security-Policy": "default-src 'self'", "Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff",
	} {
		if got := h.Get(name); !strings.Contains(got, want) {
			t.Errorf("%s is %q, want %q in it", name, got, want)
		}
	}
}
