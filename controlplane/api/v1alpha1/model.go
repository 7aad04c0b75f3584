package v1alpha1

import "fmt"

// Model is the state model: exactly one of the fields. One without settings may be written as its bare name.
type Model struct {
	Value        *Value        `yaml:"value"`
	EventSourced *EventSourced `yaml:"event_sourced"`
	GCounter     *Empty        `yaml:"gcounter"`
	PNCounter    *Empty        `yaml:"pncounter"`
	BCounter     *BCounter     `yaml:"bcounter"`
	GSet         *Empty        `yaml:"gset"`
	ORSet        *Empty        `yaml:"orset"`
	LWW          *Empty        `yaml:"lww"`
	MVRegister   *Empty        `yaml:"mvregister"`
	Flag         *Empty        `yaml:"flag"`
	Vote         *Empty        `yaml:"vote"`
	ORMap        *ORMap        `yaml:"ormap"`
}

// Value is the service's own bytes. A strong one may say what they are, so that services can patch it.
type Value struct {
	// Encoding is bytes, json or proto.
	Encoding string `yaml:"encoding"`
	// Message is the full name of the message that the bytes are, for encoding proto; where it is left out, that of the
	// fields marked (holdfast.v1.state_in).
	Message string `yaml:"message"`
}

// EventSourced is a list of events, with the service's own snapshot of what they come to.
type EventSourced struct {
	// SnapshotEvery is after how many events the store asks for a snapshot; 0: never.
	SnapshotEvery int `yaml:"snapshotEvery"`
	// State is full, or folded: then the service is given the snapshot alone, and returns one with every append.
	State string `yaml:"state"`
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
		{m.EventSourced != nil, ModelEventSourced},
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
	case m.Value != nil && m.Value.Message != "":
		return "value of the message " + m.Value.Message
	case m.Value != nil && m.Value.Encoding != "" && m.Value.Encoding != EncodingBytes:
		return "value of " + m.Value.Encoding
	case m.EventSourced != nil && m.EventSourced.State == StateFolded:
		return "event_sourced, folded"
	case m.EventSourced != nil:
		return fmt.Sprintf("event_sourced with a snapshot every %d", m.EventSourced.SnapshotEvery)
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
	case m.EventSourced != nil:
		d.errorf(field, "event_sourced is a whole entity's state, and can't be in an ormap; make each an entity of its own")
	case m.BCounter != nil:
		d.errorf(field, "bcounter can't be in an ormap: what may be taken off belongs to an entity; write pncounter, or make each counter an entity of its own")
	case m.ORMap != nil && maps >= maxMapDepth:
		d.errorf(field, "is an ormap inside %d others, which is as deep as they may be nested; use keys with more parts instead", maps)
		return
	}
	switch {
	case m.Value != nil:
		d.validateValue(field+".value", m.Value)
	case m.EventSourced != nil:
		d.validateEventSourced(field+".event_sourced", m.EventSourced)
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

func (d *document) validateValue(field string, v *Value) {
	setDefault(&v.Encoding, EncodingBytes)
	d.word(field+".encoding", v.Encoding, []string{EncodingBytes, EncodingJSON, EncodingProto}, nil)
	switch {
	case v.Message == "":
	case v.Encoding != EncodingProto:
		d.errorf(field+".message", "is for encoding: proto; write that, or remove it")
	case !fullName.MatchString(v.Message):
		d.errorf(field+".message", "%q is no full name of a message; write it like bank.v1.Account", v.Message)
	}
}

func (d *document) validateEventSourced(field string, s *EventSourced) {
	setDefault(&s.State, StateFull)
	d.word(field+".state", s.State, []string{StateFull, StateFolded}, nil)
	written := d.written(field + ".snapshotEvery")
	switch {
	case s.State == StateFolded && written:
		d.errorf(field+".snapshotEvery", "is for state: full; with folded every append comes with a snapshot: remove it")
	case s.State == StateFolded:
	case !written:
		s.SnapshotEvery = defaultSnapshotEvery
	case s.SnapshotEvery < 0 || s.SnapshotEvery > maxSnapshotEvery:
		d.errorf(field+".snapshotEvery", "%d is out of range; write 1 to %d, or 0 where the store should never ask for one", s.SnapshotEvery, maxSnapshotEvery)
	}
}
