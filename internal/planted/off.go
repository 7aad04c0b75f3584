//go:build !planted_bugs

package planted

// On is false in every build that is not a trial of the tests.
func On(string) bool { return false }
