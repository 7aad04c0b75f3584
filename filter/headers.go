package filter

import "strings"

// Our headers. Names are lower case, as Envoy has them.
const (
	headerPrefix      = "holdfast-"
	headerRequestID   = "holdfast-request-id"
	headerState       = "holdfast-state"
	headerStateBin    = "holdfast-state-bin"
	headerStateStatus = "holdfast-state-status"
	headerOutcome     = "holdfast-outcome"
	headerServedBy    = "holdfast-served-by"
	headerExplain     = "holdfast-explain"
	headerSession     = "holdfast-session"
	// The caller's if-match or if-none-match refused the request: a serve listener's word to the edge in front of it.
	headerPrecondition = "holdfast-precondition"
	headerETag         = "etag"
	// Set by Envoy's transcoder: the request came as REST. Edge listeners remove it from what comes in.
	headerOriginalMethod = "x-envoy-original-method"
)

// names collects header names to remove once the walk over the map has ended.
type names struct {
	at [8]string
	n  int
	// more holds the rest; forged headers have no bound but Envoy's own.
	more []string
}

func (n *names) add(name string) {
	name = known(name)
	if n.n < len(n.at) {
		n.at[n.n] = name
		n.n++
		return
	}
	n.more = append(n.more, name)
}

func (n *names) remove(h Headers) {
	for _, name := range n.at[:n.n] {
		h.Remove(name)
	}
	for _, name := range n.more {
		h.Remove(name)
	}
}

// known is name in our own memory.
func known(name string) string {
	switch name {
	case headerRequestID:
		return headerRequestID
	case headerState:
		return headerState
	case headerStateBin:
		return headerStateBin
	case headerStateStatus:
		return headerStateStatus
	case headerOutcome:
		return headerOutcome
	case headerServedBy:
		return headerServedBy
	}
	return strings.Clone(name)
}

func isGRPC(contentType string) bool {
	rest, ok := strings.CutPrefix(contentType, "application/grpc")
	return ok && (rest == "" || rest[0] == '+' || rest[0] == ';')
}
