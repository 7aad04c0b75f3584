package gossip

import (
	"time"

	"github.com/holdfast-mesh/holdfast/internal/placement"
)

const (
	// maxMessageBytes bounds the messages of pushes, but for a single delta that is larger.
	maxMessageBytes = 256 << 10
	// slots is the number of hash slots of an entity type.
	slots = placement.Slots

	// maxQueueBytes and maxQueueDeltas bound what waits for one peer. Beyond it deltas are dropped, and anti-entropy runs
	// when the queue is empty again.
	maxQueueBytes  = 8 << 20
	maxQueueDeltas = 64 << 10
	// lanes is how many slots of a stream are merged at a time: enough to share the disk's syncs, few enough that five
	// streams leave a small machine room.
	lanes = 4
	// maxDeltas is how many messages of pushes wait for the engine on one stream, and are merged together: a message may
	// come with each commit, and a sync takes as long as many commits. More make the sender wait.
	maxDeltas = 32
	// maxAnswers is how many messages wait for one stream's writer. Further ones wait.
	maxAnswers = 16
	// maxRequests and maxRequestBytes bound what waits for one lane. A peer is asked for less (package rounds: four rounds
	// of at most maxEmptyBytes, or of maxWant states of some 64 KiB); one that sends more loses its stream.
	maxRequests     = 4096
	maxRequestBytes = 48 << 20
	// maxNotices is how many short messages wait for one stream: more than a store joins slots in the time that a live
	// stream takes to write them.
	maxNotices = 4096
	// maxAckSlots is how many slots one acknowledgement names.
	maxAckSlots = 1024
	// maxInterest bounds the slots that one peer may declare: all of 64 types.
	maxInterest = 64 * slots
	// maxIdentities bounds one list of replica identities, and with it what a peer can make this store remember.
	maxIdentities = 1 << 16
	// maxAnnounced is how many sets of retired identities are remembered of a peer: messages on their way may refer to the
	// one before the last.
	maxAnnounced = 4
	// maxQuestions is how many bounded counters are asked about at a time.
	maxQuestions = 256
	// rightsInterval is how long one peer has to answer before the next is asked: a commit, its sync and its way.
	rightsInterval = 20 * time.Millisecond
	// maxAskRounds is how often all replicas are asked, while somebody asks again.
	maxAskRounds = 3
	// grantTimeout bounds one answer: longer than any caller waits for it.
	grantTimeout = 5 * time.Second

	// antiEntropyInterval is the mean pause between two rounds that this store opens, and antiEntropySpread how much a
	// pause differs from it at most, so that stores do not march in step.
	antiEntropyInterval = time.Second
	antiEntropySpread   = 250 * time.Millisecond
	// expireInterval is how often a stream looks for rounds in which nothing happens any more.
	expireInterval = 3 * time.Second
	// compareInterval is the pause between two attempts to compare a slot that somebody waits for.
	compareInterval = 20 * time.Millisecond
	// meetTime is how long after the start a member that was never seen may still come to fill a slot.
	meetTime = 2 * time.Second
	// markTime is how long what was read of the dead identities serves all streams.
	markTime = 500 * time.Millisecond
	// dropTime is how long the engine has to drop a slot that it left, before what it holds of it counts again.
	dropTime = 5 * time.Second
	// settleInterval is how often identities are looked at while nothing happens, and settlePause at least lies between two
	// looks: each reads the contexts of all slots while an identity is dead and not retired.
	settleInterval = time.Second
	settlePause    = 250 * time.Millisecond

	// dialTimeout bounds one attempt to reach a peer, its turn among other handshakes included, and helloTimeout the wait for
	// the first message of a stream: long enough for a machine on which many stores start at once. A peer that does not
	// answer because it is gone is given up sooner, when gossip finds it dead.
	dialTimeout  = 20 * time.Second
	helloTimeout = 10 * time.Second
	// maxDialing is how many peers are dialed at a time.
	maxDialing = 4
	// redialMin and redialMax bound the pause between two attempts; it doubles from one to the other, and on to redialSlow
	// where the attempt took long: what is too slow must not be asked more often.
	redialMin  = 25 * time.Millisecond
	redialMax  = time.Second
	redialSlow = 5 * time.Second

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
	// bindTries is how often a free port is looked for.
	bindTries = 10

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
