// Package settle decides when a replica identity that nobody writes under any more may be retired: taken out of all causal
// contexts, which then have every dot of it. It is pure.
//
// An identity is dead when its node's store has another one. It is settled with a store when that store has seen, of each
// slot that it has a part in, that the slot's other placed replicas have seen exactly the same of the identity as it has
// itself. When all members of the placement attest that, nobody can have, or get, a dot of it that the others lack, and
// the store of the identity's own node, its successor, retires it. This is causal stability, asked for dead identities
// only. A member that is away has not attested: it blocks the retirement, and nothing else.
//
// A store that attested adopts a retirement at once. One that did not (new, wiped, away and back) may lack what others
// have; its slots take the retired identities over one by one, with completed comparisons, and it adopts the rest when it
// has settled by them.
package settle

import (
	"maps"
	"slices"

	"github.com/holdfast-mesh/holdfast/internal/placement"
	"github.com/holdfast-mesh/holdfast/statestore/crdt"
)

const (
	// slots of an entity type.
	slots = placement.Slots
	// maxIdentities bounds the registry: one a restart of a store, for as long as it is not retired.
	maxIdentities = 1 << 16
	// maxNodes bounds the nodes whose slots are remembered: 64 KiB each and type, while an identity is dead.
	maxNodes = 1024
)

// Slot is a slot of an entity type.
type Slot struct {
	Type string
	Slot uint32
}

// evidence is what a peer was last seen to have seen of a slot, of the identities that were dead by then.
type evidence struct {
	// round is that of the table at the time; 0: none.
	round uint64
	seen  *crdt.Context
}

// Table is what one store knows of identities. It is not safe for concurrent use.
type Table struct {
	node string
	self uint64
	// nodes has the node of each identity that is known, retired the ones that are retired here.
	nodes   map[uint64]string
	retired map[uint64]bool
	// elsewhere has those that a peer calls retired.
	elsewhere map[uint64]bool
	// live has the identity that each node's store has now; a node that is away keeps its last one.
	live map[string]uint64
	// busy counts the streams on which an identity may still say something.
	busy map[uint64]int
	// dead lists those that are dead and not retired, in order; a new list at each change. since has the round in which
	// each was found dead.
	dead  []uint64
	since map[uint64]uint64
	// round grows when dead does: evidence of an earlier one says nothing of the newer identities.
	round uint64
	// seen has the evidence by node, of its identity in live, and by type.
	seen map[string]map[string]*[slots]evidence
	// attested has what each node attests, under its identity in live.
	attested map[string]map[uint64]bool
	// mine has what this store attested since its start, or since slots moved.
	mine map[uint64]bool
}

// New makes the table of a store.
func New(node string, self uint64) *Table {
	return &Table{
		node: node, self: self, nodes: map[uint64]string{self: node}, retired: map[uint64]bool{}, elsewhere: map[uint64]bool{},
		live: map[string]uint64{node: self}, busy: map[uint64]int{}, since: map[uint64]uint64{}, round: 1,
		seen: map[string]map[string]*[slots]evidence{}, attested: map[string]map[uint64]bool{}, mine: map[uint64]bool{},
	}
}

// recount finds the dead.
func (t *Table) recount() {
	var dead []uint64
	more := false
	for id, node := range t.nodes {
		if now, ok := t.live[node]; ok && now != id && !t.retired[id] {
			dead = append(dead, id)
			if t.since[id] == 0 {
				t.since[id] = t.round + 1
				more = true
			}
		}
	}
	if more {
		t.round++
	}
	slices.Sort(dead)
	t.dead = dead
	if len(dead) == 0 {
		clear(t.seen)
	}
}

// Learn takes an identity in; retired says that it is retired here. It reports whether it was news.
func (t *Table) Learn(identity uint64, node string, retired bool) bool {
	old, known := t.nodes[identity]
	if identity == 0 || node == "" || !known && len(t.nodes) >= maxIdentities || known && old != node {
		return false
	}
	t.nodes[identity] = node
	news := !known
	if retired && identity != t.self && !t.retired[identity] {
		t.retired[identity] = true
		news = true
	}
	if news {
		t.recount()
	}
	return news
}

// Elsewhere notes that a peer calls an identity retired.
func (t *Table) Elsewhere(identity uint64) {
	if _, known := t.nodes[identity]; known {
		t.elsewhere[identity] = true
	}
}

// Live notes which identity a node's store has now. What was seen of the one before, or attested by it, no longer counts:
// it may have come back with an older disk. It reports whether that was a change.
func (t *Table) Live(node string, identity uint64) bool {
	if node == t.node || t.live[node] == identity {
		return false
	}
	t.live[node] = identity
	delete(t.attested, node)
	delete(t.seen, node)
	t.recount()
	return true
}

// Node is the node of an identity.
func (t *Table) Node(identity uint64) string { return t.nodes[identity] }

// Busy counts a stream of an identity in, or out.
func (t *Table) Busy(identity uint64, by int) {
	if t.busy[identity] += by; t.busy[identity] <= 0 {
		delete(t.busy, identity)
	}
}

// Attested notes what a node's store attests: all of it, each time.
func (t *Table) Attested(node string, identities []uint64) {
	set := make(map[uint64]bool, len(identities))
	for _, id := range identities {
		if _, known := t.nodes[id]; known {
			set[id] = true
		}
	}
	t.attested[node] = set
}

// Moved notes that slots are placed otherwise: what this store attested did not say anything of those that it gets now.
func (t *Table) Moved() { clear(t.mine) }

// Dead lists the identities that are dead and not retired here, in order, and the round that evidence of them is of. The
// list never changes.
func (t *Table) Dead() ([]uint64, uint64) { return t.dead, t.round }

// Saw notes what a node's store has seen of a slot, of the dead identities of a round; the context is kept.
func (t *Table) Saw(node string, s Slot, round uint64, seen *crdt.Context) {
	if s.Slot >= slots || len(t.dead) == 0 {
		return
	}
	byType := t.seen[node]
	if byType == nil {
		if len(t.seen) >= maxNodes {
			return
		}
		byType = map[string]*[slots]evidence{}
		t.seen[node] = byType
	}
	if byType[s.Type] == nil {
		byType[s.Type] = new([slots]evidence)
	}
	byType[s.Type][s.Slot] = evidence{round, seen}
}

// Open lists the dead identities that may be settled: those of which no stream is left.
func (t *Table) Open() []uint64 {
	return slices.DeleteFunc(slices.Clone(t.dead), func(id uint64) bool { return t.busy[id] > 0 })
}

// Agree drops, from the identities that may be settled, those of which a slot's placed replicas were not all seen to have
// just what this store has: mine, with its dots of the dead identities.
func (t *Table) Agree(open []uint64, s Slot, placed []string, mine *crdt.Context) []uint64 {
	for _, node := range placed {
		if node == t.node || len(open) == 0 {
			continue
		}
		byType := t.seen[node][s.Type]
		if byType == nil || byType[s.Slot%slots].round == 0 {
			return nil
		}
		e := byType[s.Slot%slots]
		equal := e.seen == mine || e.seen.Equal(mine)
		open = slices.DeleteFunc(open, func(id uint64) bool {
			return t.since[id] > e.round || !equal && !same(e.seen, mine, id)
		})
	}
	return open
}

// same reports whether two contexts have the same dots of an identity.
func same(a, b *crdt.Context, identity uint64) bool {
	if all := a.Retired().Has(identity); all || b.Retired().Has(identity) {
		return all && b.Retired().Has(identity)
	}
	return a.Only(identity).Equal(b.Only(identity))
}

// Decide returns what this store attests, of those that all slots left open, and what it should retire now: as the
// successor, or because others did.
func (t *Table) Decide(open []uint64, members []string) (settled, retire []uint64) {
	for _, id := range t.dead {
		agreed := slices.Contains(open, id) && t.busy[id] == 0
		if agreed {
			settled = append(settled, id)
			t.mine[id] = true
		}
		switch {
		case t.elsewhere[id] && t.mine[id]:
			retire = append(retire, id)
		case agreed && t.nodes[id] == t.node && t.all(members, id):
			retire = append(retire, id)
		}
	}
	return settled, retire
}

// all reports whether all other members attest.
func (t *Table) all(members []string, identity uint64) bool {
	for _, node := range members {
		if node != t.node && !t.attested[node][identity] {
			return false
		}
	}
	return true
}

// Known lists the registry in order.
func (t *Table) Known(yield func(identity uint64, node string, retired bool)) {
	for _, id := range slices.Sorted(maps.Keys(t.nodes)) {
		yield(id, t.nodes[id], t.retired[id])
	}
}
