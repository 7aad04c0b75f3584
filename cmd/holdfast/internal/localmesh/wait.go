package localmesh

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/holdfast-mesh/holdfast/internal/supervise"
)

// waitAll waits for the processes' first readiness and says so for each; the first error ends it.
func (m *Mesh) waitAll(ctx context.Context, processes ...*supervise.Process) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, p := range processes {
		g.Go(func() error {
			if err := p.WaitReady(ctx); err != nil {
				return err
			}
			m.progress("%s is ready (%.1fs)", p.Name(), time.Since(p.Started()).Seconds())
			return nil
		})
	}
	return g.Wait()
}

// waitConfigured waits for processes that need the control plane's word. When the control plane refuses the configuration,
// and goes on refusing it, that is the error.
func (m *Mesh) waitConfigured(ctx context.Context, processes ...*supervise.Process) error {
	g, ctx := errgroup.WithContext(ctx)
	waited := make(chan struct{})
	g.Go(func() error {
		defer close(waited)
		return m.waitAll(ctx, processes...)
	})
	g.Go(func() error {
		var since time.Time
		tick := time.NewTicker(pollState)
		defer tick.Stop()
		for {
			select {
			case <-waited:
				return nil
			case <-tick.C:
			}
			refusal := m.configError(ctx)
			switch {
			case refusal == "":
				since = time.Time{}
			case since.IsZero():
				since = time.Now()
			case time.Since(since) > refusedTimeout:
				return fmt.Errorf("the control plane refuses the configuration:\n%s", refusal)
			}
		}
	})
	return g.Wait()
}

// configError is why the control plane refused the configuration; empty if it did not, or does not answer.
func (m *Mesh) configError(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	var config Configuration
	if err := (Client{Paths: m.paths}).Admin(ctx, http.MethodGet, "/v1/config", nil, &config); err != nil {
		return ""
	}
	return config.Error
}
