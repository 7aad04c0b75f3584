package serve

import "time"

const (
	// maxConnections of the socket: an Envoy has one per worker and filter instance, and tools a few.
	maxConnections = 256
	// maxInFlight is how many requests of one connection may be unanswered; one over it is refused. A strong command
	// takes two, so it covers 500 waiting callers.
	maxInFlight = 1024
	// maxSubscriptions of one connection: as many as the filter's cache holds, and some.
	maxSubscriptions = 16384
	// maxOutgoing is how many bytes may wait for a connection that does not read; over it the connection is closed.
	maxOutgoing = 64 << 20
	// writeBatch is about how many bytes one write to the socket carries.
	writeBatch = 64 << 10
	// defaultTimeout is for calls that name none, maxTimeout the longest that one may name.
	defaultTimeout = 5 * time.Second
	maxTimeout     = 5 * time.Minute
	// closeGrace is how long Close waits for what is under way.
	closeGrace = 5 * time.Second
)
