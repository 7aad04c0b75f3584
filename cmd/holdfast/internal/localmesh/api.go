package localmesh

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

var pid = os.Getpid()

// api is the supervisor's HTTP API on up.sock. The run folder is private, so whoever reaches it is this user.
type api struct {
	server *http.Server
	done   chan struct{}
}

// ScaleRequest is the body of POST /v1/scale.
type ScaleRequest struct {
	Nodes int `json:"nodes"`
}

// ErrorBody is the body of every answer that is not a 200.
type ErrorBody struct {
	Error string `json:"error"`
}

func serveAPI(m *Mesh) (*api, error) {
	l, err := net.Listen("unix", m.paths.UpSocket())
	if err != nil {
		return nil, fmt.Errorf("supervisor's API: %w", err)
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), collectors.NewGoCollector(), collector{m})
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, m.Status()) })
	mux.HandleFunc("POST /v1/scale", m.handleScale)
	m.routeFaults(mux)
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if !m.Status().Ready {
			answer(w, http.StatusServiceUnavailable, ErrorBody{"not everything has started"})
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	a := &api{server: &http.Server{Handler: mux, ReadHeaderTimeout: probeTimeout}, done: make(chan struct{})}
	go func() {
		defer close(a.done)
		_ = a.server.Serve(l)
	}()
	return a, nil
}

func (a *api) close() {
	_ = a.server.Close()
	<-a.done
}

func (m *Mesh) handleScale(w http.ResponseWriter, r *http.Request) {
	var req ScaleRequest
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxScaleBody))
	d.DisallowUnknownFields()
	if err := d.Decode(&req); err != nil {
		answer(w, http.StatusBadRequest, ErrorBody{fmt.Sprintf("body must be {\"nodes\": N}: %v", err)})
		return
	}
	// Whoever asked may go away; a half-done change would be worse.
	switch err := m.Scale(m.life, req.Nodes); {
	case errors.Is(err, errBusy):
		answer(w, http.StatusConflict, ErrorBody{err.Error()})
	case err != nil:
		answer(w, http.StatusInternalServerError, ErrorBody{err.Error()})
	default:
		answer(w, http.StatusOK, m.Status())
	}
}

func answer(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	_ = e.Encode(body)
}

// collector exports each process's state.
type collector struct{ m *Mesh }

var (
	upDesc = prometheus.NewDesc("holdfast_up_process_ready", "1 while the process runs and was ready since its last start.",
		[]string{"node", "process"}, nil)
	restartsDesc = prometheus.NewDesc("holdfast_up_process_restarts_total", "How often the process was started again.",
		[]string{"node", "process"}, nil)
)

func (c collector) Describe(ch chan<- *prometheus.Desc) {
	ch <- upDesc
	ch <- restartsDesc
}

func (c collector) Collect(ch chan<- prometheus.Metric) {
	s := c.m.Status()
	one := func(node, process string, p ProcessStatus) {
		ready := 0.0
		if p.State == "ready" || p.State == External {
			ready = 1
		}
		ch <- prometheus.MustNewConstMetric(upDesc, prometheus.GaugeValue, ready, node, process)
		ch <- prometheus.MustNewConstMetric(restartsDesc, prometheus.CounterValue, float64(p.Restarts), node, process)
	}
	for name, p := range s.EtcdProcesses() {
		one("", name, p)
	}
	one("", controlPlaneName, s.ControlPlane)
	for name, p := range s.Gateway.Processes {
		one(gatewayName, name, p)
	}
	for _, n := range s.Nodes {
		for name, p := range n.Processes {
			one(n.Name, name, p)
		}
	}
}

// apiTimeout bounds a client's wait for an answer that needs no other process.
const apiTimeout = 5 * time.Second
