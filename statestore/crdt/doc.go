// Package crdt holds the state models that replicas merge without asking each other.
//
// It is pure: no goroutine, no clock, no randomness; time and the replica's identity are arguments. The engine owns every
// State and calls it from one goroutine at a time. A State never holds on to bytes it was decoded from.
//
// Each model is a join semilattice (Shapiro, Preguiça, Baquero, Zawirski 2011, "Conflict-free Replicated Data Types"):
// Merge is commutative, associative and idempotent and only ever adds knowledge. Changes are made by delta-mutators
// (Almeida, Shoker, Baquero 2018, "Delta state replicated data types"): Delta computes a small state of the same model,
// and merging that delta is the change. A delta and a whole state are the same kind of thing; receivers can't tell and
// need not. Deltas may be lost, doubled and reordered: once a whole state, or the missing deltas, arrive, replicas are equal.
//
// A replica identity must name one unbroken sequence of changes. Who restarts without everything it ever acknowledged must
// take a new one, or its new changes are taken for old ones and lost.
//
// Encoding, version 1 (u = minimal unsigned varint, r = replica, 8 bytes big-endian, b = u length and bytes):
//
//	byte 0  version (1)
//	byte 1  model, as in holdfast.config.v1.Model
//	gcounter: u n, n × (r, u count)                       by replica
//	lww, value: flags (0 bottom, 1 set, 2 deleted), then unless bottom: u time, r, and where set: b payload
//	ormap: byte model of the values,
//	       u n, n × (r, u seq)                            version vector, by replica
//	       u n, n × (r, u seq)                            dot cloud, by dot
//	       u n, n × (b key, u m, m × (r, u seq, payload)) entries by key, their dots by dot
//	       payload of gcounter: u count; of lww: u time, b bytes
//
// The encoding is canonical: equal states have equal bytes, and Decode refuses all other spellings.
package crdt
