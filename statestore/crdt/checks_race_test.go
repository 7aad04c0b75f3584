//go:build race

package crdt

// The race detector makes a run some ten times as long, and there is nothing here that could race: one state more or less
// finds no more.
const checks = 60
