package v1alpha1

import "time"

const (
	// maxFileBytes bounds what is parsed: thousands of services.
	maxFileBytes = 1 << 20
	// maxDocuments bounds the work for one file.
	maxDocuments = 1000
	// maxErrors is how many errors one parse reports; the rest would scroll the first ones away.
	maxErrors = 20
	// maxDepth is deeper than any document of ours: the deepest model ends at 2 levels a map below spec.entity.model.
	maxDepth = 24
	// maxMapDepth is how deep ormaps may be nested: each level is a key that every operation repeats.
	maxMapDepth = 8

	// MaxMetadataState is the largest state that metadata may carry: gRPC-Java takes 8 KiB of metadata in all.
	MaxMetadataState = 4096
	// MaxState is the largest state there is: it must fit, with the one before, in one frame to the store.
	MaxState = 1 << 20
	// MaxStrongState is the largest state of a strong type: with what is kept beside it, it must fit a transaction of etcd's.
	MaxStrongState = 1<<20 - 8<<10
	// MaxReplicas is the largest number of replicas that may be asked for; "all" has no bound.
	MaxReplicas = 64

	defaultFieldState     = 65536
	defaultPassivateAfter = 10 * time.Minute
	minPassivateAfter     = time.Second
	// minTTL is far above the time that a change takes to reach the other replicas.
	minTTL = time.Second
	// defaultSnapshotEvery keeps what a service has to replay small where nobody thought of it.
	defaultSnapshotEvery = 100
	// maxSnapshotEvery bounds what an activation has to read and a service has to replay.
	maxSnapshotEvery = 10_000
	// maxOthers is how many fields may name further entities.
	maxOthers    = 16
	maxNameBytes = 63
	maxTypeBytes = 128
)
