package crdt

import (
	"cmp"
	"encoding/binary"
	"maps"
	"slices"
)

// Dot names one change: the Seq-th of a replica's changes of this entity, counted from 1.
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

// context is a causal context (Almeida et al. 2018, section 7.2): the set of dots that a state has seen, the dead ones
// included. Runs from 1 on are in the version vector, the rest in the cloud.
//
// Invariant: a dot (r, s) of the cloud has s > vector[r]+1, and no number in vector is 0, so equal sets have one form.
type context struct {
	vector map[uint64]uint64
	cloud  map[Dot]struct{}
}

func newContext() context {
	return context{vector: map[uint64]uint64{}, cloud: map[Dot]struct{}{}}
}

func (c context) has(d Dot) bool {
	if d.Seq <= c.vector[d.Replica] {
		return true
	}
	_, ok := c.cloud[d]
	return ok
}

// last is the greatest sequence that the context has of a replica.
func (c context) last(replica uint64) uint64 {
	last := c.vector[replica]
	for d := range c.cloud {
		if d.Replica == replica {
			last = max(last, d.Seq)
		}
	}
	return last
}

// add puts dots in. compact must follow.
func (c context) add(d Dot) {
	if !c.has(d) {
		c.cloud[d] = struct{}{}
	}
}

// merge adds all that other has and reports whether that was anything new.
func (c context) merge(other context) bool {
	changed := false
	for replica, seq := range other.vector {
		if seq > c.vector[replica] {
			c.vector[replica] = seq
			changed = true
		}
	}
	for d := range other.cloud {
		if !c.has(d) {
			c.cloud[d] = struct{}{}
			changed = true
		}
	}
	if changed {
		c.compact()
	}
	return changed
}

// compact moves what continues the vector from the cloud into it.
func (c context) compact() {
	if len(c.cloud) == 0 {
		return
	}
	for _, d := range c.dots() {
		switch seq := c.vector[d.Replica]; {
		case d.Seq <= seq:
			delete(c.cloud, d)
		case d.Seq == seq+1:
			c.vector[d.Replica] = d.Seq
			delete(c.cloud, d)
		}
	}
}

// dots is the cloud in order.
func (c context) dots() []Dot {
	return slices.SortedFunc(maps.Keys(c.cloud), Dot.compare)
}

func (c context) empty() bool { return len(c.vector) == 0 && len(c.cloud) == 0 }

func (c context) clone() context {
	return context{vector: maps.Clone(c.vector), cloud: maps.Clone(c.cloud)}
}

func (c context) append(dst []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(c.vector)))
	for _, replica := range slices.Sorted(maps.Keys(c.vector)) {
		dst = appendReplica(dst, replica)
		dst = binary.AppendUvarint(dst, c.vector[replica])
	}
	dst = binary.AppendUvarint(dst, uint64(len(c.cloud)))
	for _, d := range c.dots() {
		dst = appendReplica(dst, d.Replica)
		dst = binary.AppendUvarint(dst, d.Seq)
	}
	return dst
}

func decodeContext(r *reader) context {
	n := r.count(9)
	c := context{vector: make(map[uint64]uint64, n)}
	last := Dot{}
	for range n {
		d := r.dot(last)
		if r.err == nil && d.Replica == last.Replica {
			r.fail("replica twice in a version vector")
		}
		c.vector[d.Replica] = d.Seq
		last = d
	}
	n = r.count(9)
	c.cloud = make(map[Dot]struct{}, n)
	last = Dot{}
	for range n {
		d := r.dot(last)
		// Written so that a vector at the greatest number does not wrap to 0.
		if r.err == nil && (d.Seq <= c.vector[d.Replica] || d.Seq-1 == c.vector[d.Replica]) {
			r.fail("dot cloud is not compact")
		}
		c.cloud[d] = struct{}{}
		last = d
	}
	return c
}
