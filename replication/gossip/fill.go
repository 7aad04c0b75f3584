package gossip

import (
	"fmt"
	"slices"
	"time"

	"github.com/holdfast-mesh/holdfast/replication/gossip/settle"
)

// join is a slot that somebody waits for until it is filled.
type join struct {
	waiting []*joiner
	// busy while a comparison is under way; tries counts them.
	busy  bool
	tries int
}

type joiner struct {
	done  func(error)
	timer *time.Timer
}

// Fill fills a slot that the placement gave this store, from one of those that kept it before; nobody being there to do so
// is no error. Done may be called before Fill returns.
func (n *Node) Fill(entityType string, slot uint32, deadline time.Time, done func(error)) {
	n.fill(settle.Slot{Type: entityType, Slot: slot}, deadline, done)
}

// fill waits for a comparison with one of a slot's sources.
func (n *Node) fill(at settle.Slot, deadline time.Time, done func(error)) {
	w := &joiner{done: done}
	x := n.extras
	x.mu.Lock()
	if err := n.ctx.Err(); err != nil {
		x.mu.Unlock()
		done(err)
		return
	}
	j := x.joins[at]
	if j == nil {
		j = &join{}
		x.joins[at] = j
	}
	j.waiting = append(j.waiting, w)
	w.timer = time.AfterFunc(time.Until(deadline), func() {
		n.endJoin(at, w, fmt.Errorf("slot %d of %s: none of its replicas was reached in time", at.Slot, at.Type))
	})
	x.mu.Unlock()
	signal(x.kick)
}

// sources lists who may fill a slot here, the best first: of a slot that is placed elsewhere its replicas, else who kept it
// by the placement before and is there; nobody of them being there, or known, the other replicas, and first who says to
// hold it without being one. Later says that somebody may be found yet.
func (n *Node) sources(at settle.Slot) (names []string, later bool) {
	l := n.layout.Load()
	placed := l.replicas(at.Type, at.Slot)
	if len(placed) == 0 || !slices.Contains(placed, n.cfg.Node) {
		return placed, true
	}
	var former []string
	for _, goes := range []bool{false, true} { // Who goes on keeping it first.
		for _, name := range n.former.Load().replicas(at.Type, at.Slot) {
			if slices.Contains(placed, name) != goes {
				former = append(former, name)
			}
		}
	}
	young := time.Since(n.started) < meetTime
	n.mu.Lock()
	defer n.mu.Unlock()
	var holding []string
	for name, set := range n.interests {
		if _, holds := set[at]; holds {
			holding = append(holding, name)
		}
	}
	slices.Sort(holding)
	for _, set := range [][]string{former, append(holding, placed...)} {
		for _, name := range set {
			m := n.members[name]
			switch {
			case name == n.cfg.Node:
			case m != nil && m.peer != nil:
				names = append(names, name)
			case m == nil && young:
				later = true
			}
		}
		if len(names) > 0 || later {
			break
		}
	}
	return names, later
}

// endJoin ends the wait of one, or with nil of all, for a slot.
func (n *Node) endJoin(at settle.Slot, one *joiner, err error) {
	x := n.extras
	x.mu.Lock()
	var over []*joiner
	if j := x.joins[at]; j != nil {
		j.waiting = slices.DeleteFunc(j.waiting, func(w *joiner) bool {
			if one != nil && w != one {
				return false
			}
			over = append(over, w)
			return true
		})
		if len(j.waiting) == 0 {
			delete(x.joins, at)
		}
	}
	x.mu.Unlock()
	for _, w := range over {
		w.timer.Stop()
		w.done(err)
	}
}

// openJoins are those for which no comparison is under way.
func (n *Node) openJoins() map[settle.Slot]*join {
	x := n.extras
	x.mu.Lock()
	defer x.mu.Unlock()
	open := map[settle.Slot]*join{}
	for at, j := range x.joins {
		if !j.busy {
			open[at] = j
		}
	}
	return open
}

// compared ends a comparison that a join asked for.
func (n *Node) compared(at settle.Slot, j *join, ok bool) {
	n.extras.mu.Lock()
	j.busy = false
	n.extras.mu.Unlock()
	if ok {
		n.endJoin(at, nil, nil)
	}
}
