package filter

import (
	"errors"
	"net/http"
	"strconv"

	"github.com/holdfast-mesh/holdfast/filter/grpcframe"
	"github.com/holdfast-mesh/holdfast/filter/statefield"
	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
)

// prepare gets the entity's state for a request that this node serves. The hot path, a state in the cache, answers
// within the call.
func (s *Stream) prepare() Action {
	s.prepared = true
	m := s.method
	if !s.wantsState() {
		return s.forward()
	}
	if !s.host.StoreUp() {
		return s.withoutState(&StoreError{Code: codeUnavailable, Message: "the store of this node is not there"})
	}
	if m.watch {
		return s.startWatch()
	}
	if m.typ.strong {
		return s.prepareStrong()
	}
	if st, ok := s.host.Cached(m.typ.name, s.key); ok {
		s.host.Count(CountStateHits)
		return s.handIn(st, nil)
	}
	s.host.Count(CountStateMisses)
	s.phase = phaseState
	s.host.Get(&storev1.Get{Entity: s.entity(), Subscribe: true}, s.left(StoreTimeout))
	return Wait
}

func (s *Stream) entity() *storev1.Entity {
	return &storev1.Entity{Type: s.method.typ.name, Key: s.key}
}

// Got is the answer to Get.
func (s *Stream) Got(st *storev1.State, others []*storev1.State, err *StoreError) {
	if s.phase != phaseState {
		return
	}
	if err != nil {
		s.resume(s.withoutState(err))
		return
	}
	s.resume(s.handIn(st, others))
}

// Begun is the answer to Begin.
func (s *Stream) Begun(b *storev1.Begun, err *StoreError) {
	if s.phase != phaseState {
		// The deadline came first: the turn is nobody's.
		if err == nil && b.GetToken() != "" {
			s.host.Abort(s.method.typ.name, s.key, b.GetToken())
		}
		return
	}
	if err != nil {
		s.resume(s.withoutState(err))
		return
	}
	s.token = b.GetToken()
	if b.GetAlreadyApplied() {
		s.refuse(codeAlreadyExists, "this request was applied before and its reply was lost; it was not run again", outcomeApplied)
		return
	}
	s.resume(s.handIn(b.GetState(), b.GetOthers()))
}

// resume carries out what was decided after the request had waited.
func (s *Stream) resume(a Action) {
	if a == Continue {
		s.host.ContinueRequest()
	}
}

// handIn gives the service its state and lets the request go on.
func (s *Stream) handIn(st *storev1.State, others []*storev1.State) Action {
	m := s.method
	if len(others) != len(s.others) {
		return s.refuse(codeInternal, "the store gave "+strconv.Itoa(len(others))+" further states, not "+strconv.Itoa(len(s.others)), outcomeNone)
	}
	s.version = st.GetVersion()
	in := stateIn(m.typ.name, s.key, st, nil)
	for i, other := range others {
		in.Others = append(in.Others, stateIn(m.typ.name, s.others[i], other, nil))
	}
	if m.service.carriage == configv1.Carriage_CARRIAGE_FIELD {
		if m.in == 0 {
			return s.forward()
		}
		payload, ok, err := statePayload(m, in)
		if err != nil {
			return s.refuse(codeInternal, err.Error(), outcomeNone)
		}
		return s.forwardWith(payload, ok)
	}
	value, err := stateHeader(m.service.carriage, in)
	if err != nil {
		code := int32(codeInternal)
		if errors.Is(err, errStateTooLarge) || errors.Is(err, errStatesTooLarge) {
			code = codeResourceExhausted
		}
		return s.refuse(code, err.Error(), outcomeNone)
	}
	name := headerStateBin
	if m.service.carriage == configv1.Carriage_CARRIAGE_METADATA_JSON {
		name = headerState
	}
	s.host.RequestHeaders().Set(name, value)
	return s.forward()
}

// forward lets the request go on; where it goes to the service, without what its sender may have put there as state.
func (s *Stream) forward() Action {
	if s.prepared && (s.method.in != 0 || s.method.out != 0) {
		return s.forwardWith(nil, false)
	}
	s.phase = phaseService
	s.req, s.message = nil, nil
	return Continue
}

// forwardWith replaces what the request's state_in field holds.
func (s *Stream) forwardWith(payload []byte, set bool) Action {
	msg, changed, err := s.withField(payload, set)
	if err != nil {
		return s.malformed("the request is no protobuf message")
	}
	h := s.host.RequestHeaders()
	if changed {
		body := grpcframe.Append(make([]byte, 0, len(msg)+grpcframe.HeaderSize+len(s.req)-s.frame), msg)
		s.host.SetRequestBody(append(body, s.req[s.frame:]...))
		h.Remove("content-length")
	}
	if s.method.out != 0 {
		// The reply has to be read. A service that compresses all the same is understood for gzip.
		h.Set("grpc-accept-encoding", "identity")
	}
	s.phase = phaseService
	s.req, s.message = nil, nil
	return Continue
}

// withField is the first message with payload as its state_in field, and no other.
func (s *Stream) withField(payload []byte, set bool) (msg []byte, changed bool, err error) {
	field := s.method.in
	if field == 0 {
		return s.message, false, nil
	}
	msg, _, _, err = statefield.Cut(s.message, field)
	if err != nil {
		return nil, false, err
	}
	if set {
		// Cut may answer with the request's own bytes, which must not be written to.
		msg = statefield.Append(msg[:len(msg):len(msg)], field, payload)
	}
	return msg, set || len(msg) != len(s.message), nil
}

// withoutState decides about a request whose state can't be had: another node, on without it, or an error.
func (s *Stream) withoutState(err *StoreError) Action {
	if err.Precondition {
		return s.refusePrecondition(err.Message)
	}
	if err.Code != codeUnavailable && err.Code != codeAborted {
		return s.refuse(err.Code, err.Message, outcomeNone)
	}
	s.host.Count(CountUnavailable)
	if s.cfg.edge && s.prepared {
		// Envoy's retries start only behind us, so the first try elsewhere is ours to choose.
		if hosts := s.elsewhere(); hosts != "" {
			s.prepared = false
			s.host.SetHosts(hosts)
			return s.forward()
		}
	}
	if s.method.typ.pass && !s.method.watch {
		s.prepared, s.absent = true, true
		if s.cfg.edge && len(s.method.service.addresses) > 0 {
			s.host.SetHosts(s.localAddress())
		}
		s.host.RequestHeaders().Set(headerStateStatus, "absent")
		return s.forward()
	}
	return s.refuse(err.Code, err.Message, outcomeNotApplied)
}

// release gives the entity's turn back where the request will not commit.
func (s *Stream) release() {
	if s.token != "" {
		s.host.Abort(s.method.typ.name, s.key, s.token)
		s.token = ""
	}
}

// Deadline is the caller's deadline.
func (s *Stream) Deadline() {
	if s.started {
		return
	}
	switch s.phase {
	case phaseMessage, phaseState, phaseHold:
		s.refuse(codeDeadlineExceeded, "deadline exceeded", outcomeNone)
	case phaseService:
		outcome := outcomeNone
		if !s.prepared && s.commits() && !s.method.readOnly {
			// Another node may be committing right now.
			outcome = outcomeUnknown
		}
		s.refuse(codeDeadlineExceeded, "deadline exceeded", outcome)
	case phaseCommit:
		s.host.Count(CountUnknown)
		s.refuse(codeDeadlineExceeded, "deadline exceeded while the change was being committed", outcomeUnknown)
	case phaseWatch:
		s.endWatch(codeDeadlineExceeded, "deadline exceeded", outcomeNone)
	}
}

// Closed ends the stream: the caller got its answer, or went away. A commit under way goes on.
func (s *Stream) Closed() {
	if s.phase == phaseWatch {
		s.stopWatch()
	}
	s.release()
	s.phase = phaseReplied
}

// refuse answers the caller with an error.
func (s *Stream) refuse(code int32, message, outcome string) Action {
	return s.reply(errorReply(s.rest, code, message, "holdfast"), outcome, false)
}

// reply answers the caller with an error. precondition says that it is the caller's own condition that does not hold.
func (s *Stream) reply(r *Reply, outcome string, precondition bool) Action {
	s.release()
	if s.phase != phaseCommit {
		s.host.Count(CountRefused)
	}
	s.phase = phaseReplied
	if precondition {
		r.Status = http.StatusPreconditionFailed
	}
	// not-applied is for the edge in front of us; the caller reads it from the status.
	if outcome != outcomeNone && (!s.cfg.edge || outcome != outcomeNotApplied) {
		r.Headers = append(r.Headers, [2]string{headerOutcome, outcome})
	}
	switch {
	case !s.cfg.edge:
		r.Headers = append(r.Headers, [2]string{headerServedBy, s.cfg.node})
		if precondition {
			r.Headers = append(r.Headers, [2]string{headerPrecondition, "failed"})
		}
	case s.explain && s.prepared:
		r.Headers = append(r.Headers, [2]string{headerExplain, "node=" + s.cfg.node})
	}
	s.host.LocalReply(r)
	return Replied
}
