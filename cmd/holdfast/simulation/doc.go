// Package simulation has the simulation test of stores that replicate: real engines and real gossip, wired as the main
// program wires them, on a network and disks in memory, in a testing/synctest bubble. It lies below the main program
// because stores and replication meet nowhere else.
//
//	go test ./cmd/holdfast/simulation                            some seeds
//	go test ./cmd/holdfast/simulation -sim.seeds 5000            many
//	go test ./cmd/holdfast/simulation -sim.seed 4711 -v          that one again, with its events
//
// A seed fixes the faults, the operations and their times. It does not fix the order in which goroutines run, nor
// memberlist's own choices of targets: a failure may need a few tries of its seed to come back.
package simulation
