package identity

import "time"

const (
	// Life is how long a node's certificate is good for; renew it at half of that, so that half a day of trouble harms nobody.
	Life = 24 * time.Hour
	// authorityLife is the CA's. It is made anew at each start of the mesh.
	authorityLife = 10 * 365 * 24 * time.Hour
	// backdate makes certificates good for nodes whose clock is behind the CA's.
	backdate = 15 * time.Minute
	// serialBits is the size of serial numbers: random, so that no CA has to remember the last one.
	serialBits = 120
	// maxFile bounds what is read of a file: a few certificates of 1 KiB.
	maxFile = 1 << 20
)

// The kinds of PEM block that are read and written.
const (
	certBlock = "CERTIFICATE"
	keyBlock  = "PRIVATE KEY"
)
