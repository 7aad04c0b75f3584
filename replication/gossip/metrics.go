package gossip

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/holdfast-mesh/holdfast/replication/gossip/rounds"
)

type metrics struct {
	pushed, dropped, merged, unknownType, mergeErrors, requestsDropped prometheus.Counter
	rounds, acks, awaited, unreached, refused, retired, streamsCut     prometheus.Counter
	events                                                             map[rounds.Event]prometheus.Counter
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
		merged:          counter("deltas_merged_total", "Deltas of peers merged."),
		unknownType:     counter("deltas_unknown_type_total", "Deltas of entity types that this store does not know (yet), skipped."),
		mergeErrors:     counter("merge_errors_total", "Deltas, or acknowledgements, that were refused."),
		requestsDropped: counter("requests_dropped_total", "Streams ended because the peer sent more than it was asked for."),
		rounds:          counter("anti_entropy_rounds_total", "Surveys of a peer's slots that this store opened."),
		acks:            counter("acks_total", "Acknowledgements received."),
		awaited:         counter("commits_awaited_total", "Commits that waited for other replicas."),
		unreached:       counter("commits_unreached_total", "Commits that did not reach their write level in time: outcome unknown."),
		refused:         counter("peers_refused_total", "Streams refused: another version, another name, or this store itself."),
		retired:         counter("identities_retired_total", "Replica identities taken out of the causal contexts."),
		streamsCut:      counter("streams_cut_total", "Streams ended by a fault that was asked for."),
		events: map[rounds.Event]prometheus.Counter{
			rounds.Opened:    counter("slots_compared_total", "Comparisons of a slot that this store opened."),
			rounds.Completed: counter("slots_completed_total", "Comparisons after which this store had all that the peer had of the slot."),
			rounds.Declined:  counter("slots_declined_total", "Comparisons that a peer opened and this store did not take."),
			rounds.Failed:    counter("slots_failed_total", "Comparisons that ended without completion; later ones go on."),
			rounds.States:    counter("anti_entropy_states_total", "Whole states sent in comparisons."),
			rounds.Refused:   counter("states_refused_total", "Parts of comparisons that the engine refused."),
		},
		members:   gauge("members", "Members that are alive, this one included."),
		connected: gauge("peers_connected", "Peers that this store pushes its deltas to."),
	}
}
