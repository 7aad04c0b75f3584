package dynmod

import (
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/envoyproxy/envoy/source/extensions/dynamic_modules/sdk/go/shared"

	"github.com/holdfast-mesh/holdfast/filter"
	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
)

// handle is Envoy's side of a stream. What a test does not need panics: the embedded interface is nil.
type handle struct {
	shared.HttpFilterHandle
	replies   []uint32
	continued int
	tasks     chan func()
	headers   [][2]string
	logged    string
}

func newHandle() *handle { return &handle{tasks: make(chan func(), 1024)} }

func (h *handle) GetScheduler() shared.Scheduler { return h }
func (h *handle) Schedule(f func())              { h.tasks <- f }
func (h *handle) SendLocalResponse(status uint32, _ [][2]string, _ []byte, _ string) {
	h.replies = append(h.replies, status)
}

func (h *handle) IncrementCounterValue(shared.MetricID, uint64, ...string) shared.MetricsResult {
	return shared.MetricsSuccess
}

func (h *handle) RecordHistogramValue(shared.MetricID, uint64, ...string) shared.MetricsResult {
	return shared.MetricsSuccess
}
func (h *handle) Log(_ shared.LogLevel, format string, _ ...any) { h.logged += format }
func (h *handle) ReceivedBufferedRequestBody() bool              { return false }
func (h *handle) ReceivedBufferedResponseBody() bool             { return false }
func (h *handle) ContinueRequest()                               { h.continued++ }
func (h *handle) SetMetadata(string, string, any)                {}
func (h *handle) ClearDownstreamWatermarkCallbacks()             {}
func (h *handle) RequestHeaders() shared.HeaderMap               { return &headerMap{h: h} }

// run runs what was scheduled, as Envoy does on the stream's thread.
func (h *handle) run() {
	for {
		select {
		case f := <-h.tasks:
			f()
		default:
			return
		}
	}
}

type headerMap struct {
	shared.HeaderMap
	h *handle
}

func buffer(s string) shared.UnsafeEnvoyBuffer {
	b := []byte(s)
	if len(b) == 0 {
		return shared.UnsafeEnvoyBuffer{}
	}
	return shared.UnsafeEnvoyBuffer{Ptr: &b[0], Len: uint64(len(b))}
}

func (m *headerMap) GetAll() [][2]shared.UnsafeEnvoyBuffer {
	var out [][2]shared.UnsafeEnvoyBuffer
	for _, kv := range m.h.headers {
		out = append(out, [2]shared.UnsafeEnvoyBuffer{buffer(kv[0]), buffer(kv[1])})
	}
	return out
}
func (m *headerMap) Set(string, string) {}
func (m *headerMap) Remove(string)      {}

type bodyBuffer struct {
	shared.BodyBuffer
	b string
}

func (b *bodyBuffer) GetChunks() []shared.UnsafeEnvoyBuffer {
	return []shared.UnsafeEnvoyBuffer{buffer(b.b)}
}

// fakeClient keeps what it was asked, and answers when told to.
type fakeClient struct {
	client
	begun   func(*storev1.Begun, error)
	aborted atomic.Int32
}

func (c *fakeClient) Up() bool { return true }
func (c *fakeClient) Begin(_ *storev1.Begin, _ time.Duration, done func(*storev1.Begun, error)) {
	c.begun = done
}
func (c *fakeClient) Abort(_, _, _ string) { c.aborted.Add(1) }

func config(t *testing.T) *filter.Config {
	t.Helper()
	key := &configv1.KeySource{Fields: []*configv1.FieldPath{{Steps: []*configv1.FieldStep{{Number: 1, Type: 9, ImplicitPresence: true}}}}}
	raw, err := proto.Marshal(&configv1.FilterConfig{
		Node: "n1", Serve: true, StoreSocket: "/s",
		Types:     []*configv1.EntityType{{Type: "T", Model: configv1.Model_MODEL_VALUE, Consistency: configv1.Consistency_CONSISTENCY_STRONG}},
		Services:  []*configv1.Service{{Name: "a.S", Mode: configv1.Mode_MODE_COMMIT, EntityType: "T", Carriage: configv1.Carriage_CARRIAGE_METADATA_PROTO, Methods: []*configv1.Method{{Path: "/a.S/M", Key: key}}}},
		Placement: &configv1.Placement{Members: []*configv1.Member{{Name: "n1", ServeAddress: "s1"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := filter.ParseConfig(raw)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// begin is a stream that waits for its turn.
func begin(t *testing.T) (*stream, *handle, *fakeClient) {
	t.Helper()
	h, c := newHandle(), &fakeClient{}
	h.headers = [][2]string{{":path", "/a.S/M"}, {"content-type", "application/grpc"}}
	f := &factory{cfg: config(t), store: &store{client: c}}
	s, ok := f.Create(h).(*stream)
	if !ok {
		t.Fatal("factory made another kind of stream")
	}
	if got := s.OnRequestHeaders(h.RequestHeaders(), false); got != shared.HeadersStatusStop {
		t.Fatalf("headers status %d", got)
	}
	if got := s.OnRequestBody(&bodyBuffer{b: "\x00\x00\x00\x00\x03\x0a\x01k"}, true); got != shared.BodyStatusStopAndBuffer {
		t.Fatalf("body status %d, replies %v, log %q", got, h.replies, h.logged)
	}
	return s, h, c
}

func TestPanicInEachCallback(t *testing.T) {
	for name, call := range map[string]func(s *stream){
		"request headers":  func(s *stream) { s.OnRequestHeaders(nil, false) },
		"request body":     func(s *stream) { s.OnRequestBody(nil, false) },
		"request trailers": func(s *stream) { s.OnRequestTrailers(nil) },
		"reply headers":    func(s *stream) { s.OnResponseHeaders(nil, false) },
		"reply body":       func(s *stream) { s.OnResponseBody(nil, false) },
		"reply trailers":   func(s *stream) { s.OnResponseTrailers(nil) },
		"store answer":     func(s *stream) { s.post(message{kind: mailGot}); s.h.(*handle).run() },
		"deadline":         func(s *stream) { s.post(message{kind: mailDeadline}); s.h.(*handle).run() },
		"call headers":     func(s *stream) { calls{s}.OnHttpStreamHeaders(1, nil, false) },
		"call data":        func(s *stream) { calls{s}.OnHttpStreamData(1, nil, false) },
		"call trailers":    func(s *stream) { calls{s}.OnHttpStreamTrailers(1, nil) },
		"call end":         func(s *stream) { calls{s}.OnHttpStreamComplete(1) },
		"call reset":       func(s *stream) { calls{s}.OnHttpStreamReset(1, 0) },
		"high watermark":   func(s *stream) { watermarks{s}.OnAboveWriteBufferHighWatermark() },
		"low watermark":    func(s *stream) { watermarks{s}.OnBelowWriteBufferLowWatermark() },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHandle()
			s := &stream{factory: &factory{store: &store{client: &fakeClient{}}}, h: h, sched: h}
			// No machine: every input is a nil dereference.
			call(s)
			if len(h.replies) != 1 || h.replies[0] != 500 || !s.failed || !strings.Contains(h.logged, "panic") {
				t.Fatalf("replies %v, failed %v, log %q", h.replies, s.failed, h.logged)
			}
			// What comes afterwards doesn't reach the machine.
			s.OnRequestBody(nil, true)
			s.OnRequestTrailers(nil)
			s.OnResponseHeaders(nil, true)
			s.OnResponseBody(nil, true)
			s.OnResponseTrailers(nil)
			s.post(message{kind: mailGot})
			h.run()
			if len(h.replies) != 1 {
				t.Fatalf("replies %v", h.replies)
			}
			s.OnStreamComplete()
			s.OnDestroy()
		})
	}
	t.Run("stream complete", func(t *testing.T) {
		h := newHandle()
		s := &stream{factory: &factory{}, h: h, sched: h}
		s.OnStreamComplete()
		s.OnDestroy()
		if !s.gone {
			t.Fatal("a panic kept the stream from closing")
		}
	})
	t.Run("in the reply to a panic", func(t *testing.T) {
		s := &stream{factory: &factory{}}
		s.OnResponseHeaders(nil, false)
	})
}

func TestConfigurationRefused(t *testing.T) {
	h := &configHandle{}
	if _, err := (&configFactory{}).Create(h, []byte{0xff}); err == nil || !strings.Contains(h.logged, "refused") {
		t.Fatalf("error %v, log %q", err, h.logged)
	}
}

type configHandle struct {
	shared.HttpFilterConfigHandle
	logged string
}

func (h *configHandle) Log(_ shared.LogLevel, format string, _ ...any) { h.logged += format }

func TestAnswerReachesTheStream(t *testing.T) {
	s, h, c := begin(t)
	go c.begun(&storev1.Begun{Token: "t", State: &storev1.State{}}, nil)
	(<-h.tasks)()
	if h.continued != 1 {
		t.Fatalf("continued %d times", h.continued)
	}
	s.OnStreamComplete()
	s.OnDestroy()
	if got := c.aborted.Load(); got != 1 {
		t.Fatalf("a caller that left gave its turn back %d times", got)
	}
}

// TestAnswerAfterTheEnd: a turn that arrives for a stream that is gone, or is just going, is given back exactly once.
func TestAnswerAfterTheEnd(t *testing.T) {
	t.Run("gone", func(t *testing.T) {
		s, h, c := begin(t)
		s.OnStreamComplete()
		c.begun(&storev1.Begun{Token: "t"}, nil)
		h.run()
		if got := c.aborted.Load(); got != 1 || h.continued != 0 {
			t.Fatalf("aborted %d times, continued %d times", got, h.continued)
		}
	})
	t.Run("on its way", func(t *testing.T) {
		s, h, c := begin(t)
		c.begun(&storev1.Begun{Token: "t"}, nil)
		s.OnStreamComplete()
		h.run()
		if got := c.aborted.Load(); got != 1 || h.continued != 0 {
			t.Fatalf("aborted %d times, continued %d times", got, h.continued)
		}
	})
	t.Run("at the same time", func(t *testing.T) {
		for range 200 {
			s, h, c := begin(t)
			var wg sync.WaitGroup
			wg.Go(func() { c.begun(&storev1.Begun{Token: "t"}, nil) })
			h.run()
			s.OnStreamComplete()
			wg.Wait()
			h.run()
			if got := c.aborted.Load(); got != 1 {
				t.Fatalf("aborted %d times", got)
			}
		}
	})
}

func TestNewestStateOnly(t *testing.T) {
	h := newHandle()
	s := &stream{factory: &factory{cfg: config(t)}, h: h, sched: h}
	s.machine = filter.NewStream(s.cfg, s)
	for range 100 {
		s.post(message{kind: mailChanged, changed: &storev1.State{}})
	}
	if len(h.tasks) != 1 {
		t.Fatalf("%d tasks for a watch that is behind", len(h.tasks))
	}
}

func TestRegistrySharesOneClient(t *testing.T) {
	r := registry{open: map[string]*store{}}
	a, b := r.take(t.TempDir()+"/s"), (*store)(nil)
	b = r.take(a.socket)
	if a != b {
		t.Fatal("two clients of one store")
	}
	r.give(a)
	if r.open[a.socket] == nil {
		t.Fatal("closed while in use")
	}
	r.give(b)
	if len(r.open) != 0 {
		t.Fatal("kept open without a user")
	}
}
