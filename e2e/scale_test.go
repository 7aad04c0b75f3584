package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/holdfast-mesh/holdfast/e2e/rig"
)

// Six nodes become three and six again while people vote and pay: nothing acknowledged is lost.
func TestScale(t *testing.T) {
	m := mesh(t)
	account, key := newKey(t), newKey(t)
	must(t)(deposit(m, m.Gateway(), account, 100_000))
	// Votes that only node-5 took before it goes.
	early := rig.Each(4, 50, func(int) (*rig.Reply, error) { return vote(m, m.Ingress(5), key, question) })
	l := &ledger{sum: 100_000}
	voting := rig.StartLoad(6, 10*time.Millisecond, func(worker, n int) (*rig.Reply, error) {
		if worker%2 == 0 {
			return vote(m, m.Gateway(), key, question)
		}
		return vote(m, m.Ingress(1+n%3), key, question)
	})
	defer voting.Stop()
	money := rig.StartLoad(3, 20*time.Millisecond, func(_, n int) (*rig.Reply, error) {
		cents := int64(1 + n%50)
		r, err := deposit(m, m.Ingress(1+n%3), account, cents)
		l.note(rig.OutcomeOf(r, err), cents)
		return r, err
	})
	defer money.Stop()

	for _, n := range []int{3, 6} {
		within(t, 30*time.Second, atLeast(voting, voting.Acked()+100))
		if out, err := m.Run("scale", fmt.Sprint(n)); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if err := m.WaitReady(t.Context(), n); err != nil {
			t.Fatal(err)
		}
		within(t, 30*time.Second, atLeast(voting, voting.Acked()+100))
		within(t, 30*time.Second, atLeast(money, money.Acked()+30))
	}
	voting.Stop()
	money.Stop()
	t.Logf("votes: %v", &voting.Tally)
	t.Logf("money: %v", &money.Tally)
	low, high := early.Acked()+voting.Acked(), early.Acked()+voting.Acked()+early.Unknown()+voting.Unknown()
	within(t, 30*time.Second, agree(m.Ingresses(), votesOf(m, key, question), func(v int) error {
		if v < low || v > high {
			return fmt.Errorf("votes are %d, want %d to %d", v, low, high)
		}
		return nil
	}))
	within(t, 30*time.Second, agree(m.Ingresses(), balanceOf(m, account), l.check))
	if failed, all := voting.Refused()+voting.Unknown(), voting.Acked(); failed*100 > all {
		t.Errorf("%d of %d votes failed while scaling, want at most one in a hundred", failed, failed+all)
	}
}
