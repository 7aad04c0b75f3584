package filter_test

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/holdfast-mesh/holdfast/filter"
	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
)

// models are all state models, with a value and operations as JSON, the form that services in any language use.
var models = []struct {
	model   configv1.Model
	value   *holdfastv1.Value
	json    string // the value
	out     string // operations
	entries []*holdfastv1.Operation
}{
	{
		configv1.Model_MODEL_LWW,
		&holdfastv1.Value{Kind: &holdfastv1.Value_Lww{Lww: []byte("x")}},
		`{"lww":"eA=="}`,
		`[{"set":{"value":"eQ==","clock":"CLOCK_CUSTOM","customClock":"7"}},{"delete":{}}]`,
		[]*holdfastv1.Operation{
			{Operation: &holdfastv1.Operation_Set{Set: &holdfastv1.Set{Value: []byte("y"), Clock: holdfastv1.Clock_CLOCK_CUSTOM, CustomClock: 7}}},
			{Operation: &holdfastv1.Operation_Delete{Delete: &holdfastv1.Delete{}}},
		},
	},
	{
		configv1.Model_MODEL_GCOUNTER,
		&holdfastv1.Value{Kind: &holdfastv1.Value_Gcounter{}},
		`{"gcounter":"0"}`,
		`[{"increment":{"by":"18446744073709551615"}}]`,
		[]*holdfastv1.Operation{{Operation: &holdfastv1.Operation_Increment{Increment: &holdfastv1.Increment{By: 1<<64 - 1}}}},
	},
	{
		configv1.Model_MODEL_PNCOUNTER,
		&holdfastv1.Value{Kind: &holdfastv1.Value_Pncounter{Pncounter: -3}},
		`{"pncounter":"-3"}`,
		`[{"change":{"by":-3}}]`,
		[]*holdfastv1.Operation{{Operation: &holdfastv1.Operation_Change{Change: &holdfastv1.Change{By: -3}}}},
	},
	{
		configv1.Model_MODEL_BCOUNTER,
		&holdfastv1.Value{Kind: &holdfastv1.Value_Bcounter{Bcounter: &holdfastv1.BoundedValue{Value: -1, Available: 4}}},
		`{"bcounter":{"value":"-1","available":"4"}}`,
		`[{"change":{"by":"-2"}}]`,
		[]*holdfastv1.Operation{{Operation: &holdfastv1.Operation_Change{Change: &holdfastv1.Change{By: -2}}}},
	},
	{
		configv1.Model_MODEL_GSET,
		&holdfastv1.Value{Kind: &holdfastv1.Value_Gset{Gset: &holdfastv1.SetValue{Elements: [][]byte{[]byte("a"), {0xff}}}}},
		`{"gset":{"elements":["YQ==","/w=="]}}`,
		`[{"add":{"elements":["YQ==",""]}}]`,
		[]*holdfastv1.Operation{{Operation: &holdfastv1.Operation_Add{Add: &holdfastv1.SetAdd{Elements: [][]byte{[]byte("a"), {}}}}}},
	},
	{
		configv1.Model_MODEL_ORSET,
		&holdfastv1.Value{Kind: &holdfastv1.Value_Orset{Orset: &holdfastv1.SetValue{}}},
		`{"orset":{}}`,
		`[{"remove":{"elements":["YQ=="]}},{"clear":{}}]`,
		[]*holdfastv1.Operation{
			{Operation: &holdfastv1.Operation_Remove{Remove: &holdfastv1.SetRemove{Elements: [][]byte{[]byte("a")}}}},
			{Operation: &holdfastv1.Operation_Clear{Clear: &holdfastv1.Clear{}}},
		},
	},
	{
		configv1.Model_MODEL_MVREGISTER,
		&holdfastv1.Value{Kind: &holdfastv1.Value_Mvregister{Mvregister: &holdfastv1.MultiValue{Values: [][]byte{[]byte("a"), []byte("b")}}}},
		`{"mvregister":{"values":["YQ==","Yg=="]}}`,
		`[{"set":{"value":"YQ=="}}]`,
		[]*holdfastv1.Operation{{Operation: &holdfastv1.Operation_Set{Set: &holdfastv1.Set{Value: []byte("a")}}}},
	},
	{
		configv1.Model_MODEL_FLAG,
		&holdfastv1.Value{Kind: &holdfastv1.Value_Flag{Flag: false}},
		`{"flag":false}`,
		`[{"enable":{}},{"disable":{}}]`,
		[]*holdfastv1.Operation{
			{Operation: &holdfastv1.Operation_Enable{Enable: &holdfastv1.Enable{}}},
			{Operation: &holdfastv1.Operation_Disable{Disable: &holdfastv1.Disable{}}},
		},
	},
	{
		configv1.Model_MODEL_VOTE,
		&holdfastv1.Value{Kind: &holdfastv1.Value_Vote{Vote: &holdfastv1.VoteValue{SelfVote: true, VotesFor: 2, TotalVoters: 3}}},
		`{"vote":{"selfVote":true,"votesFor":2,"totalVoters":3}}`,
		`[{"vote":{"inFavour":true}},{"vote":{}}]`,
		[]*holdfastv1.Operation{
			{Operation: &holdfastv1.Operation_Vote{Vote: &holdfastv1.CastVote{InFavour: true}}},
			{Operation: &holdfastv1.Operation_Vote{Vote: &holdfastv1.CastVote{}}},
		},
	},
	{
		configv1.Model_MODEL_ORMAP,
		&holdfastv1.Value{Kind: &holdfastv1.Value_Ormap{Ormap: &holdfastv1.MapValue{Entries: map[string]*holdfastv1.Value{
			"é": {Kind: &holdfastv1.Value_Ormap{Ormap: &holdfastv1.MapValue{Entries: map[string]*holdfastv1.Value{
				"k": {Kind: &holdfastv1.Value_Flag{Flag: true}},
			}}}},
		}}}},
		`{"ormap":{"entries":{"\u00e9":{"ormap":{"entries":{"k":{"flag":true}}}}}}}`,
		`[{"mapUpdate":{"key":"é","operation":{"mapUpdate":{"key":"k","operation":{"enable":{}}}}}},{"mapUpdate":{"key":"new"}},{"mapRemove":{"key":"old"}}]`,
		[]*holdfastv1.Operation{
			{Operation: &holdfastv1.Operation_MapUpdate{MapUpdate: &holdfastv1.MapUpdate{Key: "é", Operation: &holdfastv1.Operation{
				Operation: &holdfastv1.Operation_MapUpdate{MapUpdate: &holdfastv1.MapUpdate{Key: "k", Operation: &holdfastv1.Operation{
					Operation: &holdfastv1.Operation_Enable{Enable: &holdfastv1.Enable{}},
				}}},
			}}}},
			{Operation: &holdfastv1.Operation_MapUpdate{MapUpdate: &holdfastv1.MapUpdate{Key: "new"}}},
			{Operation: &holdfastv1.Operation_MapRemove{MapRemove: &holdfastv1.MapRemove{Key: "old"}}},
		},
	},
}

func modelled(model configv1.Model, k configv1.Carriage) *configv1.FilterConfig {
	p := carriage(base(true, true), k)
	p.Types[0].Model = model
	return p
}

func (h *host) committed(t *testing.T, want []*holdfastv1.Operation) {
	t.Helper()
	if !proto.Equal(&holdfastv1.StateOut{Operations: h.commit.GetOperations()}, &holdfastv1.StateOut{Operations: want}) {
		t.Fatalf("committed %v, want %v", h.commit.GetOperations(), want)
	}
}

// Every model goes in and out by each carriage as it is; the filter has no opinion of it.
func TestModels(t *testing.T) {
	for _, m := range models {
		t.Run(strings.TrimPrefix(m.model.String(), "MODEL_"), func(t *testing.T) {
			state := &storev1.State{Exists: true, Version: "1", Value: m.value}

			h := start(t, modelled(m.model, configv1.Carriage_CARRIAGE_METADATA_JSON))
			h.cached = state
			h.open("/a.S/Write", frame(request("k")))
			got := strings.ReplaceAll(h.req.get("holdfast-state"), " ", "")
			is(t, "JSON", got, `{"type":"T","key":"k","exists":true,"version":"1","value":`+m.json+`}`)
			is(t, "reply", h.answer(frame(nil), [2]string{"holdfast-state", `{"operations":` + m.out + `}`}), filter.Wait)
			h.committed(t, m.entries)

			h = start(t, modelled(m.model, configv1.Carriage_CARRIAGE_METADATA_PROTO))
			h.cached = state
			h.open("/a.S/Write", frame(request("k")))
			if in := h.gave(); !proto.Equal(in.Value, m.value) {
				t.Fatalf("gave %v, want %v", in.Value, m.value)
			}

			h = start(t, modelled(m.model, configv1.Carriage_CARRIAGE_FIELD))
			h.cached = state
			h.open("/a.S/Write", frame(request("k")))
			in := encoded(t, &holdfastv1.StateIn{Type: "T", Key: "k", Exists: true, Version: "1", Value: m.value})
			is(t, "field", string(h.reqBody), string(frame(append(request("k"), field(10, in)...))))
			out := field(11, encoded(t, &holdfastv1.StateOut{Operations: m.entries}))
			is(t, "reply", h.answer(frame(out)), filter.Wait)
			h.committed(t, m.entries)
		})
	}
}

// A message of the user's own type is bytes, so only a model of bytes can be one.
func TestOwnMessageNeedsBytes(t *testing.T) {
	for _, m := range models {
		for _, out := range []bool{false, true} {
			p := modelled(m.model, configv1.Carriage_CARRIAGE_FIELD)
			p.Services[0].Methods[0].StateInWrapped, p.Services[0].Methods[0].StateOutWrapped = out, !out
			_, err := filter.NewConfig(p)
			if want := m.model == configv1.Model_MODEL_LWW; (err == nil) != want {
				t.Errorf("%v, state out %v: got %v, want it taken: %v", m.model, out, err, want)
			}
		}
	}
}

// A commit that waits for other replicas ends with the caller's deadline, and then nobody says that it failed.
func TestCommitAtALevel(t *testing.T) {
	for _, level := range []configv1.WriteLevel{configv1.WriteLevel_WRITE_LEVEL_MAJORITY, configv1.WriteLevel_WRITE_LEVEL_ALL} {
		commit := func(t *testing.T, edge bool, extra ...[2]string) *host {
			t.Helper()
			p := base(edge, true)
			p.Types[0].Write = level
			h := start(t, p)
			h.cached = counter(1)
			h.open("/a.S/Write", frame(request("k")), extra...)
			h.answer(frame(nil), out(t, 1))
			return h
		}
		t.Run("without a deadline "+level.String(), func(t *testing.T) {
			h := commit(t, false)
			h.took("commit T/k token= ops=1 10s")
			is(t, "the store's own time", h.commit.GetTimeoutMs(), uint32(9900))
			h.s.Committed(nil, &filter.StoreError{Code: 4, Message: "2 of 3 replicas have not confirmed", Outcome: storev1.Outcome_OUTCOME_UNKNOWN})
			h.took("reply 504 grpc=4 holdfast-outcome=unknown holdfast-served-by=n1 whether the change was committed is unknown: 2 of 3 replicas have not confirmed")
			is(t, "unknown", h.counts[filter.CountUnknown], 1)
		})
		t.Run("the caller's deadline "+level.String(), func(t *testing.T) {
			h := commit(t, true, [2]string{"grpc-timeout", "700m"})
			h.took("deadline 700ms", "hosts l1,s3,s2", "commit T/k token= ops=1 700ms")
			is(t, "the store's own time", h.commit.GetTimeoutMs(), uint32(630))
			h.s.Deadline()
			h.took("reply 504 grpc=4 holdfast-outcome=unknown deadline exceeded while the change was being committed")
			h.s.Committed(&storev1.Committed{}, nil)
			h.s.Closed()
			h.took()
			is(t, "unknown", h.counts[filter.CountUnknown], 1)
		})
		t.Run("behind an edge "+level.String(), func(t *testing.T) {
			h := start(t, base(true, false))
			h.open("/a.S/Write", frame(request("k")), [2]string{"grpc-timeout", "700m"})
			h.log, h.upstream = nil, "s2"
			h.rep = header{{":status", "200"}, {"content-type", "application/grpc"}, {"grpc-status", "4"}, {"holdfast-outcome", "unknown"}, {"holdfast-served-by", "n2"}}
			is(t, "reply", h.s.ReplyHeaders(&h.rep, true), filter.Continue)
			is(t, "ours", h.rep.ours(), "holdfast-outcome=unknown")
		})
	}
}
