// Package slots holds the eventual entities of a store: in memory, slot by slot, and in the form that they have on the disk.
//
// An entity type has 4,096 slots. A slot has one causal context, seen, for all its entities, and holds that live dots ⊆ seen
// (Gonçalves, Almeida, Baquero, Fonte, "DottedDB: Anti-Entropy without Merkle Trees, Deletes without Tombstones", SRDS 2017).
// An entity is its live dots; one without any is not kept. An entity's own context is its residue only: what the fill of a
// whole state covers beyond seen.
//
// One goroutine, the writer, changes states and contexts: it computes a Draft of what a log batch will do, and applies it
// once the batch is durable. Everybody may read; reading may activate an entity from the disk, which changes no state. So
// nothing that is read here is ahead of the disk.
//
// # Log records
//
// u is an unsigned varint, s is u length and bytes, c is a context: u length, runs (crdt.Context.Append), u count and 8 bytes
// each of retired identities, but for fills beyond those of the slot. Integers of fixed size are little-endian.
//
//	1 delta       s type | s key | s request id | 8 replica, u sequence of the commit's last dot (0, 0: none) |
//	              u unix milliseconds | s state (empty: none)
//	2 states      s type | u slot | u unix milliseconds | c fill | { s key | s state, live dots only | c fill of its own }
//	3 seen        s type | u slot | c seen
//	4 identity    8 replica | s node | u 1: it wrote to this disk, else 0
//	5 retire      u count, 8 replica each | { s type | 512 bytes, a bit per slot }
//	6 drop        s type | u slot
//
// Types, keys and slots, not numbers, so that records outlive configuration. Each may be replayed again on what came after
// it, as long as all that follow it are, too.
//
// # Log snapshot
//
// Sections, in this order; only those of kind 3 have a body:
//
//	1 head        u hybrid time | records, each s
//	2 retired     u number, from 1 | u count, 8 replica each
//	3 slot        s type | u slot | u number of the retired set (0: none) | s runs of seen | 8 hash of the entities |
//	              u unix seconds that no existing entity's last change is before | u how many exist | u count, 8 hash of the key each
//	body          { s key | u unix seconds of the last change × 2, + 1 where it exists | s state | s c residue (empty: none) }
package slots
