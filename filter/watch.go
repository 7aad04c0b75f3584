package filter

import (
	"errors"
	"strconv"
	"strings"

	"github.com/holdfast-mesh/holdfast/filter/grpcframe"
	"github.com/holdfast-mesh/holdfast/filter/statefield"
	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
)

// watch answers a server stream by calling the service once for each state, the newest at the time. At most one call is
// under way, and the next begins only when the caller has taken what the last one said: a slow caller skips states.
type watch struct {
	// next is the newest state that no call has been made for.
	next *storev1.State
	// seen is the state of the last call.
	seen *storev1.State
	call uint64 // the call under way, 0 without
	ok   bool   // the call under way has said grpc-status 0
	sent bool   // the stream's headers have left
	full bool   // the caller has not taken what was sent
	// backlog counts the bytes sent while full.
	backlog int
	headers [][2]string
	// authority is the caller's, for the calls.
	authority string
	// part is the end of what the call sent, less than a frame; used only where frames have to be read.
	part     []byte
	encoding string
}

// startWatch takes the stream over: from here on the filter answers it.
func (s *Stream) startWatch() Action {
	w := &watch{}
	s.host.RequestHeaders().All(func(name, value string) {
		if name == ":authority" {
			w.authority = strings.Clone(value)
		}
		// The caller's own metadata goes to each call; what belongs to this hop or to us does not.
		if name[0] == ':' || strings.HasPrefix(name, headerPrefix) || strings.HasPrefix(name, "x-envoy-") || len(w.headers) == MaxWatchHeaders {
			return
		}
		switch name {
		case "content-length", "content-type", "te", "connection", "transfer-encoding", "grpc-timeout", "grpc-encoding", "grpc-accept-encoding", "host":
			return
		}
		w.headers = append(w.headers, [2]string{strings.Clone(name), strings.Clone(value)})
	})
	if len(s.req) > s.frame {
		return s.malformed("a watch takes one message")
	}
	s.watch, s.phase = w, phaseWatch
	s.host.Watch(s.method.typ.name, s.key)
	return Wait
}

// Changed is a state of the watched entity, or why there will be no more.
func (s *Stream) Changed(st *storev1.State, err *StoreError) {
	if s.phase != phaseWatch {
		return
	}
	if err != nil {
		code := int32(codeUnavailable)
		if !s.watch.sent {
			// Before the first message it is a refusal like any other.
			code = err.Code
		}
		s.endWatch(code, "the watch is over: "+err.Message, outcomeNotApplied)
		return
	}
	s.watch.next = st
	s.nextCall()
}

// nextCall calls the service when there is a new state and the caller is ready for it.
func (s *Stream) nextCall() {
	w := s.watch
	if w.next == nil || w.call != 0 || w.full {
		return
	}
	if w.seen != nil && w.seen.GetVersion() == w.next.GetVersion() {
		w.next = nil
		return
	}
	headers, body, err := s.watchRequest(w.next, w.seen)
	if err != nil {
		s.endWatch(codeResourceExhausted, err.Error(), outcomeNone)
		return
	}
	id, ok := s.host.StartCall(s.method.service.cluster, headers, body)
	if !ok {
		s.endWatch(codeUnavailable, "the service is not there", outcomeNotApplied)
		return
	}
	s.host.Count(CountWatchCalls)
	w.seen, w.next = w.next, nil
	w.call, w.ok, w.part = id, false, nil
}

// watchRequest is the handler call for a state.
func (s *Stream) watchRequest(st, seen *storev1.State) (headers [][2]string, body []byte, err error) {
	m, w := s.method, s.watch
	headers = make([][2]string, 0, len(w.headers)+8)
	headers = append(headers, [][2]string{
		{":method", "POST"},
		{":path", m.path},
		{":authority", w.authority},
		{":scheme", "http"},
		{"content-type", "application/grpc"},
		{"te", "trailers"},
	}...)
	headers = append(headers, w.headers...)
	var previous *holdfastv1.Value
	if seen.GetExists() {
		previous = seen.GetValue()
	}
	in := stateIn(m.typ.name, s.key, st, previous)
	msg := s.message
	switch {
	case m.service.carriage != configv1.Carriage_CARRIAGE_FIELD:
		name := headerStateBin
		if m.service.carriage == configv1.Carriage_CARRIAGE_METADATA_JSON {
			name = headerState
		}
		value, err := stateHeader(m.service.carriage, in)
		if err != nil && previous != nil {
			// Two states may not fit where one does; a handler must do without the previous one anyway.
			in.Previous = nil
			value, err = stateHeader(m.service.carriage, in)
		}
		if err != nil {
			return nil, nil, err
		}
		headers = append(headers, [2]string{name, value})
	case m.in != 0:
		payload, ok, err := statePayload(m, in)
		if err != nil {
			return nil, nil, err
		}
		if msg, _, err = s.withField(payload, ok); err != nil {
			return nil, nil, err
		}
	}
	if m.out != 0 {
		headers = append(headers, [2]string{"grpc-accept-encoding", "identity"})
	}
	return headers, grpcframe.Append(nil, msg), nil
}

// CallHeaders begins the answer to a handler call.
func (s *Stream) CallHeaders(id uint64, h Headers, end bool) {
	if !s.current(id) {
		return
	}
	w := s.watch
	out := make([][2]string, 0, 8)
	out = append(out, [2]string{":status", "200"})
	status, grpc, code, message := "", false, "", ""
	h.All(func(name, value string) {
		switch name {
		case ":status":
			status = strings.Clone(value)
		case "grpc-status":
			code = strings.Clone(value)
		case "grpc-message":
			message = strings.Clone(value)
		case "grpc-encoding":
			w.encoding = strings.Clone(value)
			out = append(out, [2]string{name, w.encoding})
		case "content-type":
			grpc = isGRPC(value)
			out = append(out, [2]string{"content-type", strings.Clone(value)})
		default:
			if name[0] != ':' && !strings.HasPrefix(name, headerPrefix) && !strings.HasPrefix(name, "x-envoy-") && name != "date" && name != "server" {
				out = append(out, [2]string{strings.Clone(name), strings.Clone(value)})
			}
		}
	})
	switch {
	case status != "200" || !grpc:
		s.endWatch(codeUnavailable, "the service answered with HTTP status "+status, outcomeNone)
		return
	case end && code != "0":
		s.handlerFailed(code, message)
		return
	}
	w.ok = end
	if !w.sent {
		w.sent, s.started = true, true
		switch {
		case !s.cfg.edge:
			out = append(out, [2]string{headerServedBy, s.cfg.node})
		case s.explain:
			out = append(out, [2]string{headerExplain, "node=" + s.cfg.node})
		}
		s.host.SendHeaders(out)
	}
}

// CallData is a piece of the answer.
func (s *Stream) CallData(id uint64, b Body) {
	if !s.current(id) {
		return
	}
	w := s.watch
	piece := b.AppendTo(w.part)
	if w.full {
		if w.backlog += len(piece); w.backlog > MaxWatchBacklog {
			s.endWatch(codeResourceExhausted, "the caller is too slow for what one state gave", outcomeNone)
			return
		}
	}
	if s.method.out == 0 {
		s.host.SendData(piece)
		return
	}
	// Whole frames only: each has to be searched for changes, which a watch can't commit.
	for {
		msg, compressed, rest, err := grpcframe.Parse(piece, MaxMessage)
		if err != nil && len(rest) == len(piece) && errors.Is(err, grpcframe.ErrIncomplete) {
			w.part = append([]byte(nil), piece...)
			return
		}
		if err == nil && compressed {
			msg, err = plain(msg, w.encoding)
		}
		var found bool
		var payload []byte
		if err == nil {
			_, payload, found, err = statefield.Cut(msg, s.method.out)
		}
		if err != nil {
			s.endWatch(codeInternal, errReplyFrame.Error(), outcomeNone)
			return
		}
		if found {
			out, err := parseStateField(s.method, payload)
			if err != nil || changes(out) {
				s.endWatch(codeInternal, "a watch can't change state", outcomeNone)
				return
			}
			msg, _, _, _ = statefield.Cut(msg, s.method.out)
			s.host.SendData(grpcframe.Append(nil, msg))
		} else {
			s.host.SendData(piece[:len(piece)-len(rest)])
		}
		piece = rest
		w.part = nil
	}
}

// CallTrailers ends the answer.
func (s *Stream) CallTrailers(id uint64, h Headers) {
	if !s.current(id) {
		return
	}
	code, message, out := "", "", ""
	h.All(func(name, value string) {
		switch name {
		case "grpc-status":
			code = strings.Clone(value)
		case "grpc-message":
			message = strings.Clone(value)
		case s.stateOutHeader():
			out = strings.Clone(value)
		}
	})
	if code != "0" {
		s.handlerFailed(code, message)
		return
	}
	if out != "" && s.commits() {
		if out, err := parseStateOut(s.method.service.carriage, out); err != nil || changes(out) {
			s.endWatch(codeInternal, "a watch can't change state", outcomeNone)
			return
		}
	}
	s.watch.ok = true
}

// CallDone says that the call is over.
func (s *Stream) CallDone(id uint64) {
	if !s.current(id) {
		return
	}
	s.watch.call = 0
	if !s.watch.ok {
		s.endWatch(codeUnavailable, "the service's answer ended without a status", outcomeNone)
		return
	}
	s.nextCall()
}

// CallReset says that the call broke.
func (s *Stream) CallReset(id uint64) {
	if !s.current(id) {
		return
	}
	s.watch.call = 0
	s.endWatch(codeUnavailable, "the service broke off", outcomeNotApplied)
}

// Full and Drained say whether the caller takes what it is sent.
func (s *Stream) Full() {
	if s.phase == phaseWatch {
		s.watch.full = true
	}
}

// Drained is the opposite of Full.
func (s *Stream) Drained() {
	if s.phase == phaseWatch {
		s.watch.full, s.watch.backlog = false, 0
		s.nextCall()
	}
}

func (s *Stream) current(id uint64) bool {
	return s.phase == phaseWatch && s.watch.call != 0 && s.watch.call == id
}

// handlerFailed ends the watch because the service said so: with its own words where nothing was sent yet, else as
// something to try again.
func (s *Stream) handlerFailed(code, message string) {
	n, err := strconv.ParseInt(code, 10, 32)
	if err != nil || n <= 0 || n > codeUnauthenticated {
		n = codeUnknown
	}
	if s.watch.sent {
		s.endWatch(codeUnavailable, "the service ended the watch with status "+strconv.Itoa(int(n))+": "+readable(message), outcomeNone)
		return
	}
	outcome := outcomeNone
	if n == codeUnavailable {
		// A watch changes nothing, so another node may always be asked.
		outcome = outcomeNotApplied
	}
	s.endWatch(int32(n), readable(message), outcome)
}

// endWatch ends the caller's stream.
func (s *Stream) endWatch(code int32, message, outcome string) {
	sent := s.watch.sent
	s.stopWatch()
	if !sent {
		s.phase = phaseState
		if outcome == outcomeNotApplied {
			s.resume(s.withoutState(&StoreError{Code: code, Message: message}))
			return
		}
		s.refuse(code, message, outcome)
		return
	}
	s.phase = phaseReplied
	s.host.SendTrailers([][2]string{{"grpc-status", strconv.Itoa(int(code))}, {"grpc-message", grpcMessage(message)}})
}

// stopWatch lets go of the store and of the service.
func (s *Stream) stopWatch() {
	s.host.Unwatch()
	if id := s.watch.call; id != 0 {
		s.watch.call = 0
		s.host.ResetCall(id)
	}
}
