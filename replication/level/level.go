// Package level says what an acknowledgement of a write means, level by level, and how many replicas it takes. It is pure.
//
// Levels count the replicas that the placement names for the entity's slot, never those that happen to be seen alive: a
// minority that is cut off does not become a majority of itself. The store that took the write counts where it is one of
// the placed ones, since nothing is acknowledged before it is durable there.
package level

import (
	"fmt"

	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
)

// Meaning is what a level's acknowledgement promises.
type Meaning struct {
	Level configv1.WriteLevel
	// Name as configuration spells it.
	Name string
	// ReplyAfter, Survives, MayLose and Otherwise complete: "a reply is sent after …", "the write survives …", "it may be
	// lost when …", "where that cannot be: …".
	ReplyAfter, Survives, MayLose, Otherwise string
}

var table = []Meaning{
	{
		Level: configv1.WriteLevel_WRITE_LEVEL_LOCAL_MEM, Name: "LOCAL_MEM",
		ReplyAfter: "the write was applied in this store's memory",
		Survives:   "nothing but this process",
		MayLose:    "this process ends: what was acknowledged since its last synced batch",
		Otherwise:  "-",
	},
	{
		Level: configv1.WriteLevel_WRITE_LEVEL_LOCAL, Name: "LOCAL",
		ReplyAfter: "the write was applied and fsynced on this node",
		Survives:   "a crash and restart of this store, and the loss of any number of other nodes",
		MayLose:    "this node's disk dies before its deltas left",
		Otherwise:  "disk full: RESOURCE_EXHAUSTED; disk error: UNAVAILABLE; not applied",
	},
	{
		Level: configv1.WriteLevel_WRITE_LEVEL_MAJORITY, Name: "MAJORITY",
		ReplyAfter: "a majority of the slot's placed replicas fsynced the write",
		Survives:   "the loss of any minority of the placed replicas, disks included",
		MayLose:    "-",
		Otherwise:  "timeout: outcome unknown; never rolled back",
	},
	{
		Level: configv1.WriteLevel_WRITE_LEVEL_ALL, Name: "ALL",
		ReplyAfter: "all of the slot's placed replicas fsynced the write",
		Survives:   "the loss of all placed replicas but one, disks included",
		MayLose:    "-",
		Otherwise:  "timeout: outcome unknown; never rolled back",
	},
}

// Table returns the meanings of all levels, the weakest first.
func Table() []Meaning { return append([]Meaning(nil), table...) }

// Of returns the meaning of a level. A level that is not set means LOCAL.
func Of(l configv1.WriteLevel) (Meaning, error) {
	if l == configv1.WriteLevel_WRITE_LEVEL_UNSPECIFIED {
		l = configv1.WriteLevel_WRITE_LEVEL_LOCAL
	}
	for _, m := range table {
		if m.Level == l {
			return m, nil
		}
	}
	return Meaning{}, fmt.Errorf("write level %d is not known", l)
}

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
