package strong

import (
	"time"

	"github.com/holdfast-mesh/holdfast/internal/frame"
)

const (
	// maxWaiting is how many commands may wait for one entity's turn. At 5 ms a command the last waits 0.6 s.
	maxWaiting = 128
	// maxActive is how many entities are kept in memory; over it idle ones are dropped, they are in etcd.
	maxActive = 100_000
	// maxBytes is about how much memory they may take, and maxLooks how many are looked at to make room for one.
	maxBytes = 256 << 20
	maxLooks = 64
	// defaultTimeout is for calls that name none, maxTimeout the longest that one may name.
	defaultTimeout = 5 * time.Second
	maxTimeout     = 5 * time.Minute
	// settleTimeout is how long a commit's fate is looked for when its own time is up, and how long the turns of a lost
	// connection are given back at other stores.
	settleTimeout = 2 * time.Second
	// attempts is how often a call looks for the owner before it gives up, and how often a state is read anew that was
	// caught changing.
	attempts = 3
	// askAgain is how soon an owner that can't be reached is tried again, and slowAnswer how long a call at one waits before
	// the slot is watched: the owner may be dead without anybody having told.
	askAgain   = 250 * time.Millisecond
	slowAnswer = 500 * time.Millisecond
	// atLeast is the shortest time between two attempts to find an owner.
	atLeast = 10 * time.Millisecond
	// lastWord is what a call that waits for an owner leaves of its time to answer that it was not applied.
	lastWord = 50 * time.Millisecond
	// openFor is longer than any transaction that was given up can be under way: the longest call, and what etcd's
	// connection takes to be given up.
	openFor = 10 * time.Minute
	// maxAnswer is what the states of several entities may take in one answer: a frame of the store's API holds 4 MiB.
	maxAnswer = frame.Max - 64<<10
	// maxGuards is how many guards a transaction may have: one for each entity and one for each of their slots.
	maxGuards = 128
	// cellsPage is how many cells are asked for at a time. A page of the largest ones fits a message.
	cellsPage = 64
	// sweepEvery is how often due marks are looked for, sweepBatch how many at a time, sweepers how many are seen to at once.
	sweepEvery = 2 * time.Second
	sweepBatch = 256
	sweepers   = 8
	// sweepTimeout bounds a batch. sweepPatience is how much longer the second placed store waits than the first, and so
	// on, before it claims a free slot for a mark that is due.
	sweepTimeout  = 10 * time.Second
	sweepPatience = 10 * time.Second
	// skipFor is how long a mark is left alone that could not be seen to, maxSkipped of how many that is remembered.
	skipFor    = 10 * time.Minute
	maxSkipped = 4096
)
