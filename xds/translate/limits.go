package translate

import "time"

const (
	// maxStreamBuffer is what one request or reply may take in an Envoy: the largest message that gRPC servers accept by
	// default (4 MiB) with the largest state (1 MiB) added to it.
	maxStreamBuffer = 5 << 20

	// edgeStreams bounds the calls on one caller's connection. A load generator or a browser's proxy shares one connection
	// among many, watches stay open: 100 would be a common cause of stalls, and memory is bounded by edgeConnectionWindow.
	edgeStreams = 1024
	// hopStreams is the same between our own Envoys, where one connection carries all callers of an edge. Only what
	// Envoy can handle bounds it: a lower number opens more connections, and protects nothing.
	hopStreams = 1 << 16
	// What a peer may send ahead of us, per stream and per connection.
	edgeStreamWindow     = 256 << 10
	edgeConnectionWindow = 4 << 20
	hopStreamWindow      = 1 << 20
	hopConnectionWindow  = 64 << 20

	maxHeadersKB    = 60
	maxHeadersCount = 100

	// maxRetries: the first node, and five others at most. Each is tried because nothing was applied before.
	maxRetries = 5
	// Retries go to another node, so there is little to wait for.
	retryBase = 5 * time.Millisecond
	retryMax  = 50 * time.Millisecond

	// connectTimeout is how long a dead node may hold a request up.
	connectTimeout = 250 * time.Millisecond
	// maxUpstream bounds the requests, the connections and the retries under way to one cluster. A watch is a request, so
	// it is no less than hopStreams.
	maxUpstream = 1 << 16

	// A peer that is gone without a word is noticed after their sum.
	keepAliveInterval = 20 * time.Second
	keepAliveTimeout  = 10 * time.Second
	// headersTimeout ends connections that send their headers one byte at a time.
	headersTimeout = 10 * time.Second
	// streamIdle ends calls in which nothing moves; methods that stream are excepted.
	streamIdle = 5 * time.Minute
)
