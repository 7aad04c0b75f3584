package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"

	"github.com/holdfast-mesh/holdfast/e2e/rig"
)

// modelThings are entity types of every model, and of every way to keep one.
var modelThings = []thing{
	{name: "Value", spec: "model: value"},
	{name: "GCounter", spec: "model: gcounter"},
	{name: "PNCounter", spec: "model: pncounter"},
	{name: "GSet", spec: "model: gset"},
	{name: "ORSet", spec: "model: orset"},
	{name: "LWW", spec: "model: {lww: {}}"},
	{name: "Text", spec: "model: lww", carriage: "own"},
	{name: "MVRegister", spec: "model: mvregister"},
	{name: "Flag", spec: "model: flag"},
	{name: "Vote", spec: "model: vote"},
	{name: "Stock", spec: "model: bcounter"},
	{name: "SafeStock", spec: "model: bcounter\nwrite: MAJORITY"},
	{name: "Credit", spec: "model: {bcounter: {floor: -5}}", carriage: "field"},
	{name: "Map", spec: "model: {ormap: {values: pncounter}}"},
	{name: "Nested", spec: "model: {ormap: {values: {ormap: {values: orset}}}}", carriage: "field"},
	{name: "Majority", spec: "model: gcounter\nwrite: MAJORITY"},
	{name: "All", spec: "model: orset\nwrite: ALL"},
	{name: "Memory", spec: "model: gcounter\nwrite: LOCAL_MEM"},
	{name: "One", spec: "model: pncounter\nreplicas: 1"},
	{name: "Brief", spec: "model: lww\nttl: 2s"},
	{name: "Idle", spec: "model: orset\npassivateAfter: 1s"},
}

// step is operations at a node, counted from 1, and the value that all nodes have then.
type step struct {
	node       int
	operations string
	want       string
}

const remove = `[{"delete":{}}]`

// Every state model, driven by a service that knows JSON only, on three nodes: what one node is told, all have; what is
// deleted is gone everywhere, and can be there again.
func TestModels(t *testing.T) {
	m := startThings(t, 3, modelThings)
	all := append(m.Ingresses(), m.Gateway())
	for _, th := range modelThings {
		within(t, 60*time.Second, func() error {
			_, err := ok(m.Get(m.Gateway(), thingPath(th.name, "ready")))
			return err
		})
	}

	for _, c := range []struct {
		name  string
		steps []step
	}{
		{"Value", []step{
			{1, `[{"set":{"value":"eA=="}}]`, `{"value":"eA=="}`},
			{2, `[{"set":{"value":"eQ=="}}]`, `{"value":"eQ=="}`},
			{3, remove, ""},
			{1, `[{"set":{"value":""}}]`, `{"value":""}`},
		}},
		{"GCounter", []step{
			{1, `[{"increment":{"by":2}}]`, `{"gcounter":"2"}`},
			{2, `[{"increment":{"by":3}},{"increment":{"by":1}}]`, `{"gcounter":"6"}`},
			{3, remove, ""},
			{2, `[{"increment":{"by":1}}]`, `{"gcounter":"1"}`},
		}},
		{"PNCounter", []step{
			{1, `[{"change":{"by":5}}]`, `{"pncounter":"5"}`},
			{2, `[{"change":{"by":-7}}]`, `{"pncounter":"-2"}`},
			{1, remove, ""},
			{3, `[{"change":{"by":-1}}]`, `{"pncounter":"-1"}`},
		}},
		{"GSet", []step{
			{1, `[{"add":{"elements":["Yg==","YQ=="]}}]`, `{"gset":{"elements":["YQ==","Yg=="]}}`},
			{2, `[{"add":{"elements":["Yw==","YQ=="]}}]`, `{"gset":{"elements":["YQ==","Yg==","Yw=="]}}`},
			{3, remove, ""},
			{1, `[{"add":{"elements":["YQ=="]}}]`, `{"gset":{"elements":["YQ=="]}}`},
		}},
		{"ORSet", []step{
			{1, `[{"add":{"elements":["YQ==","Yg=="]}}]`, `{"orset":{"elements":["YQ==","Yg=="]}}`},
			{2, `[{"remove":{"elements":["YQ=="]}}]`, `{"orset":{"elements":["Yg=="]}}`},
			{3, `[{"add":{"elements":["YQ=="]}}]`, `{"orset":{"elements":["YQ==","Yg=="]}}`},
			{1, `[{"clear":{}}]`, `{"orset":{}}`},
			{2, remove, ""},
			{3, `[{"add":{"elements":["Yg=="]}}]`, `{"orset":{"elements":["Yg=="]}}`},
		}},
		{"LWW", []step{
			{1, `[{"set":{"value":"eA=="}}]`, `{"lww":"eA=="}`},
			{2, `[{"set":{"value":"eQ=="}}]`, `{"lww":"eQ=="}`},
			{3, remove, ""},
			{1, `[{"set":{"value":"eA==","clock":"CLOCK_CUSTOM","customClock":"10"}}]`, `{"lww":"eA=="}`},
			{2, `[{"set":{"value":"eQ==","clock":"CLOCK_CUSTOM","customClock":"9"}}]`, `{"lww":"eA=="}`},
			{3, `[{"set":{"value":"eQ==","clock":"CLOCK_CUSTOM_AUTO_INCREMENT","customClock":"1"}}]`, `{"lww":"eQ=="}`},
		}},
		{"MVRegister", []step{
			{1, `[{"set":{"value":"eA=="}}]`, `{"mvregister":{"values":["eA=="]}}`},
			{2, `[{"set":{"value":"eQ=="}}]`, `{"mvregister":{"values":["eQ=="]}}`},
			{3, remove, ""},
			{1, `[{"set":{"value":"eA=="}}]`, `{"mvregister":{"values":["eA=="]}}`},
		}},
		{"Flag", []step{
			{1, `[{"enable":{}}]`, `{"flag":true}`},
			{2, `[{"disable":{}}]`, `{"flag":false}`},
			{3, `[{"enable":{}}]`, `{"flag":true}`},
			{1, remove, ""},
			{2, `[{"disable":{}}]`, `{"flag":false}`},
		}},
		{"Vote", []step{
			{1, `[{"vote":{"inFavour":true}}]`, `{"vote":{"votesFor":1,"totalVoters":3}}`},
			{3, `[{"vote":{"inFavour":true}}]`, `{"vote":{"votesFor":2,"totalVoters":3}}`},
			{3, `[{"vote":{"inFavour":true}}]`, `{"vote":{"votesFor":2,"totalVoters":3}}`},
			{1, `[{"vote":{}}]`, `{"vote":{"votesFor":1,"totalVoters":3}}`},
			{2, remove, ""},
			{2, `[{"vote":{"inFavour":true}}]`, `{"vote":{"votesFor":1,"totalVoters":3}}`},
		}},
		{"Map", []step{
			{1, `[{"mapUpdate":{"key":"ä","operation":{"change":{"by":2}}}},{"mapUpdate":{"key":"b"}}]`, `{"ormap":{"entries":{"ä":{"pncounter":"2"},"b":{"pncounter":"0"}}}}`},
			{2, `[{"mapUpdate":{"key":"ä","operation":{"change":{"by":-3}}}},{"mapRemove":{"key":"b"}}]`, `{"ormap":{"entries":{"ä":{"pncounter":"-1"}}}}`},
			{3, `[{"mapRemove":{"key":"ä"}}]`, `{"ormap":{}}`},
			{1, `[{"mapUpdate":{"key":"ä","operation":{"change":{"by":1}}}}]`, `{"ormap":{"entries":{"ä":{"pncounter":"1"}}}}`},
			{2, `[{"clear":{}}]`, `{"ormap":{}}`},
			{3, remove, ""},
			{1, `[{"mapUpdate":{"key":"c"}}]`, `{"ormap":{"entries":{"c":{"pncounter":"0"}}}}`},
		}},
		{"Nested", []step{
			{1, `[{"mapUpdate":{"key":"go","operation":{"mapUpdate":{"key":"talks","operation":{"add":{"elements":["YQ=="]}}}}}}]`, `{"ormap":{"entries":{"go":{"ormap":{"entries":{"talks":{"orset":{"elements":["YQ=="]}}}}}}}}`},
			{2, `[{"mapUpdate":{"key":"go","operation":{"mapUpdate":{"key":"talks","operation":{"add":{"elements":["Yg=="]}}}}}},{"mapUpdate":{"key":"py","operation":{"mapUpdate":{"key":"talks"}}}}]`, `{"ormap":{"entries":{"go":{"ormap":{"entries":{"talks":{"orset":{"elements":["YQ==","Yg=="]}}}}},"py":{"ormap":{"entries":{"talks":{"orset":{}}}}}}}}`},
			{3, `[{"mapUpdate":{"key":"go","operation":{"mapUpdate":{"key":"talks","operation":{"remove":{"elements":["YQ=="]}}}}}},{"mapUpdate":{"key":"py","operation":{"mapRemove":{"key":"talks"}}}}]`, `{"ormap":{"entries":{"go":{"ormap":{"entries":{"talks":{"orset":{"elements":["Yg=="]}}}}},"py":{"ormap":{}}}}}`},
			{1, `[{"mapRemove":{"key":"go"}}]`, `{"ormap":{"entries":{"py":{"ormap":{}}}}}`},
			{2, remove, ""},
			{3, `[{"mapUpdate":{"key":"go","operation":{"mapUpdate":{"key":"talks","operation":{"add":{"elements":["Yg=="]}}}}}}]`, `{"ormap":{"entries":{"go":{"ormap":{"entries":{"talks":{"orset":{"elements":["Yg=="]}}}}}}}}`},
		}},
		{"Majority", []step{
			{1, `[{"increment":{"by":1}}]`, `{"gcounter":"1"}`},
			{2, `[{"increment":{"by":1}}]`, `{"gcounter":"2"}`},
			{3, remove, ""},
		}},
		{"All", []step{
			{1, `[{"add":{"elements":["YQ=="]}}]`, `{"orset":{"elements":["YQ=="]}}`},
			{2, `[{"remove":{"elements":["YQ=="]}}]`, `{"orset":{}}`},
		}},
		{"Memory", []step{
			{1, `[{"increment":{"by":1}}]`, `{"gcounter":"1"}`},
			{3, `[{"increment":{"by":1}}]`, `{"gcounter":"2"}`},
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			key := newKey(t)
			for i, s := range c.steps {
				if r, err := ok(doThing(m, m.Ingress(s.node), c.name, key, s.operations)); err != nil {
					t.Fatalf("step %d: %s at node %d: %v (%v)", i+1, s.operations, s.node, err, r)
				}
				if err := rig.PollFor(15*time.Second, thingIs(m, all, c.name, key, s.want)); err != nil {
					t.Fatalf("step %d: after %s at node %d: %v", i+1, s.operations, s.node, err)
				}
			}
		})
	}
	t.Run("a message of its own", func(t *testing.T) { testOwnMessage(t, m) })
	t.Run("bounded counter", func(t *testing.T) { testBounded(t, m) })
	t.Run("wrong operations", func(t *testing.T) { testWrongOperations(t, m) })
	t.Run("not placed", func(t *testing.T) { testNotPlaced(t, m) })
	t.Run("watch", func(t *testing.T) { testWatchModel(t, m) })
	t.Run("ttl", func(t *testing.T) { testTTL(t, m) })
	t.Run("passivation", func(t *testing.T) { testPassivation(t, m) })
	t.Run("killed", func(t *testing.T) { testKilled(t, m) })
	t.Run("partition", func(t *testing.T) { testPartition(t, m) })
	t.Run("levels", func(t *testing.T) { testLevels(t, m) })
	t.Run("voters", func(t *testing.T) { testVoters(t, m) })
}

// The state as the service's own message: absent before the first change, then as it was returned.
func testOwnMessage(t *testing.T, m *rig.Mesh) {
	key := newKey(t)
	for i := range 3 {
		want := fmt.Sprintf(`{"edits":%d,"text":"text %d"}`, i, i-1)
		if i == 0 {
			want = `{}`
		}
		within(t, 10*time.Second, func() error {
			r, err := ok(m.Get(m.Ingress(1+i), thingPath("Text", key)))
			if err != nil {
				return err
			}
			var reply struct{ State string }
			var note map[string]any
			if err := r.JSON(&reply); err != nil {
				return err
			}
			if err := json.Unmarshal([]byte(reply.State), &note); err != nil {
				return err
			}
			if got, _ := json.Marshal(note); string(got) != want {
				return fmt.Errorf("note at node %d is %s, want %s", 1+i, got, want)
			}
			return nil
		})
		must(t)(doThing(m, m.Ingress(1+i), "Text", key, fmt.Sprintf("text %d", i)))
	}
}

// What does not fit the model is refused, and nothing of it is kept.
func testWrongOperations(t *testing.T, m *rig.Mesh) {
	key := newKey(t)
	for _, c := range []struct{ name, operations string }{
		{"ORSet", `[{"add":{"elements":["YQ=="]}},{"increment":{"by":1}}]`},
		{"GSet", `[{"add":{"elements":["YQ=="]}},{"remove":{"elements":["YQ=="]}}]`},
		{"GCounter", `[{"increment":{"by":1}},{"change":{"by":-1}}]`},
		{"Flag", `[{"enable":{}},{"set":{"value":""}}]`},
		{"Map", `[{"mapUpdate":{"key":"a","operation":{"increment":{"by":1}}}}]`},
		{"Nested", `[{"mapUpdate":{"key":"a","operation":{"change":{"by":1}}}}]`},
		{"Vote", `[{"vote":{}},{}]`},
	} {
		r, err := doThing(m, m.Ingress(1), c.name, key, c.operations)
		if err != nil {
			t.Fatal(err)
		}
		if r.Status < 400 || r.Status == http.StatusServiceUnavailable || r.Status == http.StatusGatewayTimeout {
			t.Errorf("%s: %s: %d %s, want a refusal", c.name, c.operations, r.Status, r.Body)
		}
		if err := thingIs(m, []string{m.Ingress(1)}, c.name, key, "")(); err != nil {
			t.Errorf("after a refusal: %v", err)
		}
	}
}

// A node outside an entity's replicas serves what enters it, from its own store, and loses nothing.
func testNotPlaced(t *testing.T, m *rig.Mesh) {
	key := newKey(t)
	for round := range 3 {
		for node := 1; node <= 3; node++ {
			r := must(t)(doThing(m, m.Ingress(node), "One", key, `[{"change":{"by":1}}]`, "holdfast-explain", "1"))
			if got, want := r.Header.Get("holdfast-explain"), fmt.Sprintf("node=node-%d", node); got != want {
				t.Errorf("round %d: a call that entered node %d was served by %q", round+1, node, got)
			}
		}
	}
	within(t, 15*time.Second, thingIs(m, append(m.Ingresses(), m.Gateway()), "One", key, `{"pncounter":"9"}`))
	out, err := m.Run("key", "get", "things.One/"+key, "-o", "json")
	if err != nil {
		t.Fatal(err)
	}
	var placed struct {
		Replicas []string `json:"replicas"`
	}
	if err := json.Unmarshal([]byte(out), &placed); err != nil || len(placed.Replicas) != 1 {
		t.Fatalf("replicas %v, %v, want one: %s", placed.Replicas, err, out)
	}
	for range 4 {
		r := must(t)(m.Do(http.MethodGet, m.Gateway(), thingPath("One", key), nil, http.Header{"Holdfast-Explain": {"1"}}))
		if got := r.Header.Get("holdfast-explain"); got != "node="+placed.Replicas[0] {
			t.Errorf("the gateway sent a call to %q, and the one replica is at %s", got, placed.Replicas[0])
		}
	}
}

// A watch of a nested map at one node sees what others change.
func testWatchModel(t *testing.T, m *rig.Mesh) {
	key := newKey(t)
	watch, err := m.Events(t.Context(), m.Ingress(3), thingPath("Nested", key)+"/watch")
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Close()
	for node := 1; node <= 2; node++ {
		must(t)(doThing(m, m.Ingress(node), "Nested", key, fmt.Sprintf(`[{"mapUpdate":{"key":"a","operation":{"mapUpdate":{"key":"node-%d"}}}}]`, node)))
		within(t, 10*time.Second, func() error {
			in, err := lastSeen(watch)
			if err != nil {
				return err
			}
			if got := in.GetValue().GetOrmap().GetEntries()["a"].GetOrmap().GetEntries(); len(got) != node {
				return fmt.Errorf("the watch shows %v, want %d entries", got, node)
			}
			return nil
		})
	}
}

// lastSeen is the state that the last call of a watch's handler was given.
func lastSeen(watch *rig.Events) (*holdfastv1.StateIn, error) {
	all, err := watch.Seen()
	if err != nil || len(all) == 0 {
		return nil, fmt.Errorf("%d events, %v", len(all), err)
	}
	in := &holdfastv1.StateIn{}
	return in, protojson.Unmarshal([]byte(all[len(all)-1]["state"].(string)), in)
}

// Who watches a vote is told when there are more or fewer voters, though nobody voted.
func testVoters(t *testing.T, m *rig.Mesh) {
	key := newKey(t)
	must(t)(doThing(m, m.Ingress(1), "Vote", key, `[{"vote":{"inFavour":true}}]`))
	watch, err := m.Events(t.Context(), m.Ingress(1), thingPath("Vote", key)+"/watch")
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Close()
	for _, voters := range []uint32{3, 4, 3} {
		if _, err := m.Run("scale", fmt.Sprint(voters)); err != nil {
			t.Fatal(err)
		}
		within(t, 60*time.Second, func() error {
			in, err := lastSeen(watch)
			if err != nil {
				return err
			}
			if v := in.GetValue().GetVote(); v.GetTotalVoters() != voters || v.GetVotesFor() != 1 || !v.GetSelfVote() {
				return fmt.Errorf("the watch shows %v, want 1 of %d", v, voters)
			}
			return nil
		})
	}
}
