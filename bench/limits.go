package main

import "time"

const (
	// maxConnections is how many connections the load generator spreads its callers over: a client application has few.
	maxConnections = 4
	// callDeadline ends a call that is not answered, so that a run with a stuck call ends and shows it.
	callDeadline = 10 * time.Second
	// warmUp is how long calls go on before they are measured: connections, caches and activation of 1,000 entities.
	warmUp = 300 * time.Millisecond
	// startWait is how long the service or an Envoy may take to answer its first call.
	startWait = 60 * time.Second
	// visibleWait is how long the probe waits for a write to be seen everywhere.
	visibleWait = 20 * time.Second
)
