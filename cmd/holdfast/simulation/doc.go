// Package simulation has the simulation test of stores that replicate: real engines and real gossip, wired as the main
// program wires them, on a network and disks in memory, in a testing/synctest bubble. It lies below the main program
// because stores and replication meet nowhere else.
//
// A run has three to seven stores, entity types of all models and levels with two, three or all replicas, clients that
// change and read them everywhere, and about two thirds of the faults (fault_test.go): cuts of several shapes, loss,
// duplicates and late replays, frozen stores, crashes that forget what was not synced, disks that are full, slow, lost or
// put back old, wrong clocks, new gossip keys, members that leave the placement and come back. What clients know is kept
// apart from the stores (model_test.go); after the last fault the stores have to be equal within ten virtual seconds and
// to show what the model says (final_test.go).
//
//	make sim                 200 seeds
//	make sim SEED=4711       that one again, with its events; ARGS=-sim.debug for the stores' own logs
//	make sim ARGS=-sim.stop  one after another, to the first that fails
//
// How much of a run its seed determines: its decisions (which faults, which client changes what, when) are the same every
// time, which TestSameSeedTwice requires. The order in which goroutines run within one virtual moment, the runtime's choice
// among ready channels and memberlist's choices of targets are not. So two runs of a seed part early (measured: after 6 % of
// the events; -sim.twice measures it again), and a failure may need a few tries of its seed to come back; each failing run
// therefore leaves its whole log in the folder for temporary files.
package simulation
