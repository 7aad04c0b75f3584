package crdt

import (
	"errors"
	"fmt"

	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
)

// The kinds of error of this package.
var (
	// ErrOperation says that the operation is not one of the model's, or lacks an argument.
	ErrOperation = errors.New("operation does not fit the state model")
	// ErrOverflow says that the operation would carry a number over its range.
	ErrOverflow = errors.New("number out of range")
	// ErrModel says that two states, or a state and a model, are of different kinds.
	ErrModel = errors.New("different state models")
	// ErrCorrupt says that bytes are not an encoding of a state.
	ErrCorrupt = errors.New("not an encoded state")
)

// Mutator is who changes a state, and when.
type Mutator struct {
	// Replica identifies one incarnation of one store. Never 0.
	Replica uint64
	// Now is the store's hybrid time: it grows at each call, and with the wall clock. At least MinTime.
	Now uint64
}

// MinTime is the first hybrid time of a real change; what comes before is for zero values, which any change beats.
const MinTime = 2

// State is one entity's mergeable state.
type State interface {
	// Delta computes the operation's change without making it: merge the delta to do so.
	Delta(op *holdfastv1.Operation, m Mutator) (State, error)
	// Merge joins other into this state and reports whether this state changed. other is unharmed, and not kept.
	Merge(other State) (changed bool, err error)
	// Value is what a service reads; nil where Exists is false. The caller owns it.
	Value() *holdfastv1.Value
	// Exists is false for the bottom state and after a delete.
	Exists() bool
	// Bottom is true where the state holds no knowledge at all: merging it changes nothing.
	Bottom() bool
	// Append appends the state's encoding.
	Append(dst []byte) []byte
	// Clone copies.
	Clone() State
	// Model is the state's model, and for an ormap that of its values.
	Model() (model, values configv1.Model)
}

// New returns the bottom state of a model. values counts for MODEL_ORMAP only.
func New(model, values configv1.Model) (State, error) {
	switch model {
	case configv1.Model_MODEL_GCOUNTER:
		return newCounter(), nil
	case configv1.Model_MODEL_LWW, configv1.Model_MODEL_VALUE:
		return &register{model: model}, nil
	case configv1.Model_MODEL_ORMAP:
		switch values {
		case configv1.Model_MODEL_GCOUNTER, configv1.Model_MODEL_LWW:
			return newMap(values), nil
		}
		return nil, fmt.Errorf("%w: an ormap can't have values of %s", ErrModel, Name(values))
	}
	return nil, fmt.Errorf("%w: no model %s", ErrModel, Name(model))
}

// Decode reads a state of any model that somebody else sent. It keeps nothing of b.
func Decode(b []byte) (State, error) {
	if len(b) > MaxEncoded {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrCorrupt, len(b), MaxEncoded)
	}
	return DecodeOwn(b)
}

// DecodeOwn is Decode of what this store wrote itself. It has no bound: what was joined here must be readable here,
// however large it came out.
func DecodeOwn(b []byte) (State, error) {
	r := &reader{b: b}
	if version := r.byte(); r.err == nil && version != encodingVersion {
		return nil, fmt.Errorf("%w: version %d, this code reads %d", ErrCorrupt, version, encodingVersion)
	}
	var s State
	switch model := configv1.Model(r.byte()); model {
	case configv1.Model_MODEL_GCOUNTER:
		s = decodeCounter(r)
	case configv1.Model_MODEL_LWW, configv1.Model_MODEL_VALUE:
		s = decodeRegister(r, model)
	case configv1.Model_MODEL_ORMAP:
		s = decodeMap(r)
	default:
		r.fail("unknown model")
	}
	if r.err == nil && len(r.b) > 0 {
		r.fail("bytes left over")
	}
	if r.err != nil {
		return nil, r.err
	}
	return s, nil
}

// Name is a model's name as users write it.
func Name(m configv1.Model) string {
	switch m {
	case configv1.Model_MODEL_VALUE:
		return "value"
	case configv1.Model_MODEL_GCOUNTER:
		return "gcounter"
	case configv1.Model_MODEL_LWW:
		return "lww"
	case configv1.Model_MODEL_ORMAP:
		return "ormap"
	}
	return fmt.Sprintf("model %d", int32(m))
}

// OperationName is an operation's name as users write it.
func OperationName(op *holdfastv1.Operation) string {
	switch op.GetOperation().(type) {
	case *holdfastv1.Operation_Increment:
		return "increment"
	case *holdfastv1.Operation_Set:
		return "set"
	case *holdfastv1.Operation_Delete:
		return "delete"
	case *holdfastv1.Operation_MapUpdate:
		return "map_update"
	case *holdfastv1.Operation_MapRemove:
		return "map_remove"
	}
	return "an operation that this version does not know"
}

func unfit(op *holdfastv1.Operation, model configv1.Model, takes string) error {
	return fmt.Errorf("%w: %s is not an operation of %s, which takes %s", ErrOperation, OperationName(op), Name(model), takes)
}

func mismatch(a, b State) error {
	return fmt.Errorf("%w: can't merge %s into %s", ErrModel, describe(b), describe(a))
}

func describe(s State) string {
	if s == nil {
		return "nothing"
	}
	model, values := s.Model()
	if model == configv1.Model_MODEL_ORMAP {
		return Name(model) + " of " + Name(values)
	}
	return Name(model)
}
