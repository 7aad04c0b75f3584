package statestore

import (
	"context"
	"maps"
	"strconv"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc/codes"

	"github.com/holdfast-mesh/holdfast/internal/placement"
	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
	"github.com/holdfast-mesh/holdfast/statestore/refusal"
)

// counters count by entity type.
type counters struct {
	// mu guards commits.
	mu      sync.Mutex
	commits map[string]uint64
	refuse  atomic.Uint64
}

func (c *counters) init() { c.commits = map[string]uint64{} }

func (c *counters) committed(typ string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.commits[typ]++
}

// refused counts what came from other stores and was not taken.
func (c *counters) refused(n int) { c.refuse.Add(uint64(n)) }

func (c *counters) read() map[string]uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.commits)
}

// Refused counts changes and states of other stores that were refused.
func (e *Engine) Refused() uint64 { return e.counters.refuse.Load() }

// Status reports on the store for people.
func (e *Engine) Status() *storev1.StoreStatus {
	links := e.links.Load()
	s := &storev1.StoreStatus{
		Node:      e.cfg.Node,
		ReplicaId: strconv.FormatUint(e.replica, 16),
		Commits:   e.counters.read(),
		Peers:     links.Peers(),
		Disk:      "ok",
		Etcd:      "ok",
	}
	active, passive := e.index.Counts()
	s.Entities, s.Passive, s.Identities = active+passive, passive, e.identities.contexts()
	if c := e.config.Load(); c != nil {
		s.Epoch = c.table.Epoch()
	}
	if p := e.snapshotBad.Load(); p != nil {
		s.Disk = (*p).Error()
	}
	if err := e.log.Err(); err != nil {
		s.Disk = err.Error()
	}
	if !links.Committer.Up() {
		s.Etcd = "down"
		if _, none := links.Committer.(noCommitter); none {
			s.Etcd = "none"
		}
	}
	return s
}

// consistencyName is the consistency as users write it.
func consistencyName(c configv1.Consistency) string {
	switch c {
	case configv1.Consistency_CONSISTENCY_STRONG:
		return "strong"
	case configv1.Consistency_CONSISTENCY_CAUSAL:
		return "causal"
	}
	return "eventual"
}

// Inspect looks at an entity without activating it.
func (e *Engine) Inspect(ctx context.Context, ent *storev1.Entity) (*storev1.Inspection, error) {
	if err := checkEntity(ent); err != nil {
		return nil, err
	}
	c := e.config.Load()
	if c == nil || c.types[ent.Type] == nil {
		return nil, errType(ent.Type)
	}
	t := c.types[ent.Type]
	in := &storev1.Inspection{Slot: placement.Slot(ent.Type, ent.Key), Consistency: consistencyName(t.Consistency)}
	in.Replicas = c.replicas(t, in.Slot)
	if t.shape == nil {
		return e.inspectStrong(ctx, ent, in)
	}
	in.Role = e.role(c, t, in.Slot)
	id := idOf(ent)
	in.State = absent(id)
	slot := e.index.Slot(ent.Type, in.Slot)
	if slot == nil {
		return in, nil
	}
	found, active, err := slot.Inspect(ent.Key)
	if err != nil {
		return nil, refusal.NotApplied(codes.Unavailable, "%v", err)
	}
	if found != nil {
		in.Active, in.Hash = active, found.Version()
		in.State = e.show(id, in.Slot, &found.State, in.Hash)
	}
	seen := slot.Seen()
	for _, replica := range seen.Replicas() {
		in.Seen = append(in.Seen, &storev1.Seen{
			Replica: strconv.FormatUint(replica, 16), Node: e.identities.node(replica),
			Upto: seen.Upto(replica), Beyond: seen.Beyond(replica),
		})
	}
	return in, nil
}

// role is this store's part in a slot.
func (e *Engine) role(c *configuration, t *entityType, slot uint32) string {
	switch s := e.index.Slot(t.Type, slot); {
	case c.placedHere(t, slot, e.cfg.Node):
		return "placed"
	case s != nil && !s.Empty():
		return "joined"
	}
	return "none"
}
