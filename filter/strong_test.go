package filter_test

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/holdfast-mesh/holdfast/filter"
	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
)

// several is a strong type whose Write and Read name further entities in field 2, which is repeated.
func several(c *configv1.FilterConfig) *configv1.FilterConfig {
	strong(c)
	for _, m := range c.Services[0].Methods[:2] {
		m.OtherKeys = []*configv1.FieldPath{{Steps: []*configv1.FieldStep{{Number: 2, Type: 9, ImplicitPresence: true, Repeated: true}}}}
	}
	return c
}

// at is a strong entity's state.
func at(version, b string) *storev1.State {
	s := value(b)
	s.Version = version
	return s
}

func set(b string) *holdfastv1.Operation {
	return &holdfastv1.Operation{Operation: &holdfastv1.Operation_Set{Set: &holdfastv1.Set{Value: []byte(b)}}}
}

// trailer carries state out.
func trailer(t *testing.T, o *holdfastv1.StateOut) [2]string {
	t.Helper()
	return [2]string{"holdfast-state-bin", base64.RawStdEncoding.EncodeToString(encoded(t, o))}
}

func TestETag(t *testing.T) {
	change := trailer(t, &holdfastv1.StateOut{Operations: []*holdfastv1.Operation{set("y")}})
	for _, tt := range []struct {
		name   string
		path   string
		state  *storev1.State
		answer [][2]string
		// after is the state after the commit, where there is one.
		after *storev1.State
		want  string
	}{
		{"a read", "/a.S/Read", at("1z", "x"), nil, nil, `"1z"`},
		{"a read of nothing", "/a.S/Read", &storev1.State{}, nil, nil, ""},
		{"nothing changed", "/a.S/Write", at("1z", "x"), nil, nil, `"1z"`},
		{"a change", "/a.S/Write", at("1z", "x"), [][2]string{change}, at("20", "y"), `"20"`},
		{"the first change", "/a.S/Write", &storev1.State{}, [][2]string{change}, at("20", "y"), `"20"`},
		{"a delete", "/a.S/Write", at("1z", "x"), [][2]string{change}, &storev1.State{}, ""},
		{"a refusal", "/a.S/Write", at("1z", "x"), [][2]string{{"grpc-status", "9"}}, nil, `"mine"`},
	} {
		for _, edge := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, edge %v", tt.name, edge), func(t *testing.T) {
				p := strong(base(edge, true))
				p.Placement.Members = p.Placement.Members[:1]
				h := start(t, p)
				h.open(tt.path, frame(request("k")))
				if tt.path == "/a.S/Read" {
					h.s.Got(tt.state, nil, nil)
				} else {
					h.s.Begun(&storev1.Begun{Token: "t", State: tt.state}, nil)
				}
				// The service's own etag would not be what if-match is held against.
				h.rep = header{{":status", "200"}, {"content-type", "application/grpc"}, {"etag", `"mine"`}}
				is(t, "headers", h.s.ReplyHeaders(&h.rep, false), filter.Wait)
				h.s.ReplyBody(piece(frame(nil)), false)
				h.trail = header{{"grpc-status", "0"}}
				for _, kv := range tt.answer {
					h.trail.Set(kv[0], kv[1])
				}
				got := h.s.ReplyTrailers(&h.trail)
				is(t, "waits for the commit", got == filter.Wait, tt.after != nil)
				if tt.after != nil {
					h.s.Committed(&storev1.Committed{State: tt.after}, nil)
				}
				is(t, "etag", h.rep.get("etag"), tt.want)
			})
		}
	}
	t.Run("not of an eventual type", func(t *testing.T) {
		h := start(t, base(true, true))
		h.cached = counter(1)
		h.open("/a.S/Write", frame(request("k")), [2]string{"if-match", `"7"`})
		h.rep = header{{":status", "200"}, {"content-type", "application/grpc"}, {"etag", `"mine"`}}
		h.s.ReplyHeaders(&h.rep, false)
		is(t, "etag", h.rep.get("etag"), `"mine"`)
		is(t, "if-match", h.req.get("if-match"), `"7"`)
	})
	t.Run("of another node", func(t *testing.T) {
		h := start(t, strong(base(true, false)))
		h.open("/a.S/Write", frame(request("k")))
		h.upstream = "s2"
		h.rep = header{{":status", "200"}, {"content-type", "application/grpc"}, {"etag", `"1z"`}, {"holdfast-served-by", "n2"}}
		is(t, "headers", h.s.ReplyHeaders(&h.rep, false), filter.Continue)
		is(t, "etag", h.rep.get("etag"), `"1z"`)
	})
}

func TestPrecondition(t *testing.T) {
	const id = "ab000000000000000000000000000000"
	begin, get := "begin T/k "+id+" 30s", "get T/k subscribe=false 10s"
	for _, tt := range []struct {
		path    string
		headers [][2]string
		want    string
	}{
		{"/a.S/Write", [][2]string{{"if-match", `"1z"`}}, begin + ` match="1z"`},
		{"/a.S/Write", [][2]string{{"if-match", "1z"}}, begin + ` match="1z"`},
		{"/a.S/Write", [][2]string{{"if-match", "*"}}, begin + ` match="*"`},
		{"/a.S/Write", [][2]string{{"if-match", `W/"1z"`}}, begin + ` match="W/\"1z\""`},
		{"/a.S/Write", [][2]string{{"if-none-match", "*"}}, begin + " absent"},
		{"/a.S/Read", [][2]string{{"if-match", `"1z"`}}, get + ` match="1z"`},
		{"/a.S/Read", [][2]string{{"if-none-match", `"1z", "20"`}}, get},
		{"/a.S/Write", [][2]string{{"if-match", `""`}}, "reply 400 grpc=3 holdfast-served-by=n1 if-match takes one version, as a reply's etag has it, or *"},
		{"/a.S/Write", [][2]string{{"if-match", `"*"`}}, "reply 400 grpc=3 holdfast-served-by=n1 if-match takes one version, as a reply's etag has it, or *"},
		{"/a.S/Write", [][2]string{{"if-match", `"a", "b"`}}, "reply 400 grpc=3 holdfast-served-by=n1 if-match takes one version, as a reply's etag has it, or *"},
		{"/a.S/Write", [][2]string{{"if-match", `"` + strings.Repeat("1", 65) + `"`}}, "reply 400 grpc=3 holdfast-served-by=n1 if-match takes one version, as a reply's etag has it, or *"},
		{"/a.S/Write", [][2]string{{"if-match", `"a"`}, {"if-match", `"b"`}}, "reply 400 grpc=3 holdfast-served-by=n1 if-match or if-none-match is given twice"},
		{"/a.S/Write", [][2]string{{"if-none-match", `"a"`}}, "reply 400 grpc=3 holdfast-served-by=n1 if-none-match takes * only: the entity does not exist"},
	} {
		h := start(t, strong(base(false, true)))
		h.open(tt.path, frame(request("k")), tt.headers...)
		h.took(tt.want)
	}

	refusal := &filter.StoreError{Code: 9, Message: "the version is 20, not 1z", Outcome: storev1.Outcome_OUTCOME_NOT_APPLIED, Precondition: true}
	match := [2]string{"if-match", `"1z"`}
	t.Run("refused at a serve listener", func(t *testing.T) {
		h := start(t, strong(base(false, true)))
		h.open("/a.S/Write", frame(request("k")), match)
		h.log = nil
		h.s.Begun(nil, refusal)
		h.took("reply 412 grpc=10 holdfast-served-by=n1 holdfast-precondition=failed the version is 20, not 1z")
	})
	t.Run("refused to a read", func(t *testing.T) {
		h := start(t, strong(base(false, true)))
		h.open("/a.S/Read", frame(request("k")), match)
		h.log = nil
		h.s.Got(nil, nil, refusal)
		h.took("reply 412 grpc=10 holdfast-served-by=n1 holdfast-precondition=failed the version is 20, not 1z")
	})
	one := strong(base(true, true))
	one.Placement.Members = one.Placement.Members[:1]
	for _, rest := range []bool{true, false} {
		var more [][2]string
		grpc, body := "10", "the version is 20, not 1z"
		if rest {
			more = [][2]string{{"x-envoy-original-method", "PUT"}}
			grpc, body = "", `{"code":10,"message":"the version is 20, not 1z","details":[]}`
		}
		t.Run(fmt.Sprintf("refused where it entered, REST %v", rest), func(t *testing.T) {
			h := start(t, one)
			h.open("/a.S/Write", frame(request("k")), append(more, match)...)
			h.log = nil
			h.s.Begun(nil, refusal)
			h.took("reply 412 grpc=" + grpc + "  " + body)
		})
	}
	// The edge in front of another node's serve listener.
	edge := func(rest bool, upstream string) *host {
		h := start(t, strong(base(true, false)))
		more := [][2]string{match}
		if rest {
			more = append(more, [2]string{"x-envoy-original-method", "PUT"})
		}
		h.open("/a.S/Write", frame(request("k")), more...)
		h.log, h.upstream = nil, upstream
		h.rep = header{
			{":status", "200"},
			{"content-type", "application/grpc"},
			{"grpc-status", "10"},
			{"grpc-message", "the version is 20%2C not 1z"},
			{"holdfast-served-by", "n2"},
			{"holdfast-precondition", "failed"},
		}
		return h
	}
	t.Run("refused by another node, gRPC", func(t *testing.T) {
		h := edge(false, "s2")
		is(t, "headers", h.s.ReplyHeaders(&h.rep, true), filter.Continue)
		is(t, "ours", h.rep.ours(), "")
		h.took()
	})
	t.Run("refused by another node, REST", func(t *testing.T) {
		h := edge(true, "s2")
		is(t, "headers", h.s.ReplyHeaders(&h.rep, true), filter.Replied)
		h.took(`reply 412 grpc=  {"code":10,"message":"the version is 20, not 1z","details":[]}`)
	})
	t.Run("an outsider's word", func(t *testing.T) {
		h := start(t, strong(base(true, true)))
		key := keyWith(t, "123")
		h.open("/a.S/Write", frame(request(key)), [2]string{"x-envoy-original-method", "PUT"}, [2]string{"holdfast-precondition", "failed"})
		is(t, "stripped", h.req.get("holdfast-precondition"), "")
		h.s.Begun(&storev1.Begun{Token: "t", State: at("1z", "x")}, nil)
		h.log = nil
		h.rep = header{{":status", "200"}, {"content-type", "application/grpc"}, {"grpc-status", "10"}, {"holdfast-precondition", "failed"}}
		is(t, "headers", h.s.ReplyHeaders(&h.rep, true), filter.Continue)
		is(t, "ours", h.rep.ours(), "")
		h.took("abort T/" + key + " t")
	})
	t.Run("moved, with a precondition", func(t *testing.T) {
		h := start(t, strong(base(false, true)))
		h.open("/a.S/Write", frame(request("k")), match)
		h.log = nil
		h.s.Begun(nil, &filter.StoreError{Code: 10, Message: "moved", Outcome: storev1.Outcome_OUTCOME_NOT_APPLIED})
		h.took("reply 409 grpc=10 holdfast-outcome=not-applied holdfast-served-by=n1 moved")
	})
	t.Run("refused for another reason", func(t *testing.T) {
		h := start(t, strong(base(false, true)))
		h.open("/a.S/Write", frame(request("k")), match)
		h.log = nil
		h.s.Begun(nil, &filter.StoreError{Code: 9, Message: "written with another model", Outcome: storev1.Outcome_OUTCOME_NOT_APPLIED})
		h.took("reply 400 grpc=9 holdfast-served-by=n1 written with another model")
	})
	t.Run("applied, and the answer lost", func(t *testing.T) {
		h := start(t, strong(base(false, true)))
		h.open("/a.S/Write", frame(request("k")))
		h.s.Begun(&storev1.Begun{Token: "t", State: at("1z", "x")}, nil)
		h.answer(frame(nil), trailer(t, &holdfastv1.StateOut{Operations: []*holdfastv1.Operation{set("y")}}))
		h.log = nil
		h.s.Committed(nil, &filter.StoreError{Code: 13, Message: "too large an answer", Outcome: storev1.Outcome_OUTCOME_APPLIED})
		h.took("reply 409 grpc=6 holdfast-outcome=applied holdfast-served-by=n1 the change was committed, and its reply was lost: too large an answer")
		is(t, "commits", h.counts[filter.CountCommits], 1)
	})
	t.Run("applied before", func(t *testing.T) {
		h := start(t, strong(base(false, true)))
		h.open("/a.S/Write", frame(request("k")), match)
		h.log = nil
		h.s.Begun(&storev1.Begun{AlreadyApplied: true}, nil)
		h.took("reply 409 grpc=6 holdfast-outcome=applied holdfast-served-by=n1 this request was applied before and its reply was lost; it was not run again")
	})
}

func TestSeveralEntities(t *testing.T) {
	const id = "ab000000000000000000000000000000"
	msg := request("k", append(field(2, []byte("m")), field(2, []byte("n"))...)...)
	begun := &storev1.Begun{Token: "t", State: at("1", "x"), Others: []*storev1.State{at("2", "y"), {}}}
	changes := &holdfastv1.StateOut{
		Operations: []*holdfastv1.Operation{set("a")},
		Others:     []*holdfastv1.EntityOut{{Key: "n", Operations: []*holdfastv1.Operation{set("b")}}, {Key: "m"}},
	}
	given := &holdfastv1.StateIn{
		Type: "T", Key: "k", Exists: true, Version: "1", Value: at("", "x").Value,
		Others: []*holdfastv1.StateIn{
			{Type: "T", Key: "m", Exists: true, Version: "2", Value: at("", "y").Value},
			{Type: "T", Key: "n"},
		},
	}
	wrote := func(t *testing.T, h *host) {
		t.Helper()
		h.took("commit T/k token=t ops=1 10s")
		want := &storev1.Commit{
			Entity: &storev1.Entity{Type: "T", Key: "k"}, RequestId: id, Token: "t", Operations: changes.Operations, Others: changes.Others, TimeoutMs: 9900,
		}
		if !proto.Equal(h.commit, want) {
			t.Fatalf("committed %v, want %v", h.commit, want)
		}
		h.s.Committed(&storev1.Committed{State: at("3", "a")}, nil)
		h.took("continue reply")
		is(t, "etag", h.rep.get("etag"), `"3"`)
	}
	t.Run("metadata", func(t *testing.T) {
		h := start(t, several(base(false, true)))
		h.open("/a.S/Write", frame(msg))
		h.took("begin T/k " + id + ` 30s others=["m" "n"]`)
		h.s.Begun(begun, nil)
		h.took("continue request")
		if got := h.gave(); !proto.Equal(got, given) {
			t.Fatalf("gave %v, want %v", got, given)
		}
		is(t, "reply", h.answer(frame(nil), trailer(t, changes)), filter.Wait)
		wrote(t, h)
	})
	t.Run("JSON", func(t *testing.T) {
		h := start(t, carriage(several(base(false, true)), configv1.Carriage_CARRIAGE_METADATA_JSON))
		h.open("/a.S/Write", frame(msg))
		h.s.Begun(begun, nil)
		h.log = nil
		got := strings.ReplaceAll(h.req.get("holdfast-state"), " ", "")
		is(t, "state in", got, `{"type":"T","key":"k","exists":true,"version":"1","value":{"value":"eA=="},"others":[`+
			`{"type":"T","key":"m","exists":true,"version":"2","value":{"value":"eQ=="}},{"type":"T","key":"n"}]}`)
		is(t, "reply", h.answer(frame(nil), [2]string{
			"holdfast-state",
			`{"operations":[{"set":{"value":"YQ=="}}],"others":[{"key":"n","operations":[{"set":{"value":"Yg=="}}]},{"key":"m"}]}`,
		}), filter.Wait)
		wrote(t, h)
	})
	t.Run("field", func(t *testing.T) {
		h := start(t, carriage(several(base(false, true)), configv1.Carriage_CARRIAGE_FIELD))
		h.open("/a.S/Write", frame(msg))
		h.s.Begun(begun, nil)
		h.log = nil
		is(t, "request", string(h.reqBody), string(frame(append(msg[:len(msg):len(msg)], field(10, encoded(t, given))...))))
		is(t, "reply", h.answer(frame(field(11, encoded(t, changes)))), filter.Wait)
		wrote(t, h)
	})
	t.Run("a read", func(t *testing.T) {
		h := start(t, several(base(false, true)))
		h.open("/a.S/Read", frame(msg))
		h.took(`get T/k subscribe=false 10s others=["m" "n"]`)
		h.s.Got(begun.State, begun.Others, nil)
		if got := h.gave(); !proto.Equal(got, given) {
			t.Fatalf("gave %v, want %v", got, given)
		}
		is(t, "reply", h.answer(frame(nil), trailer(t, &holdfastv1.StateOut{Others: changes.Others})), filter.Replied)
		is(t, "code", h.reply.Status, 500)
	})
	t.Run("only another is changed", func(t *testing.T) {
		h := start(t, several(base(false, true)))
		h.open("/a.S/Write", frame(msg))
		h.s.Begun(begun, nil)
		h.log = nil
		h.answer(frame(nil), trailer(t, &holdfastv1.StateOut{Others: changes.Others}))
		h.took("commit T/k token=t ops=0 10s")
	})
	t.Run("nothing is changed", func(t *testing.T) {
		h := start(t, several(base(false, true)))
		h.open("/a.S/Write", frame(msg))
		h.s.Begun(begun, nil)
		h.log = nil
		is(t, "reply", h.answer(frame(nil), trailer(t, &holdfastv1.StateOut{Others: []*holdfastv1.EntityOut{{Key: "m"}}})), filter.Continue)
		h.took("abort T/k t")
	})
	t.Run("the service changes what nobody named", func(t *testing.T) {
		for _, key := range []string{"o", "k", ""} {
			h := start(t, several(base(false, true)))
			h.open("/a.S/Write", frame(msg))
			h.s.Begun(begun, nil)
			h.log = nil
			h.answer(frame(nil), trailer(t, &holdfastv1.StateOut{Others: []*holdfastv1.EntityOut{{Key: key, Operations: []*holdfastv1.Operation{set("x")}}}}))
			h.took("abort T/k t", fmt.Sprintf("reply 500 grpc=13 holdfast-served-by=n1 the service changed the entity %q, which the request does not name", key))
		}
	})
	t.Run("the store forgets one", func(t *testing.T) {
		h := start(t, several(base(false, true)))
		h.open("/a.S/Write", frame(msg))
		h.log = nil
		h.s.Begun(&storev1.Begun{Token: "t", State: at("1", "x"), Others: begun.Others[:1]}, nil)
		h.took("abort T/k t", "reply 500 grpc=13 holdfast-served-by=n1 the store gave 1 further states, not 2")
	})
	t.Run("too large for metadata", func(t *testing.T) {
		h := start(t, several(base(false, true)))
		h.open("/a.S/Write", frame(msg))
		h.log = nil
		large := at("1", strings.Repeat("x", 3000))
		h.s.Begun(&storev1.Begun{Token: "t", State: large, Others: []*storev1.State{large, large}}, nil)
		is(t, "status", h.reply.Status, 429)
		if !strings.Contains(string(h.reply.Body), "together over the 7168 bytes") {
			t.Errorf("got %s", h.reply.Body)
		}
	})
	t.Run("only routed", func(t *testing.T) {
		h := start(t, mode(several(base(false, true)), configv1.Mode_MODE_ROUTE))
		is(t, "request", h.open("/a.S/Write", frame(request("k", field(2, []byte("k"))...))), filter.Continue)
		h.took()
	})
	for _, tt := range []struct{ name, extra, want string }{
		{"the entity itself", string(field(2, []byte("k"))), "reply 400 grpc=3 holdfast-served-by=n1 the request names an entity twice, and each of them is one part of the change"},
		{"an empty key", string(field(2, nil)), "reply 400 grpc=3 holdfast-served-by=n1 the key of a further entity is malformed or empty"},
		{"no text", string(field(2, []byte("\xff"))), "reply 400 grpc=3 holdfast-served-by=n1 the key of a further entity is malformed or empty"},
		{"too many", func() (out string) {
			for i := range 128 {
				out += string(field(2, []byte(fmt.Sprint(i))))
			}
			return out
		}(), "reply 429 grpc=8 holdfast-served-by=n1 the request names more than 127 further entities"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := start(t, several(base(false, true)))
			h.open("/a.S/Write", frame(request("k", []byte(tt.extra)...)))
			h.took(tt.want)
		})
	}
}

func TestEventSourced(t *testing.T) {
	events := func(c *configv1.FilterConfig, k configv1.Carriage) *configv1.FilterConfig {
		carriage(strong(c), k).Types[0].Model = configv1.Model_MODEL_EVENT_SOURCED
		return c
	}
	v := &holdfastv1.Value{Kind: &holdfastv1.Value_EventSourced{EventSourced: &holdfastv1.EventSourcedValue{
		Snapshot: []byte("s"), SnapshotSequence: 4, Events: []*holdfastv1.Event{{Sequence: 5, Type: "t.Added", Payload: []byte("p")}}, Sequence: 5, SnapshotWanted: true,
	}}}
	state := &storev1.State{Exists: true, Version: "1z", Value: v}
	expected := uint64(5)
	ops := []*holdfastv1.Operation{
		{Operation: &holdfastv1.Operation_Append{Append: &holdfastv1.AppendEvents{Events: []*holdfastv1.Event{{Type: "t.Taken", Payload: []byte("q")}}, ExpectedSequence: &expected}}},
		{Operation: &holdfastv1.Operation_Snapshot{Snapshot: &holdfastv1.SaveSnapshot{Snapshot: []byte("r")}}},
	}

	h := start(t, events(base(false, true), configv1.Carriage_CARRIAGE_METADATA_JSON))
	h.open("/a.S/Write", frame(request("k")))
	h.s.Begun(&storev1.Begun{Token: "t", State: state}, nil)
	is(t, "JSON", strings.ReplaceAll(h.req.get("holdfast-state"), " ", ""), `{"type":"T","key":"k","exists":true,"version":"1z","value":{"eventSourced":`+
		`{"snapshot":"cw==","snapshotSequence":"4","events":[{"sequence":"5","type":"t.Added","payload":"cA=="}],"sequence":"5","snapshotWanted":true}}}`)
	is(t, "reply", h.answer(frame(nil), [2]string{
		"holdfast-state",
		`{"operations":[{"append":{"events":[{"type":"t.Taken","payload":"cQ=="}],"expectedSequence":5}},{"snapshot":{"snapshot":"cg=="}}]}`,
	}), filter.Wait)
	h.committed(t, ops)

	h = start(t, events(base(false, true), configv1.Carriage_CARRIAGE_FIELD))
	h.open("/a.S/Write", frame(request("k")))
	h.s.Begun(&storev1.Begun{Token: "t", State: state}, nil)
	in := encoded(t, &holdfastv1.StateIn{Type: "T", Key: "k", Exists: true, Version: "1z", Value: v})
	is(t, "field", string(h.reqBody), string(frame(append(request("k"), field(10, in)...))))
	is(t, "reply", h.answer(frame(field(11, encoded(t, &holdfastv1.StateOut{Operations: ops})))), filter.Wait)
	h.committed(t, ops)
	h.log = nil
	h.s.Committed(nil, &filter.StoreError{Code: 10, Message: "the last event is 6, not 5", Outcome: storev1.Outcome_OUTCOME_NOT_APPLIED})
	h.took("abort T/k t", "reply 409 grpc=10 holdfast-served-by=n1 the last event is 6, not 5")
}

// A value as large as metadata may carry is carried, one byte more is not.
func TestLargestMetadataValue(t *testing.T) {
	for n, status := range map[int]int{filter.MaxMetadataValue: 0, filter.MaxMetadataValue + 1: 429} {
		for _, k := range []configv1.Carriage{configv1.Carriage_CARRIAGE_METADATA_PROTO, configv1.Carriage_CARRIAGE_METADATA_JSON} {
			h := start(t, carriage(strong(base(false, true)), k))
			h.open("/a.S/Read", frame(request(strings.Repeat("k", 100))))
			h.s.Got(at("1z", strings.Repeat("x", n)), nil, nil)
			if got := h.reply; (got == nil) != (status == 0) || got != nil && got.Status != status {
				t.Errorf("%d bytes, %v: got %v", n, k, got)
			}
		}
	}
}

func TestStrongConfig(t *testing.T) {
	for name, edit := range map[string]func(*configv1.FilterConfig){
		"eventual events":  func(c *configv1.FilterConfig) { c.Types[0].Model = configv1.Model_MODEL_EVENT_SOURCED },
		"a strong counter": func(c *configv1.FilterConfig) { c.Types[0].Consistency = configv1.Consistency_CONSISTENCY_STRONG },
		"several eventual ones": func(c *configv1.FilterConfig) {
			several(c).Types[0].Consistency = configv1.Consistency_CONSISTENCY_EVENTUAL
		},
		"several in a watch": func(c *configv1.FilterConfig) { several(c).Services[0].Methods[0].Watch = true },
		"several of a composite key": func(c *configv1.FilterConfig) {
			m := several(c).Services[0].Methods[0]
			m.Key.Fields = append(m.Key.Fields, m.Key.Fields[0])
		},
		"a double as another key": func(c *configv1.FilterConfig) { several(c).Services[0].Methods[0].OtherKeys[0].Steps[0].Type = 1 },
		"several in an own message": func(c *configv1.FilterConfig) {
			carriage(several(c), configv1.Carriage_CARRIAGE_FIELD).Services[0].Methods[0].StateInWrapped = false
		},
		"several from an own message": func(c *configv1.FilterConfig) {
			carriage(several(c), configv1.Carriage_CARRIAGE_FIELD).Services[0].Methods[0].StateOutWrapped = false
		},
		"events in an own message": func(c *configv1.FilterConfig) {
			carriage(strong(c), configv1.Carriage_CARRIAGE_FIELD).Types[0].Model = configv1.Model_MODEL_EVENT_SOURCED
			c.Services[0].Methods[0].StateInWrapped = false
		},
	} {
		c := base(true, true)
		edit(c)
		if _, err := filter.NewConfig(c); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}
