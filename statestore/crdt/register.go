package crdt

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"math"

	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
)

// register is the last-writer-wins register (Shapiro et al. 2011, specification 8): the write with the greatest (hybrid
// time, replica) stays. A write always takes a time after that of every write its store had seen, so what was read is
// never beaten by what was read before it, whatever the clocks say; of two concurrent writes the later clock wins and
// the other is gone. A delete is a write: a concurrent set with a later time undoes it.
//
// It is also the model `value` of types that are not strong; then Value says `value`, not `lww`, so that a service reads the
// same field whatever the consistency.
type register struct {
	model configv1.Model
	stamp
	deleted bool
	payload []byte
}

// stamp is the time of a write. Time 0 is the bottom: nothing was written.
type stamp struct {
	time    uint64
	replica uint64
}

func (s stamp) compare(o stamp) int {
	if c := cmp.Compare(s.time, o.time); c != 0 {
		return c
	}
	return cmp.Compare(s.replica, o.replica)
}

// next is a time for a write by m that comes after s.
func (s stamp) next(m Mutator) (stamp, error) {
	if s.time == math.MaxUint64 {
		return stamp{}, fmt.Errorf("%w: the last write's time is the last that there is", ErrOverflow)
	}
	return stamp{time: max(m.Now, s.time+1, MinTime), replica: m.Replica}, nil
}

func (g *register) Model() (configv1.Model, configv1.Model) {
	return g.model, configv1.Model_MODEL_UNSPECIFIED
}

func (g *register) Delta(op *holdfastv1.Operation, m Mutator) (State, error) {
	d := &register{model: g.model}
	switch o := op.GetOperation().(type) {
	case *holdfastv1.Operation_Set:
		d.payload = bytes.Clone(o.Set.GetValue())
	case *holdfastv1.Operation_Delete:
		if !g.Exists() {
			return d, nil
		}
		d.deleted = true
	default:
		return nil, unfit(op, g.model, "set and delete")
	}
	var err error
	if d.stamp, err = g.next(m); err != nil {
		return nil, err
	}
	return d, nil
}

// compare orders registers totally, so that join is the maximum even for two states with one stamp, which no correct
// store makes.
func (g *register) compare(o *register) int {
	if c := g.stamp.compare(o.stamp); c != 0 {
		return c
	}
	if g.deleted != o.deleted {
		if g.deleted {
			return 1
		}
		return -1
	}
	return bytes.Compare(g.payload, o.payload)
}

func (g *register) Merge(other State) (bool, error) {
	o, ok := other.(*register)
	if !ok || o.model != g.model {
		return false, mismatch(g, other)
	}
	if g.compare(o) >= 0 {
		return false, nil
	}
	*g = register{model: o.model, stamp: o.stamp, deleted: o.deleted, payload: bytes.Clone(o.payload)}
	return true, nil
}

func (g *register) Value() *holdfastv1.Value {
	if !g.Exists() {
		return nil
	}
	payload := append([]byte{}, g.payload...)
	if g.model == configv1.Model_MODEL_VALUE {
		return &holdfastv1.Value{Kind: &holdfastv1.Value_Value{Value: payload}}
	}
	return &holdfastv1.Value{Kind: &holdfastv1.Value_Lww{Lww: payload}}
}

func (g *register) Exists() bool { return g.time > 0 && !g.deleted }

func (g *register) Bottom() bool { return g.time == 0 }

func (g *register) Clone() State {
	c := *g
	c.payload = bytes.Clone(g.payload)
	return &c
}

// How a register's encoding begins.
const (
	registerBottom  = 0
	registerSet     = 1
	registerDeleted = 2
)

func (g *register) Append(dst []byte) []byte {
	dst = append(dst, encodingVersion, byte(g.model))
	if g.Bottom() {
		return append(dst, registerBottom)
	}
	kind := byte(registerSet)
	if g.deleted {
		kind = registerDeleted
	}
	dst = append(dst, kind)
	dst = binary.AppendUvarint(dst, g.time)
	dst = appendReplica(dst, g.replica)
	if !g.deleted {
		dst = appendBytes(dst, g.payload)
	}
	return dst
}

func decodeRegister(r *reader, model configv1.Model) *register {
	g := &register{model: model}
	kind := r.byte()
	if kind == registerBottom {
		return g
	}
	if kind > registerDeleted {
		r.fail("unknown kind of register")
	}
	g.deleted = kind == registerDeleted
	g.time = r.uint()
	if r.err == nil && g.time < MinTime {
		r.fail("time before the first")
	}
	g.replica = r.replica()
	if !g.deleted {
		g.payload = bytes.Clone(r.bytes())
	}
	return g
}
