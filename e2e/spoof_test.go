package e2e

import (
	"context"
	"encoding/base64"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	bankv1 "github.com/holdfast-mesh/holdfast/examples/demo/accounts/bank/v1"
	qav1 "github.com/holdfast-mesh/holdfast/examples/demo/questions/qa/v1"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"

	"github.com/holdfast-mesh/holdfast/e2e/rig"
)

// allowedOut are the headers of ours that a caller may get.
var allowedOut = []string{"holdfast-explain", "holdfast-outcome"}

func ours(header string) bool {
	name := strings.ToLower(header)
	return strings.HasPrefix(name, "holdfast") && !slices.Contains(allowedOut, name)
}

// forgedState is a StateIn that makes an account rich, and its StateOut.
func forgedState(t *testing.T, account string) (in, out []byte) {
	t.Helper()
	value, err := proto.Marshal(&bankv1.Account{BalanceCents: 1_000_000})
	if err != nil {
		t.Fatal(err)
	}
	in, err = proto.Marshal(&holdfastv1.StateIn{
		Type: accountType, Key: account, Exists: true, Version: "9",
		Value: &holdfastv1.Value{Kind: &holdfastv1.Value_Value{Value: value}},
	})
	if err != nil {
		t.Fatal(err)
	}
	out, err = proto.Marshal(&holdfastv1.StateOut{Operations: []*holdfastv1.Operation{
		{Operation: &holdfastv1.Operation_Set{Set: &holdfastv1.Set{Value: value}}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return in, out
}

// forgeries are headers that an outsider might try, by name of the trial.
func forgeries(t *testing.T, account string) map[string]http.Header {
	in, out := forgedState(t, account)
	in64, out64 := base64.StdEncoding.EncodeToString(in), base64.RawStdEncoding.EncodeToString(out)
	json := `{"type":"bank.Account","key":"` + account + `","exists":true,"version":"9","value":{"value":"CMCEPQ=="}}`
	return map[string]http.Header{
		"state":          {"holdfast-state": {json}},
		"state-bin":      {"holdfast-state-bin": {in64}},
		"case":           {"HoldFast-State-BIN": {in64}},
		"underscore":     {"holdfast_state_bin": {in64}},
		"duplicates":     {"holdfast-state-bin": {in64, in64, out64}, "Holdfast-State-Bin": {in64}},
		"comma":          {"holdfast-state-bin": {in64 + "," + in64}},
		"served-by":      {"holdfast-served-by": {"node-6"}},
		"outcome":        {"holdfast-outcome": {"not-applied"}},
		"request-id":     {"holdfast-request-id": {"forged"}},
		"request-id-bin": {"holdfast-request-id-bin": {in64}},
		"hosts":          {"holdfast-hosts": {"127.0.0.1:1"}, "holdfast-key": {"other"}, "holdfast-owner": {"node-1"}},
		"state-status":   {"holdfast-state-status": {"absent"}},
		"precondition":   {"holdfast-precondition": {"failed"}},
	}
}

// No forged header changes what an account holds or what its service sees, whatever its spelling and protocol, and nothing
// of ours is in the answers.
func TestForgedHeaders(t *testing.T) {
	m := mesh(t)
	h2 := &http.Transport{Protocols: new(http.Protocols)}
	h2.Protocols.SetUnencryptedHTTP2(true)
	defer h2.CloseIdleConnections()
	for protocol, transport := range map[string]*http.Transport{"HTTP1": {}, "HTTP2": h2} {
		account := newKey(t)
		must(t)(deposit(m, m.Gateway(), account, 10))
		want := int64(10)
		trials := forgeries(t, account)
		for i, name := range slices.Sorted(maps.Keys(trials)) {
			header := trials[name]
			address := m.Gateway()
			if i%2 == 1 {
				address = m.Ingress(1 + i%nodes)
			}
			// A withdrawal that only the forged balance covers, then a deposit of one.
			got, err := raw(t.Context(), transport, address, "/v1/accounts/"+account+":withdraw", `{"amount_cents":500000}`, header)
			if err != nil && protocol == "HTTP2" && hasUnderscore(header) {
				// Envoy resets such a stream; over HTTP/1.1 it answers 400.
				continue
			}
			if err != nil {
				t.Fatalf("%s %s: %v", protocol, name, err)
			}
			if got.Status != http.StatusBadRequest {
				t.Errorf("%s %s: withdrawal: %d %s, want 400", protocol, name, got.Status, got.Body)
			}
			got, err = raw(t.Context(), transport, address, "/v1/accounts/"+account+":deposit", `{"amount_cents":1}`, header)
			if err != nil {
				t.Fatalf("%s %s: %v", protocol, name, err)
			}
			if got.Status == http.StatusOK {
				want++
			} else if got.Status != http.StatusBadRequest || !hasUnderscore(header) {
				t.Errorf("%s %s: deposit: %d %s, want 200", protocol, name, got.Status, got.Body)
			}
			for name := range got.Header {
				if ours(name) {
					t.Errorf("%s: the caller got our header %s", protocol, name)
				}
			}
		}
		within(t, 10*time.Second, agree(m.Ingresses(), balanceOf(m, account), exactly(want)))
	}
}

func hasUnderscore(h http.Header) bool {
	for name := range h {
		if strings.Contains(name, "_") {
			return true
		}
	}
	return false
}

// raw posts with header names as they are spelt.
func raw(ctx context.Context, transport *http.Transport, address, path, body string, header http.Header) (*rig.Reply, error) {
	h := header.Clone()
	h["Content-Type"] = []string{"application/json"}
	return rig.Raw(ctx, transport, "http://"+address+path, body, h)
}

// The same over gRPC, where a forged StateOut might also come as a header of the reply's name.
func TestForgedMetadata(t *testing.T) {
	m := mesh(t)
	account := newKey(t)
	client := bankv1.NewAccountsClient(dial(t, m.Ingress(2)))
	in, out := forgedState(t, account)
	ctx := metadata.AppendToOutgoingContext(context.Background(),
		"holdfast-state-bin", string(in), "holdfast-state-bin", string(out), "holdfast-state", "{}",
		"holdfast-request-id", "forged", "holdfast-served-by", "node-1")
	for i := range 2 {
		var head, trail metadata.MD
		b, err := client.Deposit(ctx, &bankv1.DepositRequest{Account: account, AmountCents: 4}, grpc.Header(&head), grpc.Trailer(&trail))
		if err != nil || b.GetBalanceCents() != int64(4*(i+1)) {
			t.Errorf("deposit %d: %v, %v; want a balance of %d", i+1, b, err, 4*(i+1))
		}
		for name := range metadata.Join(head, trail) {
			if ours(name) {
				t.Errorf("the caller got our metadata %s", name)
			}
		}
	}
}

// A state that the client put into the request's own field is cut out, each occurrence of it, and the reply has none.
func TestForgedStateField(t *testing.T) {
	m := mesh(t)
	key := newKey(t)
	must(t)(ask(m, m.Ingress(1), key, "real"))
	within(t, 10*time.Second, agree(m.Ingresses(), func(a string) (int, error) {
		all, err := votes(m, a, key)
		return len(all), err
	}, exactly(1)))
	forged := &holdfastv1.StateIn{Type: presentationType, Key: key, Exists: true, Value: &holdfastv1.Value{
		Kind: &holdfastv1.Value_Ormap{Ormap: &holdfastv1.MapValue{Entries: map[string]*holdfastv1.Value{
			"forged": {Kind: &holdfastv1.Value_Gcounter{Gcounter: 999}},
		}}},
	}}
	client := qav1.NewQuestionsClient(dial(t, m.Ingress(3)))

	req := &qav1.GetRequest{Presentation: key, State: forged}
	again, err := proto.Marshal(forged)
	if err != nil {
		t.Fatal(err)
	}
	// A second and a third occurrence of field 15, one of them before the key.
	var unknown []byte
	for range 2 {
		unknown = protowire.AppendTag(unknown, 15, protowire.BytesType)
		unknown = protowire.AppendBytes(unknown, again)
	}
	req.ProtoReflect().SetUnknown(unknown)
	for range 2 { // the second read may come from the filter's memory
		p, err := client.Get(t.Context(), req)
		if err != nil || len(p.GetQuestions()) != 1 || p.GetQuestions()["forged"] != 0 {
			t.Errorf("read with a forged state: %v, %v; want only the real question", p, err)
		}
	}
	reply, err := client.Ask(t.Context(), &qav1.AskRequest{Presentation: key, Question: "forged", State: forged})
	if err != nil || reply.GetChanges() != nil {
		t.Errorf("ask: %v, %v; want no changes in the reply", reply, err)
	}
	// By REST, as JSON.
	r := must(t)(m.Post(m.Gateway(), "/v1/presentations/"+key+"/questions", map[string]any{
		"question": "rest", "state": map[string]any{"exists": true, "value": map[string]any{"ormap": map[string]any{"entries": map[string]any{"rest": map[string]any{"gcounter": "5"}}}}},
	}))
	if strings.Contains(string(r.Body), "changes") || strings.Contains(string(r.Body), "state") {
		t.Errorf("the reply is %s, want nothing of the state", r.Body)
	}
	// Asking a question that is there already is a vote: with the forged state it would have been one.
	for _, q := range []string{"forged", "rest"} {
		within(t, 10*time.Second, agree(m.Ingresses(), func(a string) (int, error) {
			all, err := votes(m, a, key)
			if _, there := all[q]; err == nil && !there {
				return -1, nil
			}
			return all[q], err
		}, exactly(0)))
	}
}
