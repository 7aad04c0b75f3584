package etcd

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	up        prometheus.Gauge
	failovers prometheus.Counter

	size, inUse, quota, refusing prometheus.Gauge
	compactions                  prometheus.Counter
}

func newMetrics(r prometheus.Registerer) *metrics {
	f := promauto.With(r)
	return &metrics{
		up: f.NewGauge(prometheus.GaugeOpts{
			Name: "holdfast_etcd_up",
			Help: "1 while a member of etcd answers.",
		}),
		failovers: f.NewCounter(prometheus.CounterOpts{
			Name: "holdfast_etcd_failovers_total",
			Help: "How often the connection to a member of etcd was replaced by another, to the same or another member.",
		}),
		size: f.NewGauge(prometheus.GaugeOpts{
			Name: "holdfast_etcd_file_bytes",
			Help: "Size of the database file of the member in use.",
		}),
		inUse: f.NewGauge(prometheus.GaugeOpts{
			Name: "holdfast_etcd_in_use_bytes",
			Help: "What of that file is in use.",
		}),
		quota: f.NewGauge(prometheus.GaugeOpts{
			Name: "holdfast_etcd_quota_bytes",
			Help: "Size of the file from which etcd refuses writes.",
		}),
		refusing: f.NewGauge(prometheus.GaugeOpts{
			Name: "holdfast_etcd_refusing",
			Help: "1 while writes that need more room are refused because etcd is nearly full.",
		}),
		compactions: f.NewCounter(prometheus.CounterOpts{
			Name: "holdfast_etcd_compactions_total",
			Help: "Compactions that this process began.",
		}),
	}
}

func (m *metrics) usage(u Usage) {
	m.size.Set(float64(u.Size))
	m.inUse.Set(float64(u.InUse))
	m.quota.Set(float64(u.Quota))
}
