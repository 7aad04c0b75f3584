package v1alpha1

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func goodYAML(t testing.TB) string {
	t.Helper()
	data, err := os.ReadFile("testdata/good.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestDefaults(t *testing.T) {
	c, err := Load("testdata/good.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Services) != 2 || c.Mesh == nil || len(c.Mesh.Spec.Workloads) != 3 {
		t.Fatalf("got %d services, mesh %v", len(c.Services), c.Mesh)
	}
	s := c.Services[1].Spec
	e := s.Entity
	if !s.Descriptors.Reflection || s.Mode != ModeCommit || !e.Key.Option || e.Affinity != AffinityOwner || e.Write != "" ||
		e.Carriage.Metadata.Encoding != EncodingProto || e.MaxStateBytes != MaxMetadataState || e.Replicas != 3 ||
		time.Duration(e.PassivateAfter) != 10*time.Minute || e.OnUnavailable != OnUnavailableFail {
		t.Errorf("got %+v", s)
	}
	if w := c.Mesh.Spec.Workloads[0]; w.Scope != ScopeNode || w.Env["FOO"] != "bar" {
		t.Errorf("got %+v", w)
	}
}

// nested is a model in so many ormaps.
func nested(maps int, model string) string {
	return strings.Repeat("{ormap: {values: ", maps) + model + strings.Repeat("}}", maps)
}

// sharing is two services of one entity type, with what each says of it.
func sharing(modelA, moreA, modelB, moreB string) string {
	const service = `apiVersion: holdfast.dev/v1alpha1
kind: StatefulService
metadata: {name: %s}
spec:
  service: t.v1.%s
  entity:
    type: t.Thing
    model: %s
    carriage: {field: {}}
    %s
  workloadRef: {kind: Local, name: things}
---
`
	return fmt.Sprintf(service, "a", "A", modelA, moreA) + fmt.Sprintf(service, "b", "B", modelB, moreB) +
		"apiVersion: holdfast.dev/v1alpha1\nkind: LocalMesh\nmetadata: {name: m}\nspec: {workloads: [{name: things, command: [things]}]}\n"
}

// Every model, in full and as a bare name, alone and in maps.
func TestModels(t *testing.T) {
	for _, tt := range []struct{ yaml, want string }{
		{"{value: {}}", "value"},
		{"value", "value"},
		{"{value: {encoding: bytes}}", "value"},
		{"gcounter", "gcounter"},
		{"{pncounter: {}}", "pncounter"},
		{"gset", "gset"},
		{"{orset: {}}", "orset"},
		{"lww", "lww"},
		{"{mvregister: {}}", "mvregister"},
		{"flag", "flag"},
		{"{vote: {}}", "vote"},
		{"bcounter", "bcounter"},
		{"{bcounter: {}}", "bcounter"},
		{"{bcounter: {floor: 0}}", "bcounter"},
		{"{bcounter: {floor: -500}}", "bcounter with floor -500"},
		{"{ormap: {values: orset}}", "ormap of orset"},
		{"{ormap: {values: {orset: {}}}}", "ormap of orset"},
		{"{ormap: {values: {ormap: {values: mvregister}}}}", "ormap of ormap of mvregister"},
		{"\n      ormap:\n        values:\n          ormap:\n            values: vote", "ormap of ormap of vote"},
		{nested(8, "{flag: {}}"), strings.Repeat("ormap of ", 8) + "flag"},
	} {
		c, err := Parse("f", []byte(sharing(tt.yaml, "", tt.yaml, "")))
		if err != nil {
			t.Errorf("%s: %v", tt.yaml, err)
			continue
		}
		if got := c.Services[0].Spec.Entity.Model.String(); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.yaml, got, tt.want)
		}
	}
}

// What only strong types have, with its defaults.
func TestStrong(t *testing.T) {
	for _, tt := range []struct {
		model, more, want string
		check             func(e *Entity) bool
	}{
		{"value", "", "value", func(e *Entity) bool { return e.TTLFrom == TTLFromWrite && e.Model.Value.Encoding == EncodingBytes }},
		{"{value: {encoding: json}}", "", "value of json", nil},
		{"{value: {encoding: proto}}", "", "value of proto", nil},
		{"{value: {encoding: proto, message: bank.v1.Account}}", "", "value of the message bank.v1.Account", nil},
		{"event_sourced", "", "event_sourced with a snapshot every 100", func(e *Entity) bool { return e.Model.EventSourced.State == StateFull }},
		{"{event_sourced: {snapshotEvery: 0}}", "", "event_sourced with a snapshot every 0", nil},
		{"{event_sourced: {snapshotEvery: 7, state: full}}", "", "event_sourced with a snapshot every 7", nil},
		{"{event_sourced: {state: folded}}", "", "event_sourced, folded", func(e *Entity) bool { return e.Model.EventSourced.SnapshotEvery == 0 }},
		{"value", "ttl: 1h", "value", func(e *Entity) bool { return e.TTLFrom == TTLFromWrite }},
		{"event_sourced", "ttl: 1h\n    ttlFrom: use", "event_sourced with a snapshot every 100", func(e *Entity) bool { return e.TTLFrom == TTLFromUse }},
		{"value", "key: {others: [to, items.sku]}", "value", func(e *Entity) bool { return e.Key.Option && len(e.Key.Others) == 2 }},
		{"value", "key: {header: x-tenant, others: [to]}", "value", func(e *Entity) bool { return !e.Key.Option }},
	} {
		more := "consistency: strong\n    " + tt.more
		c, err := Parse("f", []byte(sharing(tt.model, more, tt.model, more)))
		if err != nil {
			t.Errorf("%s, %s: %v", tt.model, tt.more, err)
			continue
		}
		e := &c.Services[0].Spec.Entity
		if got := e.Model.String(); got != tt.want || tt.check != nil && !tt.check(e) {
			t.Errorf("%s, %s: got %s, %+v; want %s", tt.model, tt.more, got, e, tt.want)
		}
	}
}

func TestLevelsAndTTL(t *testing.T) {
	for _, level := range []string{WriteLocal, WriteLocalMem, WriteMajority, WriteAll} {
		more := "write: " + level + "\n    ttl: 24h"
		c, err := Parse("f", []byte(sharing("orset", more, "orset", more)))
		if err != nil {
			t.Errorf("%s: %v", level, err)
			continue
		}
		if e := c.Services[0].Spec.Entity; e.Write != level || time.Duration(e.TTL) != 24*time.Hour {
			t.Errorf("%s: got write %s, ttl %s", level, e.Write, e.TTL)
		}
	}
}

// edits each turn the good file into one that is refused. The refusals stand in testdata/errors.golden.
var edits = []struct{ name, old, new string }{
	{"empty file", "ALL", ""},
	{"comment only", "ALL", "# nothing\n"},
	{"no mapping", "ALL", "- a\n- b\n"},
	{"not yaml", "ALL", "a: [b\n"},
	{"tab", "ALL", "a:\n\t b: c\n"},
	{"unknown kind", "kind: LocalMesh", "kind: Deployment"},
	{"unknown version", "holdfast.dev/v1alpha1", "holdfast.dev/v1"},
	{"unknown field", "mode: commit", "mood: commit"},
	{"unknown field, other spelling", "maxStateBytes", "maxstatebytes"},
	{"unknown field, snake case", "maxStateBytes", "max_state_bytes"},
	{"setting of a choice without settings", "{field: {}}", "{field: {name: state}}"},
	{"field twice", "mode: commit", "mode: commit\n  mode: route"},
	{"anchor", "{option: true}", "&x {option: true}"},
	{"not in this version: configMap", "{reflection: true}", "{configMap: {name: a, key: b}}"},
	{"not in this version: template", "workloadRef: {kind: Local, name: questions}", "template: {containers: []}\n  workloadRef: {kind: Local, name: questions}"},
	{"two descriptor sources", "{reflection: true}", "{reflection: true, file: a.binpb}"},
	{"no descriptor source", "{reflection: true}", "{reflection: false}"},
	{"bad name", "{name: questions}\nspec", "{name: Questions}\nspec"},
	{"number for a name", "{name: questions}\nspec", "{name: 17}\nspec"},
	{"no service", "service: qa.v1.Questions", "service: \"\""},
	{"bad service", "service: qa.v1.Questions", "service: /qa.v1.Questions/Ask"},
	{"unknown mode", "mode: commit", "mode: comit"},
	{"no type", "    type: qa.Presentation\n", ""},
	{"bad type", "qa.Presentation", "qa/Presentation"},
	{"two keys", "{option: true}", "{option: true, header: x-tenant}"},
	{"no key", "{option: true}", "{option: false}"},
	{"bad key path", "{option: true}", "{field: presentation..id}"},
	{"our header as key", "{option: true}", "{header: holdfast-key}"},
	{"header with underscore", "{option: true}", "{header: x_tenant}"},
	{"header in capitals", "{option: true}", "{header: X-Tenant}"},
	{"pseudo header", "{option: true}", "{header: \":path\"}"},
	{"binary header", "{option: true}", "{header: x-tenant-bin}"},
	{"no model", "    model: {ormap: {values: gcounter}}\n", ""},
	{"two models", "{ormap: {values: gcounter}}", "{gcounter: {}, lww: {}}"},
	{"empty model", "{ormap: {values: gcounter}}", "{gcounter: }"},
	{"unknown model", "{ormap: {values: gcounter}}", "{counter: {}}"},
	{"unknown bare model", "{ormap: {values: gcounter}}", "counter"},
	{"model in another spelling", "{ormap: {values: gcounter}}", "OR_Set"},
	{"model in a list", "{ormap: {values: gcounter}}", "[gcounter]"},
	{"eventual events", "{ormap: {values: gcounter}}", "event_sourced"},
	{"events with write and affinity", "model: {ormap: {values: gcounter}}\n    consistency: eventual", "model: event_sourced\n    consistency: strong"},
	{"events in an ormap", "values: gcounter", "values: event_sourced"},
	{"events of another state", "{value: {}}", "{event_sourced: {state: partial}}"},
	{"too few events", "{value: {}}", "{event_sourced: {snapshotEvery: -1}}"},
	{"too many events", "{value: {}}", "{event_sourced: {snapshotEvery: 10001}}"},
	{"folded, and snapshots", "{value: {}}", "{event_sourced: {state: folded, snapshotEvery: 5}}"},
	{"unknown value encoding", "{value: {}}", "{value: {encoding: xml}}"},
	{"eventual JSON", "{ormap: {values: gcounter}}", "{value: {encoding: json}}"},
	{"message of JSON", "{value: {}}", "{value: {encoding: json, message: bank.v1.Account}}"},
	{"message of bytes", "{value: {}}", "{value: {message: bank.v1.Account}}"},
	{"bad message", "{value: {}}", "{value: {encoding: proto, message: bank/Account}}"},
	{"others of an eventual type", "{option: true}", "{option: true, others: [to]}"},
	{"bad others", "model: {value: {}}", "model: {value: {}}\n    key: {others: [to, items..id]}"},
	{"others twice", "model: {value: {}}", "model: {value: {}}\n    key: {field: from, others: [to, from, to]}"},
	{"no others", "model: {value: {}}", "model: {value: {}}\n    key: {others: [to, \"\"]}"},
	{"too many others", "model: {value: {}}", "model: {value: {}}\n    key: {others: [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q]}"},
	{"others as a string", "model: {value: {}}", "model: {value: {}}\n    key: {others: to}"},
	{"two keys and others", "model: {value: {}}", "model: {value: {}}\n    key: {field: a, header: b, others: [to]}"},
	{"setting of a model without settings", "{ormap: {values: gcounter}}", "{pncounter: {floor: 1}}"},
	{"floor in words", "{ormap: {values: gcounter}}", "{bcounter: {floor: none}}"},
	{"floor too low", "{ormap: {values: gcounter}}", "{bcounter: {floor: -9223372036854775809}}"},
	{"bare ormap", "{ormap: {values: gcounter}}", "ormap"},
	{"ormap without values", "{ormap: {values: gcounter}}", "{ormap: {}}"},
	{"ormap of nothing", "{ormap: {values: gcounter}}", "{ormap: {values: }}"},
	{"ormap of nothing known", "values: gcounter", "values: counter"},
	{"ormap of another spelling", "values: gcounter", "values: GCounter"},
	{"ormap of value", "values: gcounter", "values: {value: {}}"},
	{"ormap of bcounter", "values: gcounter", "values: bcounter"},
	{"ormap of two", "values: gcounter", "values: {gcounter: {}, lww: {}}"},
	{"bcounter inside ormap of ormap", "values: gcounter", "values: {ormap: {values: {bcounter: {floor: 3}}}}"},
	{"nine ormaps", "model: {ormap: {values: gcounter}}", "model: " + nested(9, "gcounter")},
	{"a hundred ormaps", "model: {ormap: {values: gcounter}}", "model: " + nested(100, "gcounter")},
	{"causal", "consistency: eventual", "consistency: causal"},
	{"unknown consistency", "consistency: eventual", "consistency: linearizable"},
	{"strong CRDT", "consistency: eventual\n    write: LOCAL\n    affinity: local", "consistency: strong"},
	{"strong with write and affinity", "model: {ormap: {values: gcounter}}\n    consistency: eventual", "model: {value: {}}\n    consistency: strong"},
	{"strong and pass", "consistency: strong", "consistency: strong\n    onUnavailable: pass"},
	{"unknown write", "write: LOCAL", "write: QUORUM"},
	{"write in another spelling", "write: LOCAL", "write: majority"},
	{"ttl without unit", "replicas: all", "replicas: all\n    ttl: 60"},
	{"ttl too short", "replicas: all", "replicas: all\n    ttl: 10ms"},
	{"ttl of nothing", "replicas: all", "replicas: all\n    ttl: 0s"},
	{"ttl of bcounter", "model: {ormap: {values: gcounter}}", "ttl: 24h\n    model: bcounter"},
	{"ttl of strong too short", "consistency: strong", "consistency: strong\n    ttl: 10ms"},
	{"ttl from nothing", "consistency: strong", "consistency: strong\n    ttlFrom: use"},
	{"ttl from elsewhere", "consistency: strong", "consistency: strong\n    ttl: 24h\n    ttlFrom: birth"},
	{"ttl of eventual from use", "replicas: all", "replicas: all\n    ttl: 24h\n    ttlFrom: use"},
	{"strong bcounter", "model: {value: {}}", "model: {bcounter: {floor: 5}}"},
	{"unknown affinity", "affinity: local", "affinity: near"},
	{"no replicas", "replicas: all", "replicas: 0"},
	{"replicas of words", "replicas: all", "replicas: three"},
	{"replicas list", "replicas: all", "replicas: [1]"},
	{"two carriages", "{field: {}}", "{field: {}, metadata: {encoding: json}}"},
	{"no carriage", "    carriage: {field: {}}\n", ""},
	{"unknown encoding", "{field: {}}", "{metadata: {encoding: xml}}"},
	{"metadata too large", "{field: {}}", "{metadata: {encoding: json}}"},
	{"state too large", "65536", "1048577"},
	{"strong state too large", "carriage: {metadata: {}}", "carriage: {field: {}}\n    maxStateBytes: 1048576"},
	{"state of nothing", "65536", "0"},
	{"state in words", "65536", "64KiB"},
	{"passivation too short", "10m", "5ms"},
	{"passivation without unit", "10m", "10"},
	{"unknown onUnavailable", "onUnavailable: fail", "onUnavailable: wait"},
	{"no workload", "  workloadRef: {kind: Local, name: questions}\n", ""},
	{"workload of Kubernetes", "{kind: Local, name: questions}", "{kind: Deployment, name: questions}"},
	{"workload without name", "{kind: Local, name: questions}", "{kind: Local}"},
	{"workload that is not there", "{kind: Local, name: questions}", "{kind: Local, name: question}"},
	{"workload at the gateway", "{kind: Local, name: questions}", "{kind: Local, name: page}"},
	{"same name twice", "{name: accounts}\nspec", "{name: questions}\nspec"},
	{"same service twice", "bank.v1.Accounts", "qa.v1.Questions"},
	{"one type, two contracts", "bank.Account", "qa.Presentation"},
	{"one type, two floors", "ALL", sharing("{bcounter: {floor: 1}}", "", "bcounter", "")},
	{"one type, two ttls", "ALL", sharing("orset", "ttl: 24h", "orset", "")},
	{"one type, two uses", "ALL", sharing("value", "consistency: strong\n    ttl: 24h\n    ttlFrom: use", "value", "consistency: strong\n    ttl: 24h")},
	{"one type, two encodings", "ALL", sharing("{value: {encoding: json}}", "consistency: strong", "value", "consistency: strong")},
	{"one type, two policies", "ALL", sharing("{event_sourced: {snapshotEvery: 7}}", "consistency: strong", "event_sourced", "consistency: strong")},
	{"one type, two levels", "ALL", sharing("orset", "", "orset", "write: ALL")},
	{"one type, two maps", "ALL", sharing("{ormap: {values: {ormap: {values: flag}}}}", "", "{ormap: {values: {ormap: {values: vote}}}}", "")},
	{"two meshes", "  - name: page", "---\napiVersion: holdfast.dev/v1alpha1\nkind: LocalMesh\nmetadata: {name: more}\nspec:\n  workloads:\n  - name: page"},
	{"workload name twice", "- {name: accounts,", "- {name: questions,"},
	{"workload with both", "command: [bin/questions]\n    env: {FOO: bar}", "command: [bin/questions]\n    address: 127.0.0.1:1"},
	{"workload with neither", "    command: [bin/questions]\n    env: {FOO: bar}\n", ""},
	{"workload with an empty command", "[bin/questions]", "[\"\"]"},
	{"command as a string", "[bin/questions]", "bin/questions"},
	{"our variable", "{FOO: bar}", "{HOLDFAST_NODE: x}"},
	{"number in env", "{FOO: bar}", "{FOO: 1}"},
	{"env of an address", "address: \"127.0.0.1:50051\"", "address: \"127.0.0.1:50051\", env: {A: b}"},
	{"bad address", "127.0.0.1:50051", "localhost"},
	{"unknown scope", "scope: gateway", "scope: edge"},
	{"route at a node", "    scope: gateway\n", ""},
	{"no route", "    route: {prefix: /}\n", ""},
	{"bad prefix", "{prefix: /}", "{prefix: page}"},
}

func TestErrorsGolden(t *testing.T) {
	good := goodYAML(t)
	var out strings.Builder
	for _, e := range edits {
		text := e.new
		if e.old != "ALL" {
			if !strings.Contains(good, e.old) {
				t.Fatalf("%s: the good file has no %q", e.name, e.old)
			}
			text = strings.Replace(good, e.old, e.new, 1)
		}
		_, err := Parse("holdfast.yaml", []byte(text))
		if err == nil {
			t.Errorf("%s: accepted", e.name)
		}
		fmt.Fprintf(&out, "# %s\n%v\n\n", e.name, err)
	}
	const golden = "testdata/errors.golden"
	if *update {
		if err := os.WriteFile(golden, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if out.String() != string(want) {
		t.Errorf("refusals differ from %s (rewrite with -update, then read the difference):\n%s", golden, out.String())
	}
}

// depth counts a model's ormaps, and is over every limit where one is not whole.
func depth(m *Model) int {
	n := 0
	for ; m != nil && m.ORMap != nil; n++ {
		m = m.ORMap.Values
	}
	if m == nil || m.Name() == "" || n > 0 && (m.Value != nil || m.BCounter != nil || m.EventSourced != nil) {
		return maxMapDepth + 1
	}
	return n
}

// Any tree of models is taken or refused as the rules say, however it is written.
func TestModelsProperty(t *testing.T) {
	leaves := []string{ModelValue, ModelGCounter, ModelPNCounter, ModelBCounter, ModelGSet, ModelORSet, ModelLWW, ModelMVRegister, ModelFlag, ModelVote}
	rapid.Check(t, func(t *rapid.T) {
		maps := rapid.IntRange(0, maxMapDepth+3).Draw(t, "maps")
		leaf := rapid.SampledFrom(leaves).Draw(t, "leaf")
		text, words, want := leaf, leaf, maps <= maxMapDepth
		floor := int64(0)
		switch {
		case leaf == ModelBCounter && rapid.Bool().Draw(t, "settings"):
			floor = rapid.Int64().Draw(t, "floor")
			text = fmt.Sprintf("{bcounter: {floor: %d}}", floor)
			if floor != 0 {
				words = fmt.Sprintf("bcounter with floor %d", floor)
			}
		case rapid.Bool().Draw(t, "in full"):
			text = "{" + leaf + ": {}}"
		}
		if maps > 0 && (leaf == ModelValue || leaf == ModelBCounter) {
			want = false
		}
		c, err := Parse("f", []byte(sharing(nested(maps, text), "", nested(maps, text), "")))
		if (err == nil) != want {
			t.Fatalf("%d ormaps of %s: %v", maps, text, err)
		}
		if err != nil {
			return
		}
		m := &c.Services[1].Spec.Entity.Model
		if got, want := m.String(), strings.Repeat("ormap of ", maps)+words; got != want || maps == 0 && m.BCounter != nil && m.BCounter.Floor != floor {
			t.Fatalf("got %s, want %s", got, want)
		}
	})
}

func FuzzParse(f *testing.F) {
	good := goodYAML(f)
	f.Add([]byte(good))
	for _, e := range edits {
		f.Add([]byte(strings.Replace(good, e.old, e.new, 1)))
	}
	f.Add([]byte(sharing(nested(8, "orset"), "ttl: 1m", nested(8, "orset"), "ttl: 1m")))
	f.Add([]byte(sharing("{bcounter: {floor: -1}}", "write: ALL", "{bcounter: {floor: -1}}", "write: ALL")))
	f.Add([]byte(sharing("{value: {encoding: proto, message: a.B}}", "consistency: strong\n    ttl: 1m\n    ttlFrom: use", "value", "key: {field: a, others: [b]}")))
	f.Add([]byte(sharing("{event_sourced: {state: folded}}", "consistency: strong", "event_sourced", "consistency: strong")))
	f.Add([]byte("a: &a [*a, *a]\nb: {<<: *a}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse("f", data)
		if err == nil {
			for _, s := range c.Services {
				e := s.Spec.Entity
				if m := &e.Model; depth(m) > maxMapDepth || m.Name() == "" {
					t.Errorf("accepted the model %s", m)
				}
				strong := e.Consistency == ConsistencyStrong
				if e.TTL != 0 && (e.Model.BCounter != nil || time.Duration(e.TTL) < minTTL) || strong != (e.TTLFrom != "") {
					t.Errorf("accepted ttl %s of a %s %s", e.TTL, e.Consistency, &e.Model)
				}
				if v := e.Model.Value; v != nil && v.Encoding != EncodingBytes && !strong || e.Model.EventSourced != nil && !strong || len(e.Key.Others) > 0 && !strong {
					t.Errorf("accepted what only strong types have: %+v", e)
				}
				if s.Spec.WorkloadRef == nil || s.Spec.Descriptors == nil || e.Affinity == "" || e.MaxStateBytes < 1 || e.PassivateAfter < 1 {
					t.Errorf("accepted but incomplete: %+v", s)
				}
			}
			return
		}
		var errs Errors
		if !errors.As(err, &errs) || len(errs) == 0 {
			t.Fatalf("got a %T: %v", err, err)
		}
		for _, e := range errs {
			if e.Line < 1 || e.Message == "" {
				t.Errorf("an error without line or message: %#v", e)
			}
		}
	})
}
