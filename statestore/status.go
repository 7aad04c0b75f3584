package statestore

import (
	"context"
	"path/filepath"
	"strconv"
	"sync"

	"github.com/holdfast-mesh/holdfast/internal/placement"
	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
	"github.com/holdfast-mesh/holdfast/statestore/wal"
)

// counters count commits by entity type.
type counters struct {
	// mu guards commits.
	mu      sync.Mutex
	commits map[string]uint64
}

func (c *counters) committed(typ string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.commits == nil {
		c.commits = map[string]uint64{}
	}
	c.commits[typ]++
}

func (c *counters) read() map[string]uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make(map[string]uint64, len(c.commits))
	for typ, n := range c.commits {
		out[typ] = n
	}
	return out
}

// Recoverable reports that the log failed and that the disk takes writes again. What was not durable when it failed may be
// ahead of the disk here, so only a new start, which reads the log anew, ends the failure; until this says yes it would
// only end the reads, too.
func (e *Engine) Recoverable() bool {
	if e.log.Err() == nil {
		return false
	}
	name := filepath.Join(e.cfg.Dir, "room")
	err := wal.WriteFile(e.cfg.FS, name, make([]byte, roomBytes))
	_ = e.cfg.FS.Remove(name)
	if err != nil {
		_ = e.cfg.FS.Remove(name + ".tmp")
	}
	return err == nil
}

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
	e.mu.RLock()
	s.Entities = uint64(len(e.entities))
	e.mu.RUnlock()
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
	for _, m := range c.table.Replicas(in.Slot, int(t.Replicas)) {
		in.Replicas = append(in.Replicas, m.Name)
	}
	if strongType(t) {
		return e.inspectStrong(ctx, ent, in)
	}
	in.Active = e.lookup(idOf(ent)) != nil
	in.State = e.see(idOf(ent))
	return in, nil
}
