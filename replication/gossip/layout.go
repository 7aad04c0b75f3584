package gossip

import (
	"fmt"
	"slices"

	"github.com/holdfast-mesh/holdfast/internal/placement"
	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
	"github.com/holdfast-mesh/holdfast/replication/level"
)

// layout is who keeps what, by one configuration. It is immutable; nil is a store that was not configured yet.
type layout struct {
	epoch   uint64
	members []string
	types   map[string]*typeLayout
}

type typeLayout struct {
	// placed has the replicas of each slot, in order; nil where that is all members.
	placed [][]string
	// acked says that commits of the type wait for other replicas.
	acked bool
}

func newLayout(c *storev1.Configure) (*layout, error) {
	table, err := placement.New(c.GetPlacement())
	if err != nil {
		return nil, fmt.Errorf("layout: %w", err)
	}
	l := &layout{epoch: table.Epoch(), types: make(map[string]*typeLayout, len(c.GetTypes()))}
	for _, m := range table.Members() {
		l.members = append(l.members, m.GetName())
	}
	byCount := map[int][][]string{}
	for _, t := range c.GetTypes() {
		tl := &typeLayout{acked: level.Acked(t.GetWrite())}
		if n := int(t.GetReplicas()); n > 0 && n < len(l.members) {
			if byCount[n] == nil {
				byCount[n] = place(table, n)
			}
			tl.placed = byCount[n]
		}
		l.types[t.GetType()] = tl
	}
	return l, nil
}

func place(table *placement.Table, n int) [][]string {
	out := make([][]string, slots)
	for slot := range out {
		for _, m := range table.Replicas(uint32(slot), n) {
			out[slot] = append(out[slot], m.GetName())
		}
	}
	return out
}

// of returns a type's layout; nil where it is not configured.
func (l *layout) of(entityType string) *typeLayout {
	if l == nil {
		return nil
	}
	return l.types[entityType]
}

// replicas lists who is placed for a slot, in order. The caller must not change it.
func (l *layout) replicas(entityType string, slot uint32) []string {
	if t := l.of(entityType); t != nil {
		return l.at(t, slot)
	}
	return nil
}

// at is replicas of a type that was looked up before.
func (l *layout) at(t *typeLayout, slot uint32) []string {
	if t.placed == nil {
		return l.members
	}
	return t.placed[slot%slots]
}

func (l *layout) isPlaced(node, entityType string, slot uint32) bool {
	return slices.Contains(l.replicas(entityType, slot), node)
}

func (l *layout) isMember(node string) bool { return l != nil && slices.Contains(l.members, node) }

// others is how many other replicas of a slot must have a write of a level; false where nobody knows.
func (l *layout) others(self, entityType string, slot uint32, w configv1.WriteLevel) (int, bool) {
	placed := l.replicas(entityType, slot)
	if len(placed) == 0 {
		return 0, !level.Acked(w)
	}
	return level.Others(w, len(placed), slices.Contains(placed, self)), true
}
