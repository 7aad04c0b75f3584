package crdt

import (
	"encoding/binary"
	"fmt"
	"slices"
	"unicode/utf8"

	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
)

// How an encoding's context is given.
const (
	contextIsLive = 0 // the live dots and nothing else
	contextGiven  = 1
)

// Append appends the state's encoding: store and context.
func (s *State) Append(dst []byte) []byte {
	dst = s.shape.append(append(dst, encodingVersion))
	// Which of the two it is does not depend on how the state holds its context: equal states have equal bytes.
	if c := s.Context(); s.beyondLive(c) {
		dst = c.Append(append(dst, contextGiven))
	} else {
		dst = append(dst, contextIsLive)
	}
	return appendStore(dst, s.shape, s.live)
}

// beyondLive tells whether c, which covers the live dots, has more than those.
func (s *State) beyondLive(c *Context) bool {
	live := uint64(0)
	s.Live(func(Dot) bool {
		live++
		return true
	})
	for _, r := range c.runs {
		n := r.to - r.from // one less than there are, which fits
		if n >= live {
			return true
		}
		live -= n + 1
	}
	return false
}

// AppendLive appends the encoding of the state as if its context were its live dots alone: what is hashed, kept and sent
// where the context is the slot's.
func (s *State) AppendLive(dst []byte) []byte {
	dst = s.shape.append(append(dst, encodingVersion))
	return appendStore(append(dst, contextIsLive), s.shape, s.live.whole())
}

func appendStore(dst []byte, shape *shape, s store) []byte {
	dst = s.dots.append(dst)
	if shape.member == nil {
		return dst
	}
	head := uint64(s.members.len()) << 1
	if s.members.isNamed() {
		head++
	}
	dst = binary.AppendUvarint(dst, head)
	for it := s.members.iterate(); it.member() != nil; it.next() {
		dst = appendBytes(dst, it.member().name)
		dst = appendStore(dst, shape.member, it.member().store)
	}
	return dst
}

// Decode reads a state that somebody else sent. It keeps nothing of b.
func Decode(b []byte) (State, error) {
	if len(b) > MaxEncoded {
		return State{}, fmt.Errorf("%w: %d bytes, at most %d", ErrCorrupt, len(b), MaxEncoded)
	}
	s, err := DecodeOwn(b)
	if err == nil && s.dotTwice() {
		return State{}, fmt.Errorf("decode state: %w: a dot is live twice", ErrCorrupt)
	}
	return s, err
}

// dotTwice tells whether two members hold the same dot: it names one change, of one member.
func (s *State) dotTwice() bool {
	if s.shape.member == nil {
		return false
	}
	var all []Dot
	s.Live(func(d Dot) bool {
		all = append(all, d)
		return true
	})
	slices.SortFunc(all, Dot.compare)
	return len(slices.Compact(slices.Clone(all))) < len(all)
}

// DecodeOwn is Decode of what this store wrote itself. It has no bound, and takes a dot that is live twice: what was joined
// here must be readable here, however it came out.
func DecodeOwn(b []byte) (State, error) {
	r := &reader{b: b}
	switch version := r.byte(); {
	case r.err != nil:
	case version == 1:
		r.fail("version 1, which never left development: remove the data that holds it")
	case version != encodingVersion:
		r.fail(fmt.Sprintf("version %d, this code reads %d", version, encodingVersion))
	}
	s := State{shape: decodeShape(r)}
	given := r.byte()
	switch {
	case r.err != nil:
	case given == contextGiven:
		s.own = decodeContext(r)
	case given != contextIsLive:
		r.fail("unknown kind of context")
	}
	if r.err == nil {
		s.live = decodeStore(r, s.shape, true)
	}
	if r.err == nil && len(r.b) > 0 {
		r.fail("bytes left over")
	}
	if r.err == nil && given == contextGiven {
		s.checkContext(r)
	}
	if r.err != nil {
		return State{}, fmt.Errorf("decode state: %w", r.err)
	}
	return s, nil
}

// checkContext refuses a context that does not hold the live dots, or nothing else.
func (s *State) checkContext(r *reader) {
	covered := true
	s.Live(func(d Dot) bool {
		covered = s.own.Has(d)
		return covered
	})
	switch {
	case !covered:
		r.fail("live dot that the context has not seen")
	case !s.beyondLive(s.own):
		r.fail("context spelled out that is the live dots")
	}
}

func decodeStore(r *reader, shape *shape, mayName bool) store {
	s := store{dots: decodeDots(r, shape.check)}
	if shape.member == nil {
		return s
	}
	n := r.uint()
	named := n&1 == 1
	if named && !mayName {
		r.fail("names in a whole map")
	}
	// A member is at least a length, a count of dots and, if it has members itself, their count; but one that is not
	// empty has a dot of ten bytes.
	size := uint64(12)
	if named {
		size = 2
	}
	n >>= 1
	if n > uint64(len(r.b))/size {
		r.fail("count over the bytes that follow")
	}
	if r.err != nil {
		return s
	}
	b := builder{left: n}
	last, first := "", true
	for range n {
		name := string(r.bytes())
		if r.err == nil && (!first && name <= last) {
			r.fail("names out of order")
		}
		checkName(r, shape, name)
		last, first = name, false
		member := member{name, decodeStore(r, shape.member, named)}
		if r.err == nil && !named && member.store.empty() {
			r.fail("member without a dot in a whole map")
		}
		if r.err != nil {
			return s
		}
		b.add(member)
	}
	s.members = b.build(named)
	return s
}

// checkName refuses what no operation could have named.
func checkName(r *reader, shape *shape, name string) {
	switch {
	case r.err != nil:
	case shape.member == elementShape:
		if len(name) > MaxElement {
			r.fail("element too long")
		}
	case shape.kind == configv1.Model_MODEL_VOTE:
		if len(name) > MaxNode || name == "" || !utf8.ValidString(name) {
			r.fail("node name empty, too long or not UTF-8")
		}
	default:
		if len(name) > MaxMapKey || name == "" || !utf8.ValidString(name) {
			r.fail("map key empty, too long or not UTF-8")
		}
	}
}
