package gossip

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	replicationv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/replication/v1"
)

// HandOver leaves the mesh for good, or for long: it closes the node, and then gives each member that was alive all that
// this store has and the member lacks. Nobody may change the engine any more. The error names the members that may still
// lack something; nil where there was nobody to give to.
//
// It needs streams of its own, on which it alone speaks, because it must know when a peer has merged what it was given,
// and the protocol has no acknowledgements. A Want is one: a peer answers it only after it merged what came before.
func (n *Node) HandOver(ctx context.Context) error {
	n.mu.Lock()
	peers := map[string]string{}
	for name, m := range n.members {
		if m.peer != nil {
			peers[name] = m.peer.meta.Peer
		}
	}
	n.mu.Unlock()
	errs := []error{n.Close()}
	var mu sync.Mutex // Guards errs.
	var wg sync.WaitGroup
	for name, address := range peers {
		wg.Go(func() {
			if err := n.give(ctx, address); err != nil {
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, fmt.Errorf("hand over to %s: %w", name, err))
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// give brings one member all that it lacks.
func (n *Node) give(ctx context.Context, address string) error {
	dial, cancel := context.WithTimeout(ctx, dialTimeout)
	conn, err := n.cfg.Dialer.Dial(dial, address)
	cancel()
	if err != nil {
		return fmt.Errorf("dial: %w", err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	if _, err := greet(ctx, conn, n.hello()); err != nil {
		return err
	}
	for _, entityType := range n.cfg.Engine.Types() {
		if err := n.giveType(conn, entityType); err != nil {
			if ctx.Err() != nil {
				err = ctx.Err()
			}
			return fmt.Errorf("%s: %w", entityType, err)
		}
	}
	return nil
}

func (n *Node) giveType(conn Conn, entityType string) error {
	engine := n.cfg.Engine
	hashes := engine.SlotHashes(entityType)
	if len(hashes) == 0 {
		return nil
	}
	keys := engine.KeyHashes(entityType, hashes[0].GetSlot())
	if len(keys) == 0 {
		return fmt.Errorf("slot %d has a hash and no keys", hashes[0].GetSlot())
	}
	marker := keys[0].GetKey()
	ask := &replicationv1.Message{Kind: &replicationv1.Message_Want{Want: &replicationv1.Want{Type: entityType, Keys: []string{marker}}}}
	digest := &replicationv1.Digest{Type: entityType, Slots: hashes}
	for _, m := range []*replicationv1.Message{{Kind: &replicationv1.Message_Digest{Digest: digest}}, ask} {
		if err := conn.Send(m); err != nil {
			return fmt.Errorf("send: %w", err)
		}
	}
	// The peer answers in order: the slots that differ, then the marker. One that lacked the marker says so by its slot's
	// keys, is given it, and is asked again. Once it has shown it, a last question comes back when all is merged.
	for last := false; ; {
		m, err := conn.Recv()
		if err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		switch k := m.GetKind().(type) {
		case *replicationv1.Message_SlotKeys:
			if k.SlotKeys.GetType() != entityType {
				continue
			}
			give := n.exchange.lacking(k.SlotKeys)
			failed := error(nil)
			n.exchange.states(entityType, give, func(m *replicationv1.Message) bool {
				failed = conn.Send(m)
				return failed == nil
			})
			if failed == nil && slices.Contains(give, marker) && !slices.ContainsFunc(k.SlotKeys.GetKeys(), named(marker)) {
				failed = conn.Send(ask)
			}
			if failed != nil {
				return fmt.Errorf("send: %w", failed)
			}
		case *replicationv1.Message_Deltas:
			if !slices.ContainsFunc(k.Deltas.GetDeltas(), func(d *replicationv1.Delta) bool {
				return d.GetType() == entityType && d.GetKey() == marker
			}) {
				continue
			}
			if last {
				return nil
			}
			last = true
			if err := conn.Send(ask); err != nil {
				return fmt.Errorf("send: %w", err)
			}
		}
	}
}

func named(key string) func(*replicationv1.KeyHash) bool {
	return func(k *replicationv1.KeyHash) bool { return k.GetKey() == key }
}

// lacking lists the keys of a slot that this store has and the peer lacks, or has otherwise.
func (x *exchange) lacking(sk *replicationv1.SlotKeys) []string {
	theirs := make(map[string]uint64, len(sk.GetKeys()))
	for _, k := range sk.GetKeys() {
		theirs[k.GetKey()] = k.GetHash()
	}
	var out []string
	for _, k := range x.engine.KeyHashes(sk.GetType(), sk.GetSlot()) {
		if hash, ok := theirs[k.GetKey()]; !ok || hash != k.GetHash() {
			out = append(out, k.GetKey())
		}
	}
	return out
}
