package crdt

import (
	"fmt"

	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
)

// shape is a model and, where the model is a map of something, what the members are. There are few, and all states of one
// shape share it.
type shape struct {
	kind  kind
	depth int // how many ormaps it is in, and is
	// member is nil where the store has dots only.
	member *shape
	proto  *configv1.Shape
}

// kind is the model; what no user names are the members of sets and votes.
type kind = configv1.Model

const (
	kindElement kind = -1
	kindBallot  kind = -2
)

var (
	elementShape = &shape{kind: kindElement}
	ballotShape  = &shape{kind: kindBallot}
	// shapes holds every shape, by model: those in no map, and those in 1 to MaxDepth maps under their ormap.
	shapes = allShapes()
)

// models are those that New takes, ormap apart.
var models = []kind{
	configv1.Model_MODEL_VALUE,
	configv1.Model_MODEL_GCOUNTER,
	configv1.Model_MODEL_LWW,
	configv1.Model_MODEL_PNCOUNTER,
	configv1.Model_MODEL_GSET,
	configv1.Model_MODEL_ORSET,
	configv1.Model_MODEL_MVREGISTER,
	configv1.Model_MODEL_FLAG,
	configv1.Model_MODEL_VOTE,
	configv1.Model_MODEL_BCOUNTER,
}

// inMap tells whether an ormap may have values of a model.
func inMap(m kind) bool {
	return m != configv1.Model_MODEL_VALUE && m != configv1.Model_MODEL_BCOUNTER
}

// shapeKey finds a shape: the model in the middle, and the ormaps around it.
type shapeKey struct {
	leaf  kind
	depth int
}

func allShapes() map[shapeKey]*shape {
	out := map[shapeKey]*shape{}
	for _, m := range models {
		s := &shape{kind: m, proto: &configv1.Shape{Model: m}}
		switch m {
		case configv1.Model_MODEL_GSET, configv1.Model_MODEL_ORSET:
			s.member = elementShape
		case configv1.Model_MODEL_VOTE:
			s.member = ballotShape
		}
		out[shapeKey{m, 0}] = s
		for depth := 1; depth <= MaxDepth && inMap(m); depth++ {
			s = &shape{
				kind: configv1.Model_MODEL_ORMAP, depth: depth, member: s,
				proto: &configv1.Shape{Model: configv1.Model_MODEL_ORMAP, Values: s.proto},
			}
			out[shapeKey{m, depth}] = s
		}
	}
	return out
}

func findShape(p *configv1.Shape) (*shape, error) {
	depth := 0
	for p.GetModel() == configv1.Model_MODEL_ORMAP {
		if depth++; depth > MaxDepth {
			return nil, fmt.Errorf("%w: ormaps nested more than %d deep: nest fewer", ErrModel, MaxDepth)
		}
		if p = p.GetValues(); p == nil {
			return nil, fmt.Errorf("%w: an ormap without the shape of its values: name one", ErrModel)
		}
	}
	if p.GetValues() != nil {
		return nil, fmt.Errorf("%w: only an ormap has values, %s has not", ErrModel, Name(p.GetModel()))
	}
	s := shapes[shapeKey{p.GetModel(), depth}]
	if s == nil && depth > 0 {
		return nil, fmt.Errorf("%w: an ormap can't have values of %s", ErrModel, Name(p.GetModel()))
	}
	if s == nil {
		return nil, fmt.Errorf("%w: no model %s", ErrModel, Name(p.GetModel()))
	}
	return s, nil
}

// append appends the models from the outside in.
func (s *shape) append(dst []byte) []byte {
	for ; s.kind == configv1.Model_MODEL_ORMAP; s = s.member {
		dst = append(dst, byte(s.kind))
	}
	return append(dst, byte(s.kind))
}

func decodeShape(r *reader) *shape {
	key := shapeKey{leaf: kind(r.byte())}
	for key.leaf == configv1.Model_MODEL_ORMAP && r.err == nil {
		key.depth++
		key.leaf = kind(r.byte())
	}
	s := shapes[key]
	if s == nil {
		r.fail("unknown model, or too many ormaps")
	}
	return s
}

// ShapeOf is the shape of an entity type's states. The caller must not change it.
func ShapeOf(t *configv1.EntityType) *configv1.Shape {
	return &configv1.Shape{Model: t.GetModel(), Values: t.GetValues()}
}

// SameShape tells whether states of the two shapes merge.
func SameShape(a, b *configv1.Shape) bool {
	for a.GetModel() == b.GetModel() && a.GetValues() != nil && b.GetValues() != nil {
		a, b = a.Values, b.Values
	}
	return a.GetModel() == b.GetModel() && a.GetValues() == nil && b.GetValues() == nil
}

// Describe is a shape's name as users write it: "ormap of gcounter".
func Describe(p *configv1.Shape) string {
	name := Name(p.GetModel())
	for n := 0; p.GetValues() != nil && n < MaxDepth; n++ {
		p = p.Values
		name += " of " + Name(p.GetModel())
	}
	return name
}

func (s *shape) String() string {
	if s == nil {
		return "nothing"
	}
	return Describe(s.proto)
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
	case configv1.Model_MODEL_PNCOUNTER:
		return "pncounter"
	case configv1.Model_MODEL_GSET:
		return "gset"
	case configv1.Model_MODEL_ORSET:
		return "orset"
	case configv1.Model_MODEL_MVREGISTER:
		return "mvregister"
	case configv1.Model_MODEL_FLAG:
		return "flag"
	case configv1.Model_MODEL_VOTE:
		return "vote"
	case configv1.Model_MODEL_BCOUNTER:
		return "bcounter"
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
	case *holdfastv1.Operation_Change:
		return "change"
	case *holdfastv1.Operation_Add:
		return "add"
	case *holdfastv1.Operation_Remove:
		return "remove"
	case *holdfastv1.Operation_Clear:
		return "clear"
	case *holdfastv1.Operation_Enable:
		return "enable"
	case *holdfastv1.Operation_Disable:
		return "disable"
	case *holdfastv1.Operation_Vote:
		return "vote"
	}
	return "an operation that this version does not know"
}
