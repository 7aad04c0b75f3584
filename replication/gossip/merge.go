package gossip

import (
	"context"
	"slices"

	"github.com/holdfast-mesh/holdfast/internal/placement"
	replicationv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/replication/v1"
	"github.com/holdfast-mesh/holdfast/replication/gossip/settle"
	"github.com/holdfast-mesh/holdfast/statestore/crdt"
)

// merge merges what a peer pushed, and returns the acknowledgements that it asked for. Deltas of unknown types are skipped:
// this store's configuration may be behind, and anti-entropy brings them once it is not.
func (n *Node) merge(ctx context.Context, s *session, in []*replicationv1.Deltas) (acks []*replicationv1.Message) {
	types := n.cfg.Engine.Types()
	var known []*replicationv1.Delta
	var wanted []settle.Slot
	noted := map[settle.Slot]bool{}
	sent := 0
	for _, ds := range in {
		all := unpack(ds)
		for _, d := range all {
			if !slices.Contains(types, d.GetType()) {
				continue
			}
			known = append(known, d)
			at := settle.Slot{Type: d.GetType(), Slot: placement.Slot(d.GetType(), d.GetKey())}
			if ds.GetAck() && !noted[at] {
				noted[at] = true
				wanted = append(wanted, at)
			}
		}
		sent += len(all)
	}
	n.metrics.unknownType.Add(float64(sent - len(known)))
	if len(known) == 0 {
		return nil
	}
	refused := 0
	if err := n.cfg.Engine.Merge(ctx, known); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		refused = 1
		if joined, ok := err.(interface{ Unwrap() []error }); ok {
			refused = len(joined.Unwrap())
		}
		n.metrics.mergeErrors.Add(float64(refused))
		n.cfg.Logger.Warn("deltas refused", "peer", s.peer, "refused", refused, "error", err)
	}
	n.metrics.merged.Add(float64(max(len(known)-refused, 0)))
	n.rights.answered(s.peer, known)
	// An acknowledgement says what was seen, not what was sent: what was refused is not in it.
	for part := range slices.Chunk(wanted, maxAckSlots) {
		a := &replicationv1.Ack{}
		for _, at := range part {
			seen := n.cfg.Engine.Seen(at.Type, at.Slot, s.replica)
			a.Seen = append(a.Seen, &replicationv1.SlotSeen{Type: at.Type, Slot: at.Slot, Context: seen.Append(nil)})
		}
		acks = append(acks, &replicationv1.Message{Kind: &replicationv1.Message_Ack{Ack: a}})
	}
	return acks
}

// acknowledged takes a peer's acknowledgement.
func (n *Node) acknowledged(s *session, in *replicationv1.Ack) {
	n.metrics.acks.Inc()
	l := n.layout.Load()
	for _, seen := range in.GetSeen() {
		if seen.GetSlot() >= slots || l.of(seen.GetType()) == nil {
			continue
		}
		c, err := crdt.DecodeContext(seen.GetContext())
		if err != nil {
			n.metrics.mergeErrors.Inc()
			continue
		}
		n.acks.saw(s.peer, settle.Slot{Type: seen.GetType(), Slot: seen.GetSlot()}, c.Only(n.cfg.Replica), true)
	}
}

// wantsAck reports whether commits may wait for one of the deltas.
func (n *Node) wantsAck(deltas []*replicationv1.Delta) bool {
	l := n.layout.Load()
	for _, d := range deltas {
		if t := l.of(d.GetType()); t != nil && t.acked {
			return true
		}
	}
	return false
}
