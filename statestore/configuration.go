package statestore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/holdfast-mesh/holdfast/internal/placement"
	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
	"github.com/holdfast-mesh/holdfast/statestore/crdt"
	"github.com/holdfast-mesh/holdfast/statestore/refusal"
	"github.com/holdfast-mesh/holdfast/statestore/wal"
)

type operation = holdfastv1.Operation

// configuration is an accepted one. Immutable.
type configuration struct {
	raw   *storev1.Configure
	types map[string]*configv1.EntityType
	table *placement.Table
}

func parseConfiguration(raw *storev1.Configure) (*configuration, error) {
	raw = proto.Clone(raw).(*storev1.Configure)
	c := &configuration{raw: raw, types: make(map[string]*configv1.EntityType, len(raw.GetTypes()))}
	var err error
	if c.table, err = placement.New(raw.GetPlacement()); err != nil {
		return nil, err
	}
	for _, t := range raw.GetTypes() {
		if t.GetType() == "" || c.types[t.GetType()] != nil {
			return nil, fmt.Errorf("entity type %q is empty or listed twice", t.GetType())
		}
		if t.Consistency == configv1.Consistency_CONSISTENCY_STRONG {
			if t.Model != configv1.Model_MODEL_VALUE {
				return nil, fmt.Errorf("entity type %q: a strong type's model is value, not %s", t.Type, crdt.Name(t.Model))
			}
		} else if _, err := newState(t); err != nil {
			return nil, fmt.Errorf("entity type %q: %w", t.Type, err)
		}
		if t.MaxStateBytes == 0 {
			t.MaxStateBytes = defaultMaxStateBytes
		}
		c.types[t.Type] = t
	}
	return c, nil
}

func newState(t *configv1.EntityType) (crdt.State, error) {
	return crdt.New(t.GetModel(), t.GetValues())
}

func sameModel(s crdt.State, t *configv1.EntityType) bool {
	model, values := s.Model()
	return model == t.Model && (model != configv1.Model_MODEL_ORMAP || values == t.Values)
}

func strongType(t *configv1.EntityType) bool {
	return t.GetConsistency() == configv1.Consistency_CONSISTENCY_STRONG
}

// Strong tells whether an entity type is strong here. False for one that is not configured.
func (e *Engine) Strong(typ string) bool {
	c := e.config.Load()
	return c != nil && strongType(c.types[typ])
}

func (e *Engine) eventualType(typ string) (*configv1.EntityType, error) {
	c := e.config.Load()
	if c == nil || c.types[typ] == nil {
		return nil, errType(typ)
	}
	if strongType(c.types[typ]) {
		return nil, refusal.NotApplied(codes.FailedPrecondition, "entity type %q is strong: this needs a type that is not", typ)
	}
	return c.types[typ], nil
}

// Configuration is the last accepted one, nil before the first. The caller must not change it.
func (e *Engine) Configuration() *storev1.Configure {
	if c := e.config.Load(); c != nil {
		return c.raw
	}
	return nil
}

// Configure replaces entity types and placement, and keeps them on the disk. A placement older than the accepted one is
// refused, as is another model for a type that has entities, or making it strong.
func (e *Engine) Configure(ctx context.Context, raw *storev1.Configure) error {
	c, err := parseConfiguration(raw)
	if err != nil {
		return refusal.NotApplied(codes.InvalidArgument, "configure: %v", err)
	}
	var refused error
	if err := e.do(ctx, func() { refused = e.configure(c) }); err != nil {
		return err
	}
	return refused
}

// configure runs on the committer: one at a time, and no model is in use that it does not see.
func (e *Engine) configure(c *configuration) error {
	if old := e.config.Load(); old != nil {
		if c.table.Epoch() < old.table.Epoch() {
			return refusal.NotApplied(codes.FailedPrecondition,
				"configure: placement epoch %d is older than %d, which this store has", c.table.Epoch(), old.table.Epoch())
		}
		if proto.Equal(old.raw, c.raw) {
			return nil
		}
	}
	for name, t := range c.types {
		held := e.types[name]
		if held == nil || held.any() == nil {
			continue
		}
		if strongType(t) {
			// They would still be here, and nobody would see them.
			return refusal.NotApplied(codes.FailedPrecondition,
				"configure: entity type %q has entities that are not strong: give the strong type another name", name)
		}
		if !sameModel(held.any(), t) {
			return refusal.NotApplied(codes.FailedPrecondition,
				"configure: entity type %q has entities of another model: give the new model another type name", name)
		}
	}
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(c.raw)
	if err == nil {
		err = wal.WriteFile(e.cfg.FS, e.configurationPath(), data)
	}
	if err != nil {
		return refusal.NotApplied(codes.Unavailable, "configure: keep on disk: %v", err)
	}
	e.config.Store(c)
	e.links.Load().Configured(c.raw)
	return nil
}

// any is some entity's state, nil where there is none.
func (t *entities) any() crdt.State {
	for _, slot := range t.slots {
		for _, e := range slot {
			return e.state
		}
	}
	return nil
}

func (e *Engine) configurationPath() string { return filepath.Join(e.cfg.Dir, "configuration.binpb") }

func (e *Engine) loadConfiguration() error {
	data, err := e.cfg.FS.ReadFile(e.configurationPath())
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	// A process that was killed may have renamed it without syncing the folder; it must not go back after this.
	if err := e.cfg.FS.SyncDir(e.cfg.Dir); err != nil {
		return err
	}
	raw := &storev1.Configure{}
	if err := proto.Unmarshal(data, raw); err != nil {
		return fmt.Errorf("%s: %w", e.configurationPath(), err)
	}
	c, err := parseConfiguration(raw)
	if err != nil {
		return fmt.Errorf("%s: %w", e.configurationPath(), err)
	}
	e.config.Store(c)
	return nil
}
