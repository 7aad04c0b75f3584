package ir

const (
	// maxName keeps cluster names well under what Envoy prints in its statistics.
	maxName = 256
	// maxSocketPath is what sockaddr_un holds, with its terminating zero.
	maxSocketPath = 107
)
