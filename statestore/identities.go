package statestore

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/holdfast-mesh/holdfast/internal/planted"
	replicationv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/replication/v1"
	"github.com/holdfast-mesh/holdfast/statestore/crdt"
	"github.com/holdfast-mesh/holdfast/statestore/slots"
)

// registry knows whose each replica identity is, or was. A store draws a new one each time that it starts: the log brings
// back what the old one wrote, but only a peer could tell whether it brings back all of it, and an identity that goes
// backwards loses acknowledged writes.
type registry struct {
	// mu guards known and last.
	mu    sync.RWMutex
	known map[uint64]identity
	// last is the last one of this disk in the log.
	last uint64
}

type identity struct {
	node string
	// here: it wrote to this disk.
	here    bool
	retired bool
}

func (r *registry) init() { r.known = map[uint64]identity{} }

func (r *registry) get(replica uint64) (identity, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	i, ok := r.known[replica]
	return i, ok
}

func (r *registry) node(replica uint64) string { i, _ := r.get(replica); return i.node }

func (r *registry) here(replica uint64) bool { i, _ := r.get(replica); return i.here }

// formers are the other identities of a node.
func (r *registry) formers(node string, own uint64) []uint64 {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var out []uint64
	for replica, i := range r.known {
		if i.node == node && replica != own {
			out = append(out, replica)
		}
	}
	return out
}

// replay takes one of the log.
func (r *registry) replay(replica uint64, node string, here bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := r.known[replica]
	i.node, i.here = node, i.here || here
	r.known[replica] = i
	if here {
		r.last = replica
	}
}

func (r *registry) retire(replicas []uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, replica := range replicas {
		i := r.known[replica]
		i.retired = true
		r.known[replica] = i
	}
}

// contexts counts those that are not retired.
func (r *registry) contexts() (n uint64) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, i := range r.known {
		if !i.retired {
			n++
		}
	}
	return n
}

// records stand for all of it in a log snapshot. The own one comes last.
func (r *registry) records(own uint64) (records [][]byte) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var retired []uint64
	for replica, i := range r.known {
		if replica != own {
			records = append(records, slots.AppendIdentity(nil, replica, i.node, i.here))
		}
		if i.retired {
			retired = append(retired, replica)
		}
	}
	if i, ok := r.known[own]; ok {
		records = append(records, slots.AppendIdentity(nil, own, i.node, i.here))
	}
	if len(retired) > 0 {
		records = append(records, slots.AppendRetire(nil, retired, nil))
	}
	return records
}

// absorb tells which former identities' shares of counters are to be taken over in a slot: none while any of them is not
// retired there, for what came between may hold the same share once more.
func (e *Engine) absorb(retired *crdt.Retired) func(replica uint64) bool {
	if retired.Len() == 0 {
		return nil
	}
	return func(replica uint64) bool {
		if !retired.Has(replica) || e.identities.node(replica) != e.cfg.Node {
			return false
		}
		return !slices.ContainsFunc(e.identities.formers(e.cfg.Node, e.replica), func(former uint64) bool { return !retired.Has(former) })
	}
}

// begin starts this incarnation's identity. Its record goes to the log with the first batch, before anything that it wrote.
func (e *Engine) begin() {
	if planted.On(planted.IdentityReused) && e.identities.last != 0 {
		e.replica = e.identities.last
		for _, t := range e.index.Types() {
			for s := range t.Slots {
				s.SetNext(s.Seen().Next(e.replica))
			}
		}
	}
	e.identities.replay(e.replica, e.cfg.Node, true)
	e.backlog.records = append(e.backlog.records, slots.AppendIdentity(nil, e.replica, e.cfg.Node, true))
}

// Identities lists the replica identities that this store knows, its own included. Retired are those that it takes for seen in
// all slots.
func (e *Engine) Identities() []*replicationv1.Identity {
	e.identities.mu.RLock()
	defer e.identities.mu.RUnlock()
	out := make([]*replicationv1.Identity, 0, len(e.identities.known))
	for replica, i := range e.identities.known {
		out = append(out, &replicationv1.Identity{Replica: replica, Node: i.node, Retired: i.retired})
	}
	slices.SortFunc(out, func(a, b *replicationv1.Identity) int { return cmp.Compare(a.Replica, b.Replica) })
	return out
}

// LearnIdentities adds those that are not known yet. What they say of being retired is not taken: see Retire.
func (e *Engine) LearnIdentities(ctx context.Context, ids []*replicationv1.Identity) error {
	var fresh []*replicationv1.Identity
	for _, id := range ids {
		if i, ok := e.identities.get(id.GetReplica()); id.GetReplica() != 0 && id.GetNode() != "" && (!ok || i.node == "") {
			fresh = append(fresh, id)
		}
	}
	if len(fresh) == 0 {
		return nil
	}
	return e.doErr(ctx, func() error {
		var records [][]byte
		for _, id := range fresh {
			records = append(records, slots.AppendIdentity(nil, id.Replica, id.Node, false))
		}
		if n := len(e.Identities()); n+len(fresh) > maxIdentities {
			return fmt.Errorf("%d replica identities are known, at most %d", n, maxIdentities)
		}
		return e.logNow(func() {
			for _, id := range fresh {
				e.identities.replay(id.Replica, id.Node, false)
			}
		}, records...)
	})
}

// Retire takes every change of those identities for seen, in each slot that is placed here and has anything. All stores that
// the placement names must have seen the same of them: causal stability. A slot that is not placed here, or only came
// here, learns it by a comparison.
func (e *Engine) Retire(ctx context.Context, replicas []uint64) error {
	set := crdt.NewRetired(replicas...)
	return e.doErr(ctx, func() error {
		if set.Has(e.replica) {
			return fmt.Errorf("retire: %w", ErrForged)
		}
		c := e.config.Load()
		var adopt []*slots.Slot
		numbers := map[string][]uint32{}
		for _, t := range e.index.Types() {
			if c == nil || c.types[t.Name] == nil || c.types[t.Name].shape == nil {
				continue
			}
			for s := range t.Slots {
				if c.placedHere(c.types[t.Name], s.Number, e.cfg.Node) && s.Lacks(set) {
					adopt = append(adopt, s)
					numbers[t.Name] = append(numbers[t.Name], s.Number)
				}
			}
		}
		if len(adopt) == 0 && e.identities.retiredAll(replicas) {
			return nil
		}
		return e.logNow(func() {
			e.identities.retire(replicas)
			unions := slots.Unions{}
			for _, s := range adopt {
				d := s.Draft()
				d.Retire(unions.Of(s.Retired(), set))
				d.Apply(e.replica, uint32(e.cfg.Now().Unix()))
			}
		}, slots.AppendRetire(nil, replicas, numbers))
	})
}

func (r *registry) retiredAll(replicas []uint64) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return !slices.ContainsFunc(replicas, func(replica uint64) bool { return !r.known[replica].retired })
}

// doErr is do with a result.
func (e *Engine) doErr(ctx context.Context, f func() error) error {
	var result error
	if err := e.do(ctx, func() { result = f() }); err != nil {
		return err
	}
	return result
}
