package e2e

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/holdfast-mesh/holdfast/e2e/rig"
)

// While etcd does not answer, strong calls are refused with UNAVAILABLE and votes go on; afterwards strong calls work again
// and no money is lost.
func TestEtcdStopped(t *testing.T) {
	m := mesh(t)
	account, key := newKey(t), newKey(t)
	l := &ledger{sum: 1000}
	must(t)(deposit(m, m.Gateway(), account, 1000))
	s, err := m.Status()
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Pause(s.Etcd.PID); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = m.Resume(s.Etcd.PID) }()

	voting := rig.StartLoad(6, 20*time.Millisecond, func(worker, _ int) (*rig.Reply, error) {
		return vote(m, m.Ingress(1+worker), key, question)
	})
	defer voting.Stop()
	var refusal *rig.Reply
	within(t, 30*time.Second, func() error {
		r, err := m.Do("POST", m.Ingress(2), "/v1/accounts/"+account+":deposit", map[string]int64{"amount_cents": 7},
			map[string][]string{"Grpc-Timeout": {"1S"}})
		l.note(rig.OutcomeOf(r, err), 7)
		if err != nil {
			return err
		}
		if r.Status != http.StatusServiceUnavailable {
			return fmt.Errorf("deposit without etcd: %d %s, want 503", r.Status, r.Body)
		}
		refusal = r
		return nil
	})
	if got := statusCode(refusal); got != 14 {
		t.Errorf("the refusal's body is %s, want a google.rpc.Status with code 14", refusal.Body)
	}
	for i := range nodes {
		start := time.Now()
		r, err := deposit(m, m.Ingress(1+i), account, 7)
		l.note(rig.OutcomeOf(r, err), 7)
		if err != nil || r.Status != http.StatusServiceUnavailable {
			t.Errorf("deposit by node %d without etcd: %v, want 503", i+1, describe(r, err))
		}
		t.Logf("refused at node %d after %v", i+1, time.Since(start).Round(time.Millisecond))
	}
	within(t, 30*time.Second, atLeast(voting, 200))
	if voting.Refused()+voting.Unknown() > 0 {
		t.Errorf("votes without etcd: %v", &voting.Tally)
	}

	if err := m.Resume(s.Etcd.PID); err != nil {
		t.Fatal(err)
	}
	back := time.Now()
	within(t, 30*time.Second, func() error {
		r, err := deposit(m, m.Ingress(3), account, 1)
		o := rig.OutcomeOf(r, err)
		l.note(o, 1)
		if o != rig.Acked {
			return fmt.Errorf("deposit after etcd's return: %v", describe(r, err))
		}
		return nil
	})
	t.Logf("strong works %v after etcd's return", time.Since(back).Round(time.Millisecond))
	voting.Stop()
	within(t, 20*time.Second, agree(m.Ingresses(), balanceOf(m, account), l.check))
	within(t, 20*time.Second, agree(m.Ingresses(), votesOf(m, key, question), counted(&voting.Tally)))
}

// Etcd is killed under load and started again by the supervisor with its data.
func TestEtcdKilled(t *testing.T) {
	m := mesh(t)
	account, key := newKey(t), newKey(t)
	must(t)(deposit(m, m.Gateway(), account, 50_000))
	l := &ledger{sum: 50_000}
	s, err := m.Status()
	if err != nil {
		t.Fatal(err)
	}
	money := rig.StartLoad(4, 20*time.Millisecond, func(worker, n int) (*rig.Reply, error) { return move(m, l, account, worker, n) })
	defer money.Stop()
	voting := rig.StartLoad(4, 20*time.Millisecond, func(worker, n int) (*rig.Reply, error) {
		return vote(m, m.Ingress(1+(worker+n)%nodes), key, question)
	})
	defer voting.Stop()
	within(t, 30*time.Second, atLeast(money, 50))
	if err := m.Kill(s.Etcd.PID); err != nil {
		t.Fatal(err)
	}
	at := money.Acked()
	within(t, 60*time.Second, func() error {
		now, err := m.Status()
		if err != nil {
			return err
		}
		if now.Etcd.PID == 0 || now.Etcd.PID == s.Etcd.PID {
			return fmt.Errorf("etcd's process is %d, was %d", now.Etcd.PID, s.Etcd.PID)
		}
		return nil
	})
	within(t, 60*time.Second, atLeast(money, at+100))
	money.Stop()
	voting.Stop()
	t.Logf("money: %v", &money.Tally)
	if voting.Refused()+voting.Unknown() > 0 {
		t.Errorf("votes while etcd was away: %v", &voting.Tally)
	}
	within(t, 20*time.Second, agree(m.Ingresses(), balanceOf(m, account), l.check))
	within(t, 20*time.Second, agree(m.Ingresses(), votesOf(m, key, question), counted(&voting.Tally)))
}

func describe(r *rig.Reply, err error) string {
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%d %s", r.Status, r.Body)
}
