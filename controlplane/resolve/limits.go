package resolve

import "time"

const (
	// maxFiles and maxBytes bound what a service may send as its descriptors: far above what large APIs have.
	maxFiles = 2000
	maxBytes = 8 << 20
	// fetchTimeout bounds one fetch. A service that is still starting up is asked again later.
	fetchTimeout = 5 * time.Second
	// maxListed bounds the names that a service lists.
	maxListed = 1000
	// maxKeyDepth and maxKeyParts are the filter's bounds of a key source.
	maxKeyDepth = 32
	maxKeyParts = 16
	// maxValueDescriptors bounds the descriptors of a value's message, which every store is sent.
	maxValueDescriptors = 256 << 10
)
