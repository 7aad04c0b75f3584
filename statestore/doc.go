// Package statestore is the engine of a node's store: the entities, the commits, the log, and what of it may be seen.
//
// The API server (statestore/serve) calls it for filters, the gossip for other stores; it calls out only through the small
// interfaces of Links. Eventual entities are mutated by one goroutine, the committer: it takes a batch of what waits, applies
// each list of operations whole or not at all, writes one log batch, syncs once, and only then shows the new states, answers,
// pushes and publishes. So nothing that leaves the store (an answer, a push, a delta, a digest) is ahead of the disk.
// Strong entities are the business of statestore/strong.
//
// Every process draws a new replica identity: the log brings back what the old one wrote, but only a peer could tell
// whether it brings back all of it, and an identity that goes backwards loses acknowledged writes.
//
// Everything a store ever held stays in memory; passivation is not built yet.
package statestore
