package e2e

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/holdfast-mesh/holdfast/e2e/rig"
)

// A bounded counter goes to its floor through any node, and not below.
func testBounded(t *testing.T, m *rig.Mesh) {
	for _, c := range []struct {
		name  string
		floor int
	}{{"Stock", 0}, {"Credit", -5}} {
		t.Run(c.name, func(t *testing.T) {
			key := newKey(t)
			value := func(n int) string { return fmt.Sprintf(`{"bcounter":{"value":"%d"}}`, n) }
			change := func(node, by int) (*rig.Reply, error) {
				return doThing(m, m.Ingress(node), c.name, key, fmt.Sprintf(`[{"change":{"by":%d}}]`, by))
			}
			must(t)(change(1, 10))
			at, err := thingState(m, m.Ingress(1), c.name, key)
			if err != nil {
				t.Fatal(err)
			}
			now := int(at.GetValue().GetBcounter().GetValue())
			t.Logf("%d after +10, %d available at node 1", now, at.GetValue().GetBcounter().GetAvailable())
			within(t, 10*time.Second, thingIs(m, m.Ingresses(), c.name, key, value(now)))
			must(t)(change(1, -4))
			// Node 2 has no rights of its own: they come from node 1.
			must(t)(change(2, -3))
			now -= 7
			within(t, 10*time.Second, thingIs(m, m.Ingresses(), c.name, key, value(now)))
			for now > c.floor {
				must(t)(change(1+now&1, -1))
				now--
			}
			within(t, 10*time.Second, thingIs(m, m.Ingresses(), c.name, key, value(c.floor)))
			for node := 1; node <= 3; node++ {
				r, err := change(node, -1)
				if err != nil {
					t.Fatal(err)
				}
				if r.Status != http.StatusBadRequest || statusCode(r) != 9 {
					t.Errorf("below the floor at node %d: %d %s, want 400 with code 9 (FAILED_PRECONDITION)", node, r.Status, r.Body)
				}
			}
			r, err := doThing(m, m.Ingress(1), c.name, key, remove)
			if err != nil {
				t.Fatal(err)
			}
			if r.Status < 400 || r.Status >= 500 {
				t.Errorf("delete: %d %s, want a refusal", r.Status, r.Body)
			}
			must(t)(change(3, 2))
			within(t, 10*time.Second, thingIs(m, m.Ingresses(), c.name, key, value(c.floor+2)))
		})
	}
	for _, name := range []string{"Stock", "SafeStock"} {
		t.Run("the last ones of "+name, func(t *testing.T) {
			// What is left is spread over the nodes, so that who takes three needs them from two others.
			key := newKey(t)
			must(t)(doThing(m, m.Ingress(1), name, key, `[{"change":{"by":9}}]`))
			for node := 1; node <= 3; node++ {
				began := time.Now()
				must(t)(doThing(m, m.Ingress(node), name, key, `[{"change":{"by":-3}}]`))
				t.Logf("three taken at node %d in %v", node, time.Since(began).Round(time.Millisecond))
			}
			within(t, 10*time.Second, thingIs(m, m.Ingresses(), name, key, `{"bcounter":{}}`))
		})
	}
	t.Run("everybody at once", func(t *testing.T) {
		key := newKey(t)
		const stock, callers, each = 100, 12, 15
		must(t)(doThing(m, m.Ingress(1), "Stock", key, fmt.Sprintf(`[{"change":{"by":%d}}]`, stock)))
		tally := rig.Each(callers, callers*each, func(i int) (*rig.Reply, error) {
			return doThing(m, m.Ingress(1+i%3), "Stock", key, `[{"change":{"by":-1}}]`)
		})
		if tally.Acked() > stock {
			t.Errorf("%d of %d were taken: %v", tally.Acked(), stock, tally)
		}
		if tally.Acked() < stock/2 {
			t.Errorf("only %d of %d were taken: %v", tally.Acked(), stock, tally)
		}
		t.Logf("%d of %d taken by %d callers, %v", tally.Acked(), stock, callers, tally)
		// What was refused though some were left elsewhere can be taken now.
		within(t, 20*time.Second, agree(m.Ingresses(), func(a string) (int, error) {
			in, err := thingState(m, a, "Stock", key)
			return int(in.GetValue().GetBcounter().GetValue()), err
		}, func(left int) error {
			if low, high := stock-tally.Acked()-tally.Unknown(), stock-tally.Acked(); left < low || left > high || left < 0 {
				return fmt.Errorf("%d left, want %d to %d", left, low, high)
			}
			return nil
		}))
	})
}
