package bootstrap

import "time"

const (
	// maxDownstreamConnections bounds one Envoy's memory: at about 100 KiB a busy connection this is 1 GiB.
	maxDownstreamConnections = 10_000
	// maxSocketPath is what sockaddr_un holds, with its terminating zero.
	maxSocketPath = 107

	connectTimeout = time.Second
	// The first pause before Envoy asks the control plane again, doubled with jitter up to the second.
	xdsRetryBase = 200 * time.Millisecond
	xdsRetryMax  = 5 * time.Second
	// A control plane that is stopped but not dead is noticed after their sum.
	xdsKeepAliveInterval = 10 * time.Second
	xdsKeepAliveTimeout  = 5 * time.Second
	// Counters reach the admin page at each flush.
	statsFlushInterval = 5 * time.Second
)
