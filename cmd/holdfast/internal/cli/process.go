package cli

import (
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/holdfast-mesh/holdfast/internal/peercred"
)

// headerTimeout bounds how long a scraper may take to send its request.
const headerTimeout = 5 * time.Second

// newRegistry is a process's own metrics with the usual ones of a Go process.
func newRegistry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// readyMux serves /readyz by ready (nil means yes) and /metrics.
func readyMux(gatherer prometheus.Gatherer, ready func() error) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := ready(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(gatherer, promhttp.HandlerOpts{}))
	return mux
}

// serveUnix serves HTTP on a Unix socket that only this user can reach, until stop is called. Empty means nowhere.
func serveUnix(socket string, h http.Handler, log *slog.Logger) (stop func(), err error) {
	if socket == "" {
		return func() {}, nil
	}
	l, err := peercred.Listen(socket, log)
	if err != nil {
		return nil, err
	}
	server := &http.Server{Handler: h, ReadHeaderTimeout: headerTimeout}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(l)
	}()
	return func() {
		_ = server.Close()
		<-done
	}, nil
}
