package e2e

import (
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast-mesh/holdfast/e2e/rig"
)

const cartType = "cart.Cart"

// cart is a cart as callers see it.
type cart struct {
	Items      map[string]uint32 `json:"items"`
	CheckedOut bool              `json:"checked_out"`
}

func (c *cart) total() (n uint64) {
	for _, quantity := range c.Items {
		n += uint64(quantity)
	}
	return n
}

func addItem(m *rig.Mesh, address, key, item string, quantity int) (*rig.Reply, error) {
	return m.Do(http.MethodPost, address, "/v1/carts/"+key+"/items", map[string]any{"item": item, "quantity": quantity}, nil)
}

func getCart(m *rig.Mesh, address, key string) (*cart, error) {
	r, err := m.Do(http.MethodGet, address, "/v1/carts/"+key, nil, nil)
	if err != nil {
		return nil, err
	}
	if r.Status != http.StatusOK {
		return nil, fmt.Errorf("GET cart at %s: %d %s", address, r.Status, r.Body)
	}
	c := &cart{}
	return c, r.JSON(c)
}

func totalOf(m *rig.Mesh, key string) func(string) (uint64, error) {
	return func(address string) (uint64, error) {
		c, err := getCart(m, address, key)
		if err != nil {
			return 0, err
		}
		return c.total(), nil
	}
}

// A cart is the same wherever it is looked at, through more than one entity snapshot, and stays as it is once it is checked
// out.
func TestCart(t *testing.T) {
	m := mesh(t)
	key := newKey(t)
	tally := rig.Each(8, 60, func(i int) (*rig.Reply, error) {
		return addItem(m, m.Ingress(1+i%nodes), key, fmt.Sprintf("item-%d", i%10), 1+i%2)
	})
	if tally.Acked() != 60 {
		t.Fatalf("got %v, want 60 acknowledged", tally)
	}
	within(t, 10*time.Second, agree(append(m.Ingresses(), m.Gateway()), totalOf(m, key), exactly[uint64](90)))

	must(t)(m.Do(http.MethodDelete, m.Ingress(2), "/v1/carts/"+key+"/items/item-3", nil, nil))
	must(t)(m.Do(http.MethodPost, m.Ingress(3), "/v1/carts/"+key+":checkout", nil, nil))
	r, err := addItem(m, m.Ingress(4), key, "item-3", 1)
	if err != nil || r.Status != http.StatusBadRequest || statusCode(r) != 9 {
		t.Errorf("an item for a cart that is checked out: %v, %v; want 400, FAILED_PRECONDITION", r, err)
	}
	c, err := getCart(m, m.Ingress(5), key)
	if err != nil || !c.CheckedOut || c.total() != 78 || len(c.Items) != 9 {
		t.Errorf("got %+v, %v; want 78 of 9 items, checked out", c, err)
	}
}

// Money moves between three accounts by all nodes at once, in both directions and while an owner's store is killed: it is
// never made and never lost, and no transfer is seen half done.
func TestTransfersKeepTheSum(t *testing.T) {
	m := mesh(t)
	const each = 100_000
	accounts := []string{newKey(t), newKey(t), newKey(t)}
	for _, a := range accounts {
		must(t)(deposit(m, m.Gateway(), a, each))
	}
	owner := ownerOf(t, m, accountType, accounts[0])
	victim, err := m.Node(owner)
	if err != nil {
		t.Fatal(err)
	}
	transfer := func(address, from, to string, cents int) (*rig.Reply, error) {
		return m.Do(http.MethodPost, address, "/v1/accounts/"+from+":transfer", map[string]any{"to": to, "amount_cents": cents}, nil)
	}
	var halves atomic.Int64
	load := rig.StartLoad(6, 10*time.Millisecond, func(worker, n int) (*rig.Reply, error) {
		from, to := accounts[(worker+n)%3], accounts[(worker+n+1+worker%2)%3]
		r, err := transfer(m.Ingress(1+(worker+n)%nodes), from, to, 1+n%50)
		if err == nil && r.Status == http.StatusOK {
			var both struct {
				From int64 `json:"balance_cents,string"`
				To   int64 `json:"to_balance_cents,string"`
			}
			if r.JSON(&both) != nil || both.From+both.To > 3*each || both.From < 0 {
				halves.Add(1)
			}
		}
		return r, err
	})
	defer load.Stop()
	within(t, 30*time.Second, atLeast(load, 100))
	if err := m.Kill(victim.StorePID); err != nil {
		t.Fatal(err)
	}
	killed, at := time.Now(), load.Acked()
	within(t, 30*time.Second, atLeast(load, at+1))
	t.Logf("first transfer %v after the kill", time.Since(killed).Round(time.Millisecond))
	restarted(t, m, owner, func(n rig.NodeStatus) int { return n.StorePID }, victim.StorePID)
	within(t, 60*time.Second, atLeast(load, at+100))
	load.Stop()
	t.Log(&load.Tally)
	within(t, 20*time.Second, func() error {
		var sum int64
		for i, a := range accounts {
			cents, err := balance(m, m.Ingress(1+i), a)
			if err != nil {
				return err
			}
			sum += cents
		}
		if sum != 3*each {
			return fmt.Errorf("the accounts hold %d, want %d", sum, 3*each)
		}
		return nil
	})
	if halves.Load() > 0 {
		t.Errorf("%d replies had more money than there is", halves.Load())
	}
}

// The store that owns a cart is killed while eight clients add to it. Every add that was acknowledged is there once, whoever
// followed the events has seen each of them once, in order, and they come to the cart.
func TestCartAcrossOwnerKill(t *testing.T) {
	m := mesh(t)
	// The store that is asked first for a history, so that the command's follower loses it, too.
	const owner = "node-1"
	key := newKey(t)
	must(t)(addItem(m, m.Gateway(), key, "first", 1))
	for tries := 0; ownerOf(t, m, cartType, key) != owner; tries++ {
		if tries == 100 {
			t.Fatalf("%s owns none of %d carts", owner, tries)
		}
		key = newKey(t)
		must(t)(addItem(m, m.Gateway(), key, "first", 1))
	}
	victim, err := m.Node(owner)
	if err != nil {
		t.Fatal(err)
	}
	followers := []*follower{followCommand(t, m, key), followStore(t, m, "node-2", key)}
	for _, f := range followers {
		within(t, 20*time.Second, func() error { return f.reached(1) })
	}

	load := rig.StartLoad(8, 10*time.Millisecond, func(worker, n int) (*rig.Reply, error) {
		return addItem(m, m.Ingress(1+(worker+n)%nodes), key, fmt.Sprintf("item-%d-%d", worker, n/500), 1)
	})
	defer load.Stop()
	within(t, 30*time.Second, atLeast(load, 100))
	if err := m.Kill(victim.StorePID); err != nil {
		t.Fatal(err)
	}
	killed, at := time.Now(), load.Acked()
	within(t, 30*time.Second, atLeast(load, at+1))
	t.Logf("first acknowledgement %v after the kill", time.Since(killed).Round(time.Millisecond))
	restarted(t, m, owner, func(n rig.NodeStatus) int { return n.StorePID }, victim.StorePID)
	within(t, 60*time.Second, atLeast(load, at+100))
	load.Stop()
	t.Log(&load.Tally)

	low, high := uint64(load.Acked()+1), uint64(load.Acked()+load.Unknown()+1)
	var total uint64
	within(t, 20*time.Second, agree(m.Ingresses(), totalOf(m, key), func(n uint64) error {
		if total = n; n < low || n > high {
			return fmt.Errorf("%d items, want %d to %d", n, low, high)
		}
		return nil
	}))
	for _, f := range followers {
		within(t, 20*time.Second, func() error { return f.reached(total) })
	}
}

// follower notes the events that it is sent.
type follower struct {
	name string
	mu   sync.Mutex
	seen uint64
	err  error
}

// note takes the next event, or the end.
func (f *follower) note(sequence uint64, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.err != nil:
	case err != nil:
		f.err = err
	case sequence != f.seen+1:
		f.err = fmt.Errorf("event %d came after %d", sequence, f.seen)
	default:
		f.seen = sequence
	}
}

// reached is nil once all events up to last were seen, and none after it.
func (f *follower) reached(last uint64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil || f.seen != last {
		return fmt.Errorf("%s has seen the events up to %d (%v); want %d", f.name, f.seen, f.err, last)
	}
	return nil
}
