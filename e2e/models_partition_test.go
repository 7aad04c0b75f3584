package e2e

import (
	"net/http"
	"testing"
	"time"

	"github.com/holdfast-mesh/holdfast/e2e/rig"
)

// concurrent is what two sides of a partition do to one entity without knowing of each other, and what all have afterwards:
// the tables of docs/guarantees.md.
type concurrent struct {
	what, thing string
	// before are steps that all nodes have seen when the partition begins; the value is the last step's.
	before []step
	// one is what node 1 does, alone; two is what node 2 does, with node 3.
	one, two string
	want     string
}

var concurrentWrites = []concurrent{
	{"both count", "GCounter", []step{{1, `[{"increment":{"by":1}}]`, `{"gcounter":"1"}`}}, `[{"increment":{"by":2}}]`, `[{"increment":{"by":3}}]`, `{"gcounter":"6"}`},
	{"an increment stays, with what its store had counted", "GCounter", []step{
		{1, `[{"increment":{"by":10}}]`, `{"gcounter":"10"}`},
		{2, `[{"increment":{"by":5}}]`, `{"gcounter":"15"}`},
	}, remove, `[{"increment":{"by":1}}]`, `{"gcounter":"6"}`},
	{"a decrement stays", "PNCounter", []step{{1, `[{"change":{"by":10}}]`, `{"pncounter":"10"}`}}, remove, `[{"change":{"by":-1}}]`, `{"pncounter":"-1"}`},
	{"elements that were added meanwhile", "GSet", []step{{1, `[{"add":{"elements":["YQ=="]}}]`, `{"gset":{"elements":["YQ=="]}}`}}, remove, `[{"add":{"elements":["YQ==","Yg=="]}}]`, `{"gset":{"elements":["Yg=="]}}`},
	{"add wins", "ORSet", []step{{1, `[{"add":{"elements":["YQ==","Yg=="]}}]`, `{"orset":{"elements":["YQ==","Yg=="]}}`}}, `[{"remove":{"elements":["YQ==","Yg=="]}}]`, `[{"add":{"elements":["YQ=="]}}]`, `{"orset":{"elements":["YQ=="]}}`},
	{"add against clear", "ORSet", []step{{2, `[{"add":{"elements":["YQ=="]}}]`, `{"orset":{"elements":["YQ=="]}}`}}, `[{"clear":{}}]`, `[{"add":{"elements":["Yg=="]}}]`, `{"orset":{"elements":["Yg=="]}}`},
	{"add against delete", "ORSet", []step{{1, `[{"add":{"elements":["YQ=="]}}]`, `{"orset":{"elements":["YQ=="]}}`}}, remove, `[{"add":{"elements":["YQ=="]}}]`, `{"orset":{"elements":["YQ=="]}}`},
	{"deleted on both sides", "ORSet", []step{{1, `[{"add":{"elements":["YQ=="]}}]`, `{"orset":{"elements":["YQ=="]}}`}}, remove, `[{"clear":{}},{"delete":{}}]`, ""},
	{"the later one wins", "LWW", []step{{1, `[{"set":{"value":"eA=="}}]`, `{"lww":"eA=="}`}}, `[{"set":{"value":"bA=="}}]`, `[{"set":{"value":"cg=="}}]`, `{"lww":"cg=="}`},
	{"the earlier one wins", "LWW", nil, `[{"set":{"value":"bA==","clock":"CLOCK_REVERSE"}}]`, `[{"set":{"value":"cg==","clock":"CLOCK_REVERSE"}}]`, `{"lww":"bA=="}`},
	{"the greater number wins", "LWW", nil, `[{"set":{"value":"bA==","clock":"CLOCK_CUSTOM","customClock":"7"}}]`, `[{"set":{"value":"cg==","clock":"CLOCK_CUSTOM","customClock":"5"}}]`, `{"lww":"bA=="}`},
	{"a set stays", "LWW", []step{{1, `[{"set":{"value":"eA=="}}]`, `{"lww":"eA=="}`}}, remove, `[{"set":{"value":"cg=="}}]`, `{"lww":"cg=="}`},
	{"the last write of a value", "Value", []step{{1, `[{"set":{"value":"eA=="}}]`, `{"value":"eA=="}`}}, `[{"set":{"value":"bA=="}}]`, `[{"set":{"value":"cg=="}}]`, `{"value":"cg=="}`},
	{"both values", "MVRegister", []step{{1, `[{"set":{"value":"eA=="}}]`, `{"mvregister":{"values":["eA=="]}}`}}, `[{"set":{"value":"bA=="}}]`, `[{"set":{"value":"cg=="}}]`, `{"mvregister":{"values":["bA==","cg=="]}}`},
	{"on wins", "Flag", []step{{1, `[{"enable":{}}]`, `{"flag":true}`}}, `[{"disable":{}}]`, `[{"enable":{}}]`, `{"flag":true}`},
	{"off meanwhile", "Flag", []step{{1, `[{"enable":{}}]`, `{"flag":true}`}}, remove, `[{"disable":{}}]`, `{"flag":false}`},
	{"each has its vote", "Vote", nil, `[{"vote":{"inFavour":true}}]`, `[{"vote":{"inFavour":true}}]`, `{"vote":{"votesFor":2,"totalVoters":3}}`},
	{"a vote stays", "Vote", []step{{3, `[{"vote":{"inFavour":true}}]`, `{"vote":{"votesFor":1,"totalVoters":3}}`}}, remove, `[{"vote":{"inFavour":true}}]`, `{"vote":{"votesFor":1,"totalVoters":3}}`},
	{"an entry that was changed meanwhile", "Map", []step{{1, `[{"mapUpdate":{"key":"a","operation":{"change":{"by":1}}}},{"mapUpdate":{"key":"b","operation":{"change":{"by":1}}}}]`, `{"ormap":{"entries":{"a":{"pncounter":"1"},"b":{"pncounter":"1"}}}}`}}, `[{"mapRemove":{"key":"a"}}]`, `[{"mapUpdate":{"key":"a","operation":{"change":{"by":2}}}}]`, `{"ormap":{"entries":{"a":{"pncounter":"2"},"b":{"pncounter":"1"}}}}`},
	{"entries that were changed meanwhile", "Map", []step{{1, `[{"mapUpdate":{"key":"a"}},{"mapUpdate":{"key":"b"}}]`, `{"ormap":{"entries":{"a":{"pncounter":"0"},"b":{"pncounter":"0"}}}}`}}, remove, `[{"mapUpdate":{"key":"c"}}]`, `{"ormap":{"entries":{"c":{"pncounter":"0"}}}}`},
	{
		"deep in an entry", "Nested",
		[]step{{1, `[{"mapUpdate":{"key":"x","operation":{"mapUpdate":{"key":"y","operation":{"add":{"elements":["YQ=="]}}}}}}]`, `{"ormap":{"entries":{"x":{"ormap":{"entries":{"y":{"orset":{"elements":["YQ=="]}}}}}}}}`}},
		`[{"mapRemove":{"key":"x"}}]`, `[{"mapUpdate":{"key":"x","operation":{"mapUpdate":{"key":"y","operation":{"add":{"elements":["Yg=="]}}}}}}]`,
		`{"ormap":{"entries":{"x":{"ormap":{"entries":{"y":{"orset":{"elements":["Yg=="]}}}}}}}}`,
	},
	{"taken and put back", "Stock", []step{{1, `[{"change":{"by":10}}]`, `{"bcounter":{"value":"10"}}`}}, `[{"change":{"by":-10}}]`, `[{"change":{"by":3}}]`, `{"bcounter":{"value":"3"}}`},
}

// Both sides of a partition write; when they meet again everybody has what the documentation says.
func testPartition(t *testing.T, m *rig.Mesh) {
	within(t, 30*time.Second, ownStores(m, "ORSet"))
	keys := make([]string, len(concurrentWrites))
	for i, c := range concurrentWrites {
		keys[i] = newKey(t)
		for _, s := range c.before {
			doThingAt(t, m, s.node, c.thing, keys[i], s.operations)
			within(t, 15*time.Second, thingIs(m, m.Ingresses(), c.thing, keys[i], s.want))
		}
	}
	majority, empty := newKey(t), newKey(t)
	must(t)(doThing(m, m.Ingress(3), "Stock", empty, `[{"change":{"by":5}}]`))
	within(t, 15*time.Second, thingIs(m, m.Ingresses(), "Stock", empty, `{"bcounter":{"value":"5"}}`))

	partitioned(t, m, "node-1")
	for i, c := range concurrentWrites {
		doThingAt(t, m, 1, c.thing, keys[i], c.one)
		doThingAt(t, m, 2, c.thing, keys[i], c.two)
	}
	// One of three is no majority; two are.
	r, err := doThing(m, m.Ingress(1), "Majority", majority, `[{"increment":{"by":1}}]`, "grpc-timeout", "1S")
	if err != nil || r.Status != http.StatusGatewayTimeout || r.Header.Get("holdfast-outcome") != "unknown" {
		t.Errorf("MAJORITY on the small side: %v, %v; want 504, unknown", r, err)
	}
	must(t)(doThing(m, m.Ingress(2), "Majority", majority, `[{"increment":{"by":1}}]`))
	// What may be taken off is on the other side: nothing is applied, and that is known.
	r, err = doThing(m, m.Ingress(1), "Stock", empty, `[{"change":{"by":-1}}]`, "grpc-timeout", "1S")
	if err != nil || r.Status != http.StatusServiceUnavailable || r.Header.Get("holdfast-outcome") != "" {
		t.Errorf("taking off what is on the other side: %d %s, holdfast-outcome %q, %v; want 503 (UNAVAILABLE)", r.Status, r.Body, r.Header.Get("holdfast-outcome"), err)
	}
	healed(t, m)
	began := time.Now()
	for i, c := range concurrentWrites {
		if err := rig.PollFor(30*time.Second, thingIs(m, append(m.Ingresses(), m.Gateway()), c.thing, keys[i], c.want)); err != nil {
			out, _ := m.Run("key", "show", "things."+c.thing+"/"+keys[i], "--replicas")
			t.Errorf("%s: %s against %s: %v\n%s", c.what, c.one, c.two, err, out)
		}
	}
	within(t, 30*time.Second, thingIs(m, m.Ingresses(), "Majority", majority, `{"gcounter":"2"}`))
	within(t, 30*time.Second, thingIs(m, m.Ingresses(), "Stock", empty, `{"bcounter":{"value":"5"}}`))
	t.Logf("everybody agrees %v after the partition", time.Since(began).Round(time.Millisecond))
	must(t)(doThing(m, m.Ingress(1), "Stock", empty, `[{"change":{"by":-5}}]`))
	// Who has seen both values settles it.
	for i, c := range concurrentWrites {
		if c.what == "both values" {
			must(t)(doThing(m, m.Ingress(3), c.thing, keys[i], `[{"set":{"value":"bQ=="}}]`))
			within(t, 15*time.Second, thingIs(m, m.Ingresses(), c.thing, keys[i], `{"mvregister":{"values":["bQ=="]}}`))
		}
	}
}
