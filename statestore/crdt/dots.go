package crdt

import "encoding/binary"

// dots is a dot store of the kinds DotSet and DotFun (Almeida et al. 2018, section 7.3): live dots, each with a payload.
// It is kept as it is encoded, so that a small one is a few bytes without a pointer, and never changes:
//
//	n × (replica, seq, length and bytes of the payload)   by dot
//
// What is in a payload is the model's affair; join only compares.
type dots string

// next takes the first dot off.
func (s dots) next() (d Dot, payload string, rest dots) {
	var t string
	d.Replica, t = cutReplica(string(s))
	d.Seq, t = cutUint(t)
	n, t := cutUint(t)
	return d, t[:n], dots(t[n:])
}

// one is a store of one dot.
func one(d Dot, payload []byte) dots {
	var buf [64]byte
	return dots(appendBytes(appendDot(buf[:0], d), payload))
}

// known is what one side of a join has seen: the dots of either context.
type known struct{ a, b *Context }

func (k known) has(d Dot) bool { return k.a.Has(d) || k.b.Has(d) }

func (k known) nothing() bool {
	return (k.a.Empty() && k.a.Retired() == nil) && (k.b.Empty() && k.b.Retired() == nil)
}

// joinDots keeps a dot that both hold, and one that only one side holds where the other has not seen it. Two payloads of
// one dot don't occur; should they, the greater stays, so that the laws hold for all input.
func joinDots(a, b dots, sawA, sawB known) dots {
	if a == b {
		return a
	}
	if a == "" && sawA.nothing() {
		return b
	}
	if b == "" && sawB.nothing() {
		return a
	}
	keepA, keepB := true, true
	walkDots(a, b, sawA, sawB, func(isA, isB, kept bool, _ dots) bool {
		keepA = keepA && isA == kept
		keepB = keepB && isB == kept
		return keepA || keepB
	})
	switch {
	case keepA:
		return a
	case keepB:
		return b
	}
	var buf [256]byte
	out := buf[:0]
	walkDots(a, b, sawA, sawB, func(_, _, kept bool, whole dots) bool {
		if kept {
			out = append(out, whole...)
		}
		return true
	})
	return dots(out)
}

// walkDots visits the dots of both sides in order: whether the dot as it is in whole is in a and in b, and whether the join
// keeps it.
func walkDots(a, b dots, sawA, sawB known, yield func(isA, isB, kept bool, whole dots) bool) {
	for a != "" || b != "" {
		var da, db Dot
		var restA, restB dots
		if a != "" {
			da, _, restA = a.next()
		}
		if b != "" {
			db, _, restB = b.next()
		}
		order := 0
		switch {
		case a == "":
			order = 1
		case b == "":
			order = -1
		default:
			order = da.compare(db)
		}
		switch {
		case order < 0:
			if !yield(true, false, !sawB.has(da), a[:len(a)-len(restA)]) {
				return
			}
			a = restA
		case order > 0:
			if !yield(false, true, !sawA.has(db), b[:len(b)-len(restB)]) {
				return
			}
			b = restB
		default:
			inA, inB := a[:len(a)-len(restA)], b[:len(b)-len(restB)]
			whole := max(inA, inB)
			if !yield(whole == inA, whole == inB, true, whole) {
				return
			}
			a, b = restA, restB
		}
	}
}

// without leaves out the dots that drop names.
func (s dots) without(drop func(Dot) bool) dots {
	var out []byte
	changed := false
	for at := s; at != ""; {
		d, _, rest := at.next()
		switch gone := drop(d); {
		case gone && !changed:
			changed = true
			out = append(out, s[:len(s)-len(at)]...)
		case !gone && changed:
			out = append(out, at[:len(at)-len(rest)]...)
		}
		at = rest
	}
	if !changed {
		return s
	}
	return dots(out)
}

// decodeDots reads a store; check says what is wrong with a payload.
func decodeDots(r *reader, check func(r *reader)) dots {
	n := r.count(10)
	from := r.b
	last := Dot{}
	for range n {
		last = r.dot(last)
		payload := &reader{b: r.bytes()}
		if r.err != nil {
			return ""
		}
		check(payload)
		if payload.err == nil && len(payload.b) > 0 {
			payload.fail("bytes left over in what a dot carries")
		}
		if payload.err != nil {
			r.err, r.b = payload.err, nil
			return ""
		}
	}
	return dots(from[:len(from)-len(r.b)])
}

// count is the number of dots.
func (s dots) count() int {
	n := 0
	for s != "" {
		_, _, s = s.next()
		n++
	}
	return n
}

// append appends the encoding: the number of dots, and the dots.
func (s dots) append(dst []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(s.count()))
	return append(dst, s...)
}
