package page

import "time"

const (
	// lookTimeout bounds one look; stores that don't answer are given up before.
	lookTimeout = 5 * time.Second
	// maxBody is more than the names of all nodes.
	maxBody = 8 << 10
)
