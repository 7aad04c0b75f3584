package crdt

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"math/bits"
	"slices"

	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
)

// counter is the grow-only counter (Shapiro et al. 2011, specification 6; delta form in Almeida et al. 2018, figure 2):
// each replica counts its own increments, join is the maximum per replica, the value is the sum.
//
// An increment that would carry the value over 2^64-1 is refused. Concurrent increments, each in range where it was made,
// may still add up to more: the value then stays at 2^64-1.
type counter struct {
	counts map[uint64]uint64
}

func newCounter() *counter { return &counter{counts: map[uint64]uint64{}} }

func (c *counter) Model() (configv1.Model, configv1.Model) {
	return configv1.Model_MODEL_GCOUNTER, configv1.Model_MODEL_UNSPECIFIED
}

func (c *counter) Delta(op *holdfastv1.Operation, m Mutator) (State, error) {
	inc, ok := op.GetOperation().(*holdfastv1.Operation_Increment)
	if !ok {
		return nil, unfit(op, configv1.Model_MODEL_GCOUNTER, "increment")
	}
	by := inc.Increment.GetBy()
	d := newCounter()
	if by == 0 && c.Exists() {
		return d, nil
	}
	if total := saturatingSum(maps.Values(c.counts)); by > math.MaxUint64-total {
		return nil, fmt.Errorf("%w: the counter is at %d, %d more is over 2^64-1", ErrOverflow, total, by)
	}
	d.counts[m.Replica] = c.counts[m.Replica] + by
	return d, nil
}

func (c *counter) Merge(other State) (bool, error) {
	o, ok := other.(*counter)
	if !ok {
		return false, mismatch(c, other)
	}
	changed := false
	for replica, n := range o.counts {
		if have, ok := c.counts[replica]; !ok || n > have {
			c.counts[replica] = n
			changed = true
		}
	}
	return changed, nil
}

func (c *counter) Value() *holdfastv1.Value {
	if !c.Exists() {
		return nil
	}
	return &holdfastv1.Value{Kind: &holdfastv1.Value_Gcounter{Gcounter: saturatingSum(maps.Values(c.counts))}}
}

// Exists is true from the first increment on, also one by 0.
func (c *counter) Exists() bool { return len(c.counts) > 0 }

func (c *counter) Bottom() bool { return len(c.counts) == 0 }

func (c *counter) Clone() State { return &counter{counts: maps.Clone(c.counts)} }

func (c *counter) Append(dst []byte) []byte {
	dst = append(dst, encodingVersion, byte(configv1.Model_MODEL_GCOUNTER))
	dst = binary.AppendUvarint(dst, uint64(len(c.counts)))
	for _, replica := range slices.Sorted(maps.Keys(c.counts)) {
		dst = appendReplica(dst, replica)
		dst = binary.AppendUvarint(dst, c.counts[replica])
	}
	return dst
}

func decodeCounter(r *reader) *counter {
	n := r.count(9)
	c := &counter{counts: make(map[uint64]uint64, n)}
	last := uint64(0)
	for range n {
		replica := r.replica()
		if r.err == nil && replica <= last {
			r.fail("replicas out of order")
		}
		c.counts[replica] = r.uint()
		last = replica
	}
	return c
}

func saturatingSum(numbers func(yield func(uint64) bool)) uint64 {
	total := uint64(0)
	for n := range numbers {
		sum, carry := bits.Add64(total, n, 0)
		if carry != 0 {
			return math.MaxUint64
		}
		total = sum
	}
	return total
}
