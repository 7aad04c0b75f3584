package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-mesh/holdfast/e2e/rig"
)

// ledger is what a client knows it moved: the certain sum, and the bounds of what is unknown.
type ledger struct {
	mu              sync.Mutex
	sum, less, more int64
}

// note books a deposit (cents above zero) or a withdrawal (below) by its outcome.
func (l *ledger) note(o rig.Outcome, cents int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case o == rig.Acked:
		l.sum += cents
	case o == rig.Unknown && cents > 0:
		l.more += cents
	case o == rig.Unknown:
		l.less += cents
	}
}

// check accepts a balance that these movements allow.
func (l *ledger) check(balance int64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if low, high := l.sum+l.less, l.sum+l.more; balance < low || balance > high {
		return fmt.Errorf("balance is %d, want %d to %d", balance, low, high)
	}
	return nil
}

// move deposits, and every third time withdraws.
func move(m *rig.Mesh, l *ledger, account string, worker, n int) (*rig.Reply, error) {
	address := m.Ingress(1 + (worker+n)%nodes)
	cents := int64(1 + (worker*31+n*7)%100)
	var r *rig.Reply
	var err error
	if n%3 == 2 {
		cents = -cents
		r, err = withdraw(m, address, account, -cents)
	} else {
		r, err = deposit(m, address, account, cents)
	}
	l.note(rig.OutcomeOf(r, err), cents)
	return r, err
}

// Eight clients move money in and out of one account by all nodes at once, and none of it is lost.
func TestAccountLosesNoUpdate(t *testing.T) {
	m := mesh(t)
	account := newKey(t)
	l := &ledger{}
	tally := rig.Each(8, 240, func(i int) (*rig.Reply, error) { return move(m, l, account, i%8, i/8) })
	t.Log(tally)
	if tally.Acked() < 200 || tally.Unknown() > 0 {
		t.Fatalf("got %v; want nearly all acknowledged and none unknown: nothing was broken", tally)
	}
	within(t, 10*time.Second, agree(append(m.Ingresses(), m.Gateway()), balanceOf(m, account), l.check))
}

// Withdrawals that race at different nodes never take more than is there.
func TestWithdrawalsNeverBelowZero(t *testing.T) {
	m := mesh(t)
	account := newKey(t)
	must(t)(deposit(m, m.Ingress(1), account, 1000))

	var refused sync.Map
	tally := rig.Each(8, 48, func(i int) (*rig.Reply, error) {
		r, err := withdraw(m, m.Ingress(1+i%nodes), account, 100)
		if err == nil && r.Status != http.StatusOK {
			refused.Store(i, r)
		}
		return r, err
	})
	if tally.Acked() != 10 || tally.Refused() != 38 {
		t.Errorf("got %v, want 10 of 48 acknowledged and 38 refused", tally)
	}
	refused.Range(func(_, value any) bool {
		r := value.(*rig.Reply)
		if got := statusCode(r); r.Status != http.StatusBadRequest || got != 9 {
			t.Errorf("a withdrawal was refused with HTTP %d and code %d, want 400 and 9 (FAILED_PRECONDITION): %s", r.Status, got, r.Body)
			return false
		}
		return true
	})
	within(t, 10*time.Second, agree(m.Ingresses(), balanceOf(m, account), exactly[int64](0)))
}

// The owner's store is killed while eight clients move money: no update is lost, and it goes on.
func TestAccountAcrossOwnerKill(t *testing.T) {
	m := mesh(t)
	account := newKey(t)
	must(t)(deposit(m, m.Gateway(), account, 100_000))
	l := &ledger{sum: 100_000}
	owner := ownerOf(t, m, accountType, account)
	victim, err := m.Node(owner)
	if err != nil {
		t.Fatal(err)
	}

	load := rig.StartLoad(8, 10*time.Millisecond, func(worker, n int) (*rig.Reply, error) { return move(m, l, account, worker, n) })
	defer load.Stop()
	within(t, 30*time.Second, atLeast(load, 100))
	if err := m.Kill(victim.StorePID); err != nil {
		t.Fatal(err)
	}
	killed := time.Now()
	at := load.Acked()
	within(t, 30*time.Second, atLeast(load, at+1))
	t.Logf("first acknowledgement %v after the kill", time.Since(killed).Round(time.Millisecond))
	restarted(t, m, owner, func(n rig.NodeStatus) int { return n.StorePID }, victim.StorePID)
	within(t, 60*time.Second, atLeast(load, at+100))
	load.Stop()
	t.Log(&load.Tally)
	within(t, 20*time.Second, agree(m.Ingresses(), balanceOf(m, account), l.check))
}

// One Idempotency-Key is one deposit, however often and wherever it is sent; another caller's or method's is another.
func TestIdempotencyKey(t *testing.T) {
	m := mesh(t)
	account := newKey(t)
	once := map[string][]string{"Idempotency-Key": {"payment-1"}}
	path := "/v1/accounts/" + account + ":deposit"
	for i := range 4 {
		r, err := m.Do("POST", m.Ingress(1+i), path, map[string]int64{"amount_cents": 5}, once)
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 && r.Status != http.StatusOK {
			t.Fatalf("first call: %d %s", r.Status, r.Body)
		}
		if r.Status != http.StatusOK {
			t.Logf("repeated call: %d %s", r.Status, r.Body)
		}
	}
	within(t, 10*time.Second, agree(m.Ingresses(), balanceOf(m, account), exactly[int64](5)))
}

func balanceOf(m *rig.Mesh, account string) func(string) (int64, error) {
	return func(address string) (int64, error) { return balance(m, address, account) }
}

// statusCode is the code of a JSON google.rpc.Status, -1 where the body is none.
func statusCode(r *rig.Reply) int {
	var s struct {
		Code *int `json:"code"`
	}
	if json.Unmarshal(r.Body, &s) != nil || s.Code == nil {
		return -1
	}
	return *s.Code
}

// ownerOf asks the command line who owns an entity.
func ownerOf(t *testing.T, m *rig.Mesh, entityType, key string) string {
	t.Helper()
	owner := ""
	within(t, 10*time.Second, func() error {
		out, err := m.Run("key", "get", entityType+"/"+key, "-o", "json")
		if err != nil {
			return err
		}
		var k struct {
			Owner string `json:"owner"`
		}
		if err := json.Unmarshal([]byte(out), &k); err != nil {
			return fmt.Errorf("decode %s: %w", out, err)
		}
		if k.Owner == "" {
			return fmt.Errorf("no owner in %s", out)
		}
		owner = k.Owner
		return nil
	})
	return owner
}
