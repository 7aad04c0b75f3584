package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-mesh/holdfast/e2e/rig"
)

// Every process of ours says whether it is ready, and what it counts.
func TestReadyAndMetrics(t *testing.T) {
	m := mesh(t)
	sockets := []string{"up.sock", "admin.sock", "etcd-http.sock"}
	for i := range nodes {
		sockets = append(sockets, fmt.Sprintf("node-%d/store-http.sock", i+1))
	}
	for _, socket := range sockets {
		for path, want := range map[string]string{"/readyz": "", "/metrics": "# TYPE "} {
			r, err := m.GetSocket(socket, path)
			if err != nil {
				t.Errorf("%s%s: %v", socket, path, err)
			} else if r.Status != 200 || !strings.Contains(string(r.Body), want) {
				t.Errorf("%s%s: %d %.200s, want 200 with %q", socket, path, r.Status, r.Body, want)
			}
		}
	}
}

// A node's Envoy dies under load and comes back: who calls the gateway or another node notices little, and no vote is lost
// or counted twice.
func TestEnvoyKilled(t *testing.T) {
	m := mesh(t)
	account, key := newKey(t), newKey(t)
	must(t)(deposit(m, m.Gateway(), account, 10_000))
	l := &ledger{sum: 10_000}
	victim, err := m.Node("node-4")
	if err != nil {
		t.Fatal(err)
	}
	others := []string{m.Gateway(), m.Ingress(1), m.Ingress(2), m.Ingress(3), m.Ingress(5), m.Ingress(6)}
	voting := rig.StartLoad(6, 10*time.Millisecond, func(worker, _ int) (*rig.Reply, error) {
		return vote(m, others[worker], key, question)
	})
	defer voting.Stop()
	money := rig.StartLoad(3, 20*time.Millisecond, func(worker, n int) (*rig.Reply, error) {
		cents := int64(1 + n%9)
		r, err := deposit(m, others[(worker+n)%len(others)], account, cents)
		l.note(rig.OutcomeOf(r, err), cents)
		return r, err
	})
	defer money.Stop()
	within(t, 30*time.Second, atLeast(voting, 100))
	if err := m.Kill(victim.EnvoyPID); err != nil {
		t.Fatal(err)
	}
	restarted(t, m, "node-4", func(n rig.NodeStatus) int { return n.EnvoyPID }, victim.EnvoyPID)
	within(t, 30*time.Second, atLeast(voting, voting.Acked()+300))
	within(t, 30*time.Second, atLeast(money, money.Acked()+50))
	voting.Stop()
	money.Stop()
	t.Logf("votes: %v", &voting.Tally)
	t.Logf("money: %v", &money.Tally)
	if failed, all := voting.Refused()+voting.Unknown(), voting.Acked(); failed*50 > all {
		t.Errorf("%v, want at most one vote in fifty to fail", &voting.Tally)
	}
	if err := m.WaitReady(t.Context(), nodes); err != nil {
		t.Fatal(err)
	}
	within(t, 20*time.Second, agree(m.Ingresses(), votesOf(m, key, question), counted(&voting.Tally)))
	within(t, 20*time.Second, agree(m.Ingresses(), balanceOf(m, account), l.check))
}

// A whole node dies at once, Envoy, store and services: callers of the others go on.
func TestNodeKilled(t *testing.T) {
	m := mesh(t)
	key := newKey(t)
	victim, err := m.Node("node-5")
	if err != nil {
		t.Fatal(err)
	}
	// What only node-5 was asked to keep has left it by the time it dies: deltas are pushed at once.
	early := rig.Each(4, 40, func(int) (*rig.Reply, error) { return vote(m, m.Ingress(5), key, question) })
	within(t, 10*time.Second, agree(m.Ingresses(), votesOf(m, key, question), exactly(early.Acked())))
	others := []string{m.Gateway(), m.Ingress(1), m.Ingress(2), m.Ingress(3), m.Ingress(4), m.Ingress(6)}
	load := rig.StartLoad(6, 10*time.Millisecond, func(worker, _ int) (*rig.Reply, error) {
		return vote(m, others[worker], key, question)
	})
	defer load.Stop()
	within(t, 30*time.Second, atLeast(load, 100))
	pids := []int{victim.EnvoyPID, victim.StorePID}
	for _, pid := range victim.ServicePIDs {
		pids = append(pids, pid)
	}
	for _, pid := range pids {
		if err := m.Kill(pid); err != nil {
			t.Fatal(err)
		}
	}
	within(t, 30*time.Second, atLeast(load, load.Acked()+300))
	load.Stop()
	t.Log(&load.Tally)
	if failed := load.Refused() + load.Unknown(); failed*50 > load.Acked() {
		t.Errorf("%v, want at most one vote in fifty to fail", &load.Tally)
	}
	if err := m.WaitReady(t.Context(), nodes); err != nil {
		t.Fatal(err)
	}
	low, high := early.Acked()+load.Acked(), early.Acked()+load.Acked()+load.Unknown()
	within(t, 20*time.Second, agree(m.Ingresses(), votesOf(m, key, question), func(v int) error {
		if v < low || v > high {
			return fmt.Errorf("votes are %d, want %d to %d", v, low, high)
		}
		return nil
	}))
}
