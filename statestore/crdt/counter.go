package crdt

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"

	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
)

// gcounter and pncounter (Shapiro, Preguiça, Baquero, Zawirski 2011, specifications 6 and 7), as a DotFun: an increment's
// dot carries the sum of all that its replica added, and replaces that replica's dot before. The value is the sum over the
// replicas of their newest dot; an older one is live only until the delta that replaced it arrives, too.
//
// Delete takes the dots that were seen. A concurrent increment stays, and with it all that its replica had added since the
// last delete that it knew: no acknowledged increment is lost to a delete that did not see it.
//
// A share also holds what it absorbed: the last dots of retired identities, with their sums. They are told apart by dot,
// so a sum that two have absorbed, or that is still live somewhere, counts once. When the absorbing identity retires and is
// absorbed itself, everybody knows what it replaced, and its list melts into one sum: no counter has more than a live dot
// and an absorbed one for each node.
//
// A change over the range is refused. Concurrent ones, each in range where it was made, may add up to more: the value
// then stays at the end of the range.

// share is what a counter's dot carries.
type share struct {
	// sum of the replica's own changes: a uint64, or an int64's bits in a pncounter.
	sum      uint64
	absorbed []absorbed // by replica, one each
}

type absorbed struct {
	dot Dot
	sum uint64
}

func (s *shape) signed() bool { return s.kind == configv1.Model_MODEL_PNCOUNTER }

func (s *shape) appendSum(dst []byte, sum uint64) []byte {
	if s.signed() {
		return binary.AppendVarint(dst, int64(sum))
	}
	return binary.AppendUvarint(dst, sum)
}

// cutSum takes a sum off t, which is known to begin with one.
func (s *shape) cutSum(t string) (uint64, string) {
	sum, t := cutUint(t)
	if s.signed() {
		sum = sum>>1 ^ -(sum & 1)
	}
	return sum, t
}

func (s *shape) appendShare(dst []byte, v share) []byte {
	dst = s.appendSum(dst, v.sum)
	for _, a := range v.absorbed {
		dst = s.appendSum(appendDot(dst, a.dot), a.sum)
	}
	return dst
}

func (s *shape) readShare(payload string) (v share) {
	v.sum, payload = s.cutSum(payload)
	for payload != "" {
		var a absorbed
		a.dot.Replica, payload = cutReplica(payload)
		a.dot.Seq, payload = cutUint(payload)
		a.sum, payload = s.cutSum(payload)
		v.absorbed = append(v.absorbed, a)
	}
	return v
}

func (s *shape) checkShare(r *reader) {
	r.uint()
	last := Dot{}
	for r.err == nil && len(r.b) > 0 {
		d := r.dot(last)
		if d.Replica == last.Replica {
			r.fail("replica absorbed twice")
		}
		r.uint()
		last = d
	}
}

// shares is each replica's newest sum, live or absorbed.
func (s *shape) shares(live dots) []absorbed {
	var out []absorbed
	put := func(a absorbed) {
		for i := range out {
			if out[i].dot.Replica == a.dot.Replica {
				if a.dot.Seq > out[i].dot.Seq || a.dot.Seq == out[i].dot.Seq && a.sum > out[i].sum {
					out[i] = a
				}
				return
			}
		}
		out = append(out, a)
	}
	for live != "" {
		d, payload, rest := live.next()
		v := s.readShare(payload)
		put(absorbed{d, v.sum})
		for _, a := range v.absorbed {
			put(a)
		}
		live = rest
	}
	return out
}

// total is the sum of all shares.
func (s *shape) total(live dots) (t total) {
	if live == "" {
		return t
	}
	if d, payload, rest := live.next(); rest == "" && d.Seq > 0 {
		// One dot is the common case.
		sum, list := s.cutSum(payload)
		if list == "" {
			t.add(sum, s.signed())
			return t
		}
	}
	for _, a := range s.shares(live) {
		t.add(a.sum, s.signed())
	}
	return t
}

// total is a sum that can't overflow: 128 bits, two's complement.
type total struct{ hi, lo uint64 }

func (t *total) add(n uint64, signed bool) {
	high := uint64(0)
	if signed {
		high = uint64(int64(n) >> 63)
	}
	var carry uint64
	t.lo, carry = bits.Add64(t.lo, n, 0)
	t.hi, _ = bits.Add64(t.hi, high, carry)
}

func (t total) minus(o total) total {
	lo, borrow := bits.Sub64(t.lo, o.lo, 0)
	hi, _ := bits.Sub64(t.hi, o.hi, borrow)
	return total{hi, lo}
}

// fits tells whether the sum is an int64.
func (t total) fits() bool { return t.hi == uint64(int64(t.lo)>>63) }

func (t total) unsigned() uint64 {
	if t.hi != 0 {
		return math.MaxUint64
	}
	return t.lo
}

func (t total) signed() int64 {
	switch {
	case int64(t.hi) > 0 || t.hi == 0 && t.lo > math.MaxInt64:
		return math.MaxInt64
	case int64(t.hi) < -1 || t.hi == math.MaxUint64 && t.lo < 1<<63:
		return math.MinInt64
	}
	return int64(t.lo)
}

func (s *shape) applyCounter(c *change, live store, op *holdfastv1.Operation) (store, error) {
	var by uint64
	switch o := op.GetOperation().(type) {
	case *holdfastv1.Operation_Increment:
		if s.signed() {
			return store{}, s.unfit(op, "change and delete")
		}
		by = o.Increment.GetBy()
	case *holdfastv1.Operation_Change:
		if !s.signed() {
			return store{}, s.unfit(op, "increment and delete")
		}
		by = uint64(o.Change.GetBy())
	default:
		if s.signed() {
			return store{}, s.unfit(op, "change and delete")
		}
		return store{}, s.unfit(op, "increment and delete")
	}
	if by == 0 && !live.empty() {
		return store{}, nil
	}
	after := s.total(live.dots)
	before := after
	after.add(by, s.signed())
	if !s.signed() && after.hi != 0 {
		return store{}, fmt.Errorf("%w: the counter is at %d, %d more is over 2^64-1: increment by less", ErrOverflow, before.unsigned(), by)
	}
	if s.signed() && !after.fits() {
		return store{}, fmt.Errorf("%w: the counter is at %d, a change by %d leaves the range of 64 bits: change it by less", ErrOverflow, before.signed(), int64(by))
	}
	mine := s.takeOver(c, live.dots)
	sum, ok := s.plus(mine.sum, by)
	if !ok {
		return store{}, fmt.Errorf("%w: what this replica alone added is at %d, a change by %d leaves the range of 64 bits: delete the counter, or change it at another node", ErrOverflow, int64(mine.sum), int64(by))
	}
	mine.sum = sum
	var buf [64]byte
	return store{dots: one(c.dot(), s.appendShare(buf[:0], mine))}, nil
}

// plus adds two sums, if the result is one.
func (s *shape) plus(a, b uint64) (uint64, bool) {
	sum, carry := bits.Add64(a, b, 0)
	if !s.signed() {
		return sum, carry == 0
	}
	return sum, (int64(a) < 0) != (int64(b) < 0) || (int64(sum) < 0) == (int64(a) < 0)
}

// takeOver is the share that a change of this replica starts from: its own, with what it absorbs. All that is in it is
// replaced, also what was absorbed before: whoever gets this delta and missed the one before still must not keep it.
func (s *shape) takeOver(c *change, live dots) (mine share) {
	own := Dot{}
	for at := live; at != ""; {
		d, payload, rest := at.next()
		if d.Replica == c.Replica {
			c.seen = append(c.seen, d)
			if d.Seq > own.Seq {
				own, mine = d, s.readShare(payload)
			}
		}
		at = rest
	}
	for _, a := range mine.absorbed {
		c.seen = append(c.seen, a.dot)
	}
	if c.Absorb == nil {
		return mine
	}
	// counted holds whose sum stays where it is: live, or absorbed before.
	counted := map[uint64]bool{}
	for _, a := range mine.absorbed {
		counted[a.dot.Replica] = true
	}
	var taken []dots // of retired former selves
	for at := live; at != ""; {
		d, payload, rest := at.next()
		switch {
		case d.Replica == c.Replica:
		case c.Absorb(d.Replica):
			taken = append(taken, at[:len(at)-len(rest)])
		default:
			for _, a := range s.readShare(payload).absorbed {
				counted[a.dot.Replica] = true
			}
		}
		counted[d.Replica] = true
		at = rest
	}
	for i, t := range taken {
		d, payload, _ := t.next()
		v := s.readShare(payload)
		newest := i+1 == len(taken)
		if !newest {
			next, _, _ := taken[i+1].next()
			newest = next.Replica != d.Replica
		}
		if !newest {
			c.seen = append(c.seen, d)
			continue
		}
		sum, ok := v.sum, true
		for _, a := range v.absorbed {
			if ok && !counted[a.dot.Replica] {
				sum, ok = s.plus(sum, a.sum)
			}
		}
		if !ok {
			continue // It does not fit: let it live on.
		}
		c.seen = append(c.seen, d)
		for _, a := range v.absorbed {
			c.seen = append(c.seen, a.dot)
			counted[a.dot.Replica] = true
		}
		mine.absorbed = insertAbsorbed(mine.absorbed, absorbed{d, sum})
	}
	return mine
}

// insertAbsorbed keeps the list in order and the newer one of a replica.
func insertAbsorbed(list []absorbed, a absorbed) []absorbed {
	for i := range list {
		switch {
		case list[i].dot.Replica == a.dot.Replica:
			if a.dot.Seq > list[i].dot.Seq {
				list[i] = a
			}
			return list
		case list[i].dot.Replica > a.dot.Replica:
			list = append(list, absorbed{})
			copy(list[i+1:], list[i:])
			list[i] = a
			return list
		}
	}
	return append(list, a)
}
