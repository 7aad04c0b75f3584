//go:build race

package simulation

// The race detector makes a run five times as long.
const defaultSeeds = 6
