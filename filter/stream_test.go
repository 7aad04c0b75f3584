package filter_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/holdfast-mesh/holdfast/filter"
	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
)

func notApplied(code int32) *filter.StoreError {
	return &filter.StoreError{Code: code, Message: "no", Outcome: storev1.Outcome_OUTCOME_NOT_APPLIED}
}

func TestCachedWriteInOnePass(t *testing.T) {
	h := start(t, base(true, true))
	h.cached = counter(3)
	is(t, "request", h.open("/a.S/Write", frame(request("k"))), filter.Continue)
	h.took("hosts l1,s3,s2")
	in := h.gave()
	is(t, "type", in.Type, "T")
	is(t, "key", in.Key, "k")
	is(t, "value", in.Value.GetGcounter(), uint64(3))
	is(t, "request id", h.req.get("holdfast-request-id"), requestID)
	if h.reqBody != nil {
		t.Fatal("metadata carriage rewrote the body")
	}
	is(t, "reply", h.answer(frame(nil), out(t, 2)), filter.Wait)
	h.took("commit T/k token= ops=1 10s")
	is(t, "commit id", h.commit.RequestId, requestID)
	is(t, "trailers", h.trail.ours(), "")
	h.s.Committed(&storev1.Committed{}, nil)
	h.took("continue reply")
	h.s.Closed()
	h.took()
	is(t, "commits", h.counts[filter.CountCommits], 1)
	is(t, "hits", h.counts[filter.CountStateHits], 1)
}

func TestMissAsksTheStore(t *testing.T) {
	h := start(t, base(false, true))
	is(t, "request", h.open("/a.S/Read", frame(request("k")), [2]string{"holdfast-request-id", "r1"}), filter.Wait)
	h.took("get T/k subscribe=true 10s")
	is(t, "more body", h.s.RequestBody(piece(nil), true), filter.Wait)
	h.s.Got(counter(1), nil, nil)
	h.took("continue request")
	is(t, "value", h.gave().Value.GetGcounter(), uint64(1))
	is(t, "reply", h.answer(frame(nil)), filter.Continue)
	is(t, "reply headers", h.rep.ours(), "holdfast-served-by=n1")
	h.took()
}

func TestStrongTurn(t *testing.T) {
	// The key's slot has n1 first, so that the edge serves it too.
	key := keyWith(t, "123")
	begun := func(t *testing.T, edge bool) *host {
		h := start(t, strong(base(edge, true)))
		is(t, "request", h.open("/a.S/Write", frame(request(key)), [2]string{"grpc-timeout", "2S"}), filter.Wait)
		want := []string{"deadline 2s", "begin T/" + key + " " + requestID + " 2s"}
		if edge {
			want = slices.Insert(want, 1, "hosts l1,s2,s3")
		}
		h.took(want...)
		h.s.Begun(&storev1.Begun{Token: "t", State: value("v")}, nil)
		h.took("continue request")
		return h
	}
	t.Run("commit", func(t *testing.T) {
		h := begun(t, true)
		is(t, "reply", h.answer(frame(nil), out(t, 1)), filter.Wait)
		h.took("commit T/" + key + " token=t ops=1 2s")
		h.s.Committed(&storev1.Committed{}, nil)
		h.s.Closed()
		h.took("continue reply")
	})
	t.Run("no operations", func(t *testing.T) {
		h := begun(t, false)
		is(t, "reply", h.answer(frame(nil)), filter.Continue)
		h.took("abort T/" + key + " t")
	})
	t.Run("service fails", func(t *testing.T) {
		h := begun(t, false)
		h.rep = header{{":status", "200"}, {"content-type", "application/grpc"}, {"grpc-status", "9"}}
		is(t, "reply", h.s.ReplyHeaders(&h.rep, true), filter.Continue)
		h.took("abort T/" + key + " t")
		h.s.Closed()
		h.took()
	})
	t.Run("service fails in trailers, with state out", func(t *testing.T) {
		h := begun(t, false)
		h.rep = header{{":status", "200"}, {"content-type", "application/grpc"}}
		h.s.ReplyHeaders(&h.rep, false)
		h.trail = header{{"grpc-status", "3"}, out(t, 1)}
		is(t, "reply", h.s.ReplyTrailers(&h.trail), filter.Continue)
		is(t, "trailers", h.trail.ours(), "")
		h.took("abort T/" + key + " t")
	})
	t.Run("caller leaves while the service runs", func(t *testing.T) {
		h := begun(t, false)
		h.s.Closed()
		h.took("abort T/" + key + " t")
	})
	t.Run("caller leaves while it commits", func(t *testing.T) {
		h := begun(t, false)
		h.answer(frame(nil), out(t, 1))
		h.took("commit T/" + key + " token=t ops=1 2s")
		h.s.Closed()
		h.took()
	})
	t.Run("deadline while the service runs", func(t *testing.T) {
		h := begun(t, false)
		h.s.Deadline()
		h.took("abort T/"+key+" t", "reply 504 grpc=4 holdfast-served-by=n1 deadline exceeded")
		h.s.Closed()
		h.took()
	})
	t.Run("deadline while it commits", func(t *testing.T) {
		h := begun(t, false)
		h.answer(frame(nil), out(t, 1))
		h.log = nil
		h.s.Deadline()
		h.took("reply 504 grpc=4 holdfast-outcome=unknown holdfast-served-by=n1 deadline exceeded while the change was being committed")
		h.s.Committed(&storev1.Committed{}, nil)
		h.s.Closed()
		h.took()
	})
	t.Run("retried at another node", func(t *testing.T) {
		h := begun(t, true)
		h.upstream = "s2"
		h.rep = header{{":status", "200"}, {"content-type", "application/grpc"}, {"holdfast-served-by", "n2"}}
		is(t, "headers", h.s.ReplyHeaders(&h.rep, false), filter.Continue)
		h.took("abort T/" + key + " t")
		is(t, "headers", h.rep.ours(), "")
		h.trail = header{{"grpc-status", "0"}, out(t, 1)}
		is(t, "trailers", h.s.ReplyTrailers(&h.trail), filter.Continue)
		is(t, "trailers", h.trail.ours(), "")
		h.took()
	})
}

func TestBegunTooLate(t *testing.T) {
	h := start(t, strong(base(false, true)))
	h.open("/a.S/Write", frame(request("k")), [2]string{"grpc-timeout", "50m"})
	h.log = nil
	h.s.Deadline()
	h.took("reply 504 grpc=4 holdfast-served-by=n1 deadline exceeded")
	h.s.Begun(&storev1.Begun{Token: "t"}, nil)
	h.took("abort T/k t")
}

func TestAlreadyApplied(t *testing.T) {
	h := start(t, strong(base(false, true)))
	h.open("/a.S/Write", frame(request("k")))
	h.log = nil
	h.s.Begun(&storev1.Begun{AlreadyApplied: true}, nil)
	h.took("reply 409 grpc=6 holdfast-outcome=applied holdfast-served-by=n1 this request was applied before and its reply was lost; it was not run again")
}

func TestCommitFails(t *testing.T) {
	for _, tt := range []struct {
		name string
		err  *filter.StoreError
		edge bool
		rest bool
		want string
	}{
		{"not applied", notApplied(14), false, false, "reply 503 grpc=14 holdfast-outcome=not-applied holdfast-served-by=n1 no"},
		{"lost race", notApplied(10), false, false, "reply 409 grpc=10 holdfast-outcome=not-applied holdfast-served-by=n1 no"},
		{"refused", notApplied(9), false, false, "reply 400 grpc=9 holdfast-served-by=n1 no"},
		{"unknown", &filter.StoreError{Code: 14, Message: "gone", Outcome: storev1.Outcome_OUTCOME_UNKNOWN}, false, false, "reply 504 grpc=4 holdfast-outcome=unknown holdfast-served-by=n1 whether the change was committed is unknown: gone"},
		{"not applied, at the caller", notApplied(14), true, false, "reply 503 grpc=14  no"},
		{"lost race, REST", notApplied(10), true, true, `reply 409 grpc=  {"code":10,"message":"no","details":[]}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := start(t, base(tt.edge, true))
			h.cached = counter(1)
			var extra [][2]string
			if tt.rest {
				extra = append(extra, [2]string{"x-envoy-original-method", "POST"})
			}
			h.open("/a.S/Write", frame(request("k")), extra...)
			h.answer(frame(nil), out(t, 1))
			h.log = nil
			h.s.Committed(nil, tt.err)
			h.took(tt.want)
		})
	}
}

func TestFieldCarriage(t *testing.T) {
	for _, gz := range []bool{false, true} {
		h := start(t, carriage(base(false, true), configv1.Carriage_CARRIAGE_FIELD))
		h.cached = counter(5)
		forged := slices.Concat(field(10, []byte("\x20\x01")), request("k"), field(10, []byte("\x0a\x01x")))
		body := frame(forged)
		var extra [][2]string
		if gz {
			body, extra = zipped(forged), append(extra, [2]string{"grpc-encoding", "gzip"})
		}
		h.req = header{{":path", "/a.S/Write"}, {"content-type", "application/grpc"}, {"content-length", "1"}, {"holdfast-state-bin", "forged"}}
		h.req = append(h.req, extra...)
		is(t, "headers", h.s.RequestHeaders(&h.req, false), filter.Wait)
		is(t, "half", h.s.RequestBody(piece(body[:7]), false), filter.Wait)
		is(t, "rest", h.s.RequestBody(piece(body[7:]), true), filter.Continue)
		in := encoded(t, &holdfastv1.StateIn{Type: "T", Key: "k", Exists: true, Version: "5", Value: counter(5).Value})
		if want := frame(append(request("k"), field(10, in)...)); !bytes.Equal(h.reqBody, want) {
			t.Fatalf("request body %q, want %q", h.reqBody, want)
		}
		is(t, "content-length", h.req.get("content-length"), "")
		is(t, "ours", h.req.ours(), "holdfast-request-id="+requestID)

		rep := append([]byte("\x08\x07"), field(11, encoded(t, stateOut(t, 4)))...)
		is(t, "reply", h.answer(frame(rep)), filter.Wait)
		h.took("commit T/k token= ops=1 10s")
		is(t, "by", h.commit.Operations[0].GetIncrement().GetBy(), uint64(4))
		if want := frame([]byte("\x08\x07")); !bytes.Equal(h.repBody, want) {
			t.Fatalf("reply body %q, want %q", h.repBody, want)
		}
	}
}

func TestFieldOfTheUsersOwnType(t *testing.T) {
	p := strong(carriage(base(false, true), configv1.Carriage_CARRIAGE_FIELD))
	for _, m := range p.Services[0].Methods {
		m.StateInWrapped, m.StateOutWrapped = false, false
	}
	h := start(t, p)
	h.open("/a.S/Write", frame(request("k")))
	h.s.Begun(&storev1.Begun{Token: "t", State: value("old")}, nil)
	if want := frame(append(request("k"), field(10, []byte("old"))...)); !bytes.Equal(h.reqBody, want) {
		t.Fatalf("request body %q, want %q", h.reqBody, want)
	}
	h.answer(frame(field(11, []byte("new"))))
	is(t, "set", string(h.commit.Operations[0].GetSet().GetValue()), "new")

	h = start(t, p)
	h.open("/a.S/Write", frame(request("k")))
	h.s.Begun(&storev1.Begun{Token: "t", State: &storev1.State{}}, nil)
	if h.reqBody != nil {
		t.Fatalf("an entity that does not exist was given as %q", h.reqBody)
	}
}

func TestJSONCarriage(t *testing.T) {
	h := start(t, carriage(base(false, true), configv1.Carriage_CARRIAGE_METADATA_JSON))
	h.cached = counter(5)
	h.open("/a.S/Write", frame(request("käse🧀")))
	got := strings.ReplaceAll(h.req.get("holdfast-state"), " ", "")
	is(t, "state", got, `{"type":"T","key":"k\u00e4se\ud83e\uddc0","exists":true,"version":"5","value":{"gcounter":"5"}}`)
	is(t, "reply", h.answer(frame(nil), [2]string{"holdfast-state", `{"operations":[{"increment":{"by":"3"}}]}`}), filter.Wait)
	is(t, "by", h.commit.Operations[0].GetIncrement().GetBy(), uint64(3))
}

func TestRefusals(t *testing.T) {
	big := request("k", bytes.Repeat([]byte{0x10, 1}, filter.MaxMessage/2)...)
	for _, tt := range []struct {
		name string
		p    *configv1.FilterConfig
		path string
		body []byte
		head [][2]string
		want string
	}{
		{"no key", base(true, true), "/a.S/Write", frame(request("")), nil, "reply 400 grpc=3  the request names no entity: its key field (or header) is empty"},
		{"no header", base(true, true), "/a.S/ByHeader", frame(nil), nil, "reply 400 grpc=3  the request names no entity: its key field (or header) is empty"},
		{"not protobuf", base(true, true), "/a.S/Write", frame([]byte{0xff}), nil, "reply 400 grpc=3  the entity key is malformed"},
		{"not gRPC", base(true, true), "/a.S/Write", []byte("hello"), nil, "reply 400 grpc=3  the request's body is no gRPC message"},
		{"cut off", base(true, true), "/a.S/Write", frame(request("k"))[:6], nil, "reply 400 grpc=3  the request ended within its first message"},
		{"too large", base(true, true), "/a.S/Write", frame(big), nil, "reply 429 grpc=8  request message over 4194304 bytes"},
		{"zip bomb", base(true, true), "/a.S/Write", zipped(big), [][2]string{{"grpc-encoding", "gzip"}}, "reply 429 grpc=8  request: message over 4194304 bytes"},
		{"bad zip", base(true, true), "/a.S/Write", append([]byte{1, 0, 0, 0, 1}, 7), [][2]string{{"grpc-encoding", "gzip"}}, "reply 400 grpc=3  request: malformed gzip message: unexpected EOF"},
		{"snappy", base(true, true), "/a.S/Write", append([]byte{1, 0, 0, 0, 1}, 7), [][2]string{{"grpc-encoding", "snappy"}}, "reply 501 grpc=12  request: message encoding is not supported, only gzip and identity"},
		{"bad timeout", base(true, true), "/a.S/Write", nil, [][2]string{{"grpc-timeout", "1x"}}, "reply 400 grpc=3  malformed grpc-timeout"},
		{"odd path", base(true, true), "/a.S/Write?x", nil, nil, "reply 501 grpc=12  this method is served as gRPC only, under its exact path"},
		{"encoded path", base(true, true), "/a.S/%57rite", nil, nil, "reply 501 grpc=12  this method is served as gRPC only, under its exact path"},
		{"dotted path", base(true, true), "/a.S/./Write", nil, nil, "reply 501 grpc=12  this method is served as gRPC only, under its exact path"},
		{"REST", base(true, true), "/a.S/Write", frame(request("")), [][2]string{{"x-envoy-original-method", "GET"}}, `reply 400 grpc=  {"code":3,"message":"the request names no entity: its key field (or header) is empty","details":[]}`},
		{"long idempotency key", base(true, true), "/a.S/Write", nil, [][2]string{{"idempotency-key", strings.Repeat("x", 300)}}, "reply 400 grpc=3  idempotency-key is longer than 256 bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := start(t, tt.p)
			h.cached = counter(1)
			is(t, "action", h.open(tt.path, tt.body, tt.head...), filter.Replied)
			h.log = slices.DeleteFunc(h.log, func(l string) bool { return strings.HasPrefix(l, "hosts") })
			h.took(tt.want)
			is(t, "later body", h.s.RequestBody(piece("x"), true) != filter.Wait, true)
			h.s.Closed()
			h.took()
		})
	}
}

func TestStateTooLargeForMetadata(t *testing.T) {
	p := base(false, true)
	p.Types[0].Model = configv1.Model_MODEL_LWW
	h := start(t, p)
	h.cached = value(strings.Repeat("x", 4097))
	is(t, "request", h.open("/a.S/Read", frame(request("k"))), filter.Replied)
	h.took("reply 429 grpc=8 holdfast-served-by=n1 the entity's state is over the 4096 bytes that metadata carries; use field carriage for this type")
}

func TestWrongStateOut(t *testing.T) {
	for _, tt := range []struct {
		name, path string
		trailer    [2]string
		want       string
	}{
		{"read-only", "/a.S/Read", out(t, 1), "reply 500 grpc=13 holdfast-served-by=n1 the service changed state in a method that is declared to have no side effects"},
		{"not base64", "/a.S/Write", [2]string{"holdfast-state-bin", "%"}, "reply 500 grpc=13 holdfast-served-by=n1 the service's state out is malformed: illegal base64 data at input byte 0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := start(t, base(false, true))
			h.cached = counter(1)
			h.open(tt.path, frame(request("k")))
			is(t, "reply", h.answer(frame(nil), tt.trailer), filter.Replied)
			h.took(tt.want)
		})
	}
}
