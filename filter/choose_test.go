package filter_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/holdfast-mesh/holdfast/filter"
	"github.com/holdfast-mesh/holdfast/internal/placement"
	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
)

// keyWith is a key whose slot lists base's members in this order.
func keyWith(t *testing.T, order string) string {
	t.Helper()
	table, err := placement.New(base(true, false).Placement)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 1000 {
		key := fmt.Sprint("k", i)
		var got []string
		for m := range table.Order(placement.Slot("T", key)) {
			got = append(got, m.Name[1:])
		}
		if strings.Join(got, "") == order {
			return key
		}
	}
	t.Fatalf("no key with order %s", order)
	return ""
}

func TestChoose(t *testing.T) {
	for _, tt := range []struct {
		name     string
		order    string
		edit     func(*configv1.FilterConfig)
		gateway  bool
		down     bool
		replicas uint32
		rotate   uint32
		want     string // the hosts, then what follows
	}{
		{name: "local", order: "321", want: "hosts l1,s3,s2 serves"},
		{name: "local, store down", order: "321", down: true, want: "hosts s3,s2"},
		{name: "local, no replica of the service", order: "321", edit: func(c *configv1.FilterConfig) { c.Services[0].LocalAddresses = nil }, want: "hosts s3,s2"},
		{name: "local, at the gateway", order: "321", gateway: true, want: "hosts s3,s2,s1"},
		{name: "local, at the gateway, the next one", order: "321", gateway: true, rotate: 1, want: "hosts s2,s1,s3"},
		{name: "two replicas, this is one", order: "312", replicas: 2, want: "hosts l1,s3 serves"},
		{name: "two replicas, this is none", order: "321", replicas: 2, want: "hosts l1,s3,s2 serves"},
		{name: "two replicas, this is none, store down", order: "321", replicas: 2, down: true, want: "hosts s3,s2"},
		{name: "two replicas, this is one, store down", order: "312", replicas: 2, down: true, want: "hosts s3"},
		{name: "one replica, this one, store down", order: "132", replicas: 1, down: true, want: "reply 503 grpc=14  the store of this node is not there, and no other node may serve this entity"},
		{name: "more replicas than nodes", order: "321", replicas: 9, want: "hosts l1,s3,s2 serves"},
		{name: "two replicas, at the gateway", order: "321", gateway: true, replicas: 2, want: "hosts s3,s2"},
		{name: "two replicas, at the gateway, the next one", order: "321", gateway: true, replicas: 2, rotate: 1, want: "hosts s2,s3"},
		{name: "more replicas than nodes, at the gateway", order: "321", gateway: true, replicas: 9, rotate: 5, want: "hosts s1,s3,s2"},
		{name: "sticky, two replicas, this is none", order: "321", edit: sticky, replicas: 2, want: "hosts s3,s2"},
		{name: "sticky, two replicas, at the gateway", order: "321", edit: sticky, gateway: true, replicas: 2, rotate: 1, want: "hosts s3,s2"},
		{name: "strong, two replicas, this is none", order: "321", edit: func(c *configv1.FilterConfig) { strong(c) }, replicas: 2, want: "hosts s3,s2"},
		{name: "sticky, first", order: "132", edit: sticky, want: "hosts l1,s3,s2 serves"},
		{name: "sticky, second", order: "213", edit: sticky, want: "hosts s2,s1,s3"},
		{name: "sticky, second, store down", order: "213", edit: sticky, down: true, want: "hosts s2,s3"},
		{name: "sticky, first, store down", order: "132", edit: sticky, down: true, want: "hosts s3,s2"},
		{name: "sticky, at the gateway", order: "213", edit: sticky, gateway: true, want: "hosts s2,s1,s3"},
		{name: "strong, second", order: "213", edit: func(c *configv1.FilterConfig) { strong(c) }, want: "hosts s2,s1,s3"},
		{name: "routed only, store down", order: "321", down: true, edit: func(c *configv1.FilterConfig) { mode(c, configv1.Mode_MODE_ROUTE) }, want: "hosts l1,s3,s2"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := base(true, !tt.gateway)
			if tt.edit != nil {
				tt.edit(p)
			}
			p.Types[0].Replicas = tt.replicas
			h := start(t, p)
			h.storeUp, h.cached = !tt.down, counter(1)
			h.turn = tt.rotate
			h.open("/a.S/Write", frame(request(keyWith(t, tt.order))))
			got := h.log[0]
			if h.req.get("holdfast-state-bin") != "" {
				got += " serves"
			}
			is(t, "choice", got, tt.want)
		})
	}
}

func sticky(c *configv1.FilterConfig) { c.Types[0].Affinity = configv1.Affinity_AFFINITY_OWNER }

func TestWithoutState(t *testing.T) {
	alone := func(c *configv1.FilterConfig) { c.Placement.Members = c.Placement.Members[:1] }
	pass := func(c *configv1.FilterConfig) { c.Types[0].OnUnavailable = configv1.OnUnavailable_ON_UNAVAILABLE_PASS }

	t.Run("the store refuses, others are there", func(t *testing.T) {
		h := start(t, base(true, true))
		h.open("/a.S/Write", frame(request(keyWith(t, "321"))))
		h.log = nil
		h.s.Got(nil, nil, notApplied(14))
		h.took("hosts s3,s2", "continue request")
		is(t, "state", h.req.get("holdfast-state-bin"), "")
		h.upstream = "s3"
		h.rep = header{{":status", "200"}, {"content-type", "application/grpc"}, {"grpc-status", "14"}, {"holdfast-outcome", "not-applied"}}
		is(t, "reply", h.s.ReplyHeaders(&h.rep, true), filter.Continue)
		is(t, "ours", h.rep.ours(), "")
	})
	t.Run("behind an edge", func(t *testing.T) {
		h := start(t, base(false, true))
		h.storeUp = false
		is(t, "action", h.open("/a.S/Write", frame(request("k"))), filter.Replied)
		h.took("reply 503 grpc=14 holdfast-outcome=not-applied holdfast-served-by=n1 the store of this node is not there")
	})
	t.Run("alone", func(t *testing.T) {
		p := base(true, true)
		alone(p)
		h := start(t, p)
		h.storeUp = false
		is(t, "action", h.open("/a.S/Write", frame(request("k"))), filter.Replied)
		h.took("reply 503 grpc=14  the store of this node is not there, and no other node may serve this entity")
	})
	t.Run("alone, but it may pass", func(t *testing.T) {
		p := base(true, true)
		alone(p)
		pass(p)
		h := start(t, p)
		h.storeUp = false
		is(t, "action", h.open("/a.S/Write", frame(request("k"))), filter.Continue)
		h.took("hosts l1")
		is(t, "status", h.req.get("holdfast-state-status"), "absent")
		is(t, "reply", h.answer(frame(nil), out(t, 1)), filter.Replied)
		h.took("reply 503 grpc=14  the change can't be committed: the store is not there")
	})
	t.Run("other refusals are the caller's", func(t *testing.T) {
		h := start(t, base(true, true))
		h.open("/a.S/Write", frame(request("k")))
		h.log = nil
		h.s.Got(nil, nil, &filter.StoreError{Code: 8, Message: "full", Outcome: storev1.Outcome_OUTCOME_NOT_APPLIED})
		h.took("reply 429 grpc=8  full")
	})
}

func TestNeverSent(t *testing.T) {
	for details, want := range map[string]string{
		"upstream_reset_before_response_started{remote_connection_failure|delayed_connect_error:_Connection_refused}": "not-applied",
		"upstream_reset_before_response_started{connection_timeout}":                                                  "not-applied",
		"upstream_reset_before_response_started{remote_refused_stream_reset}":                                         "not-applied",
		"upstream_reset_before_response_started{remote_reset}":                                                        "",
		"upstream_reset_before_response_started{connection_termination}":                                              "",
		"no_healthy_upstream": "not-applied",
		"via_upstream":        "",
		"":                    "",
	} {
		h := start(t, strong(base(false, true)))
		h.open("/a.S/Write", frame(request("k")))
		h.s.Begun(&storev1.Begun{Token: "t"}, nil)
		h.log, h.details = nil, details
		h.rep = header{{":status", "200"}, {"content-type", "application/grpc"}, {"grpc-status", "14"}, {"holdfast-outcome", "not-applied"}}
		is(t, "reply", h.s.ReplyHeaders(&h.rep, true), filter.Continue)
		h.took("abort T/k t")
		is(t, details, h.rep.get("holdfast-outcome"), want)
	}
}

func TestExplain(t *testing.T) {
	explain := [2]string{"holdfast-explain", "1"}
	h := start(t, base(true, true))
	h.cached = counter(1)
	h.open("/a.S/Read", frame(request("k")), explain)
	h.answer(frame(nil))
	is(t, "here", h.rep.ours(), "holdfast-explain=node=n1")

	h = start(t, base(true, false))
	h.upstream = "s2"
	h.open("/a.S/Read", frame(request("k")), explain)
	h.rep = header{{":status", "200"}, {"content-type", "application/grpc"}, {"holdfast-served-by", "n2"}, {"holdfast-outcome", "unknown"}}
	h.s.ReplyHeaders(&h.rep, false)
	is(t, "there", h.rep.ours(), "holdfast-outcome=unknown holdfast-explain=node=n2")
}

func TestEnvoysOwnErrorAsJSON(t *testing.T) {
	h := start(t, base(true, true))
	h.cached = counter(1)
	h.open("/a.S/Read", frame(request("k")), [2]string{"x-envoy-original-method", "GET"})
	h.upstream = ""
	h.rep = header{{":status", "503"}, {"content-type", "text/plain"}, {"content-length", "4"}}
	is(t, "headers", h.s.ReplyHeaders(&h.rep, false), filter.Wait)
	is(t, "body", h.s.ReplyBody(piece("gone"), true), filter.Continue)
	is(t, "type", h.rep.get("content-type"), "application/json")
	is(t, "length", h.rep.get("content-length"), "")
	is(t, "body", string(h.repBody), `{"code":14,"message":"gone","details":[]}`)
}

// A write whose other node was lost after it had the request may have been committed there: Envoy's "unavailable" would
// say that it was not.
func TestNodeLostAfterSent(t *testing.T) {
	const terminated = "upstream_reset_before_response_started{connection_termination}"
	const refused = "upstream_reset_before_response_started{remote_connection_failure}"
	for _, c := range []struct {
		name, method, details, upstream string
		status, outcome                 string
	}{
		{"lost", "/a.S/Write", terminated, "s2", "4", "holdfast-outcome=unknown"},
		{"never sent", "/a.S/Write", refused, "s2", "14", ""},
		{"read", "/a.S/Read", terminated, "s2", "14", ""},
		{"our own service", "/a.S/Write", terminated, "l1", "14", ""},
		{"the other node's word", "/a.S/Write", "via_upstream", "s2", "14", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := start(t, base(true, c.upstream == "l1"))
			h.cached, h.upstream, h.details = counter(1), c.upstream, c.details
			h.open(c.method, frame(request("k")))
			h.rep = header{{":status", "200"}, {"content-type", "application/grpc"}, {"grpc-status", "14"}}
			is(t, "reply", h.s.ReplyHeaders(&h.rep, true), filter.Continue)
			is(t, "grpc-status", h.rep.get("grpc-status"), c.status)
			is(t, "ours", h.rep.ours(), c.outcome)
		})
	}
	t.Run("REST", func(t *testing.T) {
		h := start(t, base(true, false))
		h.open("/a.S/Write", frame(request("k")), [2]string{"x-envoy-original-method", "POST"})
		h.upstream, h.details = "s2", terminated
		h.rep = header{{":status", "503"}, {"content-type", "text/plain"}}
		is(t, "headers", h.s.ReplyHeaders(&h.rep, false), filter.Wait)
		is(t, "body", h.s.ReplyBody(piece("upstream connect error"), true), filter.Continue)
		is(t, "status", h.rep.get(":status"), "504")
		is(t, "ours", h.rep.ours(), "holdfast-outcome=unknown")
		is(t, "body", string(h.repBody), `{"code":4,"message":"whether the change was committed is unknown: the node that had the request was lost","details":[]}`)
	})
}
