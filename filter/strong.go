package filter

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/holdfast-mesh/holdfast/filter/entitykey"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
)

// prepareStrong asks the store for the state of strong entities, with the turn where they may be changed.
func (s *Stream) prepareStrong() Action {
	match, absent, why := s.precondition()
	if why != "" {
		return s.refuse(codeInvalidArgument, why, outcomeNone)
	}
	s.phase = phaseState
	if !s.writes() {
		s.host.Get(&storev1.Get{Entity: s.entity(), Others: s.others, IfMatch: match}, s.left(StoreTimeout))
		return Wait
	}
	s.host.Begin(&storev1.Begin{
		Entity: s.entity(), Others: s.others, RequestId: s.requestID, IfMatch: match, IfNoneMatch: absent,
	}, s.left(TurnTimeout))
	return Wait
}

// writes reports whether the request may change state.
func (s *Stream) writes() bool { return s.commits() && !s.method.readOnly }

// precondition is what the caller wants of the entity's version: match to be this one ("*": any), and absent not to exist.
// why is what is wrong with how it says so.
func (s *Stream) precondition() (match string, absent bool, why string) {
	if s.ifMatch == "" && s.ifNoneMatch == "" {
		return "", false, ""
	}
	if s.ifMatches {
		return "", false, "if-match or if-none-match is given twice"
	}
	match = s.ifMatch
	n := len(match)
	quoted := n >= 2 && match[0] == '"' && match[n-1] == '"'
	if quoted {
		match = match[1 : n-1]
	}
	switch {
	case s.ifMatch != "" && match == "", quoted && match == "*", len(match) > MaxVersion, strings.Contains(match, ","):
		return "", false, "if-match takes one version, as a reply's etag has it, or *"
	case !s.writes():
		// That a caller has a reply already is no reason to refuse it another.
		return match, false, ""
	case s.ifNoneMatch != "" && s.ifNoneMatch != "*":
		return "", false, "if-none-match takes * only: the entity does not exist"
	}
	return match, s.ifNoneMatch == "*", ""
}

// refusePrecondition answers a caller whose if-match or if-none-match does not hold.
func (s *Stream) refusePrecondition(message string) Action {
	return s.reply(errorReply(s.rest, codeAborted, message, "holdfast"), outcomeNone, true)
}

// refuseOthers answers a caller whose request does not name further entities as it should.
func (s *Stream) refuseOthers(err error) Action {
	switch {
	case errors.Is(err, entitykey.ErrTooMany):
		return s.refuse(codeResourceExhausted, "the request names "+err.Error(), outcomeNone)
	case errors.Is(err, entitykey.ErrTwice):
		return s.refuse(codeInvalidArgument, "the request names an entity twice, and each of them is one part of the change", outcomeNone)
	default:
		return s.refuse(codeInvalidArgument, "the key of a further entity is malformed or empty", outcomeNone)
	}
}

// changes reads the service's changes and checks that they are to entities that the request names.
func (s *Stream) changes() (*holdfastv1.StateOut, error) {
	out, err := s.takeStateOut()
	for _, o := range out.GetOthers() {
		if !slices.Contains(s.others, o.GetKey()) {
			return nil, fmt.Errorf("the service changed the entity %q, which the request does not name", o.GetKey())
		}
	}
	return out, err
}

// expects reports whether state out is refused where an entity has another sequence than the service thought.
func expects(out *holdfastv1.StateOut) bool {
	in := func(ops []*holdfastv1.Operation) bool {
		return slices.ContainsFunc(ops, func(o *holdfastv1.Operation) bool {
			return o.GetAppend() != nil && o.GetAppend().ExpectedSequence != nil
		})
	}
	return in(out.GetOperations()) || slices.ContainsFunc(out.GetOthers(), func(o *holdfastv1.EntityOut) bool { return in(o.GetOperations()) })
}

// setVersion tells the caller the version of the strong entity that it was answered from, or has made.
func (s *Stream) setVersion(h Headers) {
	switch {
	case !s.method.typ.strong || !s.wantsState():
	case s.version == "":
		h.Remove(headerETag)
	default:
		h.Set(headerETag, `"`+s.version+`"`)
	}
}
