package strong_test

import (
	"context"
	"testing"

	"google.golang.org/grpc/codes"

	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
	"github.com/holdfast-mesh/holdfast/statestore/refusal"
	"github.com/holdfast-mesh/holdfast/statestore/strong"
)

func TestPreconditions(t *testing.T) {
	m := newMesh(t, "a", "b")
	a, b := m.nodes["a"], m.nodes["b"]
	begin := func(n *node, id, match string, none bool, others ...string) (*storev1.Begun, *refusal.Error) {
		caller := strong.NewCaller()
		r, err := n.call(context.Background(), caller, &storev1.Request{Call: &storev1.Request_Begin{Begin: &storev1.Begin{
			Entity: ent("k"), RequestId: id, IfMatch: match, IfNoneMatch: none, Others: others,
		}}})
		n.cmd.Gone(caller)
		return r.GetBegun(), err
	}
	for _, n := range []*node{a, b} {
		if _, err := begin(n, "", "", true); err != nil {
			t.Errorf("if none match, of what is not there: %v", err)
		}
		for _, match := range []string{"*", "1"} {
			_, err := begin(n, "", match, false)
			wantRefusal(t, "if match, of what is not there", err, codes.FailedPrecondition, notApplied)
		}
	}
	a.mustPut("k", "1", "x")
	s, err := a.get("k")
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []*node{a, b} {
		for _, others := range [][]string{nil, {"other"}} {
			for _, match := range []string{"*", s.Version} {
				if _, err := begin(n, "", match, false, others...); err != nil {
					t.Errorf("if match %s: %v", match, err)
				}
			}
			_, err := begin(n, "", s.Version+"0", false, others...)
			wantRefusal(t, "another version", err, codes.FailedPrecondition, notApplied)
			_, err = begin(n, "", "", true, others...)
			wantRefusal(t, "if none match, of what is there", err, codes.FailedPrecondition, notApplied)
			// A command that was applied is told so, though the version is another since.
			begun, err := begin(n, "1", "0", false, others...)
			if err != nil || !begun.AlreadyApplied {
				t.Errorf("sent again: %v, %v", begun, err)
			}
		}
		_, err := n.call(context.Background(), nil, &storev1.Request{Call: &storev1.Request_Get{Get: &storev1.Get{Entity: ent("k"), IfMatch: s.Version + "0"}}})
		wantRefusal(t, "read another version", err, codes.FailedPrecondition, notApplied)
	}
	// Deleted, it has no version, and may be created.
	caller := strong.NewCaller()
	begun, err := a.begin(caller, "k", "2")
	if err != nil {
		t.Fatal(err)
	}
	r, err := a.call(context.Background(), caller, &storev1.Request{Call: &storev1.Request_Commit{Commit: &storev1.Commit{
		Entity: ent("k"), Token: begun.Token, Operations: []*holdfastv1.Operation{{Operation: &holdfastv1.Operation_Delete{Delete: &holdfastv1.Delete{}}}},
	}}})
	if err != nil || r.GetCommitted().State.Exists || r.GetCommitted().State.Version != "" {
		t.Errorf("delete: %v, %v", r, err)
	}
	if _, err := begin(b, "", "", true); err != nil {
		t.Errorf("if none match, of what was deleted: %v", err)
	}
	if begun, err := begin(b, "2", "", false); err != nil || !begun.AlreadyApplied {
		t.Errorf("the delete sent again: %v, %v", begun, err)
	}
}

// Event-sourced entities are replayed where they are activated.
func TestEventSourced(t *testing.T) {
	m := newMesh(t, "a", "b")
	cart := &storev1.Entity{Type: "cart", Key: "k"}
	do := func(n *node, id string, ops func(*holdfastv1.EventSourcedValue) []*holdfastv1.Operation) *refusal.Error {
		caller := strong.NewCaller()
		defer n.cmd.Gone(caller)
		r, err := n.call(context.Background(), caller, &storev1.Request{Call: &storev1.Request_Begin{Begin: &storev1.Begin{Entity: cart, RequestId: id}}})
		if err != nil {
			return err
		}
		_, err = n.call(context.Background(), caller, &storev1.Request{Call: &storev1.Request_Commit{Commit: &storev1.Commit{
			Entity: cart, RequestId: id, Token: r.GetBegun().Token, Operations: ops(r.GetBegun().GetState().GetValue().GetEventSourced()),
		}}})
		return err
	}
	add := func(payloads ...string) *holdfastv1.Operation {
		op := &holdfastv1.AppendEvents{}
		for _, p := range payloads {
			op.Events = append(op.Events, &holdfastv1.Event{Type: "added", Payload: []byte(p)})
		}
		return &holdfastv1.Operation{Operation: &holdfastv1.Operation_Append{Append: op}}
	}
	want := func(n *node, list string, sequence, snapshot uint64) {
		t.Helper()
		r, err := n.call(context.Background(), nil, &storev1.Request{Call: &storev1.Request_Get{Get: &storev1.Get{Entity: cart}}})
		es := r.GetState().GetValue().GetEventSourced()
		if err != nil || listOf(r.GetState()) != list || es.GetSequence() != sequence || es.GetSnapshotSequence() != snapshot {
			t.Errorf("got %v, %v, want %q up to %d, snapshot of %d", r.GetState(), err, list, sequence, snapshot)
		}
	}
	snapshots := 0
	for i, n := range []*node{m.nodes["a"], m.nodes["b"], m.nodes["a"], m.nodes["b"]} {
		// Each replays what the last one left.
		m.nodes["a"].etcd.Lapse()
		m.nodes["b"].etcd.Lapse()
		if err := do(n, string(rune('0'+i)), func(es *holdfastv1.EventSourcedValue) []*holdfastv1.Operation {
			ops := []*holdfastv1.Operation{add("x", "y")}
			if es.GetSnapshotWanted() {
				snapshots++
				ops = append(ops, &holdfastv1.Operation{Operation: &holdfastv1.Operation_Snapshot{Snapshot: &holdfastv1.SaveSnapshot{Snapshot: []byte("x,y,x,y,x,y,")}}})
			}
			return ops
		}); err != nil {
			t.Fatal(err)
		}
	}
	if snapshots != 1 {
		t.Errorf("a snapshot was asked for %d times, want once, after 4 events", snapshots)
	}
	for _, n := range m.nodes {
		want(n, "x,y,x,y,x,y,x,y,", 8, 6)
	}
	expected := uint64(7)
	err := do(m.nodes["a"], "old", func(*holdfastv1.EventSourcedValue) []*holdfastv1.Operation {
		op := add("z")
		op.GetAppend().ExpectedSequence = &expected
		return []*holdfastv1.Operation{op}
	})
	wantRefusal(t, "expected sequence", err, codes.Aborted, notApplied)
	want(m.nodes["b"], "x,y,x,y,x,y,x,y,", 8, 6)
}
