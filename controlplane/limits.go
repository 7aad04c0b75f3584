package controlplane

import "time"

const (
	// tick is how often stores are asked for their status, and how soon a restarted one is configured again.
	tick = time.Second
	// storeTimeout bounds one call to a store.
	storeTimeout = 2 * time.Second
	// storeGrace is how long Envoys wait for stores to learn of a change. A store that is down must not hold it up: its
	// own node's filter knows that it is down.
	storeGrace = 2 * time.Second
	// proxyGrace is how long stores keep what Envoys should no longer use.
	proxyGrace = 10 * time.Second
	// firstGrace is how long the first configuration waits for services that are still starting up, so that it does not
	// come in pieces.
	firstGrace = 3 * time.Second

	// fetchRetry and fetchRetryMax bound the pause before a service without descriptors is asked again, refetch is when
	// one with descriptors is: it may have been replaced by a newer one.
	fetchRetry    = 250 * time.Millisecond
	fetchRetryMax = 5 * time.Second
	refetch       = 15 * time.Second
	// maxFetches at once.
	maxFetches = 8

	// The pause before etcd is asked again.
	placementRetry    = 250 * time.Millisecond
	placementRetryMax = 5 * time.Second
	placementTimeout  = 2 * time.Second

	// historyRetry is the pause before all stores are asked again by who follows an entity's events.
	historyRetry = 250 * time.Millisecond

	// maxSaved bounds the file with the last good configuration.
	maxSaved = 64 << 20
)
