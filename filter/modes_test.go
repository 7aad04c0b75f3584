package filter_test

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/holdfast-mesh/holdfast/filter"
	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
)

func TestModes(t *testing.T) {
	forged := slices.Concat(request("k"), field(10, []byte("x")))
	for _, tt := range []struct {
		mode  configv1.Mode
		want  []string
		state bool
		hold  filter.Action
	}{
		{configv1.Mode_MODE_OBSERVE, []string{"hosts l1"}, false, filter.Continue},
		{configv1.Mode_MODE_ROUTE, []string{"hosts l1,s3,s2"}, false, filter.Continue},
		{configv1.Mode_MODE_ENRICH, []string{"hosts l1,s3,s2"}, true, filter.Continue},
	} {
		t.Run(tt.mode.String(), func(t *testing.T) {
			h := start(t, mode(carriage(base(true, true), configv1.Carriage_CARRIAGE_FIELD), tt.mode))
			h.cached = counter(1)
			is(t, "request", h.open("/a.S/Write", frame(forged)), filter.Continue)
			h.took(tt.want...)
			want := request("k")
			if tt.state {
				want = append(want, field(10, encoded(t, &holdfastv1.StateIn{Type: "T", Key: "k", Exists: true, Version: "1", Value: counter(1).Value}))...)
			}
			if !bytes.Equal(h.reqBody, frame(want)) {
				t.Fatalf("body %q, want %q", h.reqBody, frame(want))
			}
			is(t, "reply", h.answer(frame(field(11, encoded(t, stateOut(t, 1))))), filter.Continue)
			if !bytes.Equal(h.repBody, frame(nil)) {
				t.Fatalf("state out left the reply: %q", h.repBody)
			}
			h.took()
		})
	}
}

func TestUnkeyedAndForeign(t *testing.T) {
	for _, tt := range []struct {
		name, path, contentType string
		want                    []string
	}{
		{"method without a key", "/a.S/Other", "application/grpc", []string{"hosts l1"}},
		{"other service", "/b.S/Write", "application/grpc+proto", nil},
		{"page", "/", "text/html", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := start(t, base(true, true))
			h.req = header{
				{":path", tt.path},
				{"content-type", tt.contentType},
				{"holdfast-state-bin", "x"},
				{"holdfast-request-id", "x"},
				{"holdfast-anything", "x"},
				{"holdfast-session", "s"},
			}
			is(t, "headers", h.s.RequestHeaders(&h.req, false), filter.Continue)
			is(t, "ours", h.req.ours(), "holdfast-session=s")
			is(t, "body", h.s.RequestBody(piece("x"), true), filter.Continue)
			h.took(tt.want...)
			h.rep = header{{":status", "200"}, {"content-type", tt.contentType}, {"holdfast-outcome", "unknown"}, {"holdfast-x", "y"}}
			is(t, "reply", h.s.ReplyHeaders(&h.rep, false), filter.Continue)
			is(t, "reply headers", h.rep.ours(), "")
			h.trail = header{{"grpc-status", "0"}, {"holdfast-state-bin", "x"}}
			is(t, "trailers", h.s.ReplyTrailers(&h.trail), filter.Continue)
			is(t, "reply trailers", h.trail.ours(), "")
		})
	}
}

func TestDeadlineValues(t *testing.T) {
	for v, want := range map[string]string{
		"1S": "deadline 1s", "99999999H": "deadline 24h0m0s", "5u": "deadline 5µs", "100m": "deadline 100ms",
	} {
		h := start(t, base(true, false))
		h.open("/a.S/Write", frame(request("k")), [2]string{"grpc-timeout", v})
		is(t, v, h.log[0], want)
	}
	h := start(t, base(true, false))
	is(t, "zero", h.open("/a.S/Write", nil, [2]string{"grpc-timeout", "0S"}), filter.Replied)
}

func TestIdempotencyKey(t *testing.T) {
	id := func(caller, path, key, idem string) string {
		h := start(t, base(true, false))
		h.caller = caller
		h.open(path, frame(request(key)), [2]string{"idempotency-key", idem})
		return h.req.get("holdfast-request-id")
	}
	first := id("c", "/a.S/Write", "k", "i")
	is(t, "same", id("c", "/a.S/Write", "k", "i"), first)
	for _, other := range []string{
		id("d", "/a.S/Write", "k", "i"), id("c", "/a.S/Read", "k", "i"), id("c", "/a.S/Write", "l", "i"), id("c", "/a.S/Write", "k", "j"), id("ck", "/a.S/Write", "", "i"),
	} {
		if other == first {
			t.Fatalf("id %s of another request", other)
		}
	}
}

// At the gateway a repeated request goes to the node that had the first one, and others still spread.
func TestIdempotencyKeyAtTheGateway(t *testing.T) {
	first := map[string]bool{}
	for i := range 20 {
		idem := [2]string{"idempotency-key", fmt.Sprint(i)}
		var went string
		for turn := range uint32(3) {
			h := start(t, base(true, false))
			h.turn = turn
			h.open("/a.S/Write", frame(request("k")), idem)
			if went == "" {
				went = h.log[0]
			}
			is(t, "a repeated request", h.log[0], went)
		}
		first[went] = true
	}
	is(t, "first choices", len(first), 3)
}

func TestDeadlineOfAForwardedWrite(t *testing.T) {
	h := start(t, base(true, false))
	h.open("/a.S/Write", frame(request("k")), [2]string{"grpc-timeout", "1S"})
	h.log = nil
	h.now = h.now.Add(time.Second)
	h.s.Deadline()
	h.took("reply 504 grpc=4 holdfast-outcome=unknown deadline exceeded")
}

func TestDeadlineKeptByEnvoy(t *testing.T) {
	late := func(rest bool) header {
		if rest {
			return header{{":status", "504"}, {"content-type", "application/json"}}
		}
		return header{{":status", "200"}, {"content-type", "application/grpc"}, {"grpc-status", "4"}, {"grpc-message", "downstream duration timeout"}}
	}
	t.Run("another node has the write", func(t *testing.T) {
		h := start(t, base(true, false))
		h.open("/a.S/Write", frame(request("k")), [2]string{"grpc-timeout", "1S"})
		h.log, h.details, h.rep = nil, "max_duration_timeout", late(false)
		is(t, "headers", h.s.ReplyHeaders(&h.rep, true), filter.Continue)
		is(t, "ours", h.rep.ours(), "holdfast-outcome=unknown")
		is(t, "status", h.rep.get("grpc-status"), "4")
		h.took()
	})
	t.Run("another node has the write of a REST caller", func(t *testing.T) {
		h := start(t, base(true, false))
		h.open("/a.S/Write", frame(request("k")), [2]string{"grpc-timeout", "1S"}, [2]string{"x-envoy-original-method", "POST"})
		h.log, h.details, h.rep = nil, "max_duration_timeout", late(true)
		is(t, "headers", h.s.ReplyHeaders(&h.rep, false), filter.Wait)
		is(t, "ours", h.rep.ours(), "holdfast-outcome=unknown")
		is(t, "body", h.s.ReplyBody(piece("{}"), true), filter.Continue)
		is(t, "body", string(h.repBody), `{"code":4,"message":"deadline exceeded: whether the change was committed is unknown","details":[]}`)
	})
	t.Run("this node's service has the write", func(t *testing.T) {
		h := start(t, strong(base(true, true)))
		key := keyWith(t, "123")
		h.open("/a.S/Write", frame(request(key)), [2]string{"grpc-timeout", "1S"})
		h.s.Begun(&storev1.Begun{Token: "t", State: &storev1.State{}}, nil)
		h.log, h.details, h.rep = nil, "max_duration_timeout", late(false)
		is(t, "headers", h.s.ReplyHeaders(&h.rep, true), filter.Continue)
		is(t, "ours", h.rep.ours(), "")
		h.took("abort T/" + key + " t")
	})
	t.Run("the store is being asked", func(t *testing.T) {
		h := start(t, strong(base(true, true)))
		key := keyWith(t, "123")
		h.open("/a.S/Write", frame(request(key)), [2]string{"grpc-timeout", "1S"})
		h.log, h.details, h.rep = nil, "max_duration_timeout", late(false)
		is(t, "headers", h.s.ReplyHeaders(&h.rep, true), filter.Continue)
		is(t, "ours", h.rep.ours(), "")
		h.s.Begun(&storev1.Begun{Token: "t", State: &storev1.State{}}, nil)
		h.took("abort T/" + key + " t")
	})
	t.Run("Envoy's JSON is not wrapped again", func(t *testing.T) {
		h := start(t, base(true, false))
		h.open("/a.S/Read", frame(request("k")), [2]string{"grpc-timeout", "1S"}, [2]string{"x-envoy-original-method", "POST"})
		h.details, h.rep = "max_duration_timeout", late(true)
		is(t, "headers", h.s.ReplyHeaders(&h.rep, false), filter.Continue)
		is(t, "ours", h.rep.ours(), "")
	})
}
