package serve

import "time"

const (
	// maxMessage bounds what an Envoy may send: a list of the names and versions of its resources.
	maxMessage = 4 << 20
	// maxReason bounds a refusal's text in the ledger.
	maxReason = 2048
	// maxProxies bounds the ledger against Envoys that the topology doesn't know.
	maxProxies = 4096
	// minPing is how often an Envoy may ping. Ours do so every 10 s.
	minPing = 5 * time.Second
	// stopGrace is how long streams may take to end once they were told to.
	stopGrace = 2 * time.Second
)
