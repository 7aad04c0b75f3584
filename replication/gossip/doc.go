// Package gossip keeps the stores of a mesh informed of each other: who is there, and what changed.
//
// Membership is memberlist's (encrypted, labelled, nothing but names, addresses and replica identities in it; it carries
// no state, because gossip alone is not delivery). State goes on streams of its own: each store dials one to every live
// member. On the stream that it dialed a store
//
//   - pushes its deltas, as soon as they are durable, to who is placed for their slot, or declared interest in it,
//   - opens rounds of anti-entropy (package rounds): about every second with one random peer, and at once on every new
//     stream; they bring what a push missed (a full queue, a lost stream, a member that was away),
//   - declares its own interest in slots that the placement does not name it for: those that the engine joined, and those
//     that it still holds by an earlier placement,
//   - asks for rights of bounded counters;
//
// and on the one that the peer dialed it answers, and acknowledges deltas that a commit waits for, when they are durable.
// What an acknowledgement is worth is package level's affair; a comparison's contexts acknowledge, too. Every stream starts
// with a Hello (which settles the version) and both stores' replica identities; those that are over are retired by what
// package settle decides.
//
// The store's main program makes a Node with the engine behind it, hands it to the engine as its publisher and its
// replicas, tells it each configuration, and serves incoming streams with Accept (package grpcpeer does it over gRPC).
// Before the first configuration a node is a member and no more.
//
// The package is larger than others here, because all of it shares the streams; what can be decided without them is in
// packages rounds, settle and level.
//
// Locks: Node.mu, the one of extras, acks, claims, rights and identities each guard their own; none is held while the
// engine merges, while a message is sent, or while a callback of the engine's runs.
package gossip
