// Package level says how many replicas an acknowledgement of a write takes, level by level. It is pure.
//
// Levels count the replicas that the placement names for the entity's slot, never those that happen to be seen alive: a
// minority that is cut off does not become a majority of itself. The store that took the write counts where it is one of
// the placed ones, since nothing but LOCAL_MEM is acknowledged before it is durable there. What each level survives is said
// in docs/reliability.md.
package level

import configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"

// Others is how many placed replicas beside this store must have a write on their disks before it is acknowledged: of
// placed replicas in all, where this store is one of them or not. A level that is not known needs all.
func Others(l configv1.WriteLevel, placed int, here bool) int {
	need := placed
	switch l {
	case configv1.WriteLevel_WRITE_LEVEL_UNSPECIFIED, configv1.WriteLevel_WRITE_LEVEL_LOCAL_MEM, configv1.WriteLevel_WRITE_LEVEL_LOCAL:
		return 0
	case configv1.WriteLevel_WRITE_LEVEL_MAJORITY:
		need = placed/2 + 1
	}
	if here {
		need--
	}
	return max(need, 0)
}

// Acked reports whether a level waits for other replicas at all.
func Acked(l configv1.WriteLevel) bool { return Others(l, 3, true) > 0 }
