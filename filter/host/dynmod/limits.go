package dynmod

import "time"

// deadlineLead is how long before the caller's deadline a stream that waits for the store gives up: enough for its answer
// to leave before Envoy's own, which comes at the deadline and can't tell what became of a commit.
const deadlineLead = 5 * time.Millisecond
