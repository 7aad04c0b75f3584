package filter

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-mesh/holdfast/filter/entitykey"
	"github.com/holdfast-mesh/holdfast/filter/grpcframe"
	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
)

type phase uint8

const (
	phasePass    phase = iota // nothing to decide but what leaves the reply
	phaseMessage              // the request waits for its first message's end
	phaseState                // the request waits for the store
	phaseService              // the request is with the service, or on its way to another node
	phaseHold                 // the reply waits for its own end
	phaseCommit               // the reply waits for the commit
	phaseReplied              // the answer has been decided
	phaseWatch                // the stream is answered by handler calls
)

// Stream is the machine of one HTTP stream. Its methods are called on one thread.
type Stream struct {
	cfg    *Config
	host   Host
	method *method

	phase    phase
	rest     bool // the caller speaks REST: errors are JSON
	explain  bool
	prepared bool // this node gave the state, and commits
	absent   bool // the request went on without its state
	asJSON   bool // an error that Envoy made is being turned into JSON
	started  bool // the reply's headers have left

	deadline                     time.Time // zero: the caller set none
	key, requestID, token, spent string
	idempotency, encoding        string
	ifMatch, ifNoneMatch         string // as the caller wrote them
	ifMatches                    bool   // there is more than one of either
	// others are the keys of further entities.
	others []string
	// expects: the service's changes name the sequence that they follow.
	expects bool
	// version of a strong entity whose state was given.
	version                 string
	replyEncoding, stateOut string
	lost                    string // why another node, which may have committed, has not answered
	replyStatus             int

	// req is the request's body so far, until the request has gone on; frame is the length of its first frame, and
	// message that frame's message, decompressed.
	req     []byte
	frame   int
	message []byte
	// rep is the reply's body so far, where it has to be read.
	rep []byte

	watch *watch
}

// NewStream is the machine of a new stream.
func NewStream(cfg *Config, host Host) *Stream { return &Stream{cfg: cfg, host: host} }

// wantsState reports whether the service's mode gives it state.
func (s *Stream) wantsState() bool {
	return s.method.service.mode >= configv1.Mode_MODE_ENRICH
}

// commits reports whether a reply's state out is to be committed.
func (s *Stream) commits() bool {
	return s.method.service.mode == configv1.Mode_MODE_COMMIT
}

// RequestHeaders begins the stream.
func (s *Stream) RequestHeaders(h Headers, end bool) Action {
	var (
		grpc, odd, timed, badTime bool
		svc                       *service
		timeout                   time.Duration
		strip                     names
	)
	h.All(func(name, value string) {
		switch name {
		case ":path":
			if s.method = s.cfg.methods[value]; s.method != nil {
				svc = s.method.service
			} else {
				svc, odd = s.cfg.find(value)
			}
		case "content-type":
			grpc = isGRPC(value)
		case "grpc-timeout":
			d, ok := parseTimeout(value)
			timeout, timed, badTime = d, true, !ok
		case "grpc-encoding":
			if value != "identity" {
				s.encoding = strings.Clone(value)
			}
		case "idempotency-key":
			if s.idempotency == "" {
				s.idempotency = strings.Clone(value)
			}
		case "if-match":
			s.ifMatches = s.ifMatches || s.ifMatch != ""
			s.ifMatch = strings.Clone(value)
		case "if-none-match":
			s.ifMatches = s.ifMatches || s.ifNoneMatch != ""
			s.ifNoneMatch = strings.Clone(value)
		case headerOriginalMethod:
			s.rest = s.cfg.edge
		default:
			if !strings.HasPrefix(name, headerPrefix) {
				return
			}
			switch {
			case name == headerExplain:
				s.explain = s.cfg.edge
			case name == headerSession:
			case s.cfg.edge, name != headerRequestID:
				strip.add(name)
			default:
				s.requestID = strings.Clone(value)
			}
		}
	})
	strip.remove(h)
	observe := svc != nil && svc.mode == configv1.Mode_MODE_OBSERVE
	if svc != nil && !observe && (odd || s.method != nil && !grpc) {
		// A service that speaks other protocols on the same paths, or is lax about paths, would run the method without
		// its state.
		s.rest = s.rest || !grpc
		return s.refuse(codeUnimplemented, "this method is served as gRPC only, under its exact path", outcomeNone)
	}
	if !grpc || svc == nil {
		s.method = nil
		return Continue
	}
	if s.method == nil || observe && s.method.in == 0 && s.method.out == 0 {
		if s.method != nil {
			s.host.Count(CountRequests)
			s.method = nil
		}
		s.stayHere(svc)
		return Continue
	}
	s.host.Count(CountRequests)
	switch {
	case !timed:
	case badTime:
		return s.refuse(codeInvalidArgument, "malformed grpc-timeout", outcomeNone)
	case timeout <= 0:
		return s.refuse(codeDeadlineExceeded, "deadline exceeded", outcomeNone)
	default:
		s.deadline = s.host.Now().Add(timeout)
		s.host.SetDeadline(timeout)
	}
	if len(s.idempotency) > MaxIdempotencyKey {
		return s.refuse(codeInvalidArgument, "idempotency-key is longer than "+strconv.Itoa(MaxIdempotencyKey)+" bytes", outcomeNone)
	}
	if end {
		return s.malformed("the request has no message")
	}
	s.phase = phaseMessage
	return Wait
}

// find is the service of a path that is none of the methods'. odd says that the path is not one that gRPC has.
func (c *Config) find(path string) (svc *service, odd bool) {
	name, method, ok := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	if !ok {
		return nil, false
	}
	for _, b := range []byte(method) {
		if b != '_' && (b < '0' || b > '9') && (b < 'A' || b > 'Z') && (b < 'a' || b > 'z') {
			odd = true
		}
	}
	return c.services[name], odd || path[0] != '/'
}

// stayHere keeps a request without a key on the node that it entered.
func (s *Stream) stayHere(svc *service) {
	if !s.cfg.edge || len(svc.addresses) == 0 {
		return
	}
	s.host.SetHosts(svc.addresses[int(s.host.Rotate()%uint32(len(svc.addresses)))])
}

// RequestBody takes a piece of the request's body.
func (s *Stream) RequestBody(b Body, end bool) Action {
	switch s.phase {
	case phaseMessage:
	case phaseState:
		s.req = b.AppendTo(s.req)
		return Wait
	case phaseReplied:
		return Replied
	case phaseWatch:
		return Wait
	default:
		return Continue
	}
	s.req = b.AppendTo(s.req)
	msg, compressed, rest, err := grpcframe.Parse(s.req, MaxMessage)
	switch {
	case err == nil:
	case errors.Is(err, grpcframe.ErrIncomplete):
		if !end {
			return Wait
		}
		return s.malformed("the request ended within its first message")
	case errors.Is(err, grpcframe.ErrTooLarge):
		return s.refuse(codeResourceExhausted, "request "+errTooLarge.Error(), outcomeNone)
	default:
		return s.malformed("the request's body is no gRPC message")
	}
	s.frame = len(s.req) - len(rest)
	s.message = msg
	if compressed {
		if s.message, err = plain(msg, s.encoding); err != nil {
			return s.refuse(encodingCode(err), "request: "+err.Error(), outcomeNone)
		}
	}
	return s.route()
}

func encodingCode(err error) int32 {
	switch {
	case errors.Is(err, errEncoding):
		return codeUnimplemented
	case errors.Is(err, errTooLarge):
		return codeResourceExhausted
	default:
		return codeInvalidArgument
	}
}

// RequestTrailers ends the request. gRPC has no request trailers, but HTTP/2 has.
func (s *Stream) RequestTrailers(Headers) Action {
	switch s.phase {
	case phaseMessage:
		return s.malformed("the request ended within its first message")
	case phaseState, phaseWatch:
		return Wait
	case phaseReplied:
		return Replied
	default:
		return Continue
	}
}

// malformed refuses a request that can't be read, unless the service is only observed.
func (s *Stream) malformed(why string) Action {
	if s.method.service.mode == configv1.Mode_MODE_OBSERVE {
		return s.passOn()
	}
	return s.refuse(codeInvalidArgument, why, outcomeNone)
}

// passOn lets a request go on untouched.
func (s *Stream) passOn() Action {
	s.stayHere(s.method.service)
	s.method, s.req, s.message = nil, nil, nil
	s.phase = phasePass
	return Continue
}

// route finds the key of the first message and sends the request on its way.
func (s *Stream) route() Action {
	observe := s.method.service.mode == configv1.Mode_MODE_OBSERVE
	if observe {
		s.stayHere(s.method.service)
		s.prepared = s.cfg.serve
		return s.forward()
	}
	key, err := s.findKey()
	if err != nil {
		why := "the entity key is malformed"
		if errors.Is(err, entitykey.ErrAbsent) {
			why = "the request names no entity: its key field (or header) is empty"
		}
		return s.refuse(codeInvalidArgument, why, outcomeNone)
	}
	s.key = key
	if s.method.others != nil && s.wantsState() {
		if s.others, err = s.method.others.FromMessage(s.message, key); err != nil {
			return s.refuseOthers(err)
		}
	}
	// A read may run twice, so nobody asks for its id.
	if !s.method.readOnly && (s.cfg.edge || s.requestID == "") {
		s.requestID = s.newRequestID()
		s.host.RequestHeaders().Set(headerRequestID, s.requestID)
	}
	serve, hosts := s.choose()
	if hosts != "" {
		s.host.SetHosts(hosts)
	}
	if serve {
		return s.prepare()
	}
	if hosts == "" {
		return s.withoutState(&StoreError{Code: codeUnavailable, Message: "the store of this node is not there, and no other node may serve this entity"})
	}
	return s.forward()
}

func (s *Stream) findKey() (string, error) {
	name := s.method.key.Header()
	if name == "" {
		return s.method.key.FromMessage(s.message)
	}
	var value string
	s.host.RequestHeaders().All(func(n, v string) {
		// The last one wins, as with message fields.
		if n == name {
			value = strings.Clone(v)
		}
	})
	return entitykey.FromHeader(value)
}

// newRequestID is random, or the same for the same caller's same Idempotency-Key on the same entity and method: then a
// repeated request is recognised as the one that it repeats, and nobody can guess another caller's.
func (s *Stream) newRequestID() string {
	if s.idempotency == "" {
		id := s.host.Random()
		var digits [2 * len(id)]byte
		hex.Encode(digits[:], id[:])
		return string(digits[:])
	}
	h := sha256.New()
	for _, part := range []string{s.host.Caller(), s.method.path, s.key, s.idempotency} {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(part)))
		h.Write(n[:])
		h.Write([]byte(part))
	}
	// The letter keeps the two kinds apart.
	return "k" + hex.EncodeToString(h.Sum(nil)[:16])
}

// parseTimeout reads a grpc-timeout: at most eight digits and a unit.
func parseTimeout(v string) (time.Duration, bool) {
	if len(v) < 2 || len(v) > 9 {
		return 0, false
	}
	n, err := strconv.ParseUint(v[:len(v)-1], 10, 32)
	if err != nil {
		return 0, false
	}
	var unit time.Duration
	switch v[len(v)-1] {
	case 'H':
		unit = time.Hour
	case 'M':
		unit = time.Minute
	case 'S':
		unit = time.Second
	case 'm':
		unit = time.Millisecond
	case 'u':
		unit = time.Microsecond
	case 'n':
		unit = time.Nanosecond
	default:
		return 0, false
	}
	if n > uint64(MaxTimeout/unit) {
		return MaxTimeout, true
	}
	return time.Duration(n) * unit, true
}

// left is how long a call of the store may take.
func (s *Stream) left(most time.Duration) time.Duration {
	if s.deadline.IsZero() {
		return most
	}
	// The client of the store takes no zero; Deadline is about to come anyway.
	return max(s.deadline.Sub(s.host.Now()), time.Millisecond)
}
