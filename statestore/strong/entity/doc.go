// Package entity is a strong entity by itself: how it is written in etcd, and what operations, request ids and time make of
// it.
//
// It is pure. The store gives it what etcd holds (a head and cells, see internal/fenced) and the time; it gives back the
// entity as a Record, and for each change the next Record with the one Write that makes it so. Who may write, and when, is
// not its affair. Records never change once they are made; what they give out must not be changed either.
//
// # Head
//
//	byte     2, the layout's version
//	byte     flags: 1 exists, 2 event-sourced
//	uvarint  the last event's sequence
//	uvarint  the sequence up to which the entity snapshot includes the events; 0: there is none
//	uvarint  the sequence up to which events were deleted with the entity
//	uvarint  the modification revision of the last change of state, where only housekeeping came after it; 0: the head's own
//	uvarint  when the TTL ends, in unix milliseconds; 0: never
//	uvarint  the time of the entity's one mark, in unix seconds; 0: there is none
//	uvarint  the first page of request ids that is kept
//	uvarint  the next page of request ids to be written
//	byte     number of request ids, each of 16 bytes: the beginning of the id's SHA-256, oldest first
//	         the value (model value), to the end
//
// Version 1 had no cells: flags (1 exists), uvarint number of request ids, each id as uvarint length and bytes, the value.
//
// # Cells
//
// e/<sequence of its first event, 20 digits> has one commit's events: byte 1, uvarint time in unix microseconds, then each
// event as uvarint length and a holdfast.v1.Event without sequence and time. s has the entity snapshot: byte 1, uvarint
// sequence, the bytes. r/<page modulo 128, 3 digits> has a page of request ids: byte 1, uvarint page, uvarint time in unix
// seconds when it was written, 32 ids.
//
// # Why head and cells fit together
//
// They are read one after the other, and a commit may come between. What a head needs is exact: the events from after the
// snapshot to its sequence without a gap, the snapshot with its sequence, the pages with their numbers. Nothing of that is
// ever written twice with another content, since sequences and pages are never used again. So what fits is right, and where
// it does not fit Decode says ErrChanged: read the head anew.
//
// # Deletion
//
// A deleted entity leaves a head without value, so that a command that is sent again is still known; after keepIDs the
// sweep removes it. An event-sourced entity's head stays for good, without ids, some 10 bytes: a sequence must never come
// again, or who reads the log would miss events without knowing.
package entity
