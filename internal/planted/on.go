//go:build planted_bugs

package planted

import "os"

var chosen = os.Getenv("HOLDFAST_PLANT")

// On tells whether the bug is in this run.
func On(name string) bool { return name == chosen }
