package statestore_test

import (
	"context"
	"testing"

	"go.uber.org/goleak"

	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
	"github.com/holdfast-mesh/holdfast/statestore"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func testConfigure(epoch uint64) *storev1.Configure {
	typ := func(name string, model, values configv1.Model, c configv1.Consistency) *configv1.EntityType {
		return &configv1.EntityType{Type: name, Model: model, Values: values, Consistency: c}
	}
	const eventual, strong = configv1.Consistency_CONSISTENCY_EVENTUAL, configv1.Consistency_CONSISTENCY_STRONG
	return &storev1.Configure{
		Types: []*configv1.EntityType{
			typ("count", configv1.Model_MODEL_GCOUNTER, 0, eventual),
			typ("reg", configv1.Model_MODEL_LWW, 0, eventual),
			typ("val", configv1.Model_MODEL_VALUE, 0, eventual),
			typ("votes", configv1.Model_MODEL_ORMAP, configv1.Model_MODEL_GCOUNTER, eventual),
			typ("names", configv1.Model_MODEL_ORMAP, configv1.Model_MODEL_LWW, eventual),
			typ("account", configv1.Model_MODEL_VALUE, 0, strong),
		},
		Placement: &configv1.Placement{Epoch: epoch, Members: []*configv1.Member{{Name: "node-1"}, {Name: "node-2"}}},
	}
}

func open(t *testing.T, cfg statestore.Config) *statestore.Engine {
	t.Helper()
	if cfg.Node == "" {
		cfg.Node = "node-1"
	}
	e, err := statestore.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e
}

func inc(n uint64) *holdfastv1.Operation {
	return &holdfastv1.Operation{Operation: &holdfastv1.Operation_Increment{Increment: &holdfastv1.Increment{By: n}}}
}

func set(v string) *holdfastv1.Operation {
	return &holdfastv1.Operation{Operation: &holdfastv1.Operation_Set{Set: &holdfastv1.Set{Value: []byte(v)}}}
}

func del() *holdfastv1.Operation {
	return &holdfastv1.Operation{Operation: &holdfastv1.Operation_Delete{Delete: &holdfastv1.Delete{}}}
}

func update(key string, op *holdfastv1.Operation) *holdfastv1.Operation {
	return &holdfastv1.Operation{Operation: &holdfastv1.Operation_MapUpdate{MapUpdate: &holdfastv1.MapUpdate{Key: key, Operation: op}}}
}

func remove(key string) *holdfastv1.Operation {
	return &holdfastv1.Operation{Operation: &holdfastv1.Operation_MapRemove{MapRemove: &holdfastv1.MapRemove{Key: key}}}
}

func entity(typ, key string) *storev1.Entity { return &storev1.Entity{Type: typ, Key: key} }

func TestCommitSurvivesReopen(t *testing.T) {
	dir := t.TempDir()
	e := open(t, statestore.Config{Dir: dir})
	if err := e.Configure(context.Background(), testConfigure(1)); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := e.Commit(context.Background(), &storev1.Commit{Entity: entity("votes", "a"), Operations: []*holdfastv1.Operation{update("q", nil), update("q", inc(2))}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	e = open(t, statestore.Config{Dir: dir})
	s, err := e.Get(entity("votes", "a"))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := s.GetValue().GetOrmap().GetEntries()["q"].GetGcounter(), uint64(6); got != want {
		t.Errorf("after reopen: got %d, want %d", got, want)
	}
}
