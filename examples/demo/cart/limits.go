package main

import "time"

const (
	// maxItems is how many different items a cart holds: far below what a state may hold.
	maxItems = 100
	// maxItem is the length of an item's name in bytes.
	maxItem = 100
	// maxQuantity bounds one AddItem and what a cart holds of one item.
	maxQuantity = 1000
	// maxShutdown bounds how long calls under way hold up a stop.
	maxShutdown = 3 * time.Second
)
