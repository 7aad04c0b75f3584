package dynmod

import (
	"github.com/envoyproxy/envoy/source/extensions/dynamic_modules/sdk/go/shared"

	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
)

func (s *stream) Watch(typ, key string) {
	s.expect()
	s.h.SetDownstreamWatermarkCallbacks(watermarks{s})
	s.unwatch = s.store.client.Watch(typ, key, func(st *storev1.State, err error) {
		s.post(message{kind: mailChanged, changed: st, err: storeError(err)})
	})
}

func (s *stream) Unwatch() {
	if s.unwatch != nil {
		s.unwatch()
		s.unwatch = nil
	}
	s.h.ClearDownstreamWatermarkCallbacks()
}

func (s *stream) StartCall(cluster string, h [][2]string, b []byte) (uint64, bool) {
	// No timeout: the watch's own deadline ends the call with the stream.
	res, id := s.h.StartHttpStream(cluster, h, nil, false, 0, calls{s})
	if res != shared.HttpCalloutInitSuccess {
		return 0, false
	}
	// A call that ends at once (a cluster without hosts) ends within StartHttpStream, before the SDK knows whom to tell.
	// Then the stream is not there to take the body.
	return id, s.h.SendHttpStreamData(id, b, true)
}

func (s *stream) ResetCall(id uint64) {
	if !s.gone {
		s.h.ResetHttpStream(id)
	}
}

func (s *stream) SendHeaders(h [][2]string) {
	if !s.gone {
		s.h.SendResponseHeaders(h, false)
	}
}

func (s *stream) SendData(b []byte) {
	if !s.gone {
		s.h.SendResponseData(b, false)
	}
}

func (s *stream) SendTrailers(t [][2]string) {
	if !s.gone {
		s.h.SendResponseTrailers(t)
	}
}

// calls is Envoy's side of the handler calls.
type calls struct{ s *stream }

func (c calls) run(where string, f func()) {
	if !c.s.failed && !c.s.gone {
		c.s.guard(where, f)
	}
}

func (c calls) OnHttpStreamHeaders(id uint64, h [][2]shared.UnsafeEnvoyBuffer, end bool) {
	c.run("call headers", func() { c.s.machine.CallHeaders(id, pairs(h), end) })
}

func (c calls) OnHttpStreamData(id uint64, b []shared.UnsafeEnvoyBuffer, _ bool) {
	c.run("call data", func() { c.s.machine.CallData(id, chunks(b)) })
}

func (c calls) OnHttpStreamTrailers(id uint64, t [][2]shared.UnsafeEnvoyBuffer) {
	c.run("call trailers", func() { c.s.machine.CallTrailers(id, pairs(t)) })
}

func (c calls) OnHttpStreamComplete(id uint64) {
	c.run("call end", func() { c.s.machine.CallDone(id) })
}

func (c calls) OnHttpStreamReset(id uint64, _ shared.HttpStreamResetReason) {
	c.run("call reset", func() { c.s.machine.CallReset(id) })
}

// watermarks is Envoy's word on whether the caller takes what it is sent.
type watermarks struct{ s *stream }

func (w watermarks) OnAboveWriteBufferHighWatermark() {
	calls(w).run("high watermark", w.s.machine.Full)
}

func (w watermarks) OnBelowWriteBufferLowWatermark() {
	calls(w).run("low watermark", w.s.machine.Drained)
}
