package placement

import (
	"slices"
	"sync"

	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
)

// memoSize is how many orders are remembered: those of two placements, twice over.
const memoSize = 4

// memo has the last orders that were computed. An order is a pure function of members, weights and seed, it takes a second
// for 500 members, and a process needs the same one several times: a store for its engine and its replication, whatever
// the epoch is, a simulation for each of its stores.
var memo struct {
	// mu guards what follows; an order is computed under it, for who waits wants the same one.
	mu sync.Mutex
	// +checklocks:mu
	last [memoSize]ranked
	// next is the place of the oldest.
	// +checklocks:mu
	next int
}

// ranked is an order, and what it was computed of.
type ranked struct {
	seed    uint64
	members []ranking
	order   []uint16
}

type ranking struct {
	name   string
	weight uint32
}

// remembered is rank, once for equal input. The caller must not change the result.
func remembered(p *configv1.Placement) []uint16 {
	members := make([]ranking, len(p.GetMembers()))
	for i, m := range p.GetMembers() {
		members[i] = ranking{m.GetName(), m.GetWeight()}
	}
	memo.mu.Lock()
	defer memo.mu.Unlock()
	for _, r := range memo.last {
		if r.order != nil && r.seed == p.GetSeed() && slices.Equal(r.members, members) {
			return r.order
		}
	}
	order := rank(p)
	memo.last[memo.next] = ranked{p.GetSeed(), members, order}
	memo.next = (memo.next + 1) % memoSize
	return order
}
