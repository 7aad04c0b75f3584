package rounds

import (
	"time"

	"github.com/holdfast-mesh/holdfast/internal/placement"
)

const (
	// slots and groups: 64 groups of 64 slots.
	slots      = placement.Slots
	groupSlots = 64
	groups     = slots / groupSlots
	// buckets of a slot.
	buckets = 64

	// maxMessageBytes bounds the messages that this package makes, but for a single state that is larger.
	maxMessageBytes = 256 << 10
	// maxStates is how many states are read from the engine at a time: it bounds the memory of one part.
	maxStates = 64
	// maxNames is how many absent keys one part names, and maxWant how many it asks for. The latter is also all that waits
	// to be sent by the peer in one round: that bounds what a slow reader must take, whatever the size of the slot.
	maxNames = 1024
	maxWant  = 128
	// maxKeysBytes is the key list that an answerer makes for one round; it leaves buckets for later rounds beyond it.
	maxKeysBytes = 1 << 20
	// maxEmptyBytes is what an answerer sends without having been asked for each key, to a store that has nothing of a slot.
	maxEmptyBytes = 2 << 20
	// maxRounds is how many slots one machine compares at a time, in each direction: enough that a round trip and the
	// peer's disk do not set the pace (a stream has four machines).
	maxRounds = 4
	// maxStreamBytes bounds what all rounds of a stream keep, keys above all. An honest peer needs maxKeysBytes a round.
	maxStreamBytes = 32 << 20
	// keyOverhead is what a kept key takes beside its bytes, roughly.
	keyOverhead = 48
	// roundTimeout ends a round in which nothing happens. A peer that is alive answers within its disk's latency times the
	// rounds under way.
	roundTimeout = 15 * time.Second
)
