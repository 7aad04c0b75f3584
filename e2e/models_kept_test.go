package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-mesh/holdfast/e2e/rig"
)

// What nobody changes for its time to live is deleted, everywhere, and may be there again.
func testTTL(t *testing.T, m *rig.Mesh) {
	key := newKey(t)
	for range 2 {
		must(t)(doThing(m, m.Ingress(1), "Brief", key, `[{"set":{"value":"eA=="}}]`))
		within(t, 10*time.Second, thingIs(m, []string{m.Ingress(1)}, "Brief", key, `{"lww":"eA=="}`))
		within(t, 60*time.Second, thingIs(m, m.Ingresses(), "Brief", key, ""))
	}
}

// An idle entity leaves memory, and is there all the same.
func testPassivation(t *testing.T, m *rig.Mesh) {
	const many = 50
	prefix := newKey(t)
	for i := range many {
		must(t)(doThing(m, m.Ingress(1+i%3), "Idle", fmt.Sprint(prefix, i), `[{"add":{"elements":["YQ=="]}}]`))
	}
	within(t, 60*time.Second, func() error {
		s, err := m.StoreStatus("node-1")
		if err != nil {
			return err
		}
		if s.GetPassive() < many {
			return fmt.Errorf("%d of %d entities are on disk only", s.GetPassive(), s.GetEntities())
		}
		return nil
	})
	for i := range many {
		if err := thingIs(m, m.Ingresses(), "Idle", fmt.Sprint(prefix, i), `{"orset":{"elements":["YQ=="]}}`)(); err != nil {
			t.Error(err)
		}
	}
	must(t)(doThing(m, m.Ingress(2), "Idle", prefix+"0", `[{"remove":{"elements":["YQ=="]}},{"add":{"elements":["Yg=="]}}]`))
	within(t, 10*time.Second, thingIs(m, m.Ingresses(), "Idle", prefix+"0", `{"orset":{"elements":["Yg=="]}}`))
}

// Without a majority of the stores a write of that level is neither acknowledged nor called failed; LOCAL ones go on.
func testLevels(t *testing.T, m *rig.Mesh) {
	key := newKey(t)
	must(t)(doThing(m, m.Ingress(1), "Majority", key, `[{"increment":{"by":1}}]`))
	must(t)(doThing(m, m.Ingress(1), "All", key, `[{"add":{"elements":["YQ=="]}}]`))
	var paused []int
	pause := func(node string) {
		t.Helper()
		n, err := m.Node(node)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Pause(n.StorePID); err != nil {
			t.Fatal(err)
		}
		paused = append(paused, n.StorePID)
	}
	t.Cleanup(func() {
		for _, pid := range paused {
			_ = m.Resume(pid)
		}
	})
	unknown := func(name, operations string) {
		t.Helper()
		began := time.Now()
		r, err := doThing(m, m.Ingress(1), name, key, operations, "grpc-timeout", "1500m")
		if err != nil {
			t.Fatal(err)
		}
		if r.Status != http.StatusGatewayTimeout || statusCode(r) != 4 || r.Header.Get("holdfast-outcome") != "unknown" {
			t.Errorf("%s: %d %s, holdfast-outcome %q; want 504, code 4 (DEADLINE_EXCEEDED), unknown", name, r.Status, r.Body, r.Header.Get("holdfast-outcome"))
		}
		t.Logf("%s: %d %s after %v", name, r.Status, strings.TrimSpace(string(r.Body)), time.Since(began).Round(time.Millisecond))
	}
	// One store away: a majority of three is left, but not all.
	pause("node-3")
	must(t)(doThing(m, m.Ingress(1), "Majority", key, `[{"increment":{"by":1}}]`))
	unknown("All", `[{"add":{"elements":["Yg=="]}}]`)
	pause("node-2")
	unknown("Majority", `[{"increment":{"by":1}}]`)
	must(t)(doThing(m, m.Ingress(1), "GCounter", key, `[{"increment":{"by":1}}]`))
	must(t)(doThing(m, m.Ingress(1), "Memory", key, `[{"increment":{"by":1}}]`))
	for _, pid := range paused {
		if err := m.Resume(pid); err != nil {
			t.Fatal(err)
		}
	}
	paused = nil
	// The store had them, so they come through in the end.
	within(t, 60*time.Second, thingIs(m, m.Ingresses(), "Majority", key, `{"gcounter":"3"}`))
	within(t, 60*time.Second, thingIs(m, m.Ingresses(), "All", key, `{"orset":{"elements":["YQ==","Yg=="]}}`))
	within(t, 30*time.Second, func() error {
		_, err := ok(doThing(m, m.Ingress(3), "All", key, `[{"add":{"elements":["Yw=="]}}]`))
		return err
	})
	must(t)(doThing(m, m.Ingress(2), "Majority", key, `[{"increment":{"by":1}}]`))
}

// A store that is killed has everything that it acknowledged, whatever the model, and goes on from there; three times, since
// each time it is another identity.
func testKilled(t *testing.T, m *rig.Mesh) {
	key := newKey(t)
	for round := 1; round <= 3; round++ {
		wants := map[string]string{
			"GCounter":   fmt.Sprintf(`{"gcounter":"%d"}`, round),
			"PNCounter":  fmt.Sprintf(`{"pncounter":"%d"}`, -round),
			"Stock":      fmt.Sprintf(`{"bcounter":{"value":"%d"}}`, 2*round),
			"GSet":       `{"gset":{"elements":["MQ=="` + []string{"", `,"Mg=="`, `,"Mg==","Mw=="`}[round-1] + `]}}`,
			"ORSet":      `{"orset":{"elements":["` + []string{"MQ==", "Mg==", "Mw=="}[round-1] + `"]}}`,
			"LWW":        `{"lww":"` + []string{"MQ==", "Mg==", "Mw=="}[round-1] + `"}`,
			"MVRegister": `{"mvregister":{"values":["` + []string{"MQ==", "Mg==", "Mw=="}[round-1] + `"]}}`,
			"Flag":       fmt.Sprintf(`{"flag":%v}`, round%2 == 1),
			"Vote":       fmt.Sprintf(`{"vote":{"votesFor":%d,"totalVoters":3}}`, round%2),
			"Map":        fmt.Sprintf(`{"ormap":{"entries":{"a":{"pncounter":"%d"}}}}`, round),
			"Majority":   fmt.Sprintf(`{"gcounter":"%d"}`, round),
		}
		element := []string{"MQ==", "Mg==", "Mw=="}[round-1]
		for _, c := range [][2]string{
			{"GCounter", `[{"increment":{"by":1}}]`},
			{"PNCounter", `[{"change":{"by":-1}}]`},
			{"Stock", `[{"change":{"by":3}}]`},
			{"Stock", `[{"change":{"by":-1}}]`},
			{"GSet", `[{"add":{"elements":["` + element + `"]}}]`},
			{"ORSet", `[{"clear":{}},{"add":{"elements":["` + element + `"]}}]`},
			{"LWW", `[{"set":{"value":"` + element + `"}}]`},
			{"MVRegister", `[{"set":{"value":"` + element + `"}}]`},
			{"Flag", []string{`[{"disable":{}}]`, `[{"enable":{}}]`}[round%2]},
			{"Vote", fmt.Sprintf(`[{"vote":{"inFavour":%v}}]`, round%2 == 1)},
			{"Map", `[{"mapUpdate":{"key":"a","operation":{"change":{"by":1}}}}]`},
			{"Majority", `[{"increment":{"by":1}}]`},
		} {
			doThingAt(t, m, 1, c[0], key, c[1])
		}
		n, err := m.Node("node-1")
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Kill(n.StorePID); err != nil {
			t.Fatal(err)
		}
		restarted(t, m, "node-1", func(n rig.NodeStatus) int { return n.StorePID }, n.StorePID)
		within(t, 30*time.Second, func() error { return m.WaitReady(t.Context(), 3) })
		within(t, 30*time.Second, ownStores(m, "ORSet"))
		for name, want := range wants {
			if err := rig.PollFor(30*time.Second, thingIs(m, append(m.Ingresses(), m.Gateway()), name, key, want)); err != nil {
				t.Errorf("round %d: %v", round, err)
			}
		}
	}
}
