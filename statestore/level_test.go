package statestore_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
	"github.com/holdfast-mesh/holdfast/statestore"
	"github.com/holdfast-mesh/holdfast/statestore/crdt"
	"github.com/holdfast-mesh/holdfast/statestore/wal/faultfs"
)

// withLevel is the test configuration with a write level for the type "count".
func withLevel(level configv1.WriteLevel, members ...string) *storev1.Configure {
	c := testConfigure(2)
	c.Types[0].Write = level
	c.Placement.Members = nil
	for _, name := range members {
		c.Placement.Members = append(c.Placement.Members, &configv1.Member{Name: name})
	}
	return c
}

// waits are the stores that a commit waits for.
type waits struct {
	mu    sync.Mutex
	calls []await
}

type await struct {
	dot      crdt.Dot
	level    configv1.WriteLevel
	deadline time.Time
	done     func(bool)
}

func (w *waits) Await(_ string, _ uint32, dot crdt.Dot, level configv1.WriteLevel, deadline time.Time, done func(bool)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls = append(w.calls, await{dot, level, deadline, done})
}

func (w *waits) Join(_ string, _ uint32, _ time.Time, done func(error)) { done(nil) }

func (w *waits) Fill(_ string, _ uint32, _ time.Time, done func(error)) { done(nil) }

func (w *waits) Leave(_ string, _ uint32, _ *crdt.Context, _ time.Time, done func(bool)) { done(false) }
func (w *waits) AskRights(string, string, uint64)                                        {}

func (w *waits) take() []await {
	w.mu.Lock()
	defer w.mu.Unlock()
	calls := w.calls
	w.calls = nil
	return calls
}

func TestLevelsWaitForOtherStores(t *testing.T) {
	for _, level := range []configv1.WriteLevel{configv1.WriteLevel_WRITE_LEVEL_MAJORITY, configv1.WriteLevel_WRITE_LEVEL_ALL} {
		e := open(t, statestore.Config{Dir: t.TempDir()})
		if err := e.Configure(context.Background(), withLevel(level, "node-1", "node-2", "node-3")); err != nil {
			t.Fatal(err)
		}
		w, published := &waits{}, &wire{}
		e.Connect(statestore.Links{Replicas: w, Publisher: published})
		type result struct {
			committed *storev1.Committed
			err       error
		}
		results := make(chan result, 1)
		deadline := time.Now().Add(time.Hour)
		commit := func() await {
			t.Helper()
			e.CommitAsync(commitOf("count", "k", "1", inc(1)), deadline, func(c *storev1.Committed, err error) { results <- result{c, err} })
			// A merge of nothing known waits for the committer.
			if err := e.Merge(context.Background(), published.take()); err != nil {
				t.Fatal(err)
			}
			e.Configure(context.Background(), withLevel(level, "node-1", "node-2", "node-3"))
			calls := w.take()
			if len(calls) != 1 || calls[0].level != level || !calls[0].deadline.Equal(deadline) || len(results) != 0 {
				t.Fatalf("got %v, %d answers", calls, len(results))
			}
			return calls[0]
		}
		first := commit()
		if want := (crdt.Dot{Replica: e.Replica(), Seq: 1}); first.dot != want {
			t.Errorf("waits for %v, want %v", first.dot, want)
		}
		first.done(false)
		wantError(t, "deadline", (<-results).err, codes.DeadlineExceeded, unknown, "not enough others")
		// The retry applies nothing, and still promises what the level says.
		again := commit()
		if again.dot != first.dot {
			t.Errorf("the retry waits for %v, want %v", again.dot, first.dot)
		}
		again.done(true)
		if r := <-results; r.err != nil || !r.committed.Duplicate || r.committed.State.GetValue().GetGcounter() != 1 {
			t.Errorf("got %v", r)
		}
	}
	alone := open(t, statestore.Config{Dir: t.TempDir()})
	if err := alone.Configure(context.Background(), withLevel(configv1.WriteLevel_WRITE_LEVEL_ALL, "node-1")); err != nil {
		t.Fatal(err)
	}
	mustCommit(t, alone, commitOf("count", "k", "", inc(1)))
}

// LOCAL_MEM answers and shows before the disk, publishes after it, and loses nothing where only the log fails for a while.
func TestLocalMem(t *testing.T) {
	fs := &faultfs.FS{}
	e := open(t, statestore.Config{Dir: "/d", FS: fs, Logger: quiet()})
	if err := e.Configure(context.Background(), withLevel(configv1.WriteLevel_WRITE_LEVEL_LOCAL_MEM, "node-1", "node-2")); err != nil {
		t.Fatal(err)
	}
	w, r := &wire{}, &recorder{}
	e.Connect(statestore.Links{Publisher: w})
	view(t, e, entity("count", "k"), r)
	syncing, goOn := make(chan struct{}), make(chan struct{})
	var once sync.Once
	fs.Inject(func(_ int, op, _ string) error {
		if op == "sync" {
			once.Do(func() { close(syncing) })
			<-goOn
		}
		return nil
	})
	// All of them are answered though no sync ends: one by one, none can wait for the disk.
	committed := mustCommit(t, e, commitOf("count", "k", "1", inc(1)))
	if got := committed.State.GetValue().GetGcounter(); got != 1 {
		t.Errorf("got %d", got)
	}
	r.mu.Lock()
	if len(r.states) != 1 {
		t.Errorf("pushed %v", r.states)
	}
	r.mu.Unlock()
	<-syncing
	if len(w.take()) != 0 {
		t.Error("published before it was durable")
	}
	wantCount(t, e, "k", 1)
	close(goOn)
	// What is durable is a commit of another type after it.
	mustCommit(t, e, commitOf("reg", "k", "", set("x")))
	if got := len(w.take()); got != 2 {
		t.Errorf("published %d, want both", got)
	}
	if !mustCommit(t, e, commitOf("count", "k", "1", inc(1))).Duplicate {
		t.Error("applied twice")
	}
	fs.Inject(func(_ int, op, _ string) error {
		if op == "sync" || op == "create" {
			return fmt.Errorf("medium error")
		}
		return nil
	})
	mustCommit(t, e, commitOf("count", "k", "2", inc(1)))
	_, err := e.Commit(context.Background(), commitOf("reg", "k", "", set("y")))
	wantError(t, "with the log failing", err, codes.Unavailable, unknown, "medium error")
	wantCount(t, e, "k", 2)
	fs.Inject(nil)
	if err := e.Recover(context.Background()); err != nil {
		t.Fatal(err)
	}
	mustCommit(t, e, commitOf("reg", "k", "", set("z")))
	after := open(t, statestore.Config{Dir: "/d", FS: fs.Crash(rand.New(rand.NewPCG(1, 1))), Logger: quiet()})
	wantCount(t, after, "k", 2)
	if got := string(read(t, after, "reg", "k").GetValue().GetLww()); got != "z" {
		t.Errorf("got %q", got)
	}
	consistent(t, e)
}
