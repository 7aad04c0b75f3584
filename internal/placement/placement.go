// Package placement computes which stores keep a slot's entities, and in which order.
//
// It is pure: the control plane, the stores and the filters run the same code on the same input (members, weights, seed)
// and so agree without talking. Slots are spread by weighted rendezvous hashing: each (slot, member) pair draws a number
// u in (0,1) and scores -weight/ln(u); the highest score is first. When a member comes or goes only the slots it
// gains or had move (Thaler and Ravishankar 1998; the weights after Schindelhauer and Schomaker 2005).
package placement

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/cespare/xxhash/v2"

	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
)

// Slots is the number of hash slots of an entity type's keys.
const Slots = 4096

// Slot is the slot of an entity key within its type.
func Slot(entityType, key string) uint32 {
	var d xxhash.Digest
	d.Reset()
	_, _ = d.WriteString(entityType)
	_, _ = d.Write([]byte{0})
	_, _ = d.WriteString(key)
	return uint32(d.Sum64() % Slots)
}

// Table answers for one placement. It is immutable and safe for concurrent use.
type Table struct {
	epoch   uint64
	members []*configv1.Member
	// order holds len(members) member indexes for each slot, best first.
	order []uint16
}

// New computes the table of a placement. Errors: no members, too many, a duplicate or empty name.
func New(p *configv1.Placement) (*Table, error) {
	n := len(p.GetMembers())
	if n == 0 {
		return nil, fmt.Errorf("placement epoch %d has no members", p.GetEpoch())
	}
	if n > math.MaxUint16 {
		return nil, fmt.Errorf("placement epoch %d has %d members, at most %d", p.GetEpoch(), n, math.MaxUint16)
	}
	seen := map[string]bool{}
	for i, m := range p.Members {
		if m.GetName() == "" || seen[m.Name] {
			return nil, fmt.Errorf("placement epoch %d: member %d: name %q is empty or taken", p.Epoch, i, m.GetName())
		}
		seen[m.Name] = true
	}
	return &Table{epoch: p.Epoch, members: p.Members, order: remembered(p)}, nil
}

// rank computes the members of each slot, best first.
func rank(p *configv1.Placement) []uint16 {
	n := len(p.Members)
	order := make([]uint16, Slots*n)
	scores := make([]float64, n)
	for slot := range Slots {
		row := order[slot*n : (slot+1)*n]
		for i, m := range p.Members {
			row[i] = uint16(i)
			scores[i] = score(p.Seed, uint32(slot), m)
		}
		slices.SortFunc(row, func(a, b uint16) int {
			if c := cmp.Compare(scores[b], scores[a]); c != 0 {
				return c
			}
			return cmp.Compare(p.Members[a].Name, p.Members[b].Name)
		})
	}
	return order
}

func score(seed uint64, slot uint32, m *configv1.Member) float64 {
	var head [12]byte
	for i := range 8 {
		head[i] = byte(seed >> (8 * i))
	}
	for i := range 4 {
		head[8+i] = byte(slot >> (8 * i))
	}
	var d xxhash.Digest
	d.Reset()
	_, _ = d.Write(head[:])
	_, _ = d.WriteString(m.Name)
	// 53 bits make a float64 in (0,1); the half keeps it off 0.
	u := (float64(d.Sum64()>>11) + 0.5) / (1 << 53)
	weight := float64(max(m.Weight, 1))
	return -weight / math.Log(u)
}

// Epoch is the placement's epoch.
func (t *Table) Epoch() uint64 { return t.epoch }

// Members returns all members in the placement's order. The caller must not change them.
func (t *Table) Members() []*configv1.Member { return t.members }

// Order calls yield for the slot's members, owner first, until yield returns false.
func (t *Table) Order(slot uint32) func(yield func(*configv1.Member) bool) {
	n := len(t.members)
	row := t.order[int(slot)*n : (int(slot)+1)*n]
	return func(yield func(*configv1.Member) bool) {
		for _, i := range row {
			if !yield(t.members[i]) {
				return
			}
		}
	}
}

// Replicas returns the slot's first n members (0 means all), owner first.
func (t *Table) Replicas(slot uint32, n int) []*configv1.Member {
	if n <= 0 || n > len(t.members) {
		n = len(t.members)
	}
	out := make([]*configv1.Member, 0, n)
	for m := range t.Order(slot) {
		if len(out) == n {
			break
		}
		out = append(out, m)
	}
	return out
}
