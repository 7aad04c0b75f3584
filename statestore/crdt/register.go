package crdt

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strings"

	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
)

// lww, and the model value of types that are not strong (Shapiro et al. 2011, specification 8), as a DotFun: a set's dot
// carries its time and bytes and replaces all that its replica had seen. Of concurrent sets that are live the one with the
// greatest (clock, time, replica) is the value; the others stay, unseen, until a later set or delete replaces them.
//
// The clocks: default is the hybrid logical clock (Kulkarni et al. 2014), so what was seen is always older; reverse is its
// complement, so the earliest set stays and a set that sees one changes nothing; custom takes the service's number, and a
// set whose number is not after one that it sees changes nothing; custom_auto_increment takes the next number then. Times
// of different clocks say nothing of each other: a set replaces all that it has seen of another clock, and of concurrent
// ones custom beats reverse beats default.
//
// Delete takes the sets that were seen. A concurrent set stays, whatever its time; it may be one that had lost to what
// was deleted.
type write struct {
	clock clock
	time  uint64
	value string
}

// clock is the rank of a write's clock. The numbers are part of the encoding.
type clock byte

const (
	clockNone    clock = 0 // an entry that was only created
	clockDefault clock = 1
	clockReverse clock = 2
	clockCustom  clock = 3
)

func (w write) append(dst []byte) []byte {
	dst = append(dst, byte(w.clock))
	if w.clock == clockNone {
		return dst
	}
	return append(binary.AppendUvarint(dst, w.time), w.value...)
}

func readWrite(payload string) write {
	w := write{clock: clock(payload[0])}
	if w.clock != clockNone {
		w.time, w.value = cutUint(payload[1:])
	}
	return w
}

func checkWrite(r *reader) {
	c := clock(r.byte())
	if c > clockCustom {
		r.fail("unknown clock")
	}
	if c == clockNone {
		return // Nothing follows, which the caller checks.
	}
	if t := r.uint(); r.err == nil && c == clockDefault && t < MinTime {
		r.fail("time before the first")
	}
	r.b = nil
}

func (w write) after(o write) bool {
	return w.clock > o.clock || w.clock == o.clock && w.time > o.time
}

// latestWrite is the bytes of the write that is the value.
func latestWrite(live dots) string {
	var best write
	for first := true; live != ""; first = false {
		_, payload, rest := live.next()
		// Of equal times the greater dot counts, which comes later.
		if w := readWrite(payload); first || !best.after(w) {
			best = w
		}
		live = rest
	}
	return best.value
}

func (s *shape) applyRegister(c *change, live store, op *holdfastv1.Operation) (store, error) {
	o, ok := op.GetOperation().(*holdfastv1.Operation_Set)
	if !ok {
		return store{}, s.unfit(op, "set and delete")
	}
	// latest holds, by clock, what a set comes after.
	var seen [clockCustom + 1]bool
	var latest [clockCustom + 1]uint64
	for at := live.dots; at != ""; {
		_, payload, rest := at.next()
		w := readWrite(payload)
		seen[w.clock], latest[w.clock] = true, max(latest[w.clock], w.time)
		at = rest
	}
	w := write{value: string(o.Set.GetValue())}
	switch o.Set.GetClock() {
	case holdfastv1.Clock_CLOCK_DEFAULT:
		w.clock = clockDefault
		if latest[w.clock] == math.MaxUint64 {
			return store{}, fmt.Errorf("%w: the last set's time is the last that there is: delete first", ErrOverflow)
		}
		w.time = max(c.Now, latest[w.clock]+1)
	case holdfastv1.Clock_CLOCK_REVERSE:
		w.clock, w.time = clockReverse, ^c.Now
		if seen[w.clock] {
			return store{}, nil
		}
	case holdfastv1.Clock_CLOCK_CUSTOM:
		w.clock, w.time = clockCustom, o.Set.GetCustomClock()
		if seen[w.clock] && w.time <= latest[w.clock] {
			return store{}, nil
		}
	case holdfastv1.Clock_CLOCK_CUSTOM_AUTO_INCREMENT:
		w.clock, w.time = clockCustom, o.Set.GetCustomClock()
		if seen[w.clock] && w.time <= latest[w.clock] {
			if latest[w.clock] == math.MaxUint64 {
				return store{}, fmt.Errorf("%w: the custom clock is at its last number: delete first", ErrOverflow)
			}
			w.time = latest[w.clock] + 1
		}
	default:
		return store{}, fmt.Errorf("%w: set with clock %d, which this version does not know: use default, reverse, custom or custom_auto_increment", ErrOperation, o.Set.GetClock())
	}
	c.replace(live)
	return store{dots: one(c.dot(), w.append(nil))}, nil
}

// mvregister is the multi-value register (Shapiro et al. 2011, specification 10), as a DotFun: a set replaces the sets
// that were seen, concurrent ones all stay. Delete takes those that were seen.

// How the payload of a multi-value register begins.
const (
	multiCreated = 0 // an entry that was only created
	multiSet     = 1
)

func (s *shape) applyMulti(c *change, live store, op *holdfastv1.Operation) (store, error) {
	o, ok := op.GetOperation().(*holdfastv1.Operation_Set)
	if !ok {
		return store{}, s.unfit(op, "set and delete")
	}
	if o.Set.GetClock() != holdfastv1.Clock_CLOCK_DEFAULT {
		return store{}, fmt.Errorf("%w: set of %s with clock %s: only lww has clocks, leave it out", ErrOperation, Name(s.kind), o.Set.GetClock())
	}
	c.replace(live)
	return store{dots: one(c.dot(), append([]byte{multiSet}, o.Set.GetValue()...))}, nil
}

func checkMulti(r *reader) {
	switch r.byte() {
	case multiCreated:
	case multiSet:
		r.b = nil
	default:
		r.fail("unknown mark of an mvregister")
	}
}

func multiValue(live dots) *holdfastv1.MultiValue {
	var values []string
	for live != "" {
		_, payload, rest := live.next()
		if payload[0] == multiSet {
			values = append(values, payload[1:])
		}
		live = rest
	}
	slices.SortFunc(values, strings.Compare)
	out := &holdfastv1.MultiValue{}
	for _, v := range slices.Compact(values) {
		out.Values = append(out.Values, []byte(v))
	}
	return out
}

// flag is the enable-wins flag (Almeida et al. 2018, figure 8), as a DotFun of marks: enable and disable replace all
// marks that were seen with their own, and the flag is set while a mark of an enable is live. So an enable that a disable
// did not see wins. Delete takes the marks that were seen.
const (
	flagDisabled = 0
	flagEnabled  = 1
)

func (s *shape) applyFlag(c *change, live store, op *holdfastv1.Operation) (store, error) {
	mark := byte(flagEnabled)
	switch op.GetOperation().(type) {
	case *holdfastv1.Operation_Enable:
		// Also where it is enabled: a concurrent disable must not take it.
	case *holdfastv1.Operation_Disable:
		if !live.empty() && !flagValue(live.dots) {
			return store{}, nil
		}
		mark = flagDisabled
	default:
		return store{}, s.unfit(op, "enable, disable and delete")
	}
	c.replace(live)
	return store{dots: one(c.dot(), []byte{mark})}, nil
}

func flagValue(live dots) bool {
	for live != "" {
		_, payload, rest := live.next()
		if payload[0] == flagEnabled {
			return true
		}
		live = rest
	}
	return false
}
