package strong

import "time"

const (
	// maxConnections is how many connections the callers of a row share: an application has few.
	maxConnections = 4
	// callDeadline ends a call that is not answered, so that a run with a stuck call ends and shows it.
	callDeadline = 10 * time.Second
	// warmUp is how long calls go on before they are measured: connections and caches.
	warmUp = 400 * time.Millisecond
	// startWait is how long the mesh or the application may take to answer its first call.
	startWait = 60 * time.Second
	// activators are the callers that activate the entities.
	activators = 16
	// maxTries bounds how often an increment begins anew because another came between.
	maxTries = 100
	// maxKeys bounds the keys of a run.
	maxKeys = 10_000
	// clockTicks is USER_HZ, which is 100 on every Linux that Go runs on.
	clockTicks = 100
)
