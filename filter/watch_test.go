package filter_test

import (
	"bytes"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/holdfast-mesh/holdfast/filter"
	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
)

// watching is a watch whose first state is there and whose first call is under way.
func watching(t *testing.T, p *configv1.FilterConfig) *host {
	t.Helper()
	h := start(t, p)
	is(t, "request", h.open("/a.S/Watch", frame(request("k")), [2]string{"authorization", "me"}, [2]string{"grpc-timeout", "1H"}), filter.Wait)
	h.log = nil
	h.s.Changed(counter(1), nil)
	h.took("call 1 local")
	return h
}

// handled is a whole OK answer to the call under way.
func (h *host) handled(msg []byte, trailers ...[2]string) {
	h.s.CallHeaders(h.call, &header{{":status", "200"}, {"content-type", "application/grpc"}, {"holdfast-x", "y"}}, false)
	h.s.CallData(h.call, piece(msg))
	tr := append(header{{"grpc-status", "0"}}, trailers...)
	h.s.CallTrailers(h.call, &tr)
	h.s.CallDone(h.call)
}

func (h *host) called(t *testing.T) *holdfastv1.StateIn {
	t.Helper()
	h.req.Set("holdfast-state-bin", h.callHeaders.get("holdfast-state-bin"))
	return h.gave()
}

func TestWatchSkipsStates(t *testing.T) {
	h := watching(t, base(true, true))
	is(t, "path", h.callHeaders.get(":path"), "/a.S/Watch")
	is(t, "caller's metadata", h.callHeaders.get("authorization"), "me")
	is(t, "timeout", h.callHeaders.get("grpc-timeout"), "")
	is(t, "body", string(h.callBody), string(frame(request("k"))))
	is(t, "state", h.called(t).Value.GetGcounter(), uint64(1))
	is(t, "previous", h.called(t).Previous == nil, true)

	// Two changes come while the handler runs: the later one is what it sees next.
	h.s.Changed(counter(2), nil)
	h.s.Changed(counter(3), nil)
	h.took()
	h.handled([]byte("one"))
	h.took("send headers 200 ", "call 2 local")
	is(t, "state", h.called(t).Value.GetGcounter(), uint64(3))
	is(t, "previous", h.called(t).Previous.GetGcounter(), uint64(1))

	// The caller does not take the answer: no call until it has.
	h.s.Full()
	h.handled([]byte("two"))
	h.s.Changed(counter(4), nil)
	h.s.Changed(counter(5), nil)
	h.took()
	h.s.Drained()
	h.took("call 3 local")
	is(t, "state", h.called(t).Value.GetGcounter(), uint64(5))
	h.handled([]byte("three"))
	h.s.Changed(counter(5), nil)
	h.took()
	is(t, "sent", string(h.sent), "onetwothree")

	// What the filter sends passes itself.
	is(t, "own headers", h.s.ReplyHeaders(&header{{":status", "200"}}, false), filter.Continue)
	h.s.Closed()
	h.took("unwatch")
}

func TestWatchEnds(t *testing.T) {
	lost := &filter.StoreError{Code: 14, Message: "lost"}
	for _, tt := range []struct {
		name string
		edge bool
		do   func(h *host)
		want []string
	}{
		{"store lost", true, func(h *host) {
			h.handled(nil)
			h.s.Changed(nil, lost)
		}, []string{"send headers 200 ", "unwatch", "send trailers 14 the watch is over: lost"}},
		{"store lost while the handler runs", true, func(h *host) {
			h.s.CallHeaders(1, &header{{":status", "200"}, {"content-type", "application/grpc"}}, false)
			h.s.Changed(nil, lost)
			h.s.CallReset(1)
		}, []string{"send headers 200 ", "unwatch", "reset call 1", "send trailers 14 the watch is over: lost"}},
		{"store lost before anything was sent", false, func(h *host) { h.s.Changed(nil, lost) }, []string{
			"unwatch", "reset call 1", "reply 503 grpc=14 holdfast-outcome=not-applied holdfast-served-by=n1 the watch is over: lost",
		}},
		{"store refuses", true, func(h *host) { h.s.Changed(nil, &filter.StoreError{Code: 12, Message: "strong"}) }, []string{
			"unwatch", "reset call 1", "reply 501 grpc=12  the watch is over: strong",
		}},
		{"handler refuses at once", false, func(h *host) {
			h.s.CallHeaders(1, &header{{":status", "200"}, {"content-type", "application/grpc"}, {"grpc-status", "7"}, {"grpc-message", "not%20you"}}, true)
		}, []string{"unwatch", "reset call 1", "reply 403 grpc=7 holdfast-served-by=n1 not you"}},
		{"handler fails later", false, func(h *host) {
			h.handled(nil)
			h.s.Changed(counter(2), nil)
			h.s.CallHeaders(2, &header{{":status", "200"}, {"content-type", "application/grpc"}, {"grpc-status", "7"}, {"grpc-message", "not you"}}, true)
		}, []string{"send headers 200 holdfast-served-by=n1", "call 2 local", "unwatch", "reset call 2", "send trailers 14 the service ended the watch with status 7: not you"}},
		{"handler breaks off, others are there", true, func(h *host) { h.s.CallReset(1) }, []string{"unwatch", "hosts s3,s2", "continue request"}},
		{"handler ends without status", false, func(h *host) {
			h.s.CallHeaders(1, &header{{":status", "200"}, {"content-type", "application/grpc"}}, false)
			h.s.CallDone(1)
		}, []string{"send headers 200 holdfast-served-by=n1", "unwatch", "send trailers 14 the service's answer ended without a status"}},
		{"not gRPC", false, func(h *host) { h.s.CallHeaders(1, &header{{":status", "404"}}, false) }, []string{
			"unwatch", "reset call 1", "reply 503 grpc=14 holdfast-served-by=n1 the service answered with HTTP status 404",
		}},
		{"state out", true, func(h *host) { h.handled(nil, out(h.t, 1)) }, []string{
			"send headers 200 ", "unwatch", "reset call 1", "send trailers 13 a watch can't change state",
		}},
		{"deadline", true, func(h *host) { h.s.Deadline() }, []string{"unwatch", "reset call 1", "reply 504 grpc=4  deadline exceeded"}},
		{"caller leaves", true, func(h *host) { h.s.Closed() }, []string{"unwatch", "reset call 1"}},
		{"too much for a slow caller", true, func(h *host) {
			h.s.CallHeaders(1, &header{{":status", "200"}, {"content-type", "application/grpc"}}, false)
			h.s.Full()
			h.s.CallData(1, piece(make([]byte, filter.MaxWatchBacklog+1)))
		}, []string{"send headers 200 ", "unwatch", "reset call 1", "send trailers 8 the caller is too slow for what one state gave"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := base(tt.edge, true)
			h := start(t, p)
			h.open("/a.S/Watch", frame(request(keyWith(t, "321"))))
			h.s.Changed(counter(1), nil)
			h.log = nil
			tt.do(h)
			h.took(tt.want...)
			h.s.Changed(counter(9), nil)
			h.s.CallDone(1)
			h.s.Drained()
			h.took()
		})
	}
}

func TestWatchWithoutService(t *testing.T) {
	h := start(t, base(false, true))
	h.noCall = true
	h.open("/a.S/Watch", frame(request("k")))
	h.log = nil
	h.s.Changed(counter(1), nil)
	h.took("unwatch", "reply 503 grpc=14 holdfast-outcome=not-applied holdfast-served-by=n1 the service is not there")
}

func TestWatchByField(t *testing.T) {
	h := watching(t, carriage(base(true, true), configv1.Carriage_CARRIAGE_FIELD))
	in := encoded(t, &holdfastv1.StateIn{Type: "T", Key: "k", Exists: true, Version: "1", Value: counter(1).Value})
	if want := frame(append(request("k"), field(10, in)...)); !bytes.Equal(h.callBody, want) {
		t.Fatalf("body %q, want %q", h.callBody, want)
	}
	// Two messages, cut anywhere; the second has an empty state out, which goes.
	one, two := frame([]byte("\x08\x01")), frame(append([]byte("\x08\x02"), field(11, nil)...))
	all := append(bytes.Clone(one), two...)
	h.s.CallHeaders(1, &header{{":status", "200"}, {"content-type", "application/grpc"}}, false)
	h.s.CallData(1, piece(all[:9]))
	h.s.CallData(1, piece(all[9:]))
	if want := append(bytes.Clone(one), frame([]byte("\x08\x02"))...); !bytes.Equal(h.sent, want) {
		t.Fatalf("sent %q, want %q", h.sent, want)
	}
	h.log = nil
	h.s.CallData(1, piece(frame(field(11, encoded(t, stateOut(t, 1))))))
	h.took("unwatch", "reset call 1", "send trailers 13 a watch can't change state")
}

func TestParseConfigRefuses(t *testing.T) {
	for name, edit := range map[string]func(*configv1.FilterConfig){
		"neither edge nor serve":                    func(c *configv1.FilterConfig) { c.Edge, c.Serve = false, false },
		"serve needs a node name":                   func(c *configv1.FilterConfig) { c.Node = "" },
		"serve needs a store socket":                func(c *configv1.FilterConfig) { c.StoreSocket = "" },
		"a store socket where nothing is served":    func(c *configv1.FilterConfig) { c.Serve = false },
		"does not list this node":                   func(c *configv1.FilterConfig) { c.Node = "n9" },
		`entity type "T" is configured twice`:       func(c *configv1.FilterConfig) { c.Types = append(c.Types, c.Types[0]) },
		"unknown model":                             func(c *configv1.FilterConfig) { c.Types[0].Model = 77 },
		"unknown consistency":                       func(c *configv1.FilterConfig) { c.Types[0].Consistency = 0 },
		"strong consistency needs the model value":  func(c *configv1.FilterConfig) { c.Types[0].Consistency = 3 },
		`entity type "U" is not configured`:         func(c *configv1.FilterConfig) { c.Services[0].EntityType = "U" },
		"unknown mode":                              func(c *configv1.FilterConfig) { c.Services[0].Mode = 0 },
		"unknown carriage":                          func(c *configv1.FilterConfig) { c.Services[0].Carriage = 0 },
		"local address":                             func(c *configv1.FilterConfig) { c.Services[0].LocalAddresses = []string{"a,b"} },
		"path is not below /a.S/":                   func(c *configv1.FilterConfig) { c.Services[0].Methods[0].Path = "/a.S/" },
		"neither a header nor a field":              func(c *configv1.FilterConfig) { c.Services[0].Methods[0].Key = nil },
		"a watch needs the service's local cluster": func(c *configv1.FilterConfig) { c.Services[0].LocalCluster = "" },
		"has no members":                            func(c *configv1.FilterConfig) { c.Placement = nil },
		"is another member's":                       func(c *configv1.FilterConfig) { c.Placement.Members[1].ServeAddress = "s1" },
		"is no address":                             func(c *configv1.FilterConfig) { c.Placement.Members[1].ServeAddress = "" },
		"state field number out of range": func(c *configv1.FilterConfig) {
			c.Services[0].Methods[0].StateInField, c.Services[0].Carriage = 19000, 3
		},
		"has to be a holdfast.v1.StateIn": func(c *configv1.FilterConfig) {
			c.Services[0].Methods[0].StateInWrapped, c.Services[0].Carriage = false, 3
		},
		"has to be a holdfast.v1.StateOut": func(c *configv1.FilterConfig) {
			c.Services[0].Methods[0].StateOutWrapped, c.Services[0].Carriage = false, 3
		},
		"key has 2 parts, other methods of \"T\" have 1": func(c *configv1.FilterConfig) {
			k := c.Services[0].Methods[1].Key
			k.Fields = append(k.Fields, k.Fields[0])
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := base(true, true)
			edit(c)
			raw, err := proto.Marshal(c)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := filter.ParseConfig(raw); err == nil || !bytes.Contains([]byte(err.Error()), []byte(name)) {
				t.Fatalf("error %v, want one with %q", err, name)
			}
		})
	}
	if _, err := filter.ParseConfig([]byte{0xff}); err == nil {
		t.Fatal("garbage accepted")
	}
	raw, _ := proto.Marshal(&configv1.FilterConfig{Edge: true})
	if _, err := filter.ParseConfig(raw); err != nil {
		t.Fatalf("empty configuration: %v", err)
	}
}

// FuzzStream feeds the machine arbitrary bodies: it must not panic, and whatever goes to the service holds no forged
// state.
func FuzzStream(f *testing.F) {
	f.Add([]byte(frame(request("k"))), 3, frame(field(11, []byte("x"))))
	f.Add(zipped(request("k")), 9, []byte{1})
	f.Fuzz(func(t *testing.T, body []byte, cut int, reply []byte) {
		for _, k := range []configv1.Carriage{configv1.Carriage_CARRIAGE_METADATA_PROTO, configv1.Carriage_CARRIAGE_METADATA_JSON, configv1.Carriage_CARRIAGE_FIELD} {
			h := start(t, carriage(base(true, true), k))
			h.cached = &storev1.State{}
			h.req = header{{":path", "/a.S/Write"}, {"content-type", "application/grpc"}, {"grpc-encoding", "gzip"}}
			h.s.RequestHeaders(&h.req, false)
			at := 0
			if len(body) > 0 {
				at = int(uint(cut) % uint(len(body)))
			}
			h.s.RequestBody(piece(body[:at]), false)
			h.s.RequestBody(piece(body[at:]), true)
			h.rep = header{{":status", "200"}, {"content-type", "application/grpc"}}
			h.s.ReplyHeaders(&h.rep, false)
			h.s.ReplyBody(piece(reply), false)
			h.trail = header{{"grpc-status", "0"}, {"holdfast-state-bin", string(reply)}, {"holdfast-state", string(reply)}}
			h.s.ReplyTrailers(&h.trail)
			is(t, "trailers", h.trail.ours(), "")
			h.s.Closed()
		}
	})
}
