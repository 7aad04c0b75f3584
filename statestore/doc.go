// Package statestore is the engine of a node's store: the commits, the merges, the log, and what of them may be seen.
//
// The API server (statestore/serve) calls it for filters, the gossip for other stores; it calls out only through the small
// interfaces of Links. The entities themselves are in statestore/slots: in memory, or passive on the disk. They are changed
// by one goroutine, the committer: it takes a batch of what waits, drafts what each commit makes of the entities (whole or
// not at all, each on top of those before it), writes one log batch, syncs once, and only then puts the drafts in force,
// shows the new states, pushes, publishes and answers. So memory is never ahead of the disk, nothing that leaves the store
// (an answer, a push, a delta, what anti-entropy fetches) is either, and a log that fails costs its batch only: reads and
// hand-over go on, and once Recover says that the disk is back, so do writes. A commit of level LOCAL_MEM is the exception
// that its name promises: it is in force and answered at once, on the disk some milliseconds later, and published then.
//
// What commits and merges mean is in statestore/crdt; here is which dots they get. Sequences count per entity type, slot and
// replica identity. Every process draws a new identity: the log brings back what the old one wrote, but only a peer could
// tell whether it brings back all of it, and an identity that goes backwards loses acknowledged writes. Old identities go
// away once all placed replicas have seen the same of them (Retire).
//
// Strong entities are the business of statestore/strong.
//
// The package is larger than most: it is the one place where commits, levels, rights, expiry and the slots that come and go
// meet, on one goroutine.
package statestore
