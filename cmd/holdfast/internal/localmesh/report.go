package localmesh

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/holdfast-mesh/holdfast/internal/supervise"
)

// report tells what comes and goes while the mesh runs: services that are not as configured, processes that are back.
func (m *Mesh) report(ctx context.Context) {
	var r reporter
	tick := time.NewTicker(pollFile)
	defer tick.Stop()
	for {
		lines := r.processes(m.Status())
		if services, err := m.configured(ctx); err == nil {
			lines = append(lines, r.services(services)...)
		}
		if ctx.Err() != nil {
			return
		}
		for _, line := range lines {
			m.progress("%s", line)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// configured asks the control plane what has become of the configured services.
func (m *Mesh) configured(ctx context.Context) ([]ConfiguredService, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	var c Configuration
	err := (Client{Paths: m.paths}).Admin(ctx, http.MethodGet, "/v1/config", nil, &c)
	return c.Services, err
}

// reporter turns what is so into what is new. Each look is compared with the one before.
type reporter struct {
	// seen are the services' troubles at the last look, told those that were told, by the StatefulService's name.
	seen, told map[string]string
	// restarts counts the starts that were told, by process; nil before the first look.
	restarts map[string]int
}

// services returns a line for each service that is not as configured, once the same was seen twice: most that is so for a
// moment only is a change under way. And one for each that is right again.
func (r *reporter) services(now []ConfiguredService) []string {
	var lines []string
	seen, told := map[string]string{}, map[string]string{}
	for _, s := range now {
		trouble := ""
		if s.Error != "" {
			trouble = fmt.Sprintf("WARN service %s is not as configured (%s): %s", s.Name, s.State, s.Error)
			seen[s.Name] = trouble
		}
		switch was := r.told[s.Name]; {
		case trouble == "" && was != "":
			lines = append(lines, fmt.Sprintf("service %s is as configured again", s.Name))
		case trouble != "" && trouble != was && trouble == r.seen[s.Name]:
			lines = append(lines, trouble)
			told[s.Name] = trouble
		case was != "":
			told[s.Name] = was
		}
	}
	r.seen, r.told = seen, told
	return lines
}

// processes returns a line for each process that ended and is ready again. Who is started on purpose is another process,
// which counts from nought.
func (r *reporter) processes(s *Status) []string {
	now := map[string]ProcessStatus{controlPlaneName: s.ControlPlane}
	maps.Copy(now, s.EtcdProcesses())
	add := func(place string, processes map[string]ProcessStatus) {
		for name, p := range processes {
			if place == gatewayName && name == "envoy" {
				now[gatewayName] = p // So it is called in the log too.
				continue
			}
			now[place+"/"+name] = p
		}
	}
	add(gatewayName, s.Gateway.Processes)
	for _, n := range s.Nodes {
		add(n.Name, n.Processes)
	}
	var lines []string
	restarts := map[string]int{}
	for _, name := range slices.Sorted(maps.Keys(now)) {
		p := now[name]
		had := min(r.restarts[name], p.Restarts)
		if p.State == string(supervise.Ready) {
			// Before the first look it was said of each that it is ready.
			if had < p.Restarts && r.restarts != nil {
				lines = append(lines, fmt.Sprintf("process %s is back (pid %d)", name, p.PID))
			}
			had = p.Restarts
		}
		restarts[name] = had
	}
	r.restarts = restarts
	return lines
}
