// Package admin is the control plane's API for people's tools: HTTP and JSON on a Unix socket.
//
//	GET  /v1/proxies               what each Envoy was sent, and whether it took it
//	GET  /v1/config                what is configured, what was refused and why
//	GET  /v1/keys/{type}/{key}     an entity as each store has it; the key is percent-encoded
//	GET  /v1/history/{type}/{key}  an event-sourced entity's events, a line of JSON each; ?from=SEQUENCE, ?follow=true
//	POST /v1/check                 whether every part is well, as far as the control plane sees
//	GET  /readyz, /metrics
//
// It shows and asks; nothing is changed through it. Whoever reaches the socket may read every entity: it belongs in a
// private folder.
package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/holdfast-mesh/holdfast/xds/serve"
)

// ErrNotFound says that what was asked for is not configured.
var ErrNotFound = errors.New("not found")

// Source is what the API shows. Its methods may be called by many at once.
type Source interface {
	Proxies() []serve.ProxyStatus
	Config() Config
	// Inspect looks at an entity on every node. ErrNotFound: the type is not configured.
	Inspect(ctx context.Context, entityType, key string) (*Key, error)
	// History calls send for each event of an event-sourced entity in order, at least once, and goes on until ctx is done
	// where that is asked for. ErrNotFound: the type is not configured. ErrRefused: it has no events, or they were deleted.
	History(ctx context.Context, r HistoryRequest, send func(*HistoryLine) error) error
	// Ready is nil where the Envoys are given a configuration.
	Ready() error
}

// Handler serves the API.
func Handler(s Source, gatherer prometheus.Gatherer) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/proxies", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, http.StatusOK, ProxyList{Proxies: s.Proxies()})
	})
	mux.HandleFunc("GET /v1/config", func(w http.ResponseWriter, _ *http.Request) { reply(w, http.StatusOK, s.Config()) })
	mux.HandleFunc("GET /v1/keys/", func(w http.ResponseWriter, r *http.Request) { key(w, r, s) })
	mux.HandleFunc("GET /v1/history/", func(w http.ResponseWriter, r *http.Request) { history(w, r, s) })
	mux.HandleFunc("POST /v1/check", func(w http.ResponseWriter, _ *http.Request) { reply(w, http.StatusOK, check(s)) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := s.Ready(); err != nil {
			reply(w, http.StatusServiceUnavailable, Error{err.Error()})
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(gatherer, promhttp.HandlerOpts{}))
	return mux
}

func reply(w http.ResponseWriter, code int, body any) {
	data, err := json.Marshal(body)
	if err != nil {
		http.Error(w, `{"error":"encode the answer"}`, http.StatusInternalServerError)
		return
	}
	w.Header().Set("content-type", "application/json")
	w.WriteHeader(code)
	// The caller is gone where this fails.
	_, _ = w.Write(append(data, '\n'))
}

func key(w http.ResponseWriter, r *http.Request, s Source) {
	entityType, entityKey, err := entityOf(r, "/v1/keys/")
	if err != nil {
		reply(w, http.StatusBadRequest, Error{"write /v1/keys/TYPE/KEY, both percent-encoded"})
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), inspectTimeout)
	defer cancel()
	k, err := s.Inspect(ctx, entityType, entityKey)
	switch {
	case errors.Is(err, ErrNotFound):
		reply(w, http.StatusNotFound, Error{err.Error()})
	case err != nil:
		reply(w, http.StatusServiceUnavailable, Error{err.Error()})
	default:
		reply(w, http.StatusOK, k)
	}
}

func check(s Source) Check {
	out := Check{OK: true}
	add := func(part string, ok bool, message string) {
		out.Parts = append(out.Parts, Part{part, ok, message})
		out.OK = out.OK && ok
	}
	c := s.Config()
	err := s.Ready()
	message := c.Error
	if err != nil && message == "" {
		message = err.Error()
	}
	add("configuration", err == nil && c.Error == "", message)
	for _, v := range c.Services {
		add("service "+v.Name, v.State == ServiceOK, v.Error)
	}
	for _, v := range c.Stores {
		message := v.Error
		if message == "" && !v.Configured {
			message = "not configured yet"
		}
		add("store "+v.Node, v.Up && v.Configured, message)
	}
	for _, p := range s.Proxies() {
		message := ""
		switch {
		case !p.Connected:
			message = "not connected"
		case !p.Synced:
			message = "has not taken everything"
			for _, t := range p.Types {
				if t.Reason != "" {
					message = t.Type + ": " + t.Reason
				}
			}
		}
		add("proxy "+p.Name, p.Synced, message)
	}
	return out
}

// Serve answers on the Unix socket until ctx is done.
func Serve(ctx context.Context, socket string, h http.Handler) error {
	if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("serve admin API: %w", err)
	}
	lis, err := net.Listen("unix", socket)
	if err != nil {
		return fmt.Errorf("serve admin API: %w", err)
	}
	if err := os.Chmod(socket, 0o600); err != nil {
		lis.Close()
		return fmt.Errorf("serve admin API: %w", err)
	}
	server := &http.Server{Handler: h, ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout}
	done := make(chan error, 1)
	go func() { done <- server.Serve(lis) }()
	select {
	case err := <-done:
		return fmt.Errorf("serve admin API: %w", err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if server.Shutdown(grace) != nil {
		server.Close()
	}
	<-done
	return nil
}
