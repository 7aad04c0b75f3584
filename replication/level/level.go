// Package level says what an acknowledgement of a write means, level by level: the one table that validation, the docs
// and the tests share.
package level

import "fmt"

// Level is what must have happened before a write's reply leaves.
type Level int

// The levels, from the weakest.
const (
	Unspecified Level = iota
	LocalMem
	Local
	Majority
	All
	Strong
)

// Meaning is what a level's acknowledgement promises.
type Meaning struct {
	Level Level
	// Name as configuration spells it.
	Name string
	// Implemented is false for levels that validation must refuse for now.
	Implemented bool
	// ReplyAfter, Survives, MayLose and Otherwise complete: "a reply is sent after …", "the write survives …", "may be
	// lost when …", "where that cannot be: …".
	ReplyAfter, Survives, MayLose, Otherwise string
}

var table = [...]Meaning{
	{
		Level: LocalMem, Name: "LOCAL_MEM",
		ReplyAfter: "the write was applied in this store's memory",
		Survives:   "nothing but this process",
		MayLose:    "this process ends: up to one delta push of acknowledged writes",
		Otherwise:  "-",
	},
	{
		Level: Local, Name: "LOCAL", Implemented: true,
		ReplyAfter: "the write was applied and fsynced on this node",
		Survives:   "a crash and restart of this store, and the loss of any number of other nodes",
		MayLose:    "this node's disk dies before its deltas left",
		Otherwise:  "disk full: RESOURCE_EXHAUSTED; disk error: UNAVAILABLE; not applied",
	},
	{
		Level: Majority, Name: "MAJORITY",
		ReplyAfter: "a majority of the slot's placed replicas (this one included, never of the live view) fsynced the write",
		Survives:   "the loss of any minority of the placed replicas, disks included",
		MayLose:    "-",
		Otherwise:  "timeout: outcome unknown; never rolled back",
	},
	{
		Level: All, Name: "ALL",
		ReplyAfter: "all of the slot's placed replicas fsynced the write",
		Survives:   "the loss of all placed replicas but one, disks included",
		MayLose:    "-",
		Otherwise:  "timeout: outcome unknown; never rolled back",
	},
	{
		Level: Strong, Name: "STRONG", Implemented: true,
		ReplyAfter: "etcd committed the transaction, guarded by the slot's owner and the entity's revision",
		Survives:   "what etcd survives",
		MayLose:    "-",
		Otherwise:  "etcd gone: UNAVAILABLE, nothing written; timeout: outcome unknown",
	},
}

// Table returns the meanings of all levels, the weakest first.
func Table() []Meaning { return append([]Meaning(nil), table[:]...) }

// Parse returns the meaning of a level that configuration names. Strong is not written but follows from the entity type's
// consistency; it is refused here.
func Parse(name string) (Meaning, error) {
	for _, m := range table {
		if m.Name == name && m.Level != Strong {
			if !m.Implemented {
				return Meaning{}, fmt.Errorf("write level %s is not implemented yet; use LOCAL", name)
			}
			return m, nil
		}
	}
	return Meaning{}, fmt.Errorf("unknown write level %q; use LOCAL", name)
}

func (l Level) String() string {
	for _, m := range table {
		if m.Level == l {
			return m.Name
		}
	}
	return fmt.Sprintf("Level(%d)", int(l))
}
