package localmesh

import "time"

const (
	// MaxNodes keeps the nodes' ingress ports below the inner ones, with room for what a machine may want beside them.
	MaxNodes = 64
	// innerPorts is the distance from the port base to the ports that nobody types.
	innerPorts = 100
	// innerPortRange is how many of those may be looked through: nodes × (gossip + services), twice over for taken ones.
	innerPortRange = 2000

	// readyTimeout bounds a process's start: an Envoy with the module takes half a second alone, several seconds when six
	// start on two busy cores.
	readyTimeout = 60 * time.Second
	// serviceTimeout bounds a user's service, which may compile or load a model first.
	serviceTimeout = 60 * time.Second
	// refusedTimeout is how long the control plane must go on refusing a configuration until starting is given up: a
	// service that is slow to answer reflection is asked again meanwhile.
	refusedTimeout = 5 * time.Second
	// stopTimeout is between SIGTERM and SIGKILL. A store needs it for its last deltas, etcd for its log.
	stopTimeout = 5 * time.Second
	// storeStopTimeout is longer: a store that is killed before its last deltas left keeps them on disk only.
	storeStopTimeout = 15 * time.Second
	// programmedTimeout bounds the wait for all Envoys to have taken a changed topology.
	programmedTimeout = 10 * time.Second
	// drainTimeout bounds the wait for requests under way at a node that leaves; a watch never ends by itself.
	drainTimeout = 3 * time.Second
	// probeTimeout bounds one look at whether a process answers.
	probeTimeout = time.Second
	// pageIdle is how long the page's connections may do nothing.
	pageIdle = time.Minute
	// pollState is the pause between two looks at something that is expected soon.
	pollState = 50 * time.Millisecond
	// pollFile is the pause between two looks at the configuration file. Editors replace files in too many ways for inotify.
	pollFile = 500 * time.Millisecond
	// maxProbeBody bounds what is read of an answer: Envoy's statistics are the largest.
	maxProbeBody = 4 << 20
	// maxScaleBody bounds the body of a request to the API.
	maxScaleBody = 4 << 10

	// certifyEvery is the pause between two looks at whether a certificate is to be renewed.
	certifyEvery = time.Minute
	// cutEvery is the pause between two looks at whether every store is cut off as it should be: one that started anew
	// while the partition changed is not.
	cutEvery = 500 * time.Millisecond
	// keysTimeout bounds the wait for all stores to have taken changed gossip keys. One that starts anew meanwhile has them
	// from its start on.
	keysTimeout = 30 * time.Second

	// Soft limits for the Go heaps of a mesh's many processes, and for how many threads run Go code in each.
	storeMemory        = "GOMEMLIMIT=1GiB"
	controlPlaneMemory = "GOMEMLIMIT=384MiB"
	etcdMemory         = "GOMEMLIMIT=512MiB"
	moduleMemory       = "GOMEMLIMIT=256MiB"
	// moduleGC trades some of that memory for less collecting beside Envoy's worker.
	moduleGC   = "GOGC=400"
	maxThreads = 4
)
