package dynmod

import (
	"crypto/rand"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/envoyproxy/envoy/source/extensions/dynamic_modules/sdk/go/shared"

	"github.com/holdfast-mesh/holdfast/filter"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
)

// metadataNamespace and hostsKey are where Envoy's override_host policy reads the addresses to try.
const (
	metadataNamespace = "holdfast"
	hostsKey          = "hosts"
)

// rotation spreads requests over equals, in all streams of the process.
var rotation atomic.Uint32

// stream is one HTTP stream: Envoy's filter on one side, the machine's host on the other. All fields but those of the
// mailbox belong to the stream's thread.
type stream struct {
	*factory
	h       shared.HttpFilterHandle
	sched   shared.Scheduler
	machine *filter.Stream

	// request, reply and trailers are the stream's header maps, set by their callbacks.
	request, reply, trailers headers
	// received is the piece of body of the callback under way.
	received body
	// failed: a panic has answered the stream; the machine is not to be trusted any more.
	failed bool
	// committing: a commit was asked for, so what became of it is the caller's to know.
	committing bool
	// gone: the handle must not be used.
	gone bool

	// deadline is when the timer has to fire, zero without a deadline; timer runs from the first wait on.
	deadline time.Time
	timer    *time.Timer
	asked    time.Time
	unwatch  func()

	// mu guards the mailbox: what other goroutines have for the stream, and whether it still takes it.
	mu     sync.Mutex
	mail   []message
	dead   bool
	latest *message // the newest state of a watch; older ones are skipped
}

// message is an answer of the store, or the deadline. Exactly one of the fields is set beside err.
type message struct {
	got       *storev1.State
	others    []*storev1.State // with got
	begun     *storev1.Begun
	committed *storev1.Committed
	changed   *storev1.State
	err       *filter.StoreError
	kind      kind
	// entity is what begun was asked for.
	entity *storev1.Entity
}

type kind uint8

const (
	mailGot kind = iota
	mailBegun
	mailCommitted
	mailChanged
	mailDeadline
)

// post hands a message to the stream's thread, or disposes of it where there is no stream any more. It runs on any
// goroutine.
func (s *stream) post(m message) {
	s.mu.Lock()
	if s.dead {
		s.mu.Unlock()
		s.dispose(m)
		return
	}
	if m.kind == mailChanged && m.err == nil {
		again := s.latest != nil
		s.latest = &m
		if again {
			s.mu.Unlock()
			return
		}
	} else {
		s.mail = append(s.mail, m)
	}
	s.mu.Unlock()
	s.sched.Schedule(s.deliver)
	// The scheduler frees its C side when Go's is collected, which must not happen while it is being used.
	runtime.KeepAlive(s.sched)
}

// expect readies the stream for messages. It is called on the stream's thread, inside a callback, before anything that
// will post; a request that is answered from the cache needs no scheduler, which costs an object on either side, and no
// timer, which wakes a thread.
func (s *stream) expect() {
	if s.sched == nil {
		s.sched = s.h.GetScheduler()
	}
	if s.timer == nil && !s.deadline.IsZero() {
		s.timer = time.AfterFunc(time.Until(s.deadline), func() {
			defer func() { _ = recover() }()
			s.post(message{kind: mailDeadline})
		})
	}
}

// deliver runs on the stream's thread. Envoy runs it only while the stream lives.
func (s *stream) deliver() {
	for !s.gone {
		s.mu.Lock()
		var m message
		switch {
		case s.latest != nil:
			m, s.latest = *s.latest, nil
		case len(s.mail) > 0:
			m = s.mail[0]
			s.mail = s.mail[1:]
		default:
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
		if s.failed {
			s.dispose(m)
			continue
		}
		s.guard("store answer", func() { s.hand(m) })
	}
}

func (s *stream) hand(m message) {
	switch m.kind {
	case mailGot:
		s.waited()
		s.machine.Got(m.got, m.others, m.err)
	case mailBegun:
		s.waited()
		s.machine.Begun(m.begun, m.err)
	case mailCommitted:
		s.waited()
		s.machine.Committed(m.committed, m.err)
	case mailChanged:
		s.machine.Changed(m.changed, m.err)
	case mailDeadline:
		s.machine.Deadline()
	}
}

func (s *stream) waited() {
	s.h.RecordHistogramValue(s.latency, microseconds(time.Since(s.asked)))
}

// dispose gives back what a message holds that nobody waits for: the turn of an entity.
func (s *stream) dispose(m message) {
	if m.kind == mailBegun && m.err == nil && m.begun.GetToken() != "" {
		s.store.client.Abort(m.entity.GetType(), m.entity.GetKey(), m.begun.GetToken())
	}
}

// close ends the stream. Envoy calls it twice, in OnStreamComplete and OnDestroy.
func (s *stream) close() {
	if s.gone {
		return
	}
	// A failed machine is closed too: it may hold an entity's turn.
	s.guard("close", s.machine.Closed)
	s.gone = true
	if s.timer != nil {
		s.timer.Stop()
	}
	if s.unwatch != nil {
		s.unwatch()
		s.unwatch = nil
	}
	s.mu.Lock()
	s.dead = true
	mail := s.mail
	s.mail, s.latest = nil, nil
	s.mu.Unlock()
	for _, m := range mail {
		s.dispose(m)
	}
}

// headers is Envoy's header map as the machine sees it.
type headers struct{ m shared.HeaderMap }

func (h *headers) All(yield func(name, value string)) {
	for _, kv := range h.m.GetAll() {
		yield(kv[0].ToUnsafeString(), kv[1].ToUnsafeString())
	}
}
func (h *headers) Set(name, value string) { h.m.Set(name, value) }
func (h *headers) Remove(name string)     { h.m.Remove(name) }

// of is m's wrapper, in the stream's own memory.
func (h *headers) of(m shared.HeaderMap) *headers {
	h.m = m
	return h
}

// pairs is a header list of a handler call.
type pairs [][2]shared.UnsafeEnvoyBuffer

func (p pairs) All(yield func(name, value string)) {
	for _, kv := range p {
		yield(kv[0].ToUnsafeString(), kv[1].ToUnsafeString())
	}
}
func (pairs) Set(string, string) {}
func (pairs) Remove(string)      {}

type body struct{ b shared.BodyBuffer }

func (b *body) AppendTo(dst []byte) []byte { return chunks(b.b.GetChunks()).AppendTo(dst) }

type chunks []shared.UnsafeEnvoyBuffer

func (c chunks) AppendTo(dst []byte) []byte {
	for _, piece := range c {
		dst = append(dst, piece.ToUnsafeBytes()...)
	}
	return dst
}

func (s *stream) RequestHeaders() filter.Headers { return s.request.of(s.h.RequestHeaders()) }
func (s *stream) ReplyHeaders() filter.Headers   { return s.reply.of(s.h.ResponseHeaders()) }
func (s *stream) ReplyTrailers() filter.Headers  { return s.trailers.of(s.h.ResponseTrailers()) }

func (s *stream) SetRequestBody(b []byte) {
	s.replace(s.h.BufferedRequestBody(), s.h.ReceivedBufferedRequestBody, b)
}

func (s *stream) SetReplyBody(b []byte) {
	s.replace(s.h.BufferedResponseBody(), s.h.ReceivedBufferedResponseBody, b)
}

// replace puts b in the place of all that has arrived of a body. all tells, within a body's callback, whether the piece
// that was received is all that was buffered.
func (s *stream) replace(buffered shared.BodyBuffer, all func() bool, b []byte) {
	if s.received.b == nil {
		buffered.Drain(buffered.GetSize())
		buffered.Append(b)
		return
	}
	if !all() {
		if n := buffered.GetSize(); n > 0 {
			buffered.Drain(n)
		}
	}
	s.received.b.Drain(s.received.b.GetSize())
	s.received.b.Append(b)
}

func (s *stream) SetHosts(hosts string) { s.h.SetMetadata(metadataNamespace, hostsKey, hosts) }

// What sends can end the stream within the call, so each looks whether it is there.

func (s *stream) ContinueRequest() {
	if !s.gone {
		s.h.ContinueRequest()
	}
}

func (s *stream) ContinueReply() {
	if !s.gone {
		s.h.ContinueResponse()
	}
}

func (s *stream) LocalReply(r *filter.Reply) {
	if !s.gone {
		s.h.SendLocalResponse(uint32(r.Status), r.Headers, r.Body, r.Details)
	}
}

func (s *stream) Caller() string {
	if v, ok := s.h.GetAttributeString(shared.AttributeIDConnectionUriSanPeerCertificate); ok {
		return v.ToString()
	}
	v, _ := s.h.GetAttributeString(shared.AttributeIDSourceAddress)
	address := v.ToString()
	if host, _, err := net.SplitHostPort(address); err == nil {
		// A caller's next connection has another port.
		return host
	}
	return address
}

func (s *stream) Upstream() string {
	v, _ := s.h.GetAttributeString(shared.AttributeIDUpstreamAddress)
	return v.ToString()
}

func (s *stream) ReplyDetails() string {
	v, _ := s.h.GetAttributeString(shared.AttributeIDResponseCodeDetails)
	return v.ToString()
}

// SetDeadline only notes the deadline. While a request is with the service, Envoy keeps it: the routes have it take
// grpc-timeout as the stream's longest duration. A stream that waits for the store, or is a watch, starts a timer of its
// own, which comes before Envoy's: only the machine knows whether a change may have been committed.
func (s *stream) SetDeadline(d time.Duration) {
	s.deadline = time.Now().Add(d - min(d/10, deadlineLead))
}

func (s *stream) Now() time.Time { return time.Now() }

func (s *stream) Random() (id [16]byte) {
	// It never fails on the systems that Envoy runs on: the runtime would end the process.
	_, _ = rand.Read(id[:])
	return id
}

func (s *stream) Rotate() uint32 { return rotation.Add(1) }

func (s *stream) Count(c filter.Counter) { s.h.IncrementCounterValue(s.counters[c], 1) }
