// Package gossip keeps the stores of a mesh informed of each other: who is there, and what changed.
//
// Membership is memberlist's (encrypted, labelled, nothing but names, addresses and replica identities in it; it carries
// no state, because gossip alone is not delivery). State goes on streams of its own: each store dials one to every live
// member and pushes its deltas there as soon as they are durable. What a push misses (a full queue, a lost stream, a
// member that was away) anti-entropy repairs: about every second with one random peer, and at once on every new stream.
//
// A round of anti-entropy on a stream, opener left:
//
//	Digest of each type   ->             hashes of the opener's slots
//	                      <- SlotKeys    the answerer's key hashes, for each slot that differs
//	Want, Deltas          ->             keys the opener lacks or has otherwise; its states of those and of the others
//	                      <- Deltas      the states that were wanted
//
// after which both have merged the same. Every message is a hint that is safe to lose, repeat, reorder and forge within
// what merging allows; no message needs an answer; a peer that asks for more than is bounded here is dropped, and a later
// round goes on. States are opaque: what merging means is the engine's affair.
//
// The store's main program makes a Node with the engine behind it, hands it to the engine as its publisher, and serves
// incoming streams with Accept (package grpcpeer does it over gRPC).
package gossip
