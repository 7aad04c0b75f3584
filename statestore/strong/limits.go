package strong

import "time"

const (
	// maxWaiting is how many commands may wait for one entity's turn. At 5 ms a command the last waits 0.6 s.
	maxWaiting = 128
	// maxIDs is how many request ids are kept with an entity: more commands than can be retried at a time.
	maxIDs = 64
	// maxEntities is how many entities are kept in memory; over it idle ones are dropped, they are in etcd.
	maxEntities = 100_000
	// defaultTimeout is for calls that name none, maxTimeout the longest that one may name.
	defaultTimeout = 5 * time.Second
	maxTimeout     = 5 * time.Minute
	// settleTimeout is how long a commit's fate is looked for when its own time is up, and how long the turns of a lost
	// connection are given back at other stores.
	settleTimeout = 2 * time.Second
	// attempts is how often a call looks for the owner before it gives up.
	attempts = 3
)
