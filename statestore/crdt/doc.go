// Package crdt holds the state models that replicas merge without asking each other.
//
// It is pure: no goroutine, no clock, no randomness; time and the replica's identity are arguments. States are values that
// share what does not change. Nothing that is decoded keeps the bytes that it came from.
//
// A change is a dot: the n-th of a replica identity's changes in one slot. A state is a dot store, the dots that are live with
// what they carry, and a causal context, the dots that were seen (Almeida, Shoker, Baquero 2018, "Delta state replicated
// data types", section 7). Join keeps a dot that both sides hold, and one that only one side holds where the other has not
// seen it: what was seen and is not held was replaced or removed. That makes each model a join semilattice (Shapiro,
// Preguiça, Baquero, Zawirski 2011, "Conflict-free Replicated Data Types"), and leaves no tombstones.
//
// The context need not be the state's own. Entities of a slot share the slot's (Gonçalves, Almeida, Baquero, Fonte 2017,
// "DottedDB: Anti-Entropy without Merkle Trees, Deletes without Tombstones"), which is given to Join; a state's own holds
// what goes beyond it, for as long as it does. So a deleted entity takes no memory at all.
//
// Delta computes a change without making it, as a state that holds the new dots and has seen them and those that they replace:
// joining it is the change. Deltas may be lost, doubled and reordered; once the missing ones or a whole state arrive,
// replicas are equal. A delta of a map names the members that it touched, and a join looks at no others; see dotMap.
//
// A replica identity must name one unbroken sequence of changes. Who restarts without everything it ever let out must
// take a new one, or its new changes are taken for old ones. Identities that are over retire: every dot of theirs counts as
// seen, and counters absorb their sums.
//
// Encoding, version 2 (u = minimal unsigned varint, r = replica, 8 bytes big-endian, b = u length and bytes):
//
//	byte 0   version (2)
//	bytes    models as in holdfast.config.v1.Model, from the outside in: ormap, …, the innermost
//	context  0: the live dots; 1 and, where there are more:
//	         u n, n × (r, u m, m × (u hole, u length))      runs by replica; the hole before the first run is from 0 on
//	store    u n, n × (r, u seq, b payload)                 live dots by dot; of a set, vote and ormap: presence
//	         and in these: u 2n + named, n × (b name, store)  members by name; named: see dotMap
//	payload of gcounter: u sum, n × (r, u seq, u sum) absorbed; of pncounter: the same with zigzag sums
//	        of bcounter: u added, u taken, u n, n × (r, u given), m × (r, u inherited)
//	        of lww, value: clock (0 created, 1 default, 2 reverse, 3 custom), then unless created: u time, bytes
//	        of mvregister: 0 created, or 1 and bytes; of flag: 0 disabled, 1 enabled; of a vote's member: u time, 0 or 1
//
// The encoding is canonical: equal states have equal bytes, and Decode refuses all other spellings.
//
// The package is longer than others here: the models share the dot stores, their join and their encoding, and none of
// these is a thing to be used without the others.
package crdt
