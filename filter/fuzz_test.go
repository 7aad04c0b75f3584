package filter_test

import (
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/holdfast-mesh/holdfast/filter"
	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
)

// Whatever a caller asks and a service answers: the stream is answered once, a turn that was taken is committed or given
// back, nothing leaves before it is committed, and only what the request names is changed.
func FuzzStrong(f *testing.F) {
	f.Add([]byte(request("k", field(2, []byte("m"))...)), `"1z"`, "", `{"operations":[{"set":{"value":"eQ=="}}],"others":[{"key":"m","operations":[{"delete":{}}]}]}`, byte(0))
	f.Add([]byte(request("k", field(2, []byte("k"))...)), "*", "*", `{"others":[{"key":"n","operations":[{"delete":{}}]}]}`, byte(1))
	f.Add([]byte(request("k")), `"a","b"`, "x", `{"operations":[{"append":{"expectedSequence":7}}]}`, byte(2))
	f.Add([]byte{0xff}, "", "", `{"operations":[{"mergePatch":{"patch":"e30="}},{"fieldPatch":{"paths":["a.b"]}}]}`, byte(3))
	f.Add([]byte(request("k", field(10, []byte{8, 1})...)), "", "", "\x0a\x00", byte(7))
	f.Fuzz(func(t *testing.T, msg []byte, ifMatch, ifNone, state string, how byte) {
		kinds := []configv1.Carriage{configv1.Carriage_CARRIAGE_METADATA_JSON, configv1.Carriage_CARRIAGE_METADATA_PROTO, configv1.Carriage_CARRIAGE_FIELD}
		kind := kinds[int(how)%len(kinds)]
		p := carriage(several(base(false, true)), kind)
		h := start(t, p)
		headers := [][2]string{}
		if ifMatch != "" {
			headers = append(headers, [2]string{"if-match", ifMatch})
		}
		if ifNone != "" {
			headers = append(headers, [2]string{"if-none-match", ifNone})
		}
		if a := h.open("/a.S/Write", frame(msg), headers...); a != filter.Wait {
			if a != filter.Replied || h.reply == nil || h.reply.Status < 400 {
				t.Fatalf("action %d, reply %v", a, h.reply)
			}
			return
		}
		if h.begin == nil {
			t.Fatalf("waits for nothing: %q", h.log)
		}
		named := h.begin.GetOthers()
		if slices.Contains(named, h.begin.GetEntity().GetKey()) || slices.Contains(named, "") || h.begin.GetIfMatch() != "" && ifMatch == "" {
			t.Fatalf("began %v", h.begin)
		}
		if ifMatch != "" && h.begin.GetIfMatch() == "" || ifNone != "" && !h.begin.GetIfNoneMatch() {
			t.Fatalf("if-match %q, if-none-match %q: began %v", ifMatch, ifNone, h.begin)
		}
		others := make([]*storev1.State, len(named))
		for i := range others {
			others[i] = at("2", "y")
		}
		h.s.Begun(&storev1.Begun{Token: "t", State: at("1z", "x"), Others: others}, nil)
		if h.reply != nil {
			h.settled(t)
			return
		}
		var trailers [][2]string
		reply := frame(nil)
		switch kind {
		case configv1.Carriage_CARRIAGE_FIELD:
			reply = frame(protowire.AppendBytes(protowire.AppendTag(nil, 11, protowire.BytesType), []byte(state)))
		case configv1.Carriage_CARRIAGE_METADATA_JSON:
			trailers = append(trailers, [2]string{"holdfast-state", state})
		default:
			trailers = append(trailers, [2]string{"holdfast-state-bin", state})
		}
		switch h.answer(reply, trailers...) {
		case filter.Continue:
			if h.commit != nil {
				t.Fatalf("the reply left before %v", h.commit)
			}
		case filter.Wait:
			for _, o := range h.commit.GetOthers() {
				if !slices.Contains(named, o.GetKey()) {
					t.Fatalf("commits to %q, which is not among %q", o.GetKey(), named)
				}
			}
			h.s.Committed(&storev1.Committed{State: at("3", "z")}, nil)
			if got := h.rep.get("etag"); got != `"3"` {
				t.Fatalf("etag %s", got)
			}
			if !slices.Contains(h.log, "continue reply") {
				t.Fatalf("committed, and the reply is held: %q", h.log)
			}
			return
		}
		h.settled(t)
	})
}

// settled checks that the turn was given back.
func (h *host) settled(t *testing.T) {
	t.Helper()
	if !slices.ContainsFunc(h.log, func(l string) bool { return strings.HasPrefix(l, "abort ") }) {
		t.Fatalf("the turn was kept: %q", h.log)
	}
}
