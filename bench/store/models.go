package store

import (
	"fmt"
	"sync/atomic"

	"github.com/holdfast-mesh/holdfast/e2e/rig/stores"
	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
)

type operation = holdfastv1.Operation

// model is a CRDT with a stream of operations for an entity that all change something: what changes nothing is not written,
// and would only look fast. The states stay small, so that a later round measures the same as the first.
type model struct {
	name   string
	model  configv1.Model
	values *configv1.Shape
	// op is the n-th operation of an entity.
	op func(n uint64) *operation
}

var models = []model{
	{name: "gcounter", model: configv1.Model_MODEL_GCOUNTER, op: func(uint64) *operation { return stores.Increment() }},
	{name: "pncounter", model: configv1.Model_MODEL_PNCOUNTER, op: func(n uint64) *operation { return change(3 - 4*int64(n%2)) }},
	{name: "bcounter", model: configv1.Model_MODEL_BCOUNTER, op: func(n uint64) *operation { return change(2 - 3*int64(n%2)) }},
	{name: "gset", model: configv1.Model_MODEL_GSET, op: func(n uint64) *operation {
		// It only grows, so now and then it is deleted.
		if n%17 == 16 {
			return &operation{Operation: &holdfastv1.Operation_Delete{Delete: &holdfastv1.Delete{}}}
		}
		return add(n)
	}},
	{name: "orset", model: configv1.Model_MODEL_ORSET, op: func(n uint64) *operation {
		// Four of eight elements are there.
		if n%2 == 0 {
			return add(n / 2 % 8)
		}
		return &operation{Operation: &holdfastv1.Operation_Remove{Remove: &holdfastv1.SetRemove{Elements: [][]byte{bytes16((n/2 + 4) % 8)}}}}
	}},
	{name: "lww", model: configv1.Model_MODEL_LWW, op: set},
	{name: "mvregister", model: configv1.Model_MODEL_MVREGISTER, op: set},
	{name: "flag", model: configv1.Model_MODEL_FLAG, op: func(n uint64) *operation {
		if n%2 == 0 {
			return &operation{Operation: &holdfastv1.Operation_Enable{Enable: &holdfastv1.Enable{}}}
		}
		return &operation{Operation: &holdfastv1.Operation_Disable{Disable: &holdfastv1.Disable{}}}
	}},
	{name: "vote", model: configv1.Model_MODEL_VOTE, op: func(n uint64) *operation {
		return &operation{Operation: &holdfastv1.Operation_Vote{Vote: &holdfastv1.CastVote{InFavour: n%2 == 0}}}
	}},
	{name: "ormap", model: configv1.Model_MODEL_ORMAP, values: &configv1.Shape{Model: configv1.Model_MODEL_GCOUNTER}, op: func(n uint64) *operation {
		return &operation{Operation: &holdfastv1.Operation_MapUpdate{MapUpdate: &holdfastv1.MapUpdate{
			Key: fmt.Sprintf("entry-%d", n%8), Operation: stores.Increment(),
		}}}
	}},
}

func change(by int64) *operation {
	return &operation{Operation: &holdfastv1.Operation_Change{Change: &holdfastv1.Change{By: by}}}
}

func add(n uint64) *operation {
	return &operation{Operation: &holdfastv1.Operation_Add{Add: &holdfastv1.SetAdd{Elements: [][]byte{bytes16(n)}}}}
}

func set(n uint64) *operation {
	return &operation{Operation: &holdfastv1.Operation_Set{Set: &holdfastv1.Set{Value: bytes16(n)}}}
}

// bytes16 is a value of 16 bytes.
func bytes16(n uint64) []byte { return fmt.Appendf(nil, "%016x", n) }

// key is an entity key of 16 bytes.
func key(n int) string { return fmt.Sprintf("%016x", n) }

// entityType is the model as an entity type of its own name.
func (m *model) entityType(level configv1.WriteLevel) *configv1.EntityType {
	return &configv1.EntityType{
		Type: m.name, Model: m.model, Values: m.values, Consistency: configv1.Consistency_CONSISTENCY_EVENTUAL,
		Write: level, Affinity: configv1.Affinity_AFFINITY_LOCAL, MaxStateBytes: 64 << 10,
	}
}

// stream gives each of a model's entities its next operation.
type stream struct {
	model *model
	made  []atomic.Uint64
}

func newStream(m *model, keys int) *stream {
	return &stream{model: m, made: make([]atomic.Uint64, keys)}
}

func (s *stream) next(i int) *operation { return s.model.op(s.made[i].Add(1) - 1) }

// choose are the models of these names; none means all.
func choose(names []string) []*model {
	var out []*model
	for i := range models {
		if chosen(names, models[i].name) {
			out = append(out, &models[i])
		}
	}
	return out
}
