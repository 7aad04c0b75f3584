package v1alpha1

import "fmt"

// Model is the state model: exactly one of the fields. One without settings may be written as its bare name.
type Model struct {
	Value      *Empty    `yaml:"value"`
	GCounter   *Empty    `yaml:"gcounter"`
	PNCounter  *Empty    `yaml:"pncounter"`
	BCounter   *BCounter `yaml:"bcounter"`
	GSet       *Empty    `yaml:"gset"`
	ORSet      *Empty    `yaml:"orset"`
	LWW        *Empty    `yaml:"lww"`
	MVRegister *Empty    `yaml:"mvregister"`
	Flag       *Empty    `yaml:"flag"`
	Vote       *Empty    `yaml:"vote"`
	ORMap      *ORMap    `yaml:"ormap"`

	EventSourced *Unsupported `yaml:"event_sourced"`
}

// BCounter is a counter that never goes below its floor.
type BCounter struct {
	Floor int64 `yaml:"floor"`
}

// ORMap is a map whose values are all of one other model.
type ORMap struct {
	Values *Model `yaml:"values"`
}

// bareNames says that a Model with no settings may be written as its name alone.
func (*Model) bareNames() {}

// names lists the models that are given; a valid Model has one.
func (m *Model) names() []string {
	var out []string
	for _, f := range []struct {
		given bool
		name  string
	}{
		{m.Value != nil, ModelValue},
		{m.GCounter != nil, ModelGCounter},
		{m.PNCounter != nil, ModelPNCounter},
		{m.BCounter != nil, ModelBCounter},
		{m.GSet != nil, ModelGSet},
		{m.ORSet != nil, ModelORSet},
		{m.LWW != nil, ModelLWW},
		{m.MVRegister != nil, ModelMVRegister},
		{m.Flag != nil, ModelFlag},
		{m.Vote != nil, ModelVote},
		{m.ORMap != nil, ModelORMap},
	} {
		if f.given {
			out = append(out, f.name)
		}
	}
	return out
}

// Name is the model's name, without what an ormap holds.
func (m *Model) Name() string {
	if n := m.names(); len(n) == 1 {
		return n[0]
	}
	return ""
}

// String is the model in words. Two models are the same where their strings are.
func (m *Model) String() string {
	switch {
	case m.Name() == "":
		return "no model"
	case m.ORMap != nil && m.ORMap.Values != nil:
		return "ormap of " + m.ORMap.Values.String()
	case m.BCounter != nil && m.BCounter.Floor != 0:
		return fmt.Sprintf("bcounter with floor %d", m.BCounter.Floor)
	}
	return m.Name()
}

// validateModel reports what the model at field can't be. maps is how many ormaps it is in.
func (d *document) validateModel(field string, m *Model, maps int) {
	if names := m.names(); len(names) != 1 {
		d.errorf(field, "names %d models; write exactly one, for example gcounter, or {ormap: {values: gcounter}}", len(names))
		return
	}
	switch {
	case maps == 0:
	case m.Value != nil:
		d.errorf(field, "value is a whole entity's state, and can't be in an ormap; write lww")
	case m.BCounter != nil:
		d.errorf(field, "bcounter can't be in an ormap: what may be taken off belongs to an entity; write pncounter, or make each counter an entity of its own")
	case m.ORMap != nil && maps >= maxMapDepth:
		d.errorf(field, "is an ormap inside %d others, which is as deep as they may be nested; use keys with more parts instead", maps)
		return
	}
	if m.ORMap == nil {
		return
	}
	if m.ORMap.Values == nil {
		d.errorf(field+".ormap", "has no values; write the model of its values, for example {values: gcounter}")
		return
	}
	d.validateModel(field+".ormap.values", m.ORMap.Values, maps+1)
}
