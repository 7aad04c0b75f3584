package entity

import (
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"

	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
)

// Type is a strong entity type. Immutable.
type Type struct {
	Name  string
	Model configv1.Model
	// MaxStateBytes bounds a value, or an entity snapshot with the events after it.
	MaxStateBytes int
	// SnapshotEvery is how many events after the last snapshot make the store ask for the next; 0: it never asks.
	SnapshotEvery uint32
	// Folded: an append needs a snapshot.
	Folded bool
	// Encoding is what values are; Message describes them where they are protobuf.
	Encoding configv1.ValueEncoding
	Message  protoreflect.MessageDescriptor
	// TTL is 0 where entities stay for ever. TTLByUse: reads count, too.
	TTL      time.Duration
	TTLByUse bool

	// types resolves what Any and extensions in values name.
	types *dynamicpb.Types
}

// defaultMaxStateBytes is for types that do not say.
const defaultMaxStateBytes = 65536

// NewType checks a strong type's configuration. Errors are for whoever wrote it.
func NewType(t *configv1.EntityType) (*Type, error) {
	out := &Type{
		Name:          t.GetType(),
		Model:         t.GetModel(),
		MaxStateBytes: int(t.GetMaxStateBytes()),
		SnapshotEvery: t.GetSnapshotEvery(),
		Folded:        t.GetFolded(),
		Encoding:      t.GetValueEncoding(),
		TTLByUse:      t.GetTtlByUse(),
	}
	switch {
	case out.MaxStateBytes == 0:
		out.MaxStateBytes = defaultMaxStateBytes
	case out.MaxStateBytes > MaxStateBytes:
		return nil, fmt.Errorf("maxStateBytes is %d, at most %d for a strong type", out.MaxStateBytes, MaxStateBytes)
	}
	if d := t.GetTtl(); d != nil {
		if err := d.CheckValid(); err != nil || d.AsDuration() < 0 {
			return nil, fmt.Errorf("ttl %v is not a duration", d)
		}
		out.TTL = d.AsDuration()
	}
	switch out.Model {
	case configv1.Model_MODEL_VALUE:
		if out.SnapshotEvery != 0 || out.Folded {
			return nil, errors.New("entity snapshots are for the model event_sourced, not for value")
		}
	case configv1.Model_MODEL_EVENT_SOURCED:
		if out.Encoding != configv1.ValueEncoding_VALUE_ENCODING_UNSPECIFIED {
			return nil, errors.New("an encoding is for the model value, not for event_sourced")
		}
	default:
		return nil, fmt.Errorf("a strong type's model is value or event_sourced, not %s", out.Model)
	}
	switch out.Encoding {
	case configv1.ValueEncoding_VALUE_ENCODING_UNSPECIFIED, configv1.ValueEncoding_VALUE_ENCODING_JSON:
	case configv1.ValueEncoding_VALUE_ENCODING_PROTO:
		if err := out.describe(t); err != nil {
			return nil, fmt.Errorf("message %q of the values: %w", t.GetValueMessage(), err)
		}
	default:
		return nil, fmt.Errorf("encoding %s is not known", out.Encoding)
	}
	return out, nil
}

// describe finds the message in the descriptors.
func (t *Type) describe(from *configv1.EntityType) error {
	set := &descriptorpb.FileDescriptorSet{}
	if err := proto.Unmarshal(from.GetValueDescriptors(), set); err != nil {
		return fmt.Errorf("read its descriptors: %w", err)
	}
	files, err := protodesc.NewFiles(set)
	if err != nil {
		return fmt.Errorf("build its descriptors: %w", err)
	}
	found, err := files.FindDescriptorByName(protoreflect.FullName(from.GetValueMessage()))
	if err != nil {
		return errors.New("the descriptors don't have it")
	}
	message, ok := found.(protoreflect.MessageDescriptor)
	if !ok {
		return errors.New("is no message")
	}
	t.Message, t.types = message, dynamicpb.NewTypes(files)
	return nil
}

func (t *Type) eventSourced() bool { return t.Model == configv1.Model_MODEL_EVENT_SOURCED }
