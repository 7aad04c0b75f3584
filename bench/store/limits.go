package store

import "time"

const (
	// maxConnections is how many connections callers share: a node's Envoy has few.
	maxConnections = 4
	// warmUp is how long calls go on before they are measured.
	warmUp = 150 * time.Millisecond
	// callDeadline of each call, sent to the store: a stuck one ends the run and shows.
	callDeadline = 20 * time.Second
	// settleWait bounds the wait until the other stores have what was written.
	settleWait = 60 * time.Second
	// idle is how long a process is left alone before its memory is read again: the collector gives back slowly.
	idle = 15 * time.Second
	// passiveWait bounds the wait until every entity is on the disk only.
	passiveWait = 4 * time.Minute
	// joinWait bounds the wait until an empty store has everything.
	joinWait = 10 * time.Minute
	// fillers is how many calls are under way while entities are made.
	fillers = 512
	// wireUpdates are counted one by one, wireBulk with wireCallers callers.
	wireUpdates, wireBulk, wireCallers = 500, 10_000, 32
	// recalls is how many passive entities are read back.
	recalls = 1000
	// redisWait is how long Redis may take to start.
	redisWait = 10 * time.Second
)
