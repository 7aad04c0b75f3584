package stores

import "time"

const (
	// startWait is how long a store may take from its start to its first answer: it replays its log first.
	startWait = 120 * time.Second
	// stopWait is how long a store may take to stop in order: it hands over what others lack.
	stopWait = 30 * time.Second
	// pollEvery is how often a starting store is asked: its start is part of what is measured.
	pollEvery = 5 * time.Millisecond
	// callTimeout is what a call without a deadline of its own may take.
	callTimeout = 30 * time.Second
	// visibleWait is how long a write may take to be visible at every store.
	visibleWait = 60 * time.Second
	// maxFrame is the largest answer that is read, in bytes: the store's own limit.
	maxFrame = 4 << 20
	// maxLog is how much of a store's log is kept, in bytes.
	maxLog = 1 << 20
	// firstPort and lastPort bound the ports for gossip: below those of rig's meshes.
	firstPort, lastPort = 20000, 26900
)
