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
)
