// Package planted has the switches of bugs that the tests must find. Only builds with the tag planted_bugs have them, one at
// a time, named by HOLDFAST_PLANT; `make planted` builds each and requires that the tests fail.
package planted

// The bugs.
const (
	// FirstOccurrenceWins takes the first occurrence of a key field, not the last.
	FirstOccurrenceWins = "first-occurrence-wins"
	// DeltaBeforeFsync publishes changes before the log is durable.
	DeltaBeforeFsync = "delta-before-fsync"
	// IdentityReused starts a store under the identity that its folder had.
	IdentityReused = "identity-reused"
	// TombstoneEarly forgets what was removed before everybody has seen it.
	TombstoneEarly = "tombstone-early"
	// ReadWithoutLease serves strong reads from memory without asking whether the slot is still held.
	ReadWithoutLease = "read-without-lease"
	// FenceLeftOut commits strong entities without the guard on the slot's owner.
	FenceLeftOut = "fence-left-out"
	// AckBeforeCommit answers a strong command before etcd has committed it.
	AckBeforeCommit = "ack-before-commit"
	// RetryWithoutID keeps no request ids, so that a command that is sent again is applied again.
	RetryWithoutID = "retry-without-id"
)
