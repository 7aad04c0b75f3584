// Package tree has nothing but tests, about the tree itself: who imports whom, what stands in one place only, what every
// package must have. A failure names the rule and the reason; the rules are DESIGN's.
package tree
