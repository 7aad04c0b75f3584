package strong

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	commits *prometheus.CounterVec
	batch   prometheus.Histogram
	retries prometheus.Counter
	leases  prometheus.Counter
	claims  prometheus.Gauge
}

func newMetrics(r prometheus.Registerer) *metrics {
	f := promauto.With(r)
	return &metrics{
		commits: f.NewCounterVec(prometheus.CounterOpts{
			Name: "holdfast_strong_commits_total",
			Help: "Commits of strong entities by outcome: applied, not_applied, unknown.",
		}, []string{"outcome"}),
		batch: f.NewHistogram(prometheus.HistogramOpts{
			Name:    "holdfast_strong_transaction_commits",
			Help:    "Commits that shared one etcd transaction.",
			Buckets: []float64{1, 2, 4, 8, 16, 32, 64},
		}),
		retries: f.NewCounter(prometheus.CounterOpts{
			Name: "holdfast_strong_commit_retries_total",
			Help: "Commits that were sent again because etcd did not answer.",
		}),
		leases: f.NewCounter(prometheus.CounterOpts{
			Name: "holdfast_strong_leases_total",
			Help: "Leases that this store got; more than one means that it lost its claims.",
		}),
		claims: f.NewGauge(prometheus.GaugeOpts{
			Name: "holdfast_strong_slots_owned",
			Help: "Slots that this store owns.",
		}),
	}
}
