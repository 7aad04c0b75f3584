package v1alpha1

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
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
	{"bare model", "{ormap: {values: gcounter}}", "gcounter"},
	{"empty model", "{ormap: {values: gcounter}}", "{gcounter: }"},
	{"model not in this version", "{ormap: {values: gcounter}}", "{pncounter: {}}"},
	{"ormap of a later model", "values: gcounter", "values: orset"},
	{"ormap of nothing known", "values: gcounter", "values: counter"},
	{"causal", "consistency: eventual", "consistency: causal"},
	{"unknown consistency", "consistency: eventual", "consistency: linearizable"},
	{"strong CRDT", "consistency: eventual\n    write: LOCAL\n    affinity: local", "consistency: strong"},
	{"strong with write and affinity", "model: {ormap: {values: gcounter}}\n    consistency: eventual", "model: {value: {}}\n    consistency: strong"},
	{"strong and pass", "consistency: strong", "consistency: strong\n    onUnavailable: pass"},
	{"majority", "write: LOCAL", "write: MAJORITY"},
	{"unknown write", "write: LOCAL", "write: local"},
	{"unknown affinity", "affinity: local", "affinity: near"},
	{"no replicas", "replicas: all", "replicas: 0"},
	{"replicas of words", "replicas: all", "replicas: three"},
	{"replicas list", "replicas: all", "replicas: [1]"},
	{"two carriages", "{field: {}}", "{field: {}, metadata: {encoding: json}}"},
	{"no carriage", "    carriage: {field: {}}\n", ""},
	{"unknown encoding", "{field: {}}", "{metadata: {encoding: xml}}"},
	{"metadata too large", "{field: {}}", "{metadata: {encoding: json}}"},
	{"state too large", "65536", "1048577"},
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

func FuzzParse(f *testing.F) {
	good := goodYAML(f)
	f.Add([]byte(good))
	for _, e := range edits {
		f.Add([]byte(strings.Replace(good, e.old, e.new, 1)))
	}
	f.Add([]byte("a: &a [*a, *a]\nb: {<<: *a}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse("f", data)
		if err == nil {
			for _, s := range c.Services {
				e := s.Spec.Entity
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
