// Package grpcpeer carries the streams and forwarded calls between stores over gRPC (holdfast.replication.v1.Replication).
//
// Addresses are Unix sockets ("unix:/path", or a plain absolute path), where both ends check that the other is the same
// user's process, or "host:port", where both ends show a certificate of the mesh (internal/identity): who dials for a call
// takes only the node that it means, and on a stream the first message, the Hello, must name the node of the certificate.
// A connection that was made with a good certificate stays when that runs out; the next one needs a new certificate.
//
// The store's main program makes a Client (package gossip's Dialer and the engine's forwarder) and a Server (whose listener
// it opens).
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
	// connectTimeout bounds the wait for a connection, handshakeTimeout that and the handshake with the wait for its turn: a
	// mesh of 30 stores on two cores has 870 to make when it starts.
	connectTimeout   = 2 * time.Second
	handshakeTimeout = 20 * time.Second
	// clientTurns and serverTurns are how many handshakes a store makes at a time. Some more than cores: they wait for each other.
	clientTurns = 4
	serverTurns = 4
	// tellEvery bounds how often the log tells that somebody was not let in.
	tellEvery = time.Second
)
