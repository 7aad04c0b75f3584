package crdt

// Limits on what comes from outside.
const (
	// MaxEncoded is the largest encoding that Decode looks at: the largest state (1 MiB) may be doubled by concurrent
	// changes that each replica found small enough, and a frame holds 4 MiB.
	MaxEncoded = 4 << 20
	// MaxMapKey is the longest key of an ormap entry, in bytes: keys are names, not documents.
	MaxMapKey = 1024
)
