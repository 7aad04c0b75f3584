package serve

import (
	"fmt"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/grpc/codes"

	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
	"github.com/holdfast-mesh/holdfast/statestore"
)

type metrics struct {
	calls       *prometheus.CounterVec
	connections prometheus.Gauge
}

func newMetrics(engine *statestore.Engine, reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "holdfast_store_calls_total", Help: "Answered calls of the store's API, by call and gRPC code.",
		}, []string{"call", "code"}),
		connections: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "holdfast_store_connections", Help: "Open connections to the store's API.",
		}),
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.calls, m.connections, &engineCollector{engine}} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return m, nil
}

func (m *metrics) answered(req *storev1.Request, r *storev1.Response) {
	m.calls.WithLabelValues(callName(req), codes.Code(r.GetError().GetCode()).String()).Inc()
}

func callName(req *storev1.Request) string {
	switch req.GetCall().(type) {
	case *storev1.Request_Get:
		return "get"
	case *storev1.Request_Unsubscribe:
		return "unsubscribe"
	case *storev1.Request_Begin:
		return "begin"
	case *storev1.Request_Commit:
		return "commit"
	case *storev1.Request_Abort:
		return "abort"
	case *storev1.Request_Settle:
		return "settle"
	case *storev1.Request_Configure:
		return "configure"
	case *storev1.Request_Inspect:
		return "inspect"
	case *storev1.Request_GetStatus:
		return "get_status"
	}
	return "unknown"
}

// engineCollector reads the engine's status when it is scraped.
type engineCollector struct{ engine *statestore.Engine }

var (
	entitiesDesc = prometheus.NewDesc("holdfast_store_entities", "Entities that exist here and are not strong, in memory or not.", nil, nil)
	passiveDesc  = prometheus.NewDesc("holdfast_store_entities_passive", "Those of them that are on the disk only.", nil, nil)
	idsDesc      = prometheus.NewDesc("holdfast_store_replica_identities", "Replica identities that contexts still name.", nil, nil)
	refusedDesc  = prometheus.NewDesc("holdfast_store_refused_total", "Changes and states of other stores that were refused.", nil, nil)
	commitsDesc  = prometheus.NewDesc("holdfast_store_commits_total", "Commits applied by this process, by entity type.", []string{"type"}, nil)
	epochDesc    = prometheus.NewDesc("holdfast_store_placement_epoch", "Epoch of the placement in use.", nil, nil)
	diskDesc     = prometheus.NewDesc("holdfast_store_disk_ok", "1 while the log takes writes.", nil, nil)
)

func (c *engineCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{entitiesDesc, passiveDesc, idsDesc, refusedDesc, commitsDesc, epochDesc, diskDesc} {
		ch <- d
	}
}

func (c *engineCollector) Collect(ch chan<- prometheus.Metric) {
	s := c.engine.Status()
	ok := 0.0
	if s.Disk == "ok" {
		ok = 1
	}
	ch <- prometheus.MustNewConstMetric(entitiesDesc, prometheus.GaugeValue, float64(s.Entities))
	ch <- prometheus.MustNewConstMetric(passiveDesc, prometheus.GaugeValue, float64(s.Passive))
	ch <- prometheus.MustNewConstMetric(idsDesc, prometheus.GaugeValue, float64(s.Identities))
	ch <- prometheus.MustNewConstMetric(refusedDesc, prometheus.CounterValue, float64(c.engine.Refused()))
	ch <- prometheus.MustNewConstMetric(epochDesc, prometheus.GaugeValue, float64(s.Epoch))
	ch <- prometheus.MustNewConstMetric(diskDesc, prometheus.GaugeValue, ok)
	for typ, n := range s.Commits {
		ch <- prometheus.MustNewConstMetric(commitsDesc, prometheus.CounterValue, float64(n), typ)
	}
}

// HTTP serves /readyz (200, or 503 with the reason) and /metrics.
func HTTP(engine *statestore.Engine, gatherer prometheus.Gatherer) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := engine.Ready(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write([]byte("ok\n"))
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(gatherer, promhttp.HandlerOpts{}))
	return mux
}
