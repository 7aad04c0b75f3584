package gossip

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/holdfast-mesh/holdfast/replication/gossip/rounds"
)

// HandOver leaves the mesh for good, or for long: it closes the node, and then gives each member that was alive all that
// this store has of the slots that the member is placed for. Nobody may change the engine any more, and nothing that the
// members have is merged. The error names the members that may still lack something; nil where there was nobody to give to.
//
// It needs streams of its own, because those of the mesh end with the node.
func (n *Node) HandOver(ctx context.Context) error {
	n.hold() // What is held without being placed is given, too.
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

// found is what a survey found of a type.
type found struct {
	entityType string
	slots      []uint32
}

// give brings one member all that it lacks.
func (n *Node) give(ctx context.Context, address string) error {
	dial, cancel := context.WithTimeout(ctx, dialTimeout)
	conn, err := n.cfg.Dialer.Dial(dial, address)
	cancel()
	if err != nil {
		return fmt.Errorf("dial: %w", err)
	}
	hello, version, err := greet(ctx, conn, n.hello())
	if err != nil {
		_ = conn.Close()
		return err
	}
	s := n.newSession(conn, hello, version, newPushQueue())
	answers := make(chan found, len(n.cfg.Engine.Types())+1)
	s.differ = func(entityType string, slots []uint32, _ time.Time) {
		select {
		case answers <- found{entityType, slots}:
		default: // More than was asked.
		}
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	over := make(chan error, 1)
	go func() {
		over <- s.run(ctx)
		stop()
	}()
	err = s.giveAll(ctx, answers)
	stop()
	if ended := <-over; err != nil && errors.Is(err, context.Canceled) {
		err = ended
	}
	return err
}

// giveAll surveys and gives until the peer has taken all over.
func (s *session) giveAll(ctx context.Context, answers <-chan found) error {
	for {
		types := 0
		for _, t := range s.node.cfg.Engine.Types() {
			if (roundStream{s}).Common(t) != nil {
				types++
			}
		}
		if types == 0 {
			return nil
		}
		s.round()
		var offers []rounds.Offer
		for range types {
			select {
			case f := <-answers:
				for _, slot := range f.slots {
					offers = append(offers, rounds.Offer{Type: f.entityType, Slot: slot, GiveOnly: true})
				}
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		given := make(chan bool, len(offers))
		for _, o := range offers {
			o.Done = func(completed bool) { given <- completed }
			s.offer(o)
		}
		all := true
		for range offers {
			select {
			case ok := <-given:
				all = all && ok
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if all {
			return nil
		}
		pause(ctx, compareInterval) // The peer was at the slot with somebody else.
	}
}
