package main

import "time"

const (
	// maxQuestion is in characters: what fits on a slide, and in the 1,024 bytes of a map's key even in four-byte characters.
	maxQuestion = 250
	// maxShutdown bounds how long calls under way hold up a stop.
	maxShutdown = 3 * time.Second
)
