// Package fenced names what an owner writes to etcd: the engine makes Writes, and replication/strong carries them out. It is
// types only.
//
// An entity has a head, one small record that every commit rewrites and whose modification revision is its version, and any
// number of cells beside it: events, the entity snapshot, older request ids. Nobody but the slot's owner writes either, and
// only in a transaction that is guarded by the slot's epoch and the head's revision; so whoever has read a head at a revision
// knows that the cells belong to it as long as the head has that revision.
package fenced

// Slot is one hash slot of an entity type.
type Slot struct {
	Type   string
	Number uint32
}

// Cell is a named piece of an entity's state beside its head. Names are ASCII without a slash at their ends, and sorted by
// bytes: numbers in them have leading zeros.
type Cell struct {
	Name  string
	Value []byte
}

// Mark asks for another look at an entity at a time, in unix seconds: to end its TTL, or to forget what is left of it.
type Mark struct {
	At   int64
	Slot uint32
	Key  string
}

// Write is one entity's part of a transaction. All of a transaction's writes are done, or none.
type Write struct {
	Slot Slot
	// Epoch is the create revision of the slot's key when its owner claimed it.
	Epoch int64
	Key   string
	// Revision is the head's modification revision that is expected; 0: there is no head.
	Revision int64
	// Head replaces the head; nil removes it.
	Head []byte
	// Put writes cells.
	Put []Cell
	// Drop removes all cells whose name begins with one of these.
	Drop []string
	// Keep leaves the head as it is, and Head is not looked at: the guards count, and cells and marks are written.
	Keep bool
	// Mark and Unmark add and remove marks of this entity, by their times; 0: none.
	Mark, Unmark int64
	// Frees says that the entity takes no more room after it than before. Only such writes are let through where etcd is
	// nearly full.
	Frees bool
}
