// Package page is a page on which one watches the replicas of an entity drift apart under a partition and come together
// again.
//
// It is served on a TCP port of loopback, which every user of the machine can reach, and every page in the user's browser
// too. So all but the empty page itself needs a token that is in the URL's fragment, which browsers send to nobody: the
// page's script puts it into a header of its own, which another origin's page can't do. Host and Origin are checked beside
// that, against names that are made to point here. Whoever has the URL may read every entity and partition the mesh.
package page

import (
	"context"
	"crypto/subtle"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"mime"
	"net"
	"net/http"
	"strings"

	"github.com/holdfast-mesh/holdfast/cmd/holdfast/internal/localmesh"
	"github.com/holdfast-mesh/holdfast/controlplane/admin"
)

//go:embed static
var static embed.FS

// Source is what the page shows and changes.
type Source interface {
	Fault(ctx context.Context) *localmesh.Fault
	// Partition cuts groups of stores off from each other; no groups heal.
	Partition(ctx context.Context, groups [][]string) (*localmesh.Fault, error)
	// Admin makes a request to the control plane's admin API.
	Admin(ctx context.Context, method, path string, in, out any) error
	// Nodes lists the nodes' names.
	Nodes() []string
}

// Look is the answer to GET /api/look.
type Look struct {
	Nodes []string         `json:"nodes"`
	Fault *localmesh.Fault `json:"fault"`
	// Types are the configured entity types.
	Types []string `json:"types"`
	// Entity is the one that was asked for, nil where none was or Error says why not.
	Entity *admin.Key `json:"entity,omitempty"`
	Error  string     `json:"error,omitempty"`
}

// Handler serves the page to whoever has the token, at address ("127.0.0.1:8180").
func Handler(address, token string, s Source) http.Handler {
	files, err := fs.Sub(static, "static")
	if err != nil {
		panic(err) // The folder is compiled in.
	}
	mux := http.NewServeMux()
	mux.Handle("GET /", http.FileServerFS(files))
	mux.Handle("GET /api/look", guard(token, func(w http.ResponseWriter, r *http.Request) { look(w, r, s) }))
	mux.Handle("POST /api/partition", guard(token, func(w http.ResponseWriter, r *http.Request) { partition(w, r, s) }))
	mux.Handle("POST /api/heal", guard(token, func(w http.ResponseWriter, r *http.Request) { answerFault(w, r, s, nil) }))
	return local(address, mux)
}

// local refuses requests that were made for another name, or by another origin's page, and says what the page may do.
func local(address string, next http.Handler) http.Handler {
	hosts := map[string]bool{address: true}
	if _, port, err := net.SplitHostPort(address); err == nil {
		hosts["localhost:"+port] = true
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		origin := r.Header.Get("Origin")
		if !hosts[r.Host] || origin != "" && !hosts[strings.TrimPrefix(origin, "http://")] {
			fail(w, http.StatusForbidden, errors.New("this page is for this machine only: open it by the address that `holdfast status` shows"))
			return
		}
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

// guard lets in who has the token.
func guard(token string, next http.HandlerFunc) http.Handler {
	want := []byte("Bearer " + token)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if subtle.ConstantTimeCompare([]byte(r.Header.Get("Authorization")), want) != 1 {
			fail(w, http.StatusUnauthorized, errors.New("the address has no token, or an old one: open the one that `holdfast status` shows"))
			return
		}
		next(w, r)
	})
}

func look(w http.ResponseWriter, r *http.Request, s Source) {
	ctx, cancel := context.WithTimeout(r.Context(), lookTimeout)
	defer cancel()
	out := Look{Nodes: s.Nodes(), Types: []string{}}
	var config admin.Config
	if err := s.Admin(ctx, http.MethodGet, "/v1/config", nil, &config); err != nil {
		out.Error = err.Error()
	}
	seen := map[string]bool{}
	for _, service := range config.Services {
		if t := service.EntityType; !seen[t] {
			seen[t] = true
			out.Types = append(out.Types, t)
		}
	}
	if name := r.URL.Query().Get("entity"); name != "" && out.Error == "" {
		path, err := admin.KeyPath(name)
		var k admin.Key
		if err == nil {
			err = s.Admin(ctx, http.MethodGet, path, nil, &k)
		}
		if err != nil {
			out.Error = err.Error()
		} else {
			out.Entity = &k
		}
	}
	// Last, so that it is no older than what is shown with it.
	out.Fault = s.Fault(ctx)
	reply(w, http.StatusOK, out)
}

func partition(w http.ResponseWriter, r *http.Request, s Source) {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		fail(w, http.StatusUnsupportedMediaType, errors.New("want application/json"))
		return
	}
	var f localmesh.Fault
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	d.DisallowUnknownFields()
	if err := d.Decode(&f); err != nil || len(f.Groups) == 0 {
		fail(w, http.StatusBadRequest, errors.New("want {\"groups\": [[\"node-1\"], …]}"))
		return
	}
	answerFault(w, r, s, f.Groups)
}

func answerFault(w http.ResponseWriter, r *http.Request, s Source, groups [][]string) {
	// Whoever asked may go away; a half-done change would be worse.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), lookTimeout)
	defer cancel()
	f, err := s.Partition(ctx, groups)
	if err != nil {
		fail(w, http.StatusConflict, err)
		return
	}
	reply(w, http.StatusOK, f)
}

func fail(w http.ResponseWriter, code int, err error) {
	reply(w, code, localmesh.ErrorBody{Error: err.Error()})
}

func reply(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	if err := json.NewEncoder(w).Encode(body); err != nil {
		fmt.Fprintln(w) // The caller is gone.
	}
}
