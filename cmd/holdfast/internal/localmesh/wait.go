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

// waitProgrammed waits until every Envoy has taken all that it was sent. Only then do requests pass the filter.
func (m *Mesh) waitProgrammed(ctx context.Context, envoys int) error {
	last := "the control plane does not answer"
	var refused error
	var since time.Time
	ok := until(ctx, readyTimeout, func(ctx context.Context) bool {
		var list ProxyList
		if err := (Client{Paths: m.paths}).Admin(ctx, http.MethodGet, "/v1/proxies", nil, &list); err != nil {
			return false
		}
		var nack *ProxyType
		last, nack = list.behind(envoys)
		switch {
		case nack == nil:
			since = time.Time{}
		case since.IsZero():
			since = time.Now()
		case time.Since(since) > refusedTimeout:
			refused = fmt.Errorf("an Envoy refuses its configuration: %s", last)
			if advice := explainEnvoy(nack.Error); advice != "" {
				refused = fmt.Errorf("%w\n%s", refused, advice)
			}
			return true
		}
		return last == ""
	})
	switch {
	case refused != nil:
		return refused
	case ctx.Err() != nil:
		return ctx.Err()
	case !ok:
		return fmt.Errorf("the Envoys have no configuration after %v: %s", readyTimeout, last)
	}
	return nil
}

// Behind says what keeps want Envoys from having all that they were sent; empty if nothing does.
func (l *ProxyList) Behind(want int) string {
	what, _ := l.behind(want)
	return what
}

// behind says which Envoy has not taken everything yet; empty if all want have. A refusal comes first.
func (l *ProxyList) behind(want int) (what string, nack *ProxyType) {
	connected := 0
	for _, p := range l.Proxies {
		if !p.Connected {
			continue
		}
		connected++
		for i, t := range p.Types {
			switch t.State {
			case Acked:
			case nacked:
				return fmt.Sprintf("%s, %s: %s", p.Name, t.Type, t.Error), &p.Types[i]
			default:
				what = fmt.Sprintf("%s, %s: %s", p.Name, t.Type, t.State)
			}
		}
	}
	if connected < want {
		what = fmt.Sprintf("%d of %d Envoys are connected", connected, want)
	}
	return what, nil
}
