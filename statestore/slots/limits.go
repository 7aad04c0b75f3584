package slots

const (
	// Buckets of a slot in anti-entropy: a slot of 10,000 keys is compared in parts of 160.
	Buckets = 64
	// keepStale is how long a list of entities to hash may be to be kept for the next ones.
	keepStale = 64
	// headBytes is about how large a head section's records are: they are read as a whole.
	headBytes = 256 << 10
	// replayBytes is how many bytes of records wait at open for more of their slots.
	replayBytes = 32 << 20
)
