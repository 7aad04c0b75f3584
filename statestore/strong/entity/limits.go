package entity

import "time"

const (
	// headIDs is how many request ids a head has at most: each commit writes them again. Older ones go to a page.
	headIDs = 32
	// maxPages bounds the pages of request ids: 4,096 ids an entity, 64 KiB.
	maxPages = 128
	// keepIDs is how long a request id is kept, unless maxPages is reached before: longer than anybody sends a command again.
	keepIDs = 10 * time.Minute
	// dropPages is how many old pages go in one commit: each takes an operation of the transaction.
	dropPages = 4
	// MaxStateBytes is what maxStateBytes of a strong type may be: a head and its key stay below 1 MiB.
	MaxStateBytes = 1<<20 - headOverhead
	// headOverhead is more than a head has beside its value, and its key.
	headOverhead = 8 << 10
	// MaxEvents bounds one commit's events, and so how far before an event the name of its cell may be.
	MaxEvents = 1024
	// eventOverhead is what an event takes beside its type and its bytes where a service gets it as JSON in metadata.
	eventOverhead = 64
	// maxEventType bounds an event's name.
	maxEventType = 512
	// maxPaths bounds a field patch's paths.
	maxPaths = 256
	// maxDepth bounds how deep patches and encoded values nest.
	maxDepth = 100
	// touchPart: a use moves the TTL's end when more than the TTL divided by it has gone since it was moved last.
	touchPart = 10
)
