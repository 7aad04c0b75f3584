package main

import (
	"context"
	"maps"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"

	qav1 "github.com/holdfast-mesh/holdfast/examples/demo/questions/qa/v1"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
)

func value(votes map[string]uint64) *holdfastv1.Value {
	m := &holdfastv1.MapValue{Entries: map[string]*holdfastv1.Value{}}
	for question, n := range votes {
		m.Entries[question] = &holdfastv1.Value{Kind: &holdfastv1.Value_Gcounter{Gcounter: n}}
	}
	return &holdfastv1.Value{Kind: &holdfastv1.Value_Ormap{Ormap: m}}
}

func state(votes map[string]uint64) *holdfastv1.StateIn {
	return &holdfastv1.StateIn{Exists: true, Value: value(votes)}
}

// The one operation of a reply, as "key+n": n is what is added to the votes.
func operation(t *testing.T, out *holdfastv1.StateOut) string {
	t.Helper()
	if len(out.GetOperations()) != 1 {
		t.Fatalf("got %d operations, want 1", len(out.GetOperations()))
	}
	update := out.GetOperations()[0].GetMapUpdate()
	if update.GetOperation() == nil {
		return update.GetKey() + "+0"
	}
	if by := update.GetOperation().GetIncrement().GetBy(); by != 1 {
		t.Fatalf("got increment by %d, want 1", by)
	}
	return update.GetKey() + "+1"
}

func TestAsk(t *testing.T) {
	for name, c := range map[string]struct {
		state *holdfastv1.StateIn
		text  string
		want  string
	}{
		"the first question of all":       {&holdfastv1.StateIn{}, "Why?", "Why?+0"},
		"no state at all":                 {nil, "Why?", "Why?+0"},
		"a new question":                  {state(map[string]uint64{"How?": 3}), "Why?", "Why?+0"},
		"asked before":                    {state(map[string]uint64{"Why?": 3}), "Why?", "Why?+1"},
		"asked before, no votes yet":      {state(map[string]uint64{"Why?": 0}), "Why?", "Why?+1"},
		"asked before, other white space": {state(map[string]uint64{"Why not?": 3}), " Why \n not? ", "Why not?+1"},
	} {
		t.Run(name, func(t *testing.T) {
			reply, err := server{}.Ask(context.Background(), &qav1.AskRequest{Question: c.text, State: c.state})
			if err != nil {
				t.Fatal(err)
			}
			if got := operation(t, reply.GetChanges()); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

func TestVote(t *testing.T) {
	for name, s := range map[string]*holdfastv1.StateIn{
		"known question":                state(map[string]uint64{"Why?": 3}),
		"question from another replica": state(map[string]uint64{"How?": 3}),
		"nothing known":                 nil,
	} {
		t.Run(name, func(t *testing.T) {
			reply, err := server{}.Vote(context.Background(), &qav1.VoteRequest{Question: "Why?", State: s})
			if err != nil {
				t.Fatal(err)
			}
			if got, want := operation(t, reply.GetChanges()), "Why?+1"; got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		})
	}
}

func TestQuestionsThatAreRefused(t *testing.T) {
	for _, text := range []string{"", " \t\n", strings.Repeat("ü", maxQuestion+1)} {
		if _, err := (server{}).Ask(context.Background(), &qav1.AskRequest{Question: text}); status.Code(err) != codes.InvalidArgument {
			t.Errorf("ask %q: got %v, want INVALID_ARGUMENT", text, err)
		}
		if _, err := (server{}).Vote(context.Background(), &qav1.VoteRequest{Question: text}); status.Code(err) != codes.InvalidArgument {
			t.Errorf("vote %q: got %v, want INVALID_ARGUMENT", text, err)
		}
	}
	if _, err := cleanQuestion(strings.Repeat("ü", maxQuestion)); err != nil {
		t.Errorf("longest question: %v", err)
	}
}

func TestGetIsJSONWithNumbers(t *testing.T) {
	reply, err := server{}.Get(context.Background(), &qav1.GetRequest{State: state(map[string]uint64{"Why?": 1 << 40})})
	if err != nil {
		t.Fatal(err)
	}
	got, err := protojson.Marshal(reply)
	if err != nil {
		t.Fatal(err)
	}
	// More votes than the reply can say are shown as its largest number, not as a small one.
	if want := `{"questions":{"Why?":4294967295}}`; strings.ReplaceAll(string(got), " ", "") != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// sent collects what a handler streams.
type sent struct {
	grpc.ServerStreamingServer[qav1.Presentation]
	messages []map[string]uint32
}

func (s *sent) Send(p *qav1.Presentation) error {
	s.messages = append(s.messages, p.GetQuestions())
	return nil
}

func TestWatch(t *testing.T) {
	before := map[string]uint64{"Why?": 3, "How?": 1}
	for name, c := range map[string]struct {
		now, previous map[string]uint64
		want          []map[string]uint32
	}{
		"first call: everything":             {before, nil, []map[string]uint32{{"Why?": 3, "How?": 1}}},
		"first call, nothing there":          {nil, nil, []map[string]uint32{{}}},
		"a vote":                             {map[string]uint64{"Why?": 4, "How?": 1}, before, []map[string]uint32{{"Why?": 4}}},
		"a question":                         {map[string]uint64{"Why?": 3, "How?": 1, "Who?": 0}, before, []map[string]uint32{{"Who?": 0}}},
		"several states were skipped":        {map[string]uint64{"Why?": 9, "How?": 2}, before, []map[string]uint32{{"Why?": 9, "How?": 2}}},
		"nothing changed":                    {before, before, nil},
		"the first question of a known none": {map[string]uint64{"Why?": 0}, map[string]uint64{}, []map[string]uint32{{"Why?": 0}}},
	} {
		t.Run(name, func(t *testing.T) {
			in := state(c.now)
			if c.previous != nil {
				in.Previous = value(c.previous)
			}
			got := &sent{}
			if err := (server{}).Watch(&qav1.WatchRequest{State: in}, got); err != nil {
				t.Fatal(err)
			}
			if len(got.messages) != len(c.want) {
				t.Fatalf("got %v, want %v", got.messages, c.want)
			}
			for i := range c.want {
				if !maps.Equal(got.messages[i], c.want[i]) {
					t.Errorf("message %d: got %v, want %v", i, got.messages[i], c.want[i])
				}
			}
		})
	}
}
