package statestore_test

import (
	"context"
	"errors"
	"flag"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"

	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	replicationv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/replication/v1"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
	"github.com/holdfast-mesh/holdfast/statestore"
)

func TestMain(m *testing.M) {
	// Each check starts stores; -rapid.checks says otherwise.
	_ = flag.Set("rapid.checks", "25")
	goleak.VerifyTestMain(m)
}

func testConfigure(epoch uint64) *storev1.Configure {
	typ := func(name string, model, values configv1.Model, c configv1.Consistency) *configv1.EntityType {
		t := &configv1.EntityType{Type: name, Model: model, Consistency: c}
		if values != 0 {
			t.Values = &configv1.Shape{Model: values}
		}
		return t
	}
	const eventual, strong = configv1.Consistency_CONSISTENCY_EVENTUAL, configv1.Consistency_CONSISTENCY_STRONG
	return &storev1.Configure{
		Types: []*configv1.EntityType{
			typ("count", configv1.Model_MODEL_GCOUNTER, 0, eventual),
			typ("reg", configv1.Model_MODEL_LWW, 0, eventual),
			typ("val", configv1.Model_MODEL_VALUE, 0, eventual),
			typ("votes", configv1.Model_MODEL_ORMAP, configv1.Model_MODEL_GCOUNTER, eventual),
			typ("names", configv1.Model_MODEL_ORMAP, configv1.Model_MODEL_LWW, eventual),
			typ("tags", configv1.Model_MODEL_ORSET, 0, eventual),
			typ("poll", configv1.Model_MODEL_VOTE, 0, eventual),
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

// configured opens an engine with the test configuration.
func configured(t *testing.T, cfg statestore.Config) *statestore.Engine {
	t.Helper()
	e := open(t, cfg)
	if err := e.Configure(context.Background(), testConfigure(1)); err != nil {
		t.Fatal(err)
	}
	return e
}

func commitOf(typ, key, id string, ops ...*holdfastv1.Operation) *storev1.Commit {
	return &storev1.Commit{Entity: entity(typ, key), RequestId: id, Operations: ops}
}

func mustCommit(t *testing.T, e *statestore.Engine, c *storev1.Commit) *storev1.Committed {
	t.Helper()
	committed, err := e.Commit(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	return committed
}

func read(t *testing.T, e *statestore.Engine, typ, key string) *storev1.State {
	t.Helper()
	s, err := e.Get(entity(typ, key))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func wantCount(t *testing.T, e *statestore.Engine, key string, want uint64) {
	t.Helper()
	if got := read(t, e, "count", key).GetValue().GetGcounter(); got != want {
		t.Errorf("count %q: got %d, want %d", key, got, want)
	}
}

func wantError(t *testing.T, what string, err error, code codes.Code, outcome storev1.Outcome, says string) {
	t.Helper()
	var e *statestore.Error
	if !errors.As(err, &e) {
		t.Fatalf("%s: got %v, want a refusal", what, err)
	}
	if e.Code != code || e.Outcome != outcome || !strings.Contains(e.Message, says) {
		t.Errorf("%s: got %s, %s, %q; want %s, %s and %q", what, e.Code, e.Outcome, e.Message, code, outcome, says)
	}
}

const (
	notApplied = storev1.Outcome_OUTCOME_NOT_APPLIED
	unknown    = storev1.Outcome_OUTCOME_UNKNOWN
)

func TestCommitAllOrNone(t *testing.T) {
	e := configured(t, statestore.Config{Dir: t.TempDir()})
	ops := func(ops ...*holdfastv1.Operation) []*holdfastv1.Operation { return ops }
	many := make([]*holdfastv1.Operation, 1025)
	for i := range many {
		many[i] = inc(1)
	}
	for _, c := range []struct {
		what, typ, key string
		ops            []*holdfastv1.Operation
		code           codes.Code
		says           string
	}{
		{"second operation", "count", "k", ops(inc(1), set("x")), codes.InvalidArgument, "operation 1 (set) on count, a gcounter"},
		{"only operation", "votes", "k", ops(inc(1)), codes.InvalidArgument, "operation 0 (increment) on votes, a ormap"},
		{"overflow", "count", "k", ops(inc(1<<63), inc(1<<63)), codes.FailedPrecondition, "operation 1 (increment)"},
		{"too large", "reg", "k", ops(set(strings.Repeat("x", 65536))), codes.ResourceExhausted, "maxStateBytes"},
		{"too large in a list", "names", "k", ops(update("a", set(strings.Repeat("x", 40000))), update("b", set(strings.Repeat("x", 40000)))), codes.ResourceExhausted, "maxStateBytes"},
		{"too many", "count", "k", many, codes.InvalidArgument, "1025 operations"},
		{"unknown type", "nothing", "k", ops(inc(1)), codes.Unavailable, "not configured"},
		{"strong type", "account", "k", ops(set("x")), codes.FailedPrecondition, "strong"},
		{"no key", "count", "", ops(inc(1)), codes.InvalidArgument, "key"},
		{"no type", "", "k", ops(inc(1)), codes.InvalidArgument, "type"},
		{"long key", "count", strings.Repeat("k", 1025), ops(inc(1)), codes.InvalidArgument, "1025 bytes"},
	} {
		_, err := e.Commit(context.Background(), commitOf(c.typ, c.key, "", c.ops...))
		wantError(t, c.what, err, c.code, notApplied, c.says)
	}
	for _, typ := range []string{"count", "votes", "reg", "names"} {
		if s := read(t, e, typ, "k"); s.Exists {
			t.Errorf("%s: a refused commit left %v", typ, s)
		}
	}
	if got := e.Status().Entities; got != 0 {
		t.Errorf("refused commits made %d entities", got)
	}
}

func TestStateGrowsUpToItsBoundAndShrinks(t *testing.T) {
	e := configured(t, statestore.Config{Dir: t.TempDir()})
	// The delta of a replacement must not count as growth.
	for i := range 10 {
		mustCommit(t, e, commitOf("reg", "k", "", set(strings.Repeat("x", 60000+i))))
	}
	mustCommit(t, e, commitOf("names", "k", "", update("a", set(strings.Repeat("x", 60000)))))
	_, err := e.Commit(context.Background(), commitOf("names", "k", "", update("b", set(strings.Repeat("x", 60000)))))
	wantError(t, "over the bound", err, codes.ResourceExhausted, notApplied, "maxStateBytes")
	mustCommit(t, e, commitOf("names", "k", "", remove("a"), update("b", set(strings.Repeat("x", 60000)))))
}

func TestCommitSurvivesReopen(t *testing.T) {
	dir := t.TempDir()
	e := configured(t, statestore.Config{Dir: dir})
	for range 3 {
		mustCommit(t, e, commitOf("votes", "a", "", update("q", nil), update("q", inc(2)), update("r", inc(1)), remove("r")))
	}
	mustCommit(t, e, commitOf("val", "a", "", set("x")))
	mustCommit(t, e, commitOf("reg", "a", "", set("y"), del()))
	first := e.Replica()
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	e = open(t, statestore.Config{Dir: dir})
	if e.Replica() == first {
		t.Error("the same replica identity after a restart")
	}
	entries := read(t, e, "votes", "a").GetValue().GetOrmap().GetEntries()
	if got := entries["q"].GetGcounter(); got != 6 || len(entries) != 1 {
		t.Errorf("votes: got %v", entries)
	}
	if got := string(read(t, e, "val", "a").GetValue().GetValue()); got != "x" {
		t.Errorf("val: got %q", got)
	}
	if s := read(t, e, "reg", "a"); s.Exists || s.Value != nil {
		t.Errorf("reg: got %v", s)
	}
}

func TestRequestIDs(t *testing.T) {
	dir := t.TempDir()
	e := configured(t, statestore.Config{Dir: dir, SegmentBytes: 1})
	if mustCommit(t, e, commitOf("count", "k", "1", inc(1))).Duplicate {
		t.Error("the first is no duplicate")
	}
	again := mustCommit(t, e, commitOf("count", "k", "1", inc(1)))
	if !again.Duplicate || again.State.GetValue().GetGcounter() != 1 {
		t.Errorf("got %v, want a duplicate", again)
	}
	mustCommit(t, e, commitOf("count", "other", "1", inc(1)))
	wantCount(t, e, "other", 1)
	// Two at once.
	var wg sync.WaitGroup
	var duplicates atomic.Int64
	for range 10 {
		wg.Go(func() {
			if mustCommit(t, e, commitOf("count", "k", "2", inc(1))).Duplicate {
				duplicates.Add(1)
			}
		})
	}
	wg.Wait()
	if got := duplicates.Load(); got != 9 {
		t.Errorf("%d of 10 were duplicates", got)
	}
	wantCount(t, e, "k", 2)
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	e = open(t, statestore.Config{Dir: dir})
	if !mustCommit(t, e, commitOf("count", "k", "1", inc(1))).Duplicate {
		t.Error("forgotten in a restart")
	}
	wantCount(t, e, "k", 2)
	if got := e.Status().Commits["count"]; got != 0 {
		t.Errorf("duplicates count as %d commits", got)
	}
}

func TestDeadlineInTheQueue(t *testing.T) {
	e := configured(t, statestore.Config{Dir: t.TempDir()})
	results := make(chan error, 1)
	e.CommitAsync(commitOf("count", "k", "", inc(1)), time.Now().Add(-time.Second), func(_ *storev1.Committed, err error) { results <- err })
	wantError(t, "late", <-results, codes.DeadlineExceeded, notApplied, "deadline")
	wantCount(t, e, "k", 0)
}

func TestInspectDoesNotActivate(t *testing.T) {
	e := configured(t, statestore.Config{Dir: t.TempDir()})
	in, err := e.Inspect(context.Background(), entity("count", "k"))
	if err != nil {
		t.Fatal(err)
	}
	if in.Active || in.State.Exists || in.Consistency != "eventual" || len(in.Replicas) != 2 || in.Owner != "" {
		t.Errorf("got %v", in)
	}
	if got := e.Status().Entities; got != 0 {
		t.Errorf("inspect made %d entities", got)
	}
	mustCommit(t, e, commitOf("count", "k", "", inc(1)))
	if in, err = e.Inspect(context.Background(), entity("count", "k")); err != nil || !in.Active {
		t.Errorf("got %v, %v", in, err)
	}
}

func TestConfigure(t *testing.T) {
	dir := t.TempDir()
	e := open(t, statestore.Config{Dir: dir})
	if err := e.Ready(); err == nil {
		t.Error("ready without a configuration")
	}
	_, err := e.Get(entity("count", "k"))
	wantError(t, "get before", err, codes.Unavailable, notApplied, "not configured")
	var seen []uint64
	e.Connect(statestore.Links{Configured: func(c *storev1.Configure) { seen = append(seen, c.Placement.Epoch) }})
	configure := func(c *storev1.Configure) error { return e.Configure(context.Background(), c) }
	if err := configure(testConfigure(5)); err != nil {
		t.Fatal(err)
	}
	wantError(t, "older", configure(testConfigure(4)), codes.FailedPrecondition, notApplied, "epoch 4 is older than 5")
	bad := testConfigure(6)
	bad.Types[0].Model = configv1.Model_MODEL_ORMAP
	wantError(t, "ormap of nothing", configure(bad), codes.InvalidArgument, notApplied, `"count"`)
	bad = testConfigure(6)
	bad.Types[0].Consistency = configv1.Consistency_CONSISTENCY_STRONG
	wantError(t, "strong gcounter", configure(bad), codes.InvalidArgument, notApplied, "strong")
	bad = testConfigure(6)
	bad.Types[0].Type = "reg"
	wantError(t, "twice", configure(bad), codes.InvalidArgument, notApplied, "twice")
	wantError(t, "no placement", configure(&storev1.Configure{}), codes.InvalidArgument, notApplied, "members")
	mustCommit(t, e, commitOf("count", "k", "", inc(1)))
	bad = testConfigure(6)
	bad.Types[0].Model = configv1.Model_MODEL_LWW
	wantError(t, "another model", configure(bad), codes.FailedPrecondition, notApplied, "another model")
	mustCommit(t, e, commitOf("val", "k", "", set("x")))
	bad = testConfigure(6)
	bad.Types[2].Consistency = configv1.Consistency_CONSISTENCY_STRONG
	wantError(t, "strong over entities", configure(bad), codes.FailedPrecondition, notApplied, `"val" has entities that are not strong`)
	if err := configure(testConfigure(7)); err != nil {
		t.Fatal(err)
	}
	if want := []uint64{5, 7}; !slices.Equal(seen, want) {
		t.Errorf("announced %v, want %v", seen, want)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	e = open(t, statestore.Config{Dir: dir})
	if err := e.Ready(); err != nil {
		t.Error(err)
	}
	if got := e.Configuration().GetPlacement().GetEpoch(); got != 7 {
		t.Errorf("epoch %d after reopen, want 7", got)
	}
	wantCount(t, e, "k", 1)
}

func TestClosedEngineRefuses(t *testing.T) {
	e := configured(t, statestore.Config{Dir: t.TempDir()})
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	_, err := e.Commit(context.Background(), commitOf("count", "k", "", inc(1)))
	wantError(t, "commit", err, codes.Unavailable, notApplied, "shutting down")
	if err := e.Merge(context.Background(), []*replicationv1.Delta{{}}); err == nil {
		t.Error("merge was taken")
	}
	if got := e.SlotHashes("count"); got != nil {
		t.Errorf("digest %v", got)
	}
}

// A wall clock that jumps makes no store forget what it applied.
func TestClockJumpsApplyNothingTwice(t *testing.T) {
	var ahead atomic.Int64
	now := func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	e := configured(t, statestore.Config{Dir: t.TempDir(), Now: now})
	mustCommit(t, e, commitOf("count", "k", "1", inc(1)))
	for _, jump := range []time.Duration{time.Hour, -time.Hour} {
		ahead.Store(int64(jump))
		mustCommit(t, e, commitOf("count", "other", jump.String(), inc(1)))
		if !mustCommit(t, e, commitOf("count", "k", "1", inc(1))).Duplicate {
			t.Errorf("applied again after a jump of %s", jump)
		}
	}
	wantCount(t, e, "k", 1)
}
