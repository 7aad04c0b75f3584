package serve_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/holdfast-mesh/holdfast/internal/frame"
	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	replicationv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/replication/v1"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
	"github.com/holdfast-mesh/holdfast/statestore/crdt"
)

// TestStateThatOutgrowsTheFrame: replicas that were apart may join to a state that no frame holds. Who keeps what is pushed
// must learn that it is old.
func TestStateThatOutgrowsTheFrame(t *testing.T) {
	e := engine(t, "node-1")
	values := &configv1.Shape{Model: configv1.Model_MODEL_LWW}
	err := e.Configure(context.Background(), &storev1.Configure{
		Types:     []*configv1.EntityType{{Type: "names", Model: configv1.Model_MODEL_ORMAP, Values: values, MaxStateBytes: 1 << 20}},
		Placement: &configv1.Placement{Epoch: 2, Members: []*configv1.Member{{Name: "node-1"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	_, socket := listen(t, e)
	subscribe := func(c *client) *storev1.Response {
		c.send(&storev1.Request{Call: &storev1.Request_Get{Get: &storev1.Get{Entity: &storev1.Entity{Type: "names", Key: "k"}, Subscribe: true}}})
		return c.receive()
	}
	grow := func(replica uint64, size int) {
		s, err := crdt.New(&configv1.Shape{Model: configv1.Model_MODEL_ORMAP, Values: values})
		if err != nil {
			t.Fatal(err)
		}
		d, err := s.Delta(&holdfastv1.Operation{Operation: &holdfastv1.Operation_MapUpdate{MapUpdate: &holdfastv1.MapUpdate{
			Key: fmt.Sprint(replica), Operation: &holdfastv1.Operation{Operation: &holdfastv1.Operation_Set{Set: &holdfastv1.Set{Value: make([]byte, size)}}},
		}}}, crdt.Mutator{Replica: replica, Seq: 1, Now: crdt.MinTime})
		if err != nil {
			t.Fatal(err)
		}
		if err := e.Merge(context.Background(), []*replicationv1.Delta{{Type: "names", Key: "k", State: d.Append(nil)}}); err != nil {
			t.Fatal(err)
		}
	}
	before := dial(t, socket)
	if r := subscribe(before); r.GetState() == nil {
		t.Fatalf("got %v", r)
	}
	grow(1, 10)
	if r := before.receive(); r.GetState() == nil {
		t.Fatalf("got %v, want a push", r)
	}
	grow(2, frame.Max)
	if _, err := before.nc.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the connection that has an old state goes on: %v", err)
	}
	// Who comes later is refused, and not thrown out at each change.
	after := dial(t, socket)
	if r := subscribe(after); codes.Code(r.GetError().GetCode()) != codes.Internal || !bytes.Contains([]byte(r.Error.Message), []byte("bytes")) {
		t.Fatalf("got %v, want a refusal with the size", r)
	}
	grow(3, 10)
	after.send(&storev1.Request{Call: &storev1.Request_GetStatus{GetStatus: &storev1.GetStatus{}}})
	if r := after.receive(); r.GetStatus() == nil {
		t.Errorf("got %v, want the status", r)
	}
}
