package supervise

import "time"

const (
	// maxLog is the size at which a child's log is moved aside before its next start: one old file is kept, so a mesh
	// of 36 processes stays near a gigabyte at worst.
	maxLog = 16 << 20
	// maxTail bounds what a message shows of a log: enough for a stack's top or Envoy's reason.
	maxTail      = 4 << 10
	maxTailLines = 12
	// backoffMin to backoffMax is the pause before a restart, doubled each time; a process that lived for steadyAfter
	// starts over at the minimum. The first must be short: callers are being retried elsewhere meanwhile.
	backoffMin  = 50 * time.Millisecond
	backoffMax  = 5 * time.Second
	steadyAfter = 10 * time.Second
	// firstDeaths is how often a process may die before it was ever ready until WaitReady gives up.
	firstDeaths = 3
	// pollReady is the pause between two looks at whether a process is ready.
	pollReady = 25 * time.Millisecond
	// maxGuardLine bounds a line from the parent: a sign and a pid.
	maxGuardLine = 32
)
