package rig

import "time"

const (
	// pollEvery is how often a condition is looked at: often enough not to cost time, seldom enough not to load two cores.
	pollEvery = 50 * time.Millisecond
	// callTimeout ends one REST call that nobody answers: longer than any deadline inside the mesh.
	callTimeout = 20 * time.Second
	// stopWait is how long a mesh may take to stop in order.
	stopWait = 60 * time.Second
	// commandTimeout ends one run of the command line tool.
	commandTimeout = 60 * time.Second
	// maxOutput is how much of `holdfast up`'s output is kept, in bytes.
	maxOutput = 1 << 20
	// maxBody is the largest answer to a REST call that is read, in bytes.
	maxBody = 4 << 20
	// firstBase and lastBase bound the ports that meshes of tests take: below Linux's ephemeral range.
	firstBase, lastBase = 27000, 31600
	// baseStep is the distance between two meshes: the gateway and nodes, and above +100 all else.
	baseStep = 400
)
