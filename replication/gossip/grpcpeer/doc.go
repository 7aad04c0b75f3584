// Package grpcpeer carries the streams and forwarded calls between stores over gRPC (holdfast.replication.v1.Replication).
//
// Addresses are Unix sockets ("unix:/path", or a plain absolute path), where both ends check that the other is the same
// user's process, or "host:port", which needs transport credentials. The store's main program makes a Client (package
// gossip's Dialer and the engine's forwarder) and a Server (whose listener it opens).
package grpcpeer

import "time"

const (
	// maxMessageBytes bounds what is received. Package gossip makes messages of 256 KiB, but a single state may be larger.
	maxMessageBytes = 16 << 20
	// maxStreams bounds the calls and streams under way on one connection.
	maxStreams = 4096
	// pingAfter and pingTimeout find a peer that vanished without closing its connection; pingMin is the fastest that a
	// server lets its peers do it.
	pingAfter   = 10 * time.Second
	pingTimeout = 3 * time.Second
	pingMin     = 5 * time.Second
	// liveEvery is how often a call that takes long asks whether its node is still a live member.
	liveEvery = 250 * time.Millisecond
	// reconnectMin and reconnectMax bound the pause between attempts to reach a store that calls are forwarded to.
	reconnectMin = 25 * time.Millisecond
	reconnectMax = time.Second
	// connectTimeout bounds one attempt.
	connectTimeout = 2 * time.Second
)
