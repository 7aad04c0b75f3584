package main

import "time"

// maxShutdown bounds how long calls under way hold up a stop.
const maxShutdown = 3 * time.Second
