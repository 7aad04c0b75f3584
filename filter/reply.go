package filter

import (
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-mesh/holdfast/filter/grpcframe"
	"github.com/holdfast-mesh/holdfast/filter/statefield"
	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
)

// ReplyHeaders begins the reply, which may be Envoy's own.
func (s *Stream) ReplyHeaders(h Headers, end bool) Action {
	if s.phase == phaseReplied || s.phase == phaseWatch {
		return Continue
	}
	var (
		grpc, isJSON                  bool
		grpcStatus, servedBy, outcome string
		unmatched, message            string
		strip                         names
	)
	h.All(func(name, value string) {
		switch name {
		case ":status":
			if value == "200" {
				s.replyStatus = 200
			} else {
				s.replyStatus, _ = strconv.Atoi(value)
			}
		case "content-type":
			grpc, isJSON = isGRPC(value), value == "application/json"
		case "grpc-status":
			grpcStatus = strings.Clone(value)
		case "grpc-message":
			message = strings.Clone(value)
		case "grpc-encoding":
			if value != "identity" {
				s.replyEncoding = strings.Clone(value)
			}
		default:
			if !strings.HasPrefix(name, headerPrefix) {
				return
			}
			switch name {
			case headerServedBy:
				servedBy = strings.Clone(value)
			case headerOutcome:
				outcome = strings.Clone(value)
			case headerPrecondition:
				unmatched = strings.Clone(value)
			case s.stateOutHeader():
				s.stateOut = strings.Clone(value)
			}
			strip.add(name)
		}
	})
	strip.remove(h)
	// A serve listener names itself in every reply, so an OK one without a name comes from this node's own service.
	here := s.prepared && servedBy == "" && s.replyStatus == 200 && grpcStatus == "" && !s.explain || s.answeredHere()
	if s.prepared && !here && s.cfg.edge {
		// Envoy tried this node in vain and another one served it, and committed.
		s.release()
		s.prepared = false
	}
	if s.rest && !here && unmatched != "" && s.phase == phaseService {
		// The transcoder would make 409 of it, as of any other ABORTED.
		return s.refusePrecondition(readable(message))
	}
	s.mark(h, here, servedBy, outcome, grpcStatus)
	if s.phase == phaseMessage || s.phase == phaseState {
		// Envoy answered by itself. What the store may still say finds no request that waits.
		s.release()
		s.phase = phaseReplied
	}
	if !here && servedBy == "" && s.phase != phaseReplied {
		s.lost = s.lostAfterSent()
	}
	if s.lost != "" {
		s.host.Count(CountUnknown)
		h.Set(headerOutcome, outcomeUnknown)
		if grpcStatus != "" {
			h.Set("grpc-status", strconv.Itoa(codeDeadlineExceeded))
			h.Set("grpc-message", s.lost)
		} else {
			s.replyStatus = httpStatus(codeDeadlineExceeded)
			h.Set(":status", strconv.Itoa(s.replyStatus))
		}
	}
	if s.rest && !grpc && (!isJSON || s.lost != "") && s.replyStatus >= 400 && !end {
		// Envoy's own error, as text: a REST caller gets the form that it gets everywhere else.
		s.release()
		s.phase, s.asJSON = phaseHold, true
		h.Set("content-type", "application/json")
		h.Remove("content-length")
		return Wait
	}
	if s.method == nil || !s.prepared {
		s.started = true
		return Continue
	}
	if s.replyStatus != 200 || !grpc || end && grpcStatus != "0" {
		s.release()
		s.started = true
		return Continue
	}
	if end {
		return s.finish()
	}
	// A server stream that is only routed can't be held: it may never end.
	if !s.method.watch && (s.commits() || s.method.out != 0) {
		s.phase = phaseHold
		if s.method.out != 0 {
			h.Remove("content-length")
		}
		return Wait
	}
	s.setVersion(h)
	s.started = true
	return Continue
}

// lostMessage and lateMessage are what the caller of a write is told when another node had it and did not answer.
const (
	lostMessage = "whether the change was committed is unknown: the node that had the request was lost"
	lateMessage = "deadline exceeded: whether the change was committed is unknown"
)

// lostAfterSent is set where a reply of Envoy's own takes the place of another node's, which may have committed.
func (s *Stream) lostAfterSent() (message string) {
	if !s.cfg.edge || s.method == nil || !s.commits() || s.method.readOnly || s.method.watch {
		return ""
	}
	details := s.host.ReplyDetails()
	// What came from the other node, an error too, is "via_upstream".
	switch {
	case details == "max_duration_timeout":
		return lateMessage
	case strings.HasPrefix(details, "upstream_") && !neverSent(details):
		return lostMessage
	default:
		return ""
	}
}

// stateOutHeader is the name of the trailer that the service's changes come in, "" where they come otherwise.
func (s *Stream) stateOutHeader() string {
	if s.method == nil {
		return ""
	}
	switch s.method.service.carriage {
	case configv1.Carriage_CARRIAGE_METADATA_PROTO:
		return headerStateBin
	case configv1.Carriage_CARRIAGE_METADATA_JSON:
		return headerState
	default:
		return ""
	}
}

// answeredHere reports whether one of this node's own services answered.
func (s *Stream) answeredHere() bool {
	if !s.cfg.edge {
		return true
	}
	if !s.cfg.serve {
		return false
	}
	up := s.host.Upstream()
	if s.method != nil {
		return s.method.service.here(up)
	}
	for _, svc := range s.cfg.services {
		if svc.here(up) {
			return true
		}
	}
	return false
}

// mark adds what the next one has to know: an edge in front of us, or a caller who asked.
func (s *Stream) mark(h Headers, here bool, servedBy, outcome, grpcStatus string) {
	if !s.cfg.edge {
		h.Set(headerServedBy, s.cfg.node)
		if s.replyStatus != 200 || grpcStatus != "" && grpcStatus != "0" {
			if neverSent(s.host.ReplyDetails()) {
				h.Set(headerOutcome, outcomeNotApplied)
			}
		}
		return
	}
	// What a service says as ours was cut above; a serve listener's word is taken.
	if !here && (outcome == outcomeUnknown || outcome == outcomeApplied) {
		h.Set(headerOutcome, outcome)
	}
	if s.explain {
		if here {
			servedBy = s.cfg.node
		}
		if servedBy != "" {
			h.Set(headerExplain, "node="+servedBy)
		}
	}
}

// neverSent reads from Envoy's words whether the request certainly never reached the service. The words of a reset
// that may have come later are not listed.
func neverSent(details string) bool {
	details = details[:min(len(details), MaxCodeDetails)]
	if details == "no_healthy_upstream" || details == "cluster_not_found" {
		return true
	}
	reason, ok := strings.CutPrefix(details, "upstream_reset_before_response_started{")
	if !ok {
		return false
	}
	for _, never := range []string{"connection_failure", "connection_timeout", "local_connection_failure", "remote_connection_failure", "remote_refused_stream_reset", "overflow"} {
		if tail, ok := strings.CutPrefix(reason, never); ok && (tail == "}" || strings.HasPrefix(tail, "|")) {
			return true
		}
	}
	return false
}

// ReplyBody takes a piece of the reply's body.
func (s *Stream) ReplyBody(b Body, end bool) Action {
	if s.phase != phaseHold {
		if s.phase == phaseCommit {
			return Wait
		}
		return Continue
	}
	if s.asJSON || s.method.out != 0 {
		s.rep = b.AppendTo(s.rep)
		if len(s.rep) > MaxMessage+grpcframe.HeaderSize {
			return s.refuse(codeInternal, "reply "+errTooLarge.Error(), outcomeNone)
		}
	}
	if !end {
		return Wait
	}
	s.started = true
	if s.asJSON {
		s.phase = phaseReplied
		message := string(s.rep)
		if s.lost != "" {
			message = s.lost
		}
		s.host.SetReplyBody(statusJSON(rpcCode(s.replyStatus), message))
		return Continue
	}
	// A gRPC reply has its status in trailers; without one it isn't OK.
	s.release()
	s.phase = phaseReplied
	return Continue
}

// ReplyTrailers ends the reply.
func (s *Stream) ReplyTrailers(h Headers) Action {
	if s.phase == phaseWatch {
		return Continue
	}
	var (
		ok    bool
		strip names
	)
	h.All(func(name, value string) {
		switch {
		case name == "grpc-status":
			ok = value == "0"
		case strings.HasPrefix(name, headerPrefix):
			if name == s.stateOutHeader() {
				s.stateOut = strings.Clone(value)
			}
			strip.add(name)
		}
	})
	strip.remove(h)
	if s.phase != phaseHold {
		return Continue
	}
	if s.asJSON || !ok {
		s.release()
		s.phase, s.started = phaseReplied, true
		return Continue
	}
	return s.finish()
}

// finish takes the changes out of an OK reply that has arrived whole, and commits them.
func (s *Stream) finish() Action {
	out, err := s.changes()
	switch {
	case err != nil:
		return s.refuse(codeInternal, err.Error(), outcomeNone)
	case !s.commits() || !changes(out):
		s.setVersion(s.host.ReplyHeaders())
		s.release()
		s.phase, s.started = phaseReplied, true
		return Continue
	case s.method.readOnly:
		return s.refuse(codeInternal, "the service changed state in a method that is declared to have no side effects", outcomeNone)
	case s.absent:
		return s.refuse(codeUnavailable, "the change can't be committed: the store is not there", outcomeNotApplied)
	}
	s.phase, s.expects = phaseCommit, expects(out)
	// From here on the turn is the commit's: nothing that happens to the caller may take it away.
	s.spent, s.token = s.token, ""
	timeout := s.left(CommitTimeout)
	s.host.Commit(&storev1.Commit{
		Entity:     s.entity(),
		RequestId:  s.requestID,
		Token:      s.spent,
		Operations: out.GetOperations(),
		Others:     out.GetOthers(),
		TimeoutMs:  uint32(max(timeout-min(timeout/10, CommitMargin), time.Millisecond).Milliseconds()),
	}, timeout)
	return Wait
}

var errReplyFrame = errors.New("the service's reply is no gRPC message")

// takeStateOut reads the changes, and cuts them out where they are in the message.
func (s *Stream) takeStateOut() (*holdfastv1.StateOut, error) {
	m := s.method
	if m.service.carriage != configv1.Carriage_CARRIAGE_FIELD {
		if s.stateOut == "" || !s.commits() {
			return nil, nil
		}
		return parseStateOut(m.service.carriage, s.stateOut)
	}
	if m.out == 0 || len(s.rep) == 0 {
		return nil, nil
	}
	msg, compressed, rest, err := grpcframe.Parse(s.rep, MaxMessage)
	if err != nil {
		return nil, errReplyFrame
	}
	if compressed {
		if msg, err = plain(msg, s.replyEncoding); err != nil {
			return nil, errors.New("the service's reply: " + err.Error())
		}
	}
	cut, payload, found, err := statefield.Cut(msg, m.out)
	if err != nil {
		return nil, errReplyFrame
	}
	if len(cut) != len(msg) {
		body := grpcframe.Append(make([]byte, 0, grpcframe.HeaderSize+len(cut)+len(rest)), cut)
		s.host.SetReplyBody(append(body, rest...))
	}
	if !found || !s.commits() {
		return nil, nil
	}
	return parseStateField(m, payload)
}

// Committed is the answer to Commit.
func (s *Stream) Committed(c *storev1.Committed, err *StoreError) {
	if s.phase != phaseCommit {
		// The caller was told "unknown" at its deadline.
		return
	}
	if err == nil {
		s.host.Count(CountCommits)
		s.phase, s.started = phaseReplied, true
		s.version = c.GetState().GetVersion()
		s.setVersion(s.host.ReplyHeaders())
		s.host.ContinueReply()
		return
	}
	if err.Outcome == storev1.Outcome_OUTCOME_APPLIED {
		s.host.Count(CountCommits)
		s.refuse(codeAlreadyExists, "the change was committed, and its reply was lost: "+err.Message, outcomeApplied)
		return
	}
	if err.Outcome == storev1.Outcome_OUTCOME_UNKNOWN {
		s.host.Count(CountUnknown)
		s.refuse(codeDeadlineExceeded, "whether the change was committed is unknown: "+err.Message, outcomeUnknown)
		return
	}
	s.host.Count(CountCommitsFailed)
	// The store may have ended the turn with its refusal; giving back what is gone does nothing.
	s.token = s.spent
	outcome := outcomeNone
	// Who expected another sequence expects it at any node.
	if err.Code == codeUnavailable || err.Code == codeAborted && !s.expects {
		outcome = outcomeNotApplied
	}
	s.refuse(err.Code, err.Message, outcome)
}
