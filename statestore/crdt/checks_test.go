//go:build !race

package crdt

const checks = 1000
