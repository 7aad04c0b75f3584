package resolve

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bufbuild/protocompile"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"
	reflectionv1alpha "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/holdfast-mesh/holdfast/controlplane/api/v1alpha1"
	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	_ "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// build compiles proto sources, whose imports are found among them and among what the tests have linked in.
func build(t testing.TB, sources map[string]string, root string) *descriptorpb.FileDescriptorSet {
	t.Helper()
	accessor := protocompile.SourceAccessorFromMap(sources)
	compiler := protocompile.Compiler{Resolver: protocompile.WithStandardImports(protocompile.CompositeResolver{
		&protocompile.SourceResolver{Accessor: accessor},
		protocompile.ResolverFunc(func(path string) (protocompile.SearchResult, error) {
			fd, err := protoregistry.GlobalFiles.FindFileByPath(path)
			return protocompile.SearchResult{Desc: fd}, err
		}),
	})}
	files, err := compiler.Compile(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	out := &descriptorpb.FileDescriptorSet{}
	seen := map[string]bool{}
	var add func(protoreflect.FileDescriptor)
	add = func(fd protoreflect.FileDescriptor) {
		if seen[fd.Path()] {
			return
		}
		seen[fd.Path()] = true
		for i := range fd.Imports().Len() {
			add(fd.Imports().Get(i).FileDescriptor)
		}
		f := protodesc.ToFileDescriptorProto(fd)
		// As from a file or from a process: options are bytes first.
		raw, err := proto.Marshal(f)
		if err != nil {
			t.Fatal(err)
		}
		f = &descriptorpb.FileDescriptorProto{}
		if err := proto.Unmarshal(raw, f); err != nil {
			t.Fatal(err)
		}
		out.File = append(out.File, f)
	}
	add(files[0])
	return out
}

const head = `syntax = "proto3";
package t.v1;
import "google/api/annotations.proto";
import "holdfast/v1/contract.proto";
import "holdfast/v1/options.proto";
`

// spec is a configuration that fits most of the protos below.
const spec = `apiVersion: holdfast.dev/v1alpha1
kind: StatefulService
metadata: {name: things}
spec:
  service: t.v1.Things
  entity:
    type: t.Thing
    key: {option: true}
    model: {ormap: {values: gcounter}}
    carriage: {field: {}}
  workloadRef: {kind: Local, name: things}
---
apiVersion: holdfast.dev/v1alpha1
kind: LocalMesh
metadata: {name: mesh}
spec: {workloads: [{name: things, command: [things]}]}
`

func service(t testing.TB, edits ...string) *v1alpha1.StatefulService {
	t.Helper()
	c, err := v1alpha1.Parse("test.yaml", []byte(strings.NewReplacer(edits...).Replace(spec)))
	if err != nil {
		t.Fatal(err)
	}
	return c.Services[0]
}

// things is a proto that fits every model.
const things = `
service Things { rpc Add(Req) returns (Rep); }
message Req { string id = 1 [(holdfast.v1.entity_key) = true]; holdfast.v1.StateIn state = 15 [(holdfast.v1.state_in) = true]; }
message Rep { holdfast.v1.StateOut changes = 15 [(holdfast.v1.state_out) = true]; }`

// ownValue is a proto whose state is a message of its own.
const ownValue = `
service Things { rpc Add(Req) returns (Rep); }
message Req { string id = 1 [(holdfast.v1.entity_key) = true]; State state = 2 [(holdfast.v1.state_in) = true]; }
message Rep { State state = 3 [(holdfast.v1.state_out) = true]; }
message State { int64 n = 1; }`

// strong edits spec into that of a strong type.
func strong(model string) []string {
	return []string{"{ormap: {values: gcounter}}", model + "\n    consistency: strong"}
}

// cases are protos, with what is edited in spec; what comes of them stands in testdata/cases.golden.
var cases = []struct {
	name  string
	proto string
	edits []string
}{
	{"field carriage", `
service Things {
  rpc Add(Req) returns (Rep) { option (google.api.http) = {post: "/v1/{id}", body: "*"}; }
  rpc Get(Req) returns (View) { option idempotency_level = NO_SIDE_EFFECTS; }
  rpc Watch(Req) returns (stream View);
  rpc Ping(View) returns (View);
}
message Req { string id = 1 [(holdfast.v1.entity_key) = true]; holdfast.v1.StateIn state = 15 [(holdfast.v1.state_in) = true]; }
message Rep { holdfast.v1.StateOut changes = 15 [(holdfast.v1.state_out) = true]; }
message View {}`, nil},
	{"own message of a value", `
service Things { rpc Add(Req) returns (Rep); }
message Req { string id = 1 [(holdfast.v1.entity_key) = true]; optional State state = 2 [(holdfast.v1.state_in) = true]; }
message Rep { State state = 3 [(holdfast.v1.state_out) = true]; }
message State { int64 n = 1; }`, []string{"{ormap: {values: gcounter}}", "{value: {}}\n    consistency: strong"}},
	{"composite key, by number", `
service Things { rpc Add(Req) returns (Req); }
message Req { uint32 b = 7 [(holdfast.v1.entity_key) = true]; string a = 3 [(holdfast.v1.entity_key) = true]; bool no = 4 [(holdfast.v1.entity_key) = false]; }`, []string{"{field: {}}", "{metadata: {encoding: json}}"}},
	{"key at a path", `
service Things { rpc Add(Req) returns (Req); rpc Other(Thing) returns (Thing); }
message Req { Thing thing = 2; }
message Thing { oneof id { string name = 1; int64 number = 2; } optional string tag = 3; }`, []string{"{field: {}}", "{metadata: {}}", "{option: true}", "{field: thing.name}"}},
	{"key in a header", `
service Things { rpc Add(Req) returns (Req); }
message Req {}`, []string{"{field: {}}", "{metadata: {}}", "{option: true}", "{header: x-tenant}"}},
	{"observe needs no carriage", `
service Things { rpc Add(Req) returns (Req); }
message Req { string id = 1 [(holdfast.v1.entity_key) = true]; }`, []string{"    carriage: {field: {}}\n", "", "  entity:", "  mode: observe\n  entity:"}},
	{"bounded counter", things, []string{"{ormap: {values: gcounter}}", "{bcounter: {floor: -20}}"}},
	{"nested maps, majority, ttl", things, []string{"{ormap: {values: gcounter}}", "{ormap: {values: {ormap: {values: orset}}}}\n    write: MAJORITY\n    ttl: 24h\n    replicas: 3\n    passivateAfter: 30s"}},
	{"vote in memory", things, []string{"{ormap: {values: gcounter}}", "vote\n    write: LOCAL_MEM"}},
	{"own message of an lww", `
service Things { rpc Add(Req) returns (Rep); }
message Req { string id = 1 [(holdfast.v1.entity_key) = true]; State state = 2 [(holdfast.v1.state_in) = true]; }
message Rep { State state = 3 [(holdfast.v1.state_out) = true]; }
message State { int64 n = 1; }`, []string{"{ormap: {values: gcounter}}", "lww\n    write: ALL"}},
	{"own message of a multi-value register", `
service Things { rpc Add(Req) returns (Rep); }
message Req { string id = 1 [(holdfast.v1.entity_key) = true]; State state = 2 [(holdfast.v1.state_in) = true]; }
message Rep {}
message State { int64 n = 1; }`, []string{"{ormap: {values: gcounter}}", "mvregister"}},
	{"events", things, strong("{event_sourced: {snapshotEvery: 20}}")},
	{"folded events that expire", things, strong("{event_sourced: {state: folded}}\n    ttl: 1h\n    ttlFrom: use")},
	{"events as JSON", things, append(strong("event_sourced"), "{field: {}}", "{metadata: {encoding: json}}")},
	{"own message of events", `
service Things { rpc Add(Req) returns (Rep); }
message Req { string id = 1 [(holdfast.v1.entity_key) = true]; State state = 2 [(holdfast.v1.state_in) = true]; }
message Rep {}
message State { int64 n = 1; }`, strong("event_sourced")},
	{"JSON values", things, strong("{value: {encoding: json}}")},
	{"JSON values in a message", ownValue, strong("{value: {encoding: json}}")},
	{"own message, to be patched", ownValue, strong("{value: {encoding: proto}}")},
	{"own message by its name", ownValue, strong("{value: {encoding: proto, message: t.v1.State}}")},
	{"own message by another name", ownValue, strong("{value: {encoding: proto, message: t.v1.Req}}")},
	{"message by its name", things + `message State { int64 n = 1; }`, strong("{value: {encoding: proto, message: t.v1.State}}")},
	{"message without a name", things, strong("{value: {encoding: proto}}")},
	{"message that is not there", things, strong("{value: {encoding: proto, message: t.v1.State}}")},
	{"message that is none", things, strong("{value: {encoding: proto, message: t.v1.Things}}")},
	{"two own messages", `
service Things { rpc Add(Req) returns (Rep); }
message Req { string id = 1 [(holdfast.v1.entity_key) = true]; State state = 2 [(holdfast.v1.state_in) = true]; }
message Rep { Req state = 2 [(holdfast.v1.state_out) = true]; }
message State { int64 n = 1; }`, strong("{value: {encoding: proto}}")},
	{"another entity", `
service Things { rpc Add(Req) returns (Rep); rpc Get(One) returns (Rep) { option idempotency_level = NO_SIDE_EFFECTS; } }
message Req { string id = 1 [(holdfast.v1.entity_key) = true]; oneof o { string to = 2 [(holdfast.v1.other_entity_keys) = true]; int32 n = 3; } }
message One { string id = 1 [(holdfast.v1.entity_key) = true]; }
message Rep {}`, append(strong("value"), "{field: {}}", "{metadata: {}}")},
	{"other entities at paths", `
service Things { rpc Add(Req) returns (Rep); }
message Req { string id = 1 [(holdfast.v1.entity_key) = true]; repeated Item items = 2; repeated int32 more = 3; holdfast.v1.StateIn state = 15 [(holdfast.v1.state_in) = true]; }
message Item { string sku = 1; }
message Rep { holdfast.v1.StateOut changes = 15 [(holdfast.v1.state_out) = true]; }`, append(strong("value"), "{option: true}", "{others: [items.sku, more]}")},
	{"others of an eventual type", `
service Things { rpc Add(Req) returns (Req); }
message Req { string id = 1 [(holdfast.v1.entity_key) = true]; string to = 2 [(holdfast.v1.other_entity_keys) = true]; }`, []string{"{field: {}}", "{metadata: {}}"}},
	{"others in a watch", `
service Things { rpc Watch(Req) returns (stream Req); }
message Req { string id = 1 [(holdfast.v1.entity_key) = true]; string to = 2 [(holdfast.v1.other_entity_keys) = true]; }`, append(strong("value"), "{field: {}}", "{metadata: {}}")},
	{"others beside a composite key", `
service Things { rpc Add(Req) returns (Req); }
message Req { string a = 1 [(holdfast.v1.entity_key) = true]; string b = 2 [(holdfast.v1.entity_key) = true]; string to = 3 [(holdfast.v1.other_entity_keys) = true]; }`, append(strong("value"), "{field: {}}", "{metadata: {}}")},
	{"others and an own message in", `
service Things { rpc Add(Req) returns (Rep); }
message Req { string id = 1 [(holdfast.v1.entity_key) = true]; string to = 2 [(holdfast.v1.other_entity_keys) = true]; State state = 3 [(holdfast.v1.state_in) = true]; }
message Rep { holdfast.v1.StateOut changes = 15 [(holdfast.v1.state_out) = true]; }
message State {}`, strong("value")},
	{"others and an own message out", `
service Things { rpc Add(Req) returns (Rep); }
message Req { string id = 1 [(holdfast.v1.entity_key) = true]; string to = 2 [(holdfast.v1.other_entity_keys) = true]; holdfast.v1.StateIn state = 15 [(holdfast.v1.state_in) = true]; }
message Rep { State state = 3 [(holdfast.v1.state_out) = true]; }
message State {}`, strong("value")},
	{"key among the others", `
service Things { rpc Add(Req) returns (Req); }
message Req { string id = 1 [(holdfast.v1.entity_key) = true, (holdfast.v1.other_entity_keys) = true]; }`, append(strong("value"), "{field: {}}", "{metadata: {}}")},
	{"others below", `
service Things { rpc Add(Req) returns (Req); }
message Req { string id = 1 [(holdfast.v1.entity_key) = true]; In in = 2; }
message In { string to = 1 [(holdfast.v1.other_entity_keys) = true]; }`, append(strong("value"), "{field: {}}", "{metadata: {}}")},
	{"others that are not there", things, append(strong("value"), "{option: true}", "{others: [to]}")},
	{"others whose path is lost", things, append(strong("value"), "{option: true}", "{others: [state.to]}")},
	{"others of a map", `
service Things { rpc Add(Req) returns (Req); }
message Req { string id = 1 [(holdfast.v1.entity_key) = true]; map<string, string> to = 2 [(holdfast.v1.other_entity_keys) = true]; }`, append(strong("value"), "{field: {}}", "{metadata: {}}")},
	{"no such service", `service Other { rpc Add(Req) returns (Req); } message Req {}`, nil},
	{"no key", `service Things { rpc Add(Req) returns (Req); } message Req { string id = 1; }`, nil},
	{"no such field", `service Things { rpc Add(Req) returns (Req); } message Req { string id = 1; }`, []string{"{option: true}", "{field: name}"}},
	{"path ends too late", `service Things { rpc Add(Req) returns (Req); } message Req { string id = 1; }`, []string{"{option: true}", "{field: id.name}"}},
	{"path ends too early", `service Things { rpc Add(Req) returns (Req); } message Req { Req req = 1; }`, []string{"{option: true}", "{field: req}"}},
	{"path is lost", `service Things { rpc Add(Req) returns (Req); } message Req { Req req = 1; }`, []string{"{option: true}", "{field: req.id}"}},
	{"repeated key", `service Things { rpc Add(Req) returns (Req); } message Req { repeated string id = 1 [(holdfast.v1.entity_key) = true]; }`, nil},
	{"key of a float", `service Things { rpc Add(Req) returns (Req); } message Req { double id = 1 [(holdfast.v1.entity_key) = true]; }`, nil},
	{"key of a map", `service Things { rpc Add(Req) returns (Req); } message Req { map<string, string> id = 1 [(holdfast.v1.entity_key) = true]; }`, nil},
	{"client streaming", `service Things { rpc Add(stream Req) returns (Req); } message Req { string id = 1 [(holdfast.v1.entity_key) = true]; }`, nil},
	{"keys of different parts", `
service Things { rpc Add(Req) returns (Req); rpc Get(Two) returns (Req); }
message Req { string id = 1 [(holdfast.v1.entity_key) = true]; }
message Two { string id = 1 [(holdfast.v1.entity_key) = true]; string more = 2 [(holdfast.v1.entity_key) = true]; }`, []string{"{field: {}}", "{metadata: {}}"}},
	{"no state_in", `service Things { rpc Add(Req) returns (Req); } message Req { string id = 1 [(holdfast.v1.entity_key) = true]; }`, nil},
	{"no state_out", `
service Things { rpc Add(Req) returns (Rep); }
message Req { string id = 1 [(holdfast.v1.entity_key) = true]; holdfast.v1.StateIn state = 15 [(holdfast.v1.state_in) = true]; }
message Rep {}`, nil},
	{"state_in repeated", `
service Things { rpc Add(Req) returns (Req); }
message Req { string id = 1 [(holdfast.v1.entity_key) = true]; repeated holdfast.v1.StateIn state = 15 [(holdfast.v1.state_in) = true]; }`, nil},
	{"state_in in a oneof", `
service Things { rpc Add(Req) returns (Req); }
message Req { string id = 1 [(holdfast.v1.entity_key) = true]; oneof o { holdfast.v1.StateIn state = 15 [(holdfast.v1.state_in) = true]; string x = 2; } }`, nil},
	{"state_in of bytes", `
service Things { rpc Add(Req) returns (Req); }
message Req { string id = 1 [(holdfast.v1.entity_key) = true]; bytes state = 15 [(holdfast.v1.state_in) = true]; }`, nil},
	{"state_in twice", `
service Things { rpc Add(Req) returns (Req); }
message Req { string id = 1 [(holdfast.v1.entity_key) = true]; holdfast.v1.StateIn a = 2 [(holdfast.v1.state_in) = true]; holdfast.v1.StateIn b = 3 [(holdfast.v1.state_in) = true]; }`, nil},
	{"state_in below", `
service Things { rpc Add(Req) returns (Rep); }
message Req { string id = 1 [(holdfast.v1.entity_key) = true]; In in = 2; }
message In { holdfast.v1.StateIn state = 15 [(holdfast.v1.state_in) = true]; }
message Rep {}`, nil},
	{"own message of a CRDT", `
service Things { rpc Add(Req) returns (Req); }
message Req { string id = 1 [(holdfast.v1.entity_key) = true]; State state = 15 [(holdfast.v1.state_in) = true]; }
message State {}`, nil},
	{"StateOut for StateIn", `
service Things { rpc Add(Req) returns (Rep); }
message Req { string id = 1 [(holdfast.v1.entity_key) = true]; holdfast.v1.StateOut state = 15 [(holdfast.v1.state_in) = true]; }
message Rep {}`, nil},
	{"state_out in the request", `
service Things { rpc Add(Req) returns (Rep); }
message Req { string id = 1 [(holdfast.v1.entity_key) = true]; holdfast.v1.StateOut state = 15 [(holdfast.v1.state_out) = true]; }
message Rep {}`, nil},
	{"state_out of a watch", `
service Things { rpc Watch(Req) returns (stream Rep); }
message Req { string id = 1 [(holdfast.v1.entity_key) = true]; }
message Rep { holdfast.v1.StateOut changes = 15 [(holdfast.v1.state_out) = true]; }`, nil},
}

func TestCompileGolden(t *testing.T) {
	var out strings.Builder
	for _, tc := range cases {
		set := build(t, map[string]string{"t.proto": head + tc.proto}, "t.proto")
		fmt.Fprintf(&out, "# %s\n", tc.name)
		s := service(t, tc.edits...)
		pruned, err := prune(set.File, s.Spec.Service)
		if err != nil {
			fmt.Fprintf(&out, "refused: %v\n\n", err)
			continue
		}
		got, err := Compile(s, &Descriptors{Set: pruned})
		if err != nil {
			fmt.Fprintf(&out, "refused: %v\n\n", err)
			continue
		}
		if raw := got.Type.ValueDescriptors; raw != nil {
			fmt.Fprintf(&out, "%s described in %d bytes, ", got.Type.ValueMessage, len(raw))
			got.Type.ValueDescriptors = nil
		}
		fmt.Fprintf(&out, "rest %v, streaming %v, unkeyed %v, parts %d\n%s\n%s\n\n", got.REST, got.Streaming, got.Unkeyed, got.Parts, text(t, got.Type), text(t, got.Config))
	}
	golden(t, "testdata/cases.golden", out.String())
}

func text(t *testing.T, m proto.Message) string {
	t.Helper()
	raw, err := protojson.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	// protojson varies its white space on purpose.
	return strings.NewReplacer(", ", ",", ": ", ":").Replace(string(raw))
}

func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("differs from %s (rewrite with -update, then read the difference):\n%s", path, got)
	}
}

func TestMarksOfOthers(t *testing.T) {
	// Cloudstate's key counts, by its number or by its name; somebody else's option of the same number does not.
	for _, tc := range []struct {
		name, pkg, option string
		number            int
		want              bool
	}{
		{"cloudstate", "cloudstate", "entity_key", 1080, true},
		{"another's 1080", "acme", "secret", 1080, false},
		{"another's 50801", "acme", "secret", 50801, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			set := build(t, map[string]string{
				"o.proto": fmt.Sprintf("syntax = \"proto3\"; package %s; import \"google/protobuf/descriptor.proto\"; extend google.protobuf.FieldOptions { bool %s = %d; }", tc.pkg, tc.option, tc.number),
				"t.proto": fmt.Sprintf("syntax = \"proto3\"; package t.v1; import \"o.proto\"; service Things { rpc Add(Req) returns (Req); } message Req { string id = 1 [(%s.%s) = true]; }", tc.pkg, tc.option),
			}, "t.proto")
			got, err := Compile(service(t, "{field: {}}", "{metadata: {}}"), &Descriptors{Set: set})
			if (err == nil) != tc.want {
				t.Errorf("got %v, %v", got, err)
			}
		})
	}
}

func TestPruneAndFile(t *testing.T) {
	set := build(t, map[string]string{
		"t.proto":     head + "import \"used.proto\"; service Things { rpc Add(u.Used) returns (u.Used); }",
		"used.proto":  "syntax = \"proto3\"; package u; message Used { string id = 1; }",
		"other.proto": "syntax = \"proto3\"; package o; message Other {} ",
	}, "t.proto")
	set.File = append(set.File, &descriptorpb.FileDescriptorProto{Name: proto.String("other.proto")})
	raw, err := proto.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "d.binpb")
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := ReadFile(path, "t.v1.Things")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range d.Set.File {
		if f.GetName() == "other.proto" {
			t.Error("a file that nothing imports was kept")
		}
	}
	if _, err := ReadFile(path, "t.v1.Nothing"); err == nil || errors.Is(err, ErrUnavailable) {
		t.Errorf("got %v", err)
	}
	if _, err := ReadFile(path+"x", "t.v1.Things"); !errors.Is(err, ErrUnavailable) {
		t.Errorf("got %v", err)
	}
	set.File = set.File[:len(set.File)-2]
	if _, err := prune(append(set.File[:0:0], build(t, map[string]string{"t.proto": head + "service Things {}"}, "t.proto").File[3:]...), "t.v1.Things"); err != nil {
		t.Errorf("well-known imports that a server doesn't send: %v", err)
	}
}

func serveReflection(t *testing.T, register func(*grpc.Server)) string {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	healthv1.RegisterHealthServer(s, health.NewServer())
	register(s)
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(lis) }()
	t.Cleanup(func() { s.Stop(); <-done })
	return lis.Addr().String()
}

func TestReflect(t *testing.T) {
	for _, tc := range []struct {
		name     string
		register func(*grpc.Server)
	}{
		{"v1 and v1alpha", func(s *grpc.Server) { reflection.Register(s) }},
		{"v1 only", func(s *grpc.Server) { reflection.RegisterV1(s) }},
		{"v1alpha only", func(s *grpc.Server) {
			reflectionv1alpha.RegisterServerReflectionServer(s, reflection.NewServer(reflection.ServerOptions{Services: s}))
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d, err := Reflect(t.Context(), serveReflection(t, tc.register), "grpc.health.v1.Health")
			if err != nil {
				t.Fatal(err)
			}
			if len(d.Set.File) != 1 || d.Set.File[0].SourceCodeInfo != nil || d.Digest() == "" {
				t.Errorf("got %v", d)
			}
			if len(d.Listed) < 2 {
				t.Errorf("listed %v", d.Listed)
			}
		})
	}
}

func TestReflectRefusals(t *testing.T) {
	address := serveReflection(t, func(s *grpc.Server) { reflection.Register(s) })
	if _, err := Reflect(t.Context(), address, "t.v1.Things"); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "grpc.health.v1.Health") {
		t.Errorf("a service that isn't there: %v", err)
	}
	if _, err := Reflect(t.Context(), serveReflection(t, func(*grpc.Server) {}), "grpc.health.v1.Health"); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "has no gRPC reflection") {
		t.Errorf("no reflection: %v", err)
	}
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	lis.Close()
	if _, err := Reflect(t.Context(), lis.Addr().String(), "t.v1.Things"); !errors.Is(err, ErrUnavailable) {
		t.Errorf("nobody there: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Reflect(ctx, address, "t.v1.Things"); !errors.Is(err, ErrUnavailable) {
		t.Errorf("canceled: %v", err)
	}
}

func TestMerge(t *testing.T) {
	mk := func(pkg, file, extra string) *Service {
		set := build(t, map[string]string{
			file:           fmt.Sprintf("syntax = \"proto3\"; package %s; import \"shared.proto\"; import \"google/api/annotations.proto\"; service S { rpc A(shared.M) returns (shared.M) { option (google.api.http) = {get: \"/%s\"}; } }", pkg, pkg),
			"shared.proto": "syntax = \"proto3\"; package shared; message M { " + extra + " }",
		}, file)
		s := &Service{REST: true, Descriptors: &Descriptors{Set: set}}
		s.Config = &configv1.Service{Name: pkg + ".S"}
		return s
	}
	a, b := mk("a", "service.proto", ""), mk("b", "service.proto", "")
	c, d := mk("c", "service.proto", "string other = 1;"), mk("d", "d.proto", "")
	noREST := mk("e", "e.proto", "")
	noREST.REST = false
	m := Merge([]*Service{a, b, c, d, noREST})
	if got := strings.Join(m.Services, " "); got != "a.S b.S d.S" {
		t.Errorf("got %s", got)
	}
	if err := m.Left["c.S"]; err == nil || !strings.Contains(err.Error(), "shared.M") {
		t.Errorf("got %v", err)
	}
	set := &descriptorpb.FileDescriptorSet{}
	if err := proto.Unmarshal(m.Set, set); err != nil {
		t.Fatal(err)
	}
	files, err := protodesc.NewFiles(set)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range m.Services {
		if _, err := files.FindDescriptorByName(protoreflect.FullName(name)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if empty := Merge(nil); len(empty.Set) != 0 || len(empty.Services) != 0 {
		t.Errorf("got %v", empty)
	}
}

func FuzzCompile(f *testing.F) {
	for _, tc := range cases[:6] {
		raw, err := proto.Marshal(build(f, map[string]string{"t.proto": head + tc.proto}, "t.proto"))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	s := service(f)
	f.Fuzz(func(t *testing.T, raw []byte) {
		set := &descriptorpb.FileDescriptorSet{}
		if proto.Unmarshal(raw, set) != nil {
			return
		}
		pruned, err := prune(set.File, s.Spec.Service)
		if err != nil {
			return
		}
		d := &Descriptors{Set: pruned}
		got, err := Compile(s, d)
		if err != nil {
			return
		}
		if len(got.Config.Methods) == 0 || d.Digest() == "" {
			t.Errorf("accepted without a keyed method: %v", got)
		}
		Merge([]*Service{got, got})
	})
}
