package statestore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/holdfast-mesh/holdfast/internal/placement"
	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
	"github.com/holdfast-mesh/holdfast/statestore/crdt"
	"github.com/holdfast-mesh/holdfast/statestore/refusal"
	"github.com/holdfast-mesh/holdfast/statestore/strong/entity"
	"github.com/holdfast-mesh/holdfast/statestore/wal"
)

type operation = holdfastv1.Operation

// configuration is an accepted one. Immutable.
type configuration struct {
	raw   *storev1.Configure
	types map[string]*entityType
	table *placement.Table
	// members are the nodes that the placement names at all.
	members map[string]bool
}

// entityType is one of a configuration. Immutable.
type entityType struct {
	*configv1.EntityType
	// shape is nil for a strong type, strong for every other.
	shape  *configv1.Shape
	strong *entity.Type
	// votes: the value depends on the placement.
	votes          bool
	passivateAfter time.Duration
	// ttl is 0 where entities stay for ever.
	ttl time.Duration
}

func parseType(t *configv1.EntityType) (*entityType, error) {
	if t.MaxStateBytes == 0 {
		t.MaxStateBytes = defaultMaxStateBytes
	}
	et := &entityType{EntityType: t, passivateAfter: defaultPassivateAfter}
	if d := t.GetPassivateAfter(); d.IsValid() && d.AsDuration() > 0 {
		et.passivateAfter = d.AsDuration()
	}
	if strongType(t) {
		var err error
		et.strong, err = entity.NewType(t)
		return et, err
	}
	if t.Model == configv1.Model_MODEL_EVENT_SOURCED {
		return nil, fmt.Errorf("model event_sourced is for strong types, not for %s ones", consistencyName(t.Consistency))
	}
	et.shape = crdt.ShapeOf(t)
	if d := t.GetTtl(); d.IsValid() && d.AsDuration() > 0 {
		if t.Model == configv1.Model_MODEL_BCOUNTER {
			return nil, errors.New("a bcounter can't have a ttl: deleting it would take coordination")
		}
		et.ttl = d.AsDuration()
	}
	if _, err := crdt.New(et.shape); err != nil {
		return nil, err
	}
	for s := et.shape; s != nil; s = s.GetValues() {
		et.votes = et.votes || s.GetModel() == configv1.Model_MODEL_VOTE
	}
	return et, nil
}

func parseConfiguration(raw *storev1.Configure) (*configuration, error) {
	raw = proto.Clone(raw).(*storev1.Configure)
	c := &configuration{raw: raw, types: make(map[string]*entityType, len(raw.GetTypes()))}
	var err error
	if c.table, err = placement.New(raw.GetPlacement()); err != nil {
		return nil, err
	}
	c.members = make(map[string]bool, len(c.table.Members()))
	for _, m := range c.table.Members() {
		c.members[m.Name] = true
	}
	for _, t := range raw.GetTypes() {
		if t.GetType() == "" || c.types[t.GetType()] != nil {
			return nil, fmt.Errorf("entity type %q is empty or listed twice", t.GetType())
		}
		et, err := parseType(t)
		if err != nil {
			return nil, fmt.Errorf("entity type %q: %w", t.Type, err)
		}
		c.types[t.Type] = et
	}
	return c, nil
}

func strongType(t *configv1.EntityType) bool {
	return t.GetConsistency() == configv1.Consistency_CONSISTENCY_STRONG
}

// Strong tells whether an entity type is strong here. False for one that is not configured.
func (e *Engine) Strong(typ string) bool {
	c := e.config.Load()
	return c != nil && c.types[typ] != nil && strongType(c.types[typ].EntityType)
}

func (e *Engine) eventualType(typ string) (*entityType, error) {
	c := e.config.Load()
	if c == nil || c.types[typ] == nil {
		return nil, errType(typ)
	}
	if c.types[typ].shape == nil {
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
		held := e.index.Type(name)
		if held == nil {
			continue
		}
		shape, err := held.Shape()
		switch {
		case err != nil:
			return refusal.NotApplied(codes.Unavailable, "configure: entities of type %q: %v", name, err)
		case shape == nil:
		case t.shape == nil:
			// They would still be here, and nobody would see them.
			return refusal.NotApplied(codes.FailedPrecondition,
				"configure: entity type %q has entities that are not strong: give the strong type another name", name)
		case !crdt.SameShape(shape, t.shape):
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
	e.refresh(e.config.Load(), c)
	e.enforce(c)
	e.links.Load().Configured(c.raw)
	e.placed(c)
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
	e.enforce(c)
	return nil
}

// enforce puts a configuration in force.
func (e *Engine) enforce(c *configuration) {
	e.config.Store(c)
	if len(e.strongTypes()) > 0 {
		e.strong.Start()
	}
}

// placedHere tells whether the placement names this store for the slot. One without members is a store's alone.
func (c *configuration) placedHere(t *entityType, slot uint32, node string) bool {
	n := 0
	for m := range c.table.Order(slot) {
		if n++; t.Replicas > 0 && n > int(t.Replicas) {
			break
		}
		if m.Name == node {
			return true
		}
	}
	return false
}

// replicas are the names of the stores that the placement names for the slot, in order.
func (c *configuration) replicas(t *entityType, slot uint32) []string {
	var names []string
	for _, m := range c.table.Replicas(slot, int(t.Replicas)) {
		names = append(names, m.Name)
	}
	return names
}
