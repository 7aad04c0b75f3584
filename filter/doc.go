// Package filter decides what happens to one request in Envoy: which node serves it, what state the service gets with
// it, and whether its reply may leave.
//
// It is a pure state machine. A host (filter/host/dynmod) feeds a [Stream] the bytes and results of one HTTP stream,
// always on that stream's thread, and carries out the effects that the stream asks for through [Host]. The package
// starts no goroutine, reads no clock, draws no random number, never waits and never logs. Bytes from outside are
// bounded by limits.go and never cause a panic.
//
// The way of a keyed request, in the order of the files:
//
//	config.go    FilterConfig → Config, checked whole: the control plane runs the same parser before it sends one
//	headers.go   our headers
//	stream.go    request headers, body: strip what outsiders forged, find the key, stamp the request id
//	choose.go    which nodes may serve it, in which order; Envoy follows the list through its retries
//	serve.go     where this node serves it: state in, from the cache or the store
//	strong.go    strong entities: the turn, versions as ETags, preconditions, several as one
//	reply.go     state out, commit, then the reply; or the error instead of the reply
//	watch.go     a server stream: one handler call after another, each with the newest state
//	carriage.go  the forms of state in and state out
//	refuse.go    errors for gRPC and for REST callers
//
// What must hold: a reply leaves only after its state out is committed; a status other than OK commits nothing; a commit
// under way is never cancelled; nobody outside can send state; holdfast-outcome: not-applied is said only where that is
// proven, because Envoy then sends the request again.
//
// The package has more than 1,500 lines because the machine is one decision and its states are of no use alone.
package filter
