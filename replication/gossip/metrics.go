package gossip

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	pushed, dropped, merged, unknownType, mergeErrors, requestsDropped prometheus.Counter
	rounds, repaired                                                   prometheus.Counter
	members, connected                                                 prometheus.Gauge
}

func newMetrics(r prometheus.Registerer) *metrics {
	f := promauto.With(r)
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: "holdfast_replication_" + name, Help: help})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return f.NewGauge(prometheus.GaugeOpts{Name: "holdfast_replication_" + name, Help: help})
	}
	return &metrics{
		pushed:          counter("deltas_pushed_total", "Deltas sent to peers as they happened, counted per peer."),
		dropped:         counter("deltas_dropped_total", "Deltas not pushed because a peer's queue was full; anti-entropy brings them."),
		merged:          counter("deltas_merged_total", "Deltas and states of peers merged."),
		unknownType:     counter("deltas_unknown_type_total", "Deltas of entity types that this store does not know (yet), skipped."),
		mergeErrors:     counter("merge_errors_total", "Deltas that the engine refused."),
		requestsDropped: counter("requests_dropped_total", "Messages of anti-entropy dropped because too many waited."),
		rounds:          counter("anti_entropy_rounds_total", "Rounds of anti-entropy that this store opened."),
		repaired:        counter("anti_entropy_states_total", "States sent in rounds of anti-entropy."),
		members:         gauge("members", "Members that are alive, this one included."),
		connected:       gauge("peers_connected", "Peers that this store pushes its deltas to."),
	}
}
