package gossip

import "time"

const (
	// wireVersion of the Exchange stream.
	wireVersion = 1

	// maxMessageBytes bounds the messages that this package makes, but for a single state that is larger.
	maxMessageBytes = 256 << 10
	// maxStates is how many states are read from the engine at a time: it bounds the memory of one answer.
	maxStates = 64
	// maxWant is how many keys one Want names.
	maxWant = 1024
	// maxSlotKeysBytes bounds the key list of one slot. The keys beyond it are sent without having been asked for.
	maxSlotKeysBytes = 1 << 20
	// slots is the number of hash slots of an entity type; hashes of others are ignored.
	slots = 4096

	// maxQueueBytes and maxQueueDeltas bound what waits for one peer. Beyond it deltas are dropped, and anti-entropy runs
	// when the queue is empty again.
	maxQueueBytes  = 8 << 20
	maxQueueDeltas = 64 << 10
	// maxAnswers is how many messages of anti-entropy wait for one stream's writer, and maxRequests and maxRequestBytes how
	// many wait to be answered. Further answers wait; further requests are dropped, for a stream must always be read.
	maxAnswers      = 16
	maxRequests     = 8192
	maxRequestBytes = 32 << 20

	// antiEntropyInterval is the mean pause between two rounds that this store opens, and antiEntropySpread how much a
	// pause differs from it at most, so that stores do not march in step.
	antiEntropyInterval = time.Second
	antiEntropySpread   = 250 * time.Millisecond
	// helloTimeout bounds the wait for the first message of a stream.
	helloTimeout = 5 * time.Second
	// dialTimeout bounds one attempt to reach a peer.
	dialTimeout = 2 * time.Second
	// redialMin and redialMax bound the pause between two attempts; it doubles from one to the other.
	redialMin = 25 * time.Millisecond
	redialMax = time.Second

	// joinAlone and joinOthers are the pauses between attempts to reach a member that is configured, or was known, and is
	// not there: while nobody is there at all, and else. Memberlist itself forgets the dead after a while, and two halves
	// that were apart for longer would never meet again.
	joinAlone  = 200 * time.Millisecond
	joinOthers = 2 * time.Second
	// forgetAfter is how long a departed member is shown and looked for.
	forgetAfter = 10 * time.Minute
	// leaveTimeout bounds the wait until the others were told that this member leaves.
	leaveTimeout = 500 * time.Millisecond
	// maxMembers bounds the members that are tracked: one who has the key could invent names.
	maxMembers = 1024

	// Memberlist's settings, tuned for a mesh of up to about a hundred stores: gossip reaches all of 60 within 64 ms, a
	// killed one is seen dead by all within 1.4 s (probe interval 1.58 times on average, plus timeout, plus
	// suspicionMult * max(1, log10 N) * probe interval).
	gossipInterval = 20 * time.Millisecond
	gossipNodes    = 4
	probeInterval  = 200 * time.Millisecond
	probeTimeout   = 100 * time.Millisecond
	suspicionMult  = 3
	// pushPullInterval is memberlist's own anti-entropy of the member list.
	pushPullInterval = 5 * time.Second
	// streamTimeout bounds memberlist's TCP connections.
	streamTimeout = 2 * time.Second
	// reclaimAfter is when the name of a dead member may come back at another address.
	reclaimAfter = time.Second
)
