// Package dynmod runs the filter in Envoy as a Go dynamic module: the one place where Go meets Envoy's C interface.
//
// It is thin. It copies bytes out of Envoy's memory, calls the pure machine (package filter) inside a recover guard, and
// carries out its effects. What must hold:
//   - No panic leaves it: an unrecovered one would abort Envoy with every request in it. A panic fails its own request.
//   - Nothing blocks: a callback that waits stalls one of Envoy's workers.
//   - The SDK's handle of a stream is used on the stream's own thread only, and never after the stream is complete. What
//     other goroutines have to say is put into the stream's mailbox, and a closure without state is scheduled.
package dynmod

import (
	"fmt"
	"runtime/debug"
	"time"

	sdk "github.com/envoyproxy/envoy/source/extensions/dynamic_modules/sdk/go"
	// The C side of the SDK: without it the module exports nothing.
	_ "github.com/envoyproxy/envoy/source/extensions/dynamic_modules/sdk/go/abi"
	"github.com/envoyproxy/envoy/source/extensions/dynamic_modules/sdk/go/shared"

	"github.com/holdfast-mesh/holdfast/filter"
)

// Name is the filter's name in Envoy's configuration.
const Name = "holdfast"

// Register makes the filter known to the SDK. It is called once, from the init function of the module's main package.
func Register() {
	sdk.RegisterHttpFilterConfigFactories(map[string]shared.HttpFilterConfigFactory{Name: &configFactory{}})
}

type configFactory struct {
	shared.EmptyHttpFilterConfigFactory
}

// Create takes a configuration, on Envoy's main thread. On an error Envoy refuses the update and keeps the last one; it
// says no reason itself, so ours goes to its log.
func (*configFactory) Create(h shared.HttpFilterConfigHandle, raw []byte) (f shared.HttpFilterFactory, err error) {
	defer func() {
		if r := recover(); r != nil {
			f, err = nil, fmt.Errorf("panic: %v", r)
		}
		if err != nil {
			h.Log(shared.LogLevelError, "holdfast: filter configuration refused: %v", err)
		}
	}()
	cfg, err := filter.ParseConfig(append([]byte(nil), raw...))
	if err != nil {
		return nil, err
	}
	out := &factory{cfg: cfg}
	for c := range filter.Counters {
		if out.counters[c], err = define(h.DefineCounter, c.String()); err != nil {
			return nil, err
		}
	}
	if out.panics, err = define(h.DefineCounter, "holdfast_panics"); err != nil {
		return nil, err
	}
	if out.latency, err = define(h.DefineHistogram, "holdfast_state_wait_us"); err != nil {
		return nil, err
	}
	if cfg.StoreSocket != "" {
		out.store = stores.take(cfg.StoreSocket)
	}
	return out, nil
}

func define(f func(string, ...string) (shared.MetricID, shared.MetricsResult), name string) (shared.MetricID, error) {
	id, res := f(name)
	if res != shared.MetricsSuccess {
		return 0, fmt.Errorf("define metric %s: result %d", name, res)
	}
	return id, nil
}

// factory makes the streams of one configuration.
type factory struct {
	cfg      *filter.Config
	store    *store
	counters [filter.Counters]shared.MetricID
	panics   shared.MetricID
	latency  shared.MetricID
}

// Create begins a stream, on its worker's thread.
func (f *factory) Create(h shared.HttpFilterHandle) shared.HttpFilter {
	s := &stream{factory: f, h: h}
	s.machine = filter.NewStream(f.cfg, s)
	return s
}

// OnDestroy is called when the configuration and all its streams are gone.
func (f *factory) OnDestroy() {
	defer func() { _ = recover() }()
	if f.store != nil {
		stores.give(f.store)
	}
}

// guard runs one input of the machine. A panic is our own bug: it fails this request, never Envoy.
func (s *stream) guard(where string, f func()) {
	defer func() {
		if r := recover(); r != nil {
			s.panicked(where, r)
		}
	}()
	f()
}

func (s *stream) panicked(where string, r any) {
	// What follows is the same code that may just have failed; nothing of it may panic out of here either.
	defer func() { _ = recover() }()
	s.failed = true
	if s.gone {
		return
	}
	s.h.IncrementCounterValue(s.factory.panics, 1)
	s.h.Log(shared.LogLevelError, "holdfast: panic in %s: %v\n%s", where, r, debug.Stack())
	reply := [][2]string{{"grpc-status", "13"}}
	if s.committing {
		// The commit goes on without us.
		reply = append(reply, [2]string{"holdfast-outcome", "unknown"})
	}
	s.h.SendLocalResponse(500, reply, []byte("internal error"), "holdfast_panic")
}

// headersStatus, bodyStatus and trailersStatus say an action in Envoy's words.
func headersStatus(a filter.Action) shared.HeadersStatus {
	if a == filter.Continue {
		return shared.HeadersStatusContinue
	}
	return shared.HeadersStatusStop
}

func bodyStatus(a filter.Action) shared.BodyStatus {
	switch a {
	case filter.Continue:
		return shared.BodyStatusContinue
	case filter.Replied:
		return shared.BodyStatusStopNoBuffer
	default:
		return shared.BodyStatusStopAndBuffer
	}
}

func trailersStatus(a filter.Action) shared.TrailersStatus {
	if a == filter.Continue {
		return shared.TrailersStatusContinue
	}
	return shared.TrailersStatusStop
}

// OnRequestHeaders and the like are Envoy's calls.
func (s *stream) OnRequestHeaders(m shared.HeaderMap, end bool) shared.HeadersStatus {
	a := filter.Replied
	s.guard("request headers", func() { a = s.machine.RequestHeaders(s.request.of(m), end) })
	return headersStatus(a)
}

func (s *stream) OnRequestBody(b shared.BodyBuffer, end bool) shared.BodyStatus {
	if s.failed {
		return shared.BodyStatusStopNoBuffer
	}
	a := filter.Replied
	s.guard("request body", func() {
		s.received = body{b}
		a = s.machine.RequestBody(&s.received, end)
	})
	s.received = body{}
	return bodyStatus(a)
}

func (s *stream) OnRequestTrailers(m shared.HeaderMap) shared.TrailersStatus {
	a := filter.Replied
	if !s.failed {
		s.guard("request trailers", func() { a = s.machine.RequestTrailers(&headers{m}) })
	}
	return trailersStatus(a)
}

func (s *stream) OnResponseHeaders(m shared.HeaderMap, end bool) shared.HeadersStatus {
	if s.failed {
		return shared.HeadersStatusContinue
	}
	a := filter.Replied
	s.guard("reply headers", func() { a = s.machine.ReplyHeaders(s.reply.of(m), end) })
	return headersStatus(a)
}

func (s *stream) OnResponseBody(b shared.BodyBuffer, end bool) shared.BodyStatus {
	if s.failed {
		return shared.BodyStatusContinue
	}
	a := filter.Replied
	s.guard("reply body", func() {
		s.received = body{b}
		a = s.machine.ReplyBody(&s.received, end)
	})
	s.received = body{}
	return bodyStatus(a)
}

func (s *stream) OnResponseTrailers(m shared.HeaderMap) shared.TrailersStatus {
	if s.failed {
		return shared.TrailersStatusContinue
	}
	a := filter.Replied
	s.guard("reply trailers", func() { a = s.machine.ReplyTrailers(s.trailers.of(m)) })
	return trailersStatus(a)
}

func (s *stream) OnStreamComplete() { s.close() }

func (s *stream) OnDestroy() { s.close() }

// microseconds is d for a histogram.
func microseconds(d time.Duration) uint64 { return uint64(max(d.Microseconds(), 0)) }
