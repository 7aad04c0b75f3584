package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/holdfast-mesh/holdfast/e2e/rig"
)

const question = "Does it hold?"

// A thousand votes through all six nodes at once are a thousand votes on each, and every node kept its own share.
func TestThousandVotes(t *testing.T) {
	m := mesh(t)
	key := newKey(t)
	before := commits(t, m, presentationType)
	must(t)(ask(m, m.Gateway(), key, question))

	tally := rig.Each(24, 1000, func(i int) (*rig.Reply, error) {
		return vote(m, m.Ingress(1+i%nodes), key, question)
	})
	if tally.Acked() != 1000 {
		t.Fatalf("got %v, want 1000 acknowledged", tally)
	}
	within(t, 20*time.Second, agree(m.Ingresses(), votesOf(m, key, question), exactly(1000)))

	sum := uint64(0)
	for node, after := range commits(t, m, presentationType) {
		took := after - before[node]
		sum += took
		if took == 0 {
			t.Errorf("the store of %s took no local increment", node)
		}
	}
	if sum < 1000 {
		t.Errorf("all stores together took %d local increments, want at least 1000", sum)
	}
}

// Votes of many presentations at the gateway spread over the nodes and meet again.
func TestVotesThroughGateway(t *testing.T) {
	m := mesh(t)
	key := newKey(t)
	served := map[string]bool{}
	tally := rig.Each(8, 120, func(int) (*rig.Reply, error) { return vote(m, m.Gateway(), key, question) })
	if tally.Acked() != 120 {
		t.Fatalf("got %v, want 120 acknowledged", tally)
	}
	within(t, 10*time.Second, agree(append(m.Ingresses(), m.Gateway()), votesOf(m, key, question), exactly(120)))
	for range 12 {
		r := must(t)(explained(m, m.Gateway(), "/v1/presentations/"+key))
		served[r.Header.Get("holdfast-explain")] = true
	}
	if len(served) < 2 {
		t.Errorf("12 reads at the gateway were all answered by %v, want several nodes", served)
	}
}

// A store that is killed half-way and started again has lost no acknowledged vote and counts none twice.
func TestStoreKilled(t *testing.T) {
	m := mesh(t)
	key := newKey(t)
	must(t)(ask(m, m.Gateway(), key, question))
	victim, err := m.Node("node-3")
	if err != nil {
		t.Fatal(err)
	}

	load := rig.StartLoad(12, 5*time.Millisecond, func(worker, n int) (*rig.Reply, error) {
		return vote(m, m.Ingress(1+(worker+n)%nodes), key, question)
	})
	defer load.Stop()
	within(t, 30*time.Second, atLeast(load, 300))
	if err := m.Kill(victim.StorePID); err != nil {
		t.Fatal(err)
	}
	restarted(t, m, "node-3", func(n rig.NodeStatus) int { return n.StorePID }, victim.StorePID)
	within(t, 30*time.Second, atLeast(load, load.Acked()+300))
	load.Stop()
	t.Log(&load.Tally)
	within(t, 30*time.Second, agree(m.Ingresses(), votesOf(m, key, question), counted(&load.Tally)))
}

// atLeast waits for a load to have that many acknowledged calls.
func atLeast(load *rig.Load, n int) func() error {
	return func() error {
		if got := load.Acked(); got < n {
			return fmt.Errorf("%v, want %d acknowledged", &load.Tally, n)
		}
		return nil
	}
}

// restarted waits until a process of a node that was killed runs again, under another id.
func restarted(t *testing.T, m *rig.Mesh, node string, pid func(rig.NodeStatus) int, old int) {
	t.Helper()
	within(t, 30*time.Second, func() error {
		n, err := m.Node(node)
		if err != nil {
			return err
		}
		if now := pid(n); now == 0 || now == old {
			return fmt.Errorf("%s: process %d was killed, now %d", node, old, now)
		}
		return nil
	})
}

// commits reads each store's count of local writes of a type.
func commits(t *testing.T, m *rig.Mesh, entityType string) map[string]uint64 {
	t.Helper()
	all := map[string]uint64{}
	for i := range nodes {
		node := fmt.Sprintf("node-%d", i+1)
		s, err := m.StoreStatus(node)
		if err != nil {
			t.Fatal(err)
		}
		all[node] = s.GetCommits()[entityType]
	}
	return all
}

func explained(m *rig.Mesh, address, path string) (*rig.Reply, error) {
	return m.Do("GET", address, path, nil, map[string][]string{"Holdfast-Explain": {"1"}})
}
