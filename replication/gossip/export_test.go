package gossip

// For the tests from outside.
var (
	Greet         = greet
	DeltasMessage = deltasMessage
	Unpack        = unpack
)
