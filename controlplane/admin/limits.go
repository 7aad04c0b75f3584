package admin

import "time"

const (
	// inspectTimeout bounds one look at an entity on all nodes.
	inspectTimeout = 3 * time.Second
	// headerTimeout and idleTimeout keep connections that do nothing from piling up.
	headerTimeout = 5 * time.Second
	idleTimeout   = time.Minute
	// maxKey is longer than any entity type with its key.
	maxKey = 4096
)
