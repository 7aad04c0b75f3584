package gossip

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-mesh/holdfast/internal/placement"
	replicationv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/replication/v1"
)

type entity struct{ entityType, key string }

// rights is who is being asked for rights of which bounded counter.
type rights struct {
	// open counts the questions, so that merging need not look while there is none.
	open atomic.Int32

	mu sync.Mutex
	// +checklocks:mu
	asked map[entity]*question
	// turn makes successive questions begin at different peers.
	// +checklocks:mu
	turn int
}

type question struct {
	amount uint64
	// again says that somebody asked since a peer last was.
	again bool
	// peers that were asked.
	peers []string
	// answered has an entry once a delta of the counter came from one of them, more once somebody asked again.
	answered, more chan struct{}
}

// AskRights asks the placed replicas of a bounded counter for rights, one after another, until one sends a delta of it and
// nobody asks again, or all were asked. It never blocks. While a counter's question is open, it goes on with what is asked.
func (n *Node) AskRights(entityType, key string, amount uint64) {
	e := entity{entityType, key}
	r := &n.rights
	r.mu.Lock()
	defer r.mu.Unlock()
	if q := r.asked[e]; q != nil {
		q.amount, q.again = amount, true
		signal(q.more)
		return
	}
	if len(r.asked) >= maxQuestions {
		return // Whoever waits asks again, or gives up at its deadline.
	}
	q := &question{amount: amount, answered: make(chan struct{}, 1), more: make(chan struct{}, 1)}
	if !n.begin() {
		return
	}
	r.asked[e] = q
	r.open.Add(1)
	r.turn++
	turn := r.turn
	go func() {
		defer n.wg.Done()
		n.askRights(e, q, turn)
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.asked, e)
		r.open.Add(-1)
	}()
}

func (n *Node) askRights(e entity, q *question, turn int) {
	slot := placement.Slot(e.entityType, e.key)
	placed := slices.Clone(n.layout.Load().replicas(e.entityType, slot))
	for i := 0; i < maxAskRounds*len(placed); i++ {
		peer := placed[(turn+i)%len(placed)]
		s := n.streamTo([]string{peer})
		r := &n.rights
		r.mu.Lock()
		if i >= len(placed) && !q.again {
			r.mu.Unlock()
			return
		}
		amount := q.amount
		if s != nil {
			q.peers = append(q.peers, peer)
			q.again = false
		}
		r.mu.Unlock()
		if s == nil {
			continue
		}
		s.notices.add(&replicationv1.Message{Kind: &replicationv1.Message_RightsRequest{RightsRequest: &replicationv1.RightsRequest{
			Type: e.entityType, Key: e.key, Replica: n.cfg.Replica, Amount: amount,
		}}})
		if !n.awaitRights(q) {
			return
		}
	}
}

// awaitRights waits for what a peer that was asked does, and reports whether to ask the next one.
func (n *Node) awaitRights(q *question) bool {
	t := time.NewTimer(rightsInterval)
	defer t.Stop()
	again := func() bool {
		n.rights.mu.Lock()
		defer n.rights.mu.Unlock()
		return q.again
	}
	for answered := false; ; {
		select {
		case <-q.answered:
			answered = true // Who waits looks whether it is enough, and asks again where it is not.
		case <-q.more:
		case <-t.C:
			return !answered || again()
		case <-n.ctx.Done():
			return false
		}
		if answered && again() {
			return true
		}
	}
}

// answered ends the questions that a peer's deltas answer.
func (r *rights) answered(peer string, deltas []*replicationv1.Delta) {
	if r.open.Load() == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, d := range deltas {
		if q := r.asked[entity{d.GetType(), d.GetKey()}]; q != nil && slices.Contains(q.peers, peer) {
			signal(q.answered)
		}
	}
}

// grant answers a peer's question. The rights leave as a delta; where there are none to spare nothing happens.
func (n *Node) grant(ctx context.Context, s *session, in *replicationv1.RightsRequest) {
	if s.dialed || in.GetReplica() != s.replica || in.GetAmount() == 0 || !slices.Contains(n.cfg.Engine.Types(), in.GetType()) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, grantTimeout)
	defer cancel()
	if err := n.cfg.Engine.GrantRights(ctx, in.GetType(), in.GetKey(), in.GetReplica(), in.GetAmount()); err != nil {
		n.cfg.Logger.Debug("no rights granted", "peer", s.peer, "type", in.GetType(), "error", err)
	}
}
