package filter

import (
	"time"

	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
)

// Action is what the host does with what it handed in.
type Action uint8

const (
	// Continue lets it pass, with whatever was held before it.
	Continue Action = iota
	// Wait holds it: more bytes are needed, or an answer of the store.
	Wait
	// Replied says that the stream was answered with LocalReply and what was handed in must not go on.
	Replied
)

// Headers is one header or trailer map of the stream.
type Headers interface {
	// All calls yield for each header. The strings are valid only until yield returns, and the map must not be changed
	// meanwhile.
	All(yield func(name, value string))
	// Set replaces every value of the name.
	Set(name, value string)
	Remove(name string)
}

// Body is a piece of a body that has just arrived.
type Body interface {
	// AppendTo appends a copy of the piece to dst.
	AppendTo(dst []byte) []byte
}

// Host carries out a stream's effects. All methods are called on the stream's thread from within the stream's inputs
// and must not block, nor call back into the stream. It is one interface, larger than most, because all of it is
// one thing seen from here: the proxy's side of one stream.
type Host interface {
	Proxy
	Store
	Handler
}

// Proxy is the HTTP stream itself.
type Proxy interface {
	RequestHeaders() Headers
	ReplyHeaders() Headers
	ReplyTrailers() Headers
	// SetRequestBody replaces everything of the request's body that has arrived so far. Valid inside RequestBody and
	// while the request waits; the host copies b before it returns. SetReplyBody is the same for the reply.
	SetRequestBody(b []byte)
	SetReplyBody(b []byte)
	// SetHosts gives Envoy's override_host policy the addresses to try, comma separated, in order.
	SetHosts(hosts string)
	// ContinueRequest and ContinueReply let go on what waits. They are called only outside the stream's Envoy inputs.
	ContinueRequest()
	ContinueReply()
	LocalReply(r *Reply)
	// Caller is who sent the request: the identity of its certificate, else its address.
	Caller() string
	// Upstream is the address that answered, as Envoy's host map spells it, or "".
	Upstream() string
	// ReplyDetails are Envoy's words for where the reply came from, such as "via_upstream".
	ReplyDetails() string
	// SetDeadline says that the caller waits for d. Where the stream then waits for the store, Deadline is called in time;
	// elsewhere either that or the proxy answers by itself, with the reply details "max_duration_timeout".
	SetDeadline(d time.Duration)
	Now() time.Time
	// Random is 128 bits that no one can guess.
	Random() [16]byte
	// Rotate counts up, for choosing evenly among equals.
	Rotate() uint32
	Count(c Counter)
}

// Store is this node's store. Requests are the host's from then on. The answers of Get, Begin and Commit come through the stream's Got, Begun and Committed,
// later, each exactly once while the stream lives; what arrives afterwards is the host's to dispose of: it must
// abort the token of a late Begun.
type Store interface {
	StoreUp() bool
	Cached(entityType, key string) (*storev1.State, bool)
	Get(req *storev1.Get, timeout time.Duration)
	Begin(req *storev1.Begin, timeout time.Duration)
	Commit(req *storev1.Commit, timeout time.Duration)
	Abort(entityType, key, token string)
}

// Handler makes a watch's calls to the service.
type Handler interface {
	// Watch asks for the entity's state now and at each change, through the stream's Changed, until Unwatch.
	Watch(entityType, key string)
	Unwatch()
	// StartCall sends one whole request; its events come through the stream's Call methods, never before StartCall has returned.
	StartCall(cluster string, headers [][2]string, body []byte) (id uint64, ok bool)
	ResetCall(id uint64)
	SendHeaders(headers [][2]string)
	SendData(b []byte)
	SendTrailers(trailers [][2]string)
}

// StoreError is why the store did not do what it was asked.
type StoreError struct {
	// Code is a google.rpc.Code.
	Code    int32
	Message string
	Outcome storev1.Outcome
	// Precondition says that the caller's if-match or if-none-match refused the request.
	Precondition bool
}

// Reply is an answer that the filter gives itself.
type Reply struct {
	Status  int
	Headers [][2]string
	Body    []byte
	// Details names the reason in Envoy's access log.
	Details string
}

// Counter is something that the filter counts.
type Counter uint8

// The counters. The host exports each under its name.
const (
	CountRequests Counter = iota
	CountRefused
	CountCommits
	CountCommitsFailed
	CountUnknown
	CountStateHits
	CountStateMisses
	CountUnavailable
	CountWatchCalls
	Counters
)

// String is the counter's name in Envoy's statistics.
func (c Counter) String() string {
	return [...]string{
		"holdfast_requests", "holdfast_refused", "holdfast_commits", "holdfast_commits_failed",
		"holdfast_outcomes_unknown", "holdfast_state_hits", "holdfast_state_misses", "holdfast_unavailable",
		"holdfast_watch_calls",
	}[c]
}
