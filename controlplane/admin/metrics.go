package admin

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/holdfast-mesh/holdfast/xds/serve"
)

// Metrics collects from a Source when it is asked, so that nothing has to be kept in step.
type Metrics struct {
	Source Source
	// Answers counts the Envoys' acknowledgements and refusals.
	Answers func() (acks, nacks uint64)
}

var (
	refused  = desc("holdfast_controlplane_config_refused", "1 while the last configuration file is refused.")
	ready    = desc("holdfast_controlplane_ready", "1 while the Envoys are given a configuration.")
	epoch    = desc("holdfast_controlplane_placement_epoch", "Epoch of the placement in use.")
	services = desc("holdfast_controlplane_services", "Configured services, by state.", "state")
	proxies  = desc("holdfast_controlplane_proxies", "Known Envoys, by state.", "state")
	answers  = desc("holdfast_controlplane_xds_answers_total", "Envoys' answers to resources.", "answer")
	storeUp  = desc("holdfast_controlplane_store_up", "1 while the node's store answers.", "node")
)

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

// Describe implements prometheus.Collector.
func (Metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{refused, ready, epoch, services, proxies, answers, storeUp} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (m Metrics) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	c := m.Source.Config()
	gauge(refused, truth(c.Error != ""))
	gauge(ready, truth(m.Source.Ready() == nil))
	if c.Placement != nil {
		gauge(epoch, float64(c.Placement.Epoch))
	}
	byState := map[string]int{ServiceOK: 0, ServiceWaiting: 0, ServiceStale: 0, ServiceRefused: 0}
	for _, s := range c.Services {
		byState[s.State]++
	}
	for state, n := range byState {
		gauge(services, float64(n), state)
	}
	proxyStates := map[string]int{"synced": 0, "unsynced": 0, "disconnected": 0}
	for _, p := range m.Source.Proxies() {
		proxyStates[proxyState(p)]++
	}
	for state, n := range proxyStates {
		gauge(proxies, float64(n), state)
	}
	for _, s := range c.Stores {
		gauge(storeUp, truth(s.Up), s.Node)
	}
	acks, nacks := m.Answers()
	ch <- prometheus.MustNewConstMetric(answers, prometheus.CounterValue, float64(acks), "ack")
	ch <- prometheus.MustNewConstMetric(answers, prometheus.CounterValue, float64(nacks), "nack")
}

func proxyState(p serve.ProxyStatus) string {
	switch {
	case !p.Connected:
		return "disconnected"
	case p.Synced:
		return "synced"
	}
	return "unsynced"
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
