package crdt

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"sort"

	"github.com/cespare/xxhash/v2"
)

// Dot names one change: the Seq-th that a replica identity made in one slot of one entity type, counted from 1.
type Dot struct {
	Replica uint64
	Seq     uint64
}

func (d Dot) compare(o Dot) int {
	if c := cmp.Compare(d.Replica, o.Replica); c != 0 {
		return c
	}
	return cmp.Compare(d.Seq, o.Seq)
}

// Context is a causal context (Almeida, Shoker, Baquero 2018, section 7.2): a set of dots that were seen, the ones that
// are no longer live included. nil is the empty context for all that only read. Changes are not safe for concurrent use.
//
// Invariant: runs are sorted, don't touch each other, and none is of a retired identity; so equal sets have one form.
type Context struct {
	runs    []run
	retired *Retired
}

// run is the dots from .. to of a replica. 1 <= from <= to.
type run struct {
	replica, from, to uint64
}

// find is the index of the first run that ends at or after the dot.
func (c *Context) find(replica, seq uint64) int {
	return sort.Search(len(c.runs), func(i int) bool {
		r := &c.runs[i]
		return r.replica > replica || r.replica == replica && r.to >= seq
	})
}

// Has tells whether a dot was seen.
func (c *Context) Has(d Dot) bool {
	if c == nil {
		return false
	}
	if i := c.find(d.Replica, d.Seq); i < len(c.runs) && c.runs[i].replica == d.Replica && c.runs[i].from <= d.Seq {
		return true
	}
	return c.retired.Has(d.Replica)
}

// Add puts a dot in.
func (c *Context) Add(d Dot) { c.addRun(run{d.Replica, d.Seq, d.Seq}) }

func (c *Context) addRun(r run) bool {
	if r.from == 0 || r.from > r.to || c.retired.Has(r.replica) {
		return false
	}
	// i is the first run that r touches or that comes after it.
	i := c.find(r.replica, max(r.from-1, 1))
	if i < len(c.runs) && c.runs[i].replica == r.replica && c.runs[i].from <= r.from && r.to <= c.runs[i].to {
		return false
	}
	j := i
	for j < len(c.runs) && c.runs[j].replica == r.replica && (r.to == math.MaxUint64 || c.runs[j].from <= r.to+1) {
		r.from, r.to = min(r.from, c.runs[j].from), max(r.to, c.runs[j].to)
		j++
	}
	if j == i+1 {
		c.runs[i] = r
		return true
	}
	c.runs = slices.Replace(c.runs, i, j, r)
	return true
}

// Merge adds all that o has and reports whether that was anything new.
func (c *Context) Merge(o *Context) bool {
	if o == nil || c == o {
		return false
	}
	changed := c.Retire(o.retired)
	if len(c.runs) == 0 && len(o.runs) > 0 && c.retired == o.retired {
		c.runs = slices.Clone(o.runs)
		return true
	}
	if len(o.runs) > 8 && len(c.runs) > 8 {
		return c.mergeMany(o.runs) || changed
	}
	for _, r := range o.runs {
		if c.addRun(r) {
			changed = true
		}
	}
	return changed
}

// mergeMany adds runs, sorted, in one walk over both: one by one, each would move all that come after it.
func (c *Context) mergeMany(runs []run) bool {
	out := Context{runs: make([]run, 0, len(c.runs)+len(runs)), retired: c.retired}
	mine, changed := c.runs, false
	for len(mine) > 0 || len(runs) > 0 {
		if len(runs) == 0 || len(mine) > 0 && mine[0].before(runs[0]) {
			out.push(mine[0])
			mine = mine[1:]
			continue
		}
		if !c.hasRun(runs[0]) {
			changed = true
			out.push(runs[0])
		}
		runs = runs[1:]
	}
	c.runs = out.runs
	return changed
}

func (r run) before(o run) bool {
	return r.replica < o.replica || r.replica == o.replica && r.from <= o.from
}

// push adds a run that begins after all others.
func (c *Context) push(r run) {
	if n := len(c.runs); n > 0 {
		if last := &c.runs[n-1]; last.replica == r.replica && (last.to == math.MaxUint64 || last.to+1 >= r.from) {
			last.to = max(last.to, r.to)
			return
		}
	}
	c.runs = append(c.runs, r)
}

// contextOf is a context of dots, which it sorts.
func contextOf(dots []Dot) *Context {
	slices.SortFunc(dots, Dot.compare)
	c := &Context{}
	for _, d := range dots {
		c.push(run{d.Replica, d.Seq, d.Seq})
	}
	return c
}

// Retire takes every dot of the set's identities for seen, and reports whether that changed the context. Their runs go.
func (c *Context) Retire(set *Retired) bool {
	if c.retired.covers(set) {
		return false
	}
	c.retired = c.retired.Union(set)
	c.runs = slices.DeleteFunc(c.runs, func(r run) bool { return c.retired.Has(r.replica) })
	return true
}

// Retired is the set of identities of which every dot counts as seen.
func (c *Context) Retired() *Retired {
	if c == nil {
		return nil
	}
	return c.retired
}

// Covers tells whether c has all that o has.
func (c *Context) Covers(o *Context) bool { return o.coveredBy(c, nil) }

// coveredBy tells whether all that c has is in a or in b.
func (c *Context) coveredBy(a, b *Context) bool {
	if c == nil || c == a || c == b || len(c.runs) == 0 && c.retired == nil {
		return true
	}
	for _, id := range c.retired.IDs() {
		if !a.Retired().Has(id) && !b.Retired().Has(id) {
			return false
		}
	}
	for _, r := range c.runs {
		if !a.hasRun(r) && !b.hasRun(r) {
			if a == nil || b == nil {
				return false
			}
			both := a.Clone()
			both.Merge(b)
			return both.Covers(c)
		}
	}
	return true
}

func (c *Context) hasRun(r run) bool {
	if c == nil {
		return false
	}
	i := c.find(r.replica, r.from)
	if i < len(c.runs) && c.runs[i].replica == r.replica && c.runs[i].from <= r.from && r.to <= c.runs[i].to {
		return true
	}
	return c.retired.Has(r.replica)
}

// Equal tells whether both have the same.
func (c *Context) Equal(o *Context) bool {
	if c.Empty() != o.Empty() {
		return false
	}
	return (c.Empty() || slices.Equal(c.runs, o.runs)) && slices.Equal(c.Retired().IDs(), o.Retired().IDs())
}

// Clone copies; the clone of nil is an empty context.
func (c *Context) Clone() *Context {
	if c == nil {
		return &Context{}
	}
	return &Context{runs: slices.Clone(c.runs), retired: c.retired}
}

// Empty tells whether there are no runs, whatever is retired.
func (c *Context) Empty() bool { return c == nil || len(c.runs) == 0 }

// Next is one more than the greatest sequence seen of a replica; 0 where there is no next one.
func (c *Context) Next(replica uint64) uint64 {
	if c == nil {
		return 1
	}
	i := c.after(replica)
	if i == 0 || c.runs[i-1].replica != replica {
		return 1
	}
	return c.runs[i-1].to + 1
}

// after is the index of the first run of a greater replica.
func (c *Context) after(replica uint64) int {
	return sort.Search(len(c.runs), func(i int) bool { return c.runs[i].replica > replica })
}

// of is the runs of one replica.
func (c *Context) of(replica uint64) []run {
	if c == nil {
		return nil
	}
	return c.runs[c.find(replica, 1):c.after(replica)]
}

// Only is what the context has of some replicas, their retirement included.
func (c *Context) Only(replicas ...uint64) *Context {
	out := &Context{}
	if c == nil {
		return out
	}
	var retired []uint64
	for _, replica := range replicas {
		if c.retired.Has(replica) {
			retired = append(retired, replica)
		}
		for _, r := range c.of(replica) {
			out.addRun(r)
		}
	}
	out.retired = NewRetired(retired...)
	return out
}

// Upto is the last sequence of a replica before the first hole: all from 1 to it were seen.
func (c *Context) Upto(replica uint64) uint64 {
	if runs := c.of(replica); len(runs) > 0 && runs[0].from == 1 {
		return runs[0].to
	}
	return 0
}

// Beyond is how many dots of a replica were seen after the first hole.
func (c *Context) Beyond(replica uint64) uint64 {
	n := uint64(0)
	for _, r := range c.of(replica) {
		if r.from != 1 {
			n += r.to - r.from + 1
		}
	}
	return n
}

// Replicas lists, ascending, the identities that the context has dots of, without the retired ones.
func (c *Context) Replicas() []uint64 {
	if c == nil {
		return nil
	}
	var out []uint64
	for _, r := range c.runs {
		if len(out) == 0 || out[len(out)-1] != r.replica {
			out = append(out, r.replica)
		}
	}
	return out
}

// Hash is equal for equal contexts, and 0 where there are no runs.
func (c *Context) Hash() uint64 {
	if c.Empty() {
		return 0
	}
	var buf [256]byte
	return xxhash.Sum64(binary.BigEndian.AppendUint64(c.Append(buf[:0]), c.retired.Hash()))
}

// Append appends the encoding of the runs. What is retired is not in it: that is a store's knowledge, not a slot's.
func (c *Context) Append(dst []byte) []byte {
	if c == nil {
		return append(dst, 0)
	}
	n := uint64(0)
	for i := range c.runs {
		if i == 0 || c.runs[i].replica != c.runs[i-1].replica {
			n++
		}
	}
	dst = binary.AppendUvarint(dst, n)
	for i := 0; i < len(c.runs); {
		j := i
		for j < len(c.runs) && c.runs[j].replica == c.runs[i].replica {
			j++
		}
		dst = binary.BigEndian.AppendUint64(dst, c.runs[i].replica)
		dst = binary.AppendUvarint(dst, uint64(j-i))
		last := uint64(0)
		for ; i < j; i++ {
			// Both are at least 1: between two runs is a hole.
			dst = binary.AppendUvarint(dst, c.runs[i].from-last)
			dst = binary.AppendUvarint(dst, c.runs[i].to-c.runs[i].from+1)
			last = c.runs[i].to + 1
		}
	}
	return dst
}

// DecodeContext reads what Append wrote, and nothing else. It keeps nothing of b.
func DecodeContext(b []byte) (*Context, error) {
	r := &reader{b: b}
	c := decodeContext(r)
	if r.err == nil && len(r.b) > 0 {
		r.fail("bytes left over")
	}
	if r.err != nil {
		return nil, fmt.Errorf("decode causal context: %w", r.err)
	}
	return c, nil
}

func decodeContext(r *reader) *Context {
	c := &Context{}
	last := uint64(0)
	for range r.count(11) {
		replica := r.replica()
		if replica <= last {
			r.fail("replicas out of order")
		}
		last = replica
		n := r.count(2)
		if n == 0 {
			r.fail("replica without a run")
		}
		c.runs = slices.Grow(c.runs, n)
		end := uint64(0) // of the run before, plus 1: what may not be in this one
		for i := range n {
			gap, length := r.uint(), r.uint()
			if gap == 0 || length == 0 || gap > math.MaxUint64-end || length-1 > math.MaxUint64-(end+gap) || i > 0 && end == 0 {
				r.fail("runs touch, or are empty or out of range")
			}
			if r.err != nil {
				return c
			}
			from := end + gap
			c.runs = append(c.runs, run{replica, from, from + length - 1})
			end = from + length // 0 after the greatest number
		}
	}
	return c
}
