package filter_test

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/holdfast-mesh/holdfast/filter"
	"github.com/holdfast-mesh/holdfast/filter/grpcframe"
	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
)

// header is a header map that keeps its order.
type header [][2]string

func (h *header) All(yield func(name, value string)) {
	for _, kv := range *h {
		yield(kv[0], kv[1])
	}
}

func (h *header) Set(name, value string) {
	h.Remove(name)
	*h = append(*h, [2]string{name, value})
}

func (h *header) Remove(name string) {
	*h = slices.DeleteFunc(*h, func(kv [2]string) bool { return kv[0] == name })
}

func (h *header) get(name string) string {
	for _, kv := range *h {
		if kv[0] == name {
			return kv[1]
		}
	}
	return ""
}

// ours lists the names in h that begin with our prefix.
func (h *header) ours() string {
	var out []string
	for _, kv := range *h {
		if strings.HasPrefix(kv[0], "holdfast-") {
			out = append(out, kv[0]+"="+kv[1])
		}
	}
	return strings.Join(out, " ")
}

type piece []byte

func (p piece) AppendTo(dst []byte) []byte { return append(dst, p...) }

// host records what the machine asks for, one line each.
type host struct {
	t               *testing.T
	log             []string
	s               *filter.Stream
	req, rep, trail header
	reqBody         []byte
	repBody         []byte
	storeUp         bool
	cached          *storev1.State
	upstream        string
	details         string
	caller          string
	turn            uint32
	now             time.Time
	reply           *filter.Reply
	begin           *storev1.Begin
	commit          *storev1.Commit
	call            uint64
	noCall          bool
	callHeaders     header
	callBody        []byte
	sent            []byte
	counts          map[filter.Counter]int
}

func (h *host) say(format string, args ...any) { h.log = append(h.log, fmt.Sprintf(format, args...)) }

// took checks and forgets what was asked for since the last call.
func (h *host) took(want ...string) {
	h.t.Helper()
	if got, want := strings.Join(h.log, "\n"), strings.Join(want, "\n"); got != want {
		h.t.Fatalf("effects:\n%s\nwant:\n%s", got, want)
	}
	h.log = nil
}

func (h *host) RequestHeaders() filter.Headers { return &h.req }
func (h *host) ReplyHeaders() filter.Headers   { return &h.rep }
func (h *host) ReplyTrailers() filter.Headers  { return &h.trail }
func (h *host) SetRequestBody(b []byte)        { h.reqBody = bytes.Clone(b) }
func (h *host) SetReplyBody(b []byte)          { h.repBody = bytes.Clone(b) }
func (h *host) SetHosts(hosts string)          { h.say("hosts %s", hosts) }
func (h *host) ContinueRequest()               { h.say("continue request") }
func (h *host) ContinueReply()                 { h.say("continue reply") }
func (h *host) Caller() string                 { return h.caller }
func (h *host) Upstream() string               { return h.upstream }
func (h *host) ReplyDetails() string           { return h.details }
func (h *host) SetDeadline(d time.Duration)    { h.say("deadline %v", d) }
func (h *host) Now() time.Time                 { return h.now }
func (h *host) Random() [16]byte               { return [16]byte{0xab} }
func (h *host) Rotate() uint32                 { return h.turn }
func (h *host) Count(c filter.Counter)         { h.counts[c]++ }

func (h *host) LocalReply(r *filter.Reply) {
	h.reply = r
	hs := header(r.Headers)
	h.say("reply %d grpc=%s %s %s", r.Status, hs.get("grpc-status"), hs.ours(), r.Body)
}

func (h *host) StoreUp() bool { return h.storeUp }
func (h *host) Cached(string, string) (*storev1.State, bool) {
	return h.cached, h.cached != nil
}

func (h *host) Get(req *storev1.Get, timeout time.Duration) {
	h.say("get %s/%s subscribe=%v %v%s", req.Entity.Type, req.Entity.Key, req.Subscribe, timeout, wanted(req.Others, req.IfMatch, false))
}

func (h *host) Begin(req *storev1.Begin, timeout time.Duration) {
	h.begin = req
	h.say("begin %s/%s %s %v%s", req.Entity.Type, req.Entity.Key, req.RequestId, timeout, wanted(req.Others, req.IfMatch, req.IfNoneMatch))
}

// wanted says what else was asked for.
func wanted(others []string, match string, absent bool) (out string) {
	if len(others) > 0 {
		out = fmt.Sprintf(" others=%q", others)
	}
	if match != "" {
		out += fmt.Sprintf(" match=%q", match)
	}
	if absent {
		out += " absent"
	}
	return out
}

func (h *host) Commit(req *storev1.Commit, timeout time.Duration) {
	h.commit = req
	h.say("commit %s/%s token=%s ops=%d %v", req.Entity.Type, req.Entity.Key, req.Token, len(req.Operations), timeout)
}
func (h *host) Abort(typ, key, token string) { h.say("abort %s/%s %s", typ, key, token) }
func (h *host) Watch(typ, key string)        { h.say("watch %s/%s", typ, key) }
func (h *host) Unwatch()                     { h.say("unwatch") }

func (h *host) StartCall(cluster string, headers [][2]string, b []byte) (uint64, bool) {
	if h.noCall {
		return 0, false
	}
	h.call++
	h.callHeaders, h.callBody = headers, bytes.Clone(b)
	h.say("call %d %s", h.call, cluster)
	return h.call, true
}
func (h *host) ResetCall(id uint64) { h.say("reset call %d", id) }
func (h *host) SendHeaders(headers [][2]string) {
	hs := header(headers)
	h.say("send headers %s %s", hs.get(":status"), hs.ours())
}
func (h *host) SendData(b []byte) { h.sent = append(h.sent, b...) }
func (h *host) SendTrailers(t [][2]string) {
	hs := header(t)
	h.say("send trailers %s %s", hs.get("grpc-status"), hs.get("grpc-message"))
}

const requestID = "ab000000000000000000000000000000"

// base is a configuration of node n1 of three, one service, one eventual counter.
func base(edge, serve bool) *configv1.FilterConfig {
	key := func() *configv1.KeySource {
		return &configv1.KeySource{Fields: []*configv1.FieldPath{{Steps: []*configv1.FieldStep{{Number: 1, Type: 9, ImplicitPresence: true}}}}}
	}
	c := &configv1.FilterConfig{
		Edge: edge, Serve: serve,
		Types: []*configv1.EntityType{{
			Type: "T", Model: configv1.Model_MODEL_GCOUNTER, Consistency: configv1.Consistency_CONSISTENCY_EVENTUAL,
			Affinity: configv1.Affinity_AFFINITY_LOCAL, MaxStateBytes: 4096,
		}},
		Services: []*configv1.Service{{
			Name: "a.S", Mode: configv1.Mode_MODE_COMMIT, EntityType: "T", Carriage: configv1.Carriage_CARRIAGE_METADATA_PROTO,
			Methods: []*configv1.Method{
				{Path: "/a.S/Write", Key: key(), StateInField: 10, StateOutField: 11, StateInWrapped: true, StateOutWrapped: true},
				{Path: "/a.S/Read", Key: key(), ReadOnly: true, StateInField: 10, StateOutField: 11, StateInWrapped: true, StateOutWrapped: true},
				{Path: "/a.S/Watch", Key: key(), ReadOnly: true, Watch: true, StateInField: 10, StateOutField: 11, StateInWrapped: true, StateOutWrapped: true},
				{Path: "/a.S/ByHeader", Key: &configv1.KeySource{Header: "x-tenant"}},
			},
		}},
		Placement: &configv1.Placement{Epoch: 1, Seed: 1, Members: []*configv1.Member{
			{Name: "n1", Weight: 1, ServeAddress: "s1"}, {Name: "n2", Weight: 1, ServeAddress: "s2"}, {Name: "n3", Weight: 1, ServeAddress: "s3"},
		}},
	}
	if serve {
		c.Node, c.StoreSocket = "n1", "/store"
		c.Services[0].LocalCluster, c.Services[0].LocalAddresses = "local", []string{"l1"}
	}
	return c
}

func strong(c *configv1.FilterConfig) *configv1.FilterConfig {
	c.Types[0].Model, c.Types[0].Consistency = configv1.Model_MODEL_VALUE, configv1.Consistency_CONSISTENCY_STRONG
	return c
}

func carriage(c *configv1.FilterConfig, k configv1.Carriage) *configv1.FilterConfig {
	c.Services[0].Carriage = k
	return c
}

func mode(c *configv1.FilterConfig, m configv1.Mode) *configv1.FilterConfig {
	c.Services[0].Mode = m
	return c
}

// configs keeps parsed configurations: computing a placement is most of a short test's time.
var configs sync.Map

// start is a stream of the configuration, with its store up.
func start(t *testing.T, p *configv1.FilterConfig) *host {
	t.Helper()
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	parsed, ok := configs.Load(string(raw))
	if !ok {
		if parsed, err = filter.ParseConfig(raw); err != nil {
			t.Fatalf("ParseConfig: %v", err)
		}
		configs.Store(string(raw), parsed)
	}
	cfg := parsed.(*filter.Config)
	h := &host{t: t, storeUp: true, now: time.Unix(1000, 0), counts: map[filter.Counter]int{}, upstream: "l1", details: "via_upstream"}
	h.s = filter.NewStream(cfg, h)
	return h
}

// request is a message with the key in field 1 and extra bytes.
func request(key string, extra ...byte) []byte {
	b := protowire.AppendTag(nil, 1, protowire.BytesType)
	return append(protowire.AppendString(b, key), extra...)
}

func field(n protowire.Number, payload []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, n, protowire.BytesType), payload)
}

func frame(msg []byte) []byte { return grpcframe.Append(nil, msg) }

func zipped(msg []byte) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = w.Write(msg)
	_ = w.Close()
	out := grpcframe.Append(nil, b.Bytes())
	out[0] = 1
	return out
}

// open sends the request headers and the whole body.
func (h *host) open(path string, msg []byte, extra ...[2]string) filter.Action {
	h.t.Helper()
	h.req = header{{":path", path}, {":method", "POST"}, {":authority", "a"}, {"content-type", "application/grpc"}}
	h.req = append(h.req, extra...)
	if a := h.s.RequestHeaders(&h.req, false); a != filter.Wait {
		return a
	}
	return h.s.RequestBody(piece(msg), true)
}

// answer sends an OK reply with these trailers.
func (h *host) answer(msg []byte, trailers ...[2]string) filter.Action {
	h.t.Helper()
	h.rep = header{{":status", "200"}, {"content-type", "application/grpc"}}
	a := h.s.ReplyHeaders(&h.rep, false)
	b := h.s.ReplyBody(piece(msg), false)
	if a != b {
		h.t.Fatalf("headers: action %d, body: %d", a, b)
	}
	h.trail = append(header{{"grpc-status", "0"}}, trailers...)
	return h.s.ReplyTrailers(&h.trail)
}

func stateOut(t *testing.T, by uint64) *holdfastv1.StateOut {
	t.Helper()
	return &holdfastv1.StateOut{Operations: []*holdfastv1.Operation{{Operation: &holdfastv1.Operation_Increment{Increment: &holdfastv1.Increment{By: by}}}}}
}

func encoded(t *testing.T, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func out(t *testing.T, by uint64) [2]string {
	return [2]string{"holdfast-state-bin", base64.RawStdEncoding.EncodeToString(encoded(t, stateOut(t, by)))}
}

func counter(n uint64) *storev1.State {
	return &storev1.State{Exists: true, Version: fmt.Sprint(n), Value: &holdfastv1.Value{Kind: &holdfastv1.Value_Gcounter{Gcounter: n}}}
}

func value(b string) *storev1.State {
	return &storev1.State{Exists: true, Version: b, Value: &holdfastv1.Value{Kind: &holdfastv1.Value_Value{Value: []byte(b)}}}
}

// gave is the state in that the service gets as metadata.
func (h *host) gave() *holdfastv1.StateIn {
	h.t.Helper()
	b, err := base64.RawStdEncoding.DecodeString(h.req.get("holdfast-state-bin"))
	if err != nil || len(b) == 0 {
		h.t.Fatalf("state header %q: %v", h.req.get("holdfast-state-bin"), err)
	}
	in := &holdfastv1.StateIn{}
	if err := proto.Unmarshal(b, in); err != nil {
		h.t.Fatal(err)
	}
	return in
}

func is(t *testing.T, what string, got, want any) {
	t.Helper()
	if got != want {
		t.Fatalf("%s: got %v, want %v", what, got, want)
	}
}
