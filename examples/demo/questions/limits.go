package main

import "time"

const (
	// maxQuestion is in characters: what fits on a slide.
	maxQuestion = 280
	// maxShutdown bounds how long calls under way hold up a stop.
	maxShutdown = 3 * time.Second
)
