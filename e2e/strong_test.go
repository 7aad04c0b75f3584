package e2e

import (
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"

	"github.com/holdfast-mesh/holdfast/e2e/rig"
)

// strongThings are strong entity types of every kind.
var strongThings = []thing{
	{name: "Page", spec: "model: value\nconsistency: strong"},
	{name: "Doc", spec: "model: {value: {encoding: json}}\nconsistency: strong"},
	{name: "Letter", spec: "model: {value: {encoding: proto, message: things.v1.Note}}\nconsistency: strong", carriage: "field"},
	{name: "Memo", spec: "model: {value: {encoding: proto}}\nconsistency: strong", carriage: "own"},
	{name: "Cart", spec: "model: {event_sourced: {snapshotEvery: 3}}\nconsistency: strong"},
	{name: "Order", spec: "model: event_sourced\nconsistency: strong", carriage: "field"},
	{name: "Folded", spec: "model: {event_sourced: {state: folded}}\nconsistency: strong"},
	{name: "Pocket", spec: "model: value\nconsistency: strong", several: true},
	{name: "Shelf", spec: "model: {value: {encoding: json}}\nconsistency: strong", several: true, carriage: "field"},
	{name: "Short", spec: "model: value\nconsistency: strong\nttl: 2s"},
	{name: "Used", spec: "model: value\nconsistency: strong\nttl: 2s\nttlFrom: use"},
}

// startStrong starts a mesh of three nodes around the strong things, and waits until all are served.
func startStrong(t *testing.T) *rig.Mesh {
	t.Helper()
	m := startThings(t, 3, strongThings)
	for _, th := range strongThings {
		within(t, 60*time.Second, func() error {
			_, err := ok(m.Get(m.Gateway(), thingPath(th.name, "ready")))
			return err
		})
	}
	return m
}

// Strong entities, driven through Envoys by a service that knows JSON only.
func TestStrong(t *testing.T) {
	m := startStrong(t)
	for _, c := range []struct {
		name string
		test func(*testing.T, *rig.Mesh)
	}{
		{"ETag", strongETag},
		{"ETagOverGRPC", strongETagOverGRPC},
		{"CompareAndSet", strongCompareAndSet},
		{"Patches", strongPatches},
		{"OwnMessage", strongOwnMessage},
		{"Events", strongEvents},
		{"Folded", strongFolded},
		{"Several", strongSeveral},
		{"SeveralAtOnce", strongSeveralAtOnce},
		{"TooMany", strongTooMany},
		{"TTL", strongTTL},
		{"Once", strongOnce},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, m) })
	}
}

// b64 is how JSON has bytes.
func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

func setTo(s string) string { return `[{"set":{"value":"` + b64(s) + `"}}]` }

// everyEntry are all addresses that callers may use: of one of them the owner serves at once, the others forward.
func everyEntry(m *rig.Mesh) []string { return append(m.Ingresses(), m.Gateway()) }

// refusedAs checks a refusal's HTTP status and code.
func refusedAs(t *testing.T, what string, r *rig.Reply, err error, httpStatus, code int) {
	t.Helper()
	if err != nil || r.Status != httpStatus || statusCode(r) != code {
		t.Errorf("%s: %s, want %d with code %d", what, describe(r, err), httpStatus, code)
		return
	}
	for name := range r.Header {
		if ours(name) {
			t.Errorf("%s: the refusal has the header %s", what, name)
		}
	}
}

func strongETag(t *testing.T, m *rig.Mesh) {
	key := newKey(t)
	read := func(address string, headers ...string) (*rig.Reply, error) {
		h := http.Header{}
		for i := 0; i+1 < len(headers); i += 2 {
			h.Set(headers[i], headers[i+1])
		}
		return m.Do(http.MethodGet, address, thingPath("Page", key), nil, h)
	}
	r := must(t)(read(m.Gateway()))
	if got := r.Header.Get("Etag"); got != "" {
		t.Errorf("an entity that does not exist has the etag %s", got)
	}
	refused, err := doThing(m, m.Gateway(), "Page", key, setTo("x"), "If-Match", "*")
	refusedAs(t, "if-match: * of nothing", refused, err, 412, 10)
	r = must(t)(doThing(m, m.Gateway(), "Page", key, setTo("a"), "If-None-Match", "*"))
	version := r.Header.Get("Etag")
	if len(version) < 3 || version[0] != '"' {
		t.Fatalf("the first write has the etag %q", version)
	}
	seen := map[string]bool{version: true}
	for i, address := range everyEntry(m) {
		if got := must(t)(read(address)).Header.Get("Etag"); got != version {
			t.Errorf("a read at %s has the etag %s, the write had %s", address, got, version)
		}
		must(t)(read(address, "If-Match", version))
		must(t)(read(address, "If-None-Match", version))
		must(t)(doThing(m, address, "Page", key, ""))
		r, err := read(address, "If-Match", `"zzz"`)
		refusedAs(t, "a read of another version at "+address, r, err, 412, 10)
		r, err = doThing(m, address, "Page", key, setTo("no"), "If-None-Match", "*")
		refusedAs(t, "if-none-match: * at "+address, r, err, 412, 10)
		r, err = doThing(m, address, "Page", key, setTo("no"), "If-Match", `"zzz"`)
		refusedAs(t, "a write of another version at "+address, r, err, 412, 10)
		for _, bad := range []string{`"a", "b"`, `""`} {
			r, err = doThing(m, address, "Page", key, setTo("no"), "If-Match", bad)
			refusedAs(t, "if-match: "+bad+" at "+address, r, err, 400, 3)
		}

		next := fmt.Sprint("value ", i)
		r = must(t)(doThing(m, address, "Page", key, setTo(next), "If-Match", version))
		stale := version
		if version = r.Header.Get("Etag"); seen[version] || version == "" {
			t.Fatalf("a write at %s has the etag %q, versions before were %v", address, version, slices.Collect(maps.Keys(seen)))
		}
		seen[version] = true
		r, err = doThing(m, address, "Page", key, setTo("lost update"), "If-Match", stale)
		refusedAs(t, "a second write of one version at "+address, r, err, 412, 10)
		within(t, 10*time.Second, thingIs(m, everyEntry(m), "Page", key, `{"value":"`+b64(next)+`"}`))
	}
	must(t)(doThing(m, m.Gateway(), "Page", key, setTo("any"), "If-Match", "*"))
	r = must(t)(doThing(m, m.Gateway(), "Page", key, remove))
	if got := r.Header.Get("Etag"); got != "" {
		t.Errorf("a delete has the etag %s", got)
	}
	refused, err = doThing(m, m.Ingress(1), "Page", key, setTo("x"), "If-Match", version)
	refusedAs(t, "a version from before the delete", refused, err, 412, 10)
	r = must(t)(doThing(m, m.Ingress(2), "Page", key, setTo("again"), "If-None-Match", "*"))
	if got := r.Header.Get("Etag"); seen[got] || got == "" {
		t.Errorf("written again after the delete the etag is %q", got)
	}
}

// callThing calls a thing by gRPC, with no knowledge of its messages: the fields are given by hand.
func callThing(t *testing.T, conn *grpc.ClientConn, method string, request []byte, headers ...string) (etag string, err error) {
	t.Helper()
	ctx := metadata.AppendToOutgoingContext(t.Context(), headers...)
	var got metadata.MD
	in, out := rawMessage(request), rawMessage{}
	err = conn.Invoke(ctx, "/things.v1."+method, &in, &out, grpc.Header(&got), grpc.ForceCodec(rawCodec{}))
	return strings.Join(got.Get("etag"), " and "), err
}

type rawMessage []byte

// rawCodec passes messages as their bytes.
type rawCodec struct{}

func (rawCodec) Name() string { return "proto" }

func (rawCodec) Marshal(v any) ([]byte, error) { return *v.(*rawMessage), nil }

func (rawCodec) Unmarshal(b []byte, v any) error {
	*v.(*rawMessage) = slices.Clone(b)
	return nil
}

// thingRequest is a Request on the wire.
func thingRequest(key, operations string) []byte {
	b := append([]byte{0x0a, byte(len(key))}, key...)
	return append(append(b, 0x12, byte(len(operations))), operations...)
}

func strongETagOverGRPC(t *testing.T, m *rig.Mesh) {
	key := "grpc-etag"
	for i, address := range everyEntry(m) {
		conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		write := thingRequest(key, setTo(fmt.Sprint(i)))
		version, err := callThing(t, conn, "Page/Do", write)
		if err != nil || version == "" {
			t.Fatalf("a write at %s: etag %q, %v", address, version, err)
		}
		if got, err := callThing(t, conn, "Page/Get", thingRequest(key, "")); err != nil || got != version {
			t.Errorf("a read at %s: etag %q, %v; the write had %s", address, got, err, version)
		}
		for _, c := range []struct {
			method, header, value string
			want                  codes.Code
		}{
			{"Page/Do", "if-match", `"zzz"`, codes.Aborted},
			{"Page/Do", "if-none-match", `*`, codes.Aborted},
			{"Page/Get", "if-match", `"zzz"`, codes.Aborted},
			{"Page/Get", "if-match", version, codes.OK},
			{"Page/Do", "if-match", version + "," + version, codes.InvalidArgument},
			{"Page/Do", "if-match", version, codes.OK},
			{"Page/Do", "if-match", version, codes.Aborted},
		} {
			request := write
			if c.method == "Page/Get" {
				request = thingRequest(key, "")
			}
			if _, err := callThing(t, conn, c.method, request, c.header, c.value); status.Code(err) != c.want {
				t.Errorf("%s at %s with %s: %s: %v, want %v", c.method, address, c.header, c.value, err, c.want)
			}
		}
	}
}

// Of writers that saw the same version one wins, wherever they enter.
func strongCompareAndSet(t *testing.T, m *rig.Mesh) {
	key := newKey(t)
	r := must(t)(doThing(m, m.Gateway(), "Page", key, setTo("0")))
	version := r.Header.Get("Etag")
	const rounds, writers = 10, 8
	for round := range rounds {
		var won atomic.Pointer[rig.Reply]
		tally := rig.Each(writers, writers, func(i int) (*rig.Reply, error) {
			address := everyEntry(m)[i%4]
			r, err := doThing(m, address, "Page", key, setTo(fmt.Sprintf("%d of %d", i, round)), "If-Match", version)
			if err == nil && r.Status == http.StatusOK {
				won.Store(r)
			} else if err != nil || r.Status != http.StatusPreconditionFailed {
				t.Errorf("a writer that lost: %s, want 412", describe(r, err))
			}
			return r, err
		})
		if tally.Acked() != 1 || won.Load() == nil {
			t.Fatalf("round %d: %v, want one of %d acknowledged", round, tally, writers)
		}
		version = won.Load().Header.Get("Etag")
	}
}

// docIs waits until a JSON value is this everywhere.
func docIs(t *testing.T, m *rig.Mesh, name, key, want string) {
	t.Helper()
	expected := &structpb.Value{}
	if err := protojson.Unmarshal([]byte(want), expected); err != nil {
		t.Fatal(err)
	}
	within(t, 10*time.Second, func() error {
		for _, address := range everyEntry(m) {
			in, err := thingState(m, address, name, key)
			if err != nil {
				return err
			}
			got := &structpb.Value{}
			if err := protojson.Unmarshal(in.GetValue().GetValue(), got); err != nil || !proto.Equal(got, expected) {
				return fmt.Errorf("%s/%s at %s is %s (%v), want %s", name, key, address, in.GetValue().GetValue(), err, want)
			}
		}
		return nil
	})
}

func strongPatches(t *testing.T, m *rig.Mesh) {
	key := newKey(t)
	merge := func(patch string) string { return `[{"mergePatch":{"patch":"` + b64(patch) + `"}}]` }
	fields := func(value string, paths ...string) string {
		return `[{"fieldPatch":{"value":"` + b64(value) + `","paths":["` + strings.Join(paths, `","`) + `"]}}]`
	}
	for i, step := range []struct{ operations, want string }{
		{setTo(`{"name":"Ada","tags":["a"],"address":{"city":"London"}}`), `{"name":"Ada","tags":["a"],"address":{"city":"London"}}`},
		{merge(`{"tags":["b","c"],"address":{"zip":"N1"}}`), `{"name":"Ada","tags":["b","c"],"address":{"city":"London","zip":"N1"}}`},
		{merge(`{"tags":null}`), `{"name":"Ada","address":{"city":"London","zip":"N1"}}`},
		{fields(`{"name":"Grace","address":{"city":"Arlington"}}`, "name", "address.city", "address.zip"), `{"name":"Grace","address":{"city":"Arlington"}}`},
	} {
		must(t)(doThing(m, everyEntry(m)[i%4], "Doc", key, step.operations))
		docIs(t, m, "Doc", key, step.want)
	}
	for what, operations := range map[string]string{
		"a patch that is no JSON": merge(`{"a"`),
		"a set that is no JSON":   setTo(`{"a"`),
	} {
		r, err := doThing(m, m.Gateway(), "Doc", key, operations)
		refusedAs(t, what, r, err, 400, 3)
	}
	docIs(t, m, "Doc", key, `{"name":"Grace","address":{"city":"Arlington"}}`)

	// A protobuf value: text = 1, edits = 2.
	letter := newKey(t)
	is := func(want string) {
		t.Helper()
		within(t, 10*time.Second, thingIs(m, everyEntry(m), "Letter", letter, `{"value":"`+b64(want)+`"}`))
	}
	must(t)(doThing(m, m.Ingress(1), "Letter", letter, setTo("\x0a\x02hi\x10\x07")))
	must(t)(doThing(m, m.Ingress(2), "Letter", letter, merge(`{"text":"ho"}`)))
	is("\x0a\x02ho\x10\x07")
	must(t)(doThing(m, m.Ingress(3), "Letter", letter, fields("\x0a\x02no", "edits")))
	is("\x0a\x02ho")
	r, err := doThing(m, m.Gateway(), "Letter", letter, fields("", "pages"))
	refusedAs(t, "a field that the message has not", r, err, 400, 3)
	is("\x0a\x02ho")
}

func strongOwnMessage(t *testing.T, m *rig.Mesh) {
	key := newKey(t)
	for i, address := range everyEntry(m) {
		r := must(t)(doThing(m, address, "Memo", key, fmt.Sprint("text ", i)))
		if r.Header.Get("Etag") == "" {
			t.Errorf("a write at %s has no etag", address)
		}
	}
	for _, address := range everyEntry(m) {
		r := must(t)(m.Get(address, thingPath("Memo", key)))
		var reply struct{ State string }
		if err := r.JSON(&reply); err != nil || strings.ReplaceAll(reply.State, " ", "") != `{"text":"text3","edits":4}` {
			t.Errorf("at %s the service is given %s (%v)", address, reply.State, err)
		}
	}
}

func appended(names ...string) string {
	events := make([]string, 0, len(names))
	for _, n := range names {
		events = append(events, `{"type":"`+n+`","payload":"`+b64(n)+`"}`)
	}
	return `{"append":{"events":[` + strings.Join(events, ",") + `]}}`
}

func snapshot(s string) string { return `{"snapshot":{"snapshot":"` + b64(s) + `"}}` }

// history says what events a service is given.
func history(v *holdfastv1.EventSourcedValue) string {
	out := fmt.Sprintf("%s@%d", v.GetSnapshot(), v.GetSnapshotSequence())
	for _, e := range v.GetEvents() {
		out += fmt.Sprintf(" %d:%s=%s", e.GetSequence(), e.GetType(), e.GetPayload())
		if e.GetTime().AsTime().Before(time.Now().Add(-time.Hour)) {
			out += " at " + e.GetTime().AsTime().String()
		}
	}
	out += fmt.Sprintf(" of %d", v.GetSequence())
	if v.GetSnapshotWanted() {
		out += " wanted"
	}
	return out
}

// historyIs waits until services are given this history everywhere.
func historyIs(t *testing.T, m *rig.Mesh, name, key, want string) {
	t.Helper()
	within(t, 10*time.Second, func() error {
		for _, address := range everyEntry(m) {
			in, err := thingState(m, address, name, key)
			if err != nil {
				return err
			}
			if got := history(in.GetValue().GetEventSourced()); got != want {
				return fmt.Errorf("%s/%s at %s is %q, want %q", name, key, address, got, want)
			}
		}
		return nil
	})
}

func strongEvents(t *testing.T, m *rig.Mesh) {
	for _, name := range []string{"Cart", "Order"} {
		key := newKey(t)
		asks := func(want string) string {
			// Order has the default policy.
			if name == "Order" {
				return strings.TrimSuffix(want, " wanted")
			}
			return want
		}
		must(t)(doThing(m, m.Ingress(1), name, key, "["+appended("a")+"]"))
		historyIs(t, m, name, key, "@0 1:a=a of 1")
		must(t)(doThing(m, m.Ingress(2), name, key, "["+appended("b", "c")+"]"))
		historyIs(t, m, name, key, asks("@0 1:a=a 2:b=b 3:c=c of 3 wanted"))
		must(t)(doThing(m, m.Ingress(3), name, key, "["+appended("d")+","+snapshot("abcd")+"]"))
		historyIs(t, m, name, key, "abcd@4 of 4")
		must(t)(doThing(m, m.Gateway(), name, key, `[{"append":{"events":[{"type":"e","payload":"ZQ=="}],"expectedSequence":4}}]`))
		historyIs(t, m, name, key, "abcd@4 5:e=e of 5")
		for _, address := range everyEntry(m) {
			r, err := doThing(m, address, name, key, `[{"append":{"events":[{"type":"e"}],"expectedSequence":4}}]`)
			refusedAs(t, "an append after another sequence at "+address, r, err, 409, 10)
		}
		historyIs(t, m, name, key, "abcd@4 5:e=e of 5")
		must(t)(doThing(m, m.Ingress(2), name, key, remove))
		within(t, 10*time.Second, thingIs(m, everyEntry(m), name, key, ""))
		must(t)(doThing(m, m.Ingress(2), name, key, "["+appended("f")+"]"))
		within(t, 10*time.Second, func() error {
			in, err := thingState(m, m.Gateway(), name, key)
			if v := in.GetValue().GetEventSourced(); err != nil || len(v.GetEvents()) != 1 || v.GetSequence() <= 5 {
				return fmt.Errorf("after a delete: %q, %v; want one event after the fifth", history(v), err)
			}
			return nil
		})
	}
	// A value's operations are none of an event-sourced entity's.
	r, err := doThing(m, m.Gateway(), "Cart", newKey(t), setTo("x"))
	refusedAs(t, "a set", r, err, 400, 3)
}

func strongFolded(t *testing.T, m *rig.Mesh) {
	key := newKey(t)
	r, err := doThing(m, m.Gateway(), "Folded", key, "["+appended("a")+"]")
	refusedAs(t, "an append without a snapshot", r, err, 400, 3)
	must(t)(doThing(m, m.Ingress(1), "Folded", key, "["+appended("a", "b")+","+snapshot("ab")+"]"))
	historyIs(t, m, "Folded", key, "ab@2 of 2")
	must(t)(doThing(m, m.Ingress(2), "Folded", key, "["+appended("c")+","+snapshot("abc")+"]"))
	historyIs(t, m, "Folded", key, "abc@3 of 3")
}

// doSeveral is one call about several entities.
func doSeveral(m *rig.Mesh, address, name, key string, others []string, out string, headers http.Header) (*rig.Reply, error) {
	return m.Do(http.MethodPost, address, thingPath(name, key), map[string]any{"operations": out, "others": others}, headers)
}

// severalOut is a whole state out that sets several entities: the call's own, and keys with their values.
func severalOut(own string, others ...string) string {
	ops := func(v string) string {
		if v == "" {
			return remove
		}
		return setTo(v)
	}
	out := `{"operations":` + ops(own) + `,"others":[`
	for i := 0; i+1 < len(others); i += 2 {
		if i > 0 {
			out += ","
		}
		out += `{"key":"` + others[i] + `","operations":` + ops(others[i+1]) + `}`
	}
	return out + "]}"
}

func strongSeveral(t *testing.T, m *rig.Mesh) {
	for _, name := range []string{"Pocket", "Shelf"} {
		value := func(s string) string { return `"` + s + `"` } // JSON, for Shelf
		is := func(key, want string) {
			t.Helper()
			if want != "" {
				want = `{"value":"` + b64(value(want)) + `"}`
			}
			within(t, 10*time.Second, thingIs(m, everyEntry(m), name, key, want))
		}
		// Keys of many slots, so of all owners.
		var keys []string
		for range 6 {
			keys = append(keys, newKey(t))
		}
		for i, address := range everyEntry(m) {
			v := fmt.Sprint("v", i)
			args := make([]string, 0, 2*len(keys))
			for _, k := range keys[1:] {
				args = append(args, k, value(v))
			}
			r := must(t)(doSeveral(m, address, name, keys[0], keys[1:], severalOut(value(v), args...), nil))
			var reply struct{ State string }
			in := &holdfastv1.StateIn{}
			if err := errors.Join(r.JSON(&reply), protojson.Unmarshal([]byte(reply.State), in)); err != nil {
				t.Fatal(err)
			}
			if len(in.GetOthers()) != len(keys)-1 {
				t.Fatalf("the service was given %d other entities, want %d", len(in.GetOthers()), len(keys)-1)
			}
			for j, o := range in.GetOthers() {
				if o.GetKey() != keys[j+1] || o.GetExists() != (i > 0) || i > 0 && o.GetVersion() != in.GetVersion() {
					t.Errorf("round %d: other %d is %v beside version %s; want %s, of the same transaction", i, j, o, in.GetVersion(), keys[j+1])
				}
			}
			for _, k := range keys {
				is(k, v)
			}
		}
		version := must(t)(m.Get(m.Gateway(), thingPath(name, keys[0]))).Header.Get("Etag")
		for _, k := range keys[1:] {
			if got := must(t)(m.Get(m.Gateway(), thingPath(name, k))).Header.Get("Etag"); got != version {
				t.Errorf("%s has the version %s, %s of the same transaction has %s", k, got, keys[0], version)
			}
		}
		// Nothing is done in part.
		r, err := doSeveral(m, m.Ingress(1), name, keys[0], keys[1:2], severalOut(value("no"), keys[1], value("no")), http.Header{"If-Match": {`"zzz"`}})
		refusedAs(t, "another version", r, err, 412, 10)
		r, err = doSeveral(m, m.Ingress(2), name, keys[0], keys[1:2], severalOut(value("no"), keys[2], value("no")), nil)
		refusedAs(t, "a change of an entity that the call does not name", r, err, 500, 13)
		r, err = doSeveral(m, m.Ingress(3), name, keys[0], []string{keys[1], keys[0]}, severalOut(value("no")), nil)
		refusedAs(t, "an entity named twice", r, err, 400, 3)
		r, err = doSeveral(m, m.Gateway(), name, keys[0], []string{keys[1], ""}, severalOut(value("no")), nil)
		refusedAs(t, "an empty key", r, err, 400, 3)
		r, err = doSeveral(m, m.Gateway(), name, keys[0], keys[1:2],
			`{"operations":`+setTo(value("no"))+`,"others":[{"key":"`+keys[1]+`","operations":[{"increment":{"by":1}}]}]}`, nil)
		refusedAs(t, "an operation that another entity does not take", r, err, 400, 3)
		for _, k := range keys {
			is(k, "v3")
		}
		// One is changed, one deleted, one only read.
		must(t)(doSeveral(m, m.Ingress(1), name, keys[0], keys[1:3], `{"others":[{"key":"`+keys[1]+`","operations":`+remove+`}]}`, nil))
		is(keys[0], "v3")
		is(keys[1], "")
		is(keys[2], "v3")
	}
}

// Commands on overlapping sets of entities at once, in every order: none is lost, none is in part, and none waits for ever.
func strongSeveralAtOnce(t *testing.T, m *rig.Mesh) {
	keys := []string{newKey(t), newKey(t), newKey(t), newKey(t)}
	addresses := everyEntry(m)
	start := time.Now()
	tally := rig.Each(8, 160, func(i int) (*rig.Reply, error) {
		at := i % len(keys)
		own := keys[at]
		var others, args []string
		v := fmt.Sprint("n", i)
		for j := 1; j < 2+i%3; j++ {
			k := keys[(at+j*(1+i/4%3))%len(keys)]
			if k == own || slices.Contains(others, k) {
				continue
			}
			others, args = append(others, k), append(args, k, v)
		}
		return doSeveral(m, addresses[i/3%len(addresses)], "Pocket", own, others, severalOut(v, args...), nil)
	})
	t.Logf("160 commands on 1 to %d of %d entities in %v: %v", len(keys), len(keys), time.Since(start).Round(time.Millisecond), tally)
	if tally.Acked() != 160 {
		t.Errorf("got %v, want all acknowledged: nothing was broken", tally)
	}
	// All as one once more: then all have one version.
	args := []string{keys[1], "end", keys[2], "end", keys[3], "end"}
	must(t)(doSeveral(m, m.Gateway(), "Pocket", keys[0], keys[1:], severalOut("end", args...), nil))
	for _, k := range keys {
		within(t, 10*time.Second, thingIs(m, addresses, "Pocket", k, `{"value":"`+b64("end")+`"}`))
	}
}

func strongTooMany(t *testing.T, m *rig.Mesh) {
	key := newKey(t)
	var others []string
	for i := range 128 {
		others = append(others, fmt.Sprint(key, "/", i))
	}
	for n, code := range map[int]int{128: 8, 120: 8} {
		args := make([]string, 0, 2*n)
		for _, k := range others[:n] {
			args = append(args, k, "x")
		}
		r, err := doSeveral(m, m.Ingress(1), "Shelf", key, others[:n], severalOut(`"x"`, args...), nil)
		refusedAs(t, fmt.Sprint(n, " further entities"), r, err, 429, code)
		if r != nil {
			t.Logf("%d further entities: %s", n, r.Body)
		}
	}
	within(t, 10*time.Second, thingIs(m, m.Ingresses(), "Shelf", key, ""))
	within(t, 10*time.Second, thingIs(m, m.Ingresses(), "Shelf", others[0], ""))
}

func strongTTL(t *testing.T, m *rig.Mesh) {
	short, used := newKey(t), newKey(t)
	written := time.Now()
	must(t)(doThing(m, m.Gateway(), "Short", short, setTo("x")))
	must(t)(doThing(m, m.Gateway(), "Used", used, setTo("x")))
	gone := func(name, key string) func() error { return thingIs(m, m.Ingresses(), name, key, "") }
	// Reads keep the one, not the other.
	within(t, 15*time.Second, func() error {
		if err := thingIs(m, []string{m.Gateway()}, "Used", used, `{"value":"`+b64("x")+`"}`)(); err != nil {
			return err
		}
		return gone("Short", short)()
	})
	if d := time.Since(written); d < 2*time.Second {
		t.Errorf("Short was gone after %v, its ttl is 2s", d)
	}
	for last := time.Now(); time.Since(written) < 5*time.Second; time.Sleep(200 * time.Millisecond) {
		err := thingIs(m, m.Ingresses(), "Used", used, `{"value":"`+b64("x")+`"}`)()
		if pause := time.Since(last); pause > time.Second {
			t.Skipf("this machine paused for %v, which is too long to keep an entity with a ttl of 2s in use", pause)
		}
		if last = time.Now(); err != nil {
			t.Fatalf("%v after the write: %v", time.Since(written), err)
		}
	}
	r := must(t)(doThing(m, m.Gateway(), "Short", short, setTo("y"), "If-None-Match", "*"))
	if r.Header.Get("Etag") == "" {
		t.Error("written again after its ttl it has no etag")
	}
	// Nobody reads it any more.
	time.Sleep(3 * time.Second)
	within(t, 10*time.Second, gone("Used", used))
}

// A request is applied once, and a retry of one that was applied says so, whatever has become of the version that it named.
func strongOnce(t *testing.T, m *rig.Mesh) {
	key := newKey(t)
	r := must(t)(doThing(m, m.Gateway(), "Page", key, setTo("0")))
	version := r.Header.Get("Etag")
	must(t)(doThing(m, m.Ingress(1), "Page", key, setTo("1"), "Idempotency-Key", "one", "If-Match", version))
	must(t)(doThing(m, m.Ingress(2), "Page", key, setTo("2")))
	for _, address := range everyEntry(m) {
		r, err := doThing(m, address, "Page", key, setTo("1"), "Idempotency-Key", "one", "If-Match", version)
		refusedAs(t, "a repeated request at "+address, r, err, 409, 6)
		if got := r.Header.Get("Holdfast-Outcome"); got != "applied" {
			t.Errorf("a repeated request at %s has the outcome %q, want applied", address, got)
		}
	}
	within(t, 10*time.Second, thingIs(m, everyEntry(m), "Page", key, `{"value":"`+b64("2")+`"}`))
}
