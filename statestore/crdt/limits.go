package crdt

// Limits on what comes from outside.
const (
	// MaxEncoded is the largest encoding that Decode looks at. A replica takes no change that carries a state over 1 MiB,
	// but replicas that are apart for a while each take as much, and what they join must still travel, or they never
	// become equal: so it is what a message between stores holds, 16 MiB, less what is around the state.
	MaxEncoded = 15 << 20
	// MaxMapKey is the longest key of an ormap entry, in bytes: keys are names, not documents.
	MaxMapKey = 1024
	// MaxElement is the largest element of a set, in bytes: an element is compared and sent whole.
	MaxElement = 64 << 10
	// MaxNode is the longest node name in a vote: what DNS allows.
	MaxNode = 253
	// MaxDepth is how many ormaps may be nested: each level costs a walk of the stack.
	MaxDepth = 8
)
