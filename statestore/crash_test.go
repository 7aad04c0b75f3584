package statestore_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	replicationv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/replication/v1"
	"github.com/holdfast-mesh/holdfast/statestore"
	"github.com/holdfast-mesh/holdfast/statestore/wal/faultfs"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// crashScript commits 50 increments of one counter, each under its own request id, until the disk fails.
func crashScript(t *testing.T, fs *faultfs.FS) (acked, unknowns []int) {
	t.Helper()
	e, err := statestore.Open(statestore.Config{Node: "node-1", Dir: "/d", FS: fs, Logger: quiet(), SegmentBytes: 400})
	if err != nil {
		return nil, nil
	}
	defer e.Close()
	if err := e.Configure(context.Background(), testConfigure(1)); err != nil {
		return nil, nil
	}
	for i := range 50 {
		_, err := e.Commit(context.Background(), commitOf("count", "k", fmt.Sprint(i), inc(1)))
		var refused *statestore.Error
		switch {
		case err == nil:
			acked = append(acked, i)
		case !errors.As(err, &refused):
			t.Fatalf("commit %d: %v", i, err)
		case refused.Outcome == unknown:
			unknowns = append(unknowns, i)
		}
	}
	return acked, unknowns
}

// acked ≤ value ≤ acked + unknown, and what was applied once is not applied again, wherever the power goes off.
func TestCrashAtEveryBoundary(t *testing.T) {
	dry := &faultfs.FS{}
	crashScript(t, dry)
	if dry.Ops() < 110 {
		t.Fatalf("the script has only %d boundaries", dry.Ops())
	}
	for at := 1; at <= dry.Ops(); at++ {
		fs := &faultfs.FS{}
		fs.Inject(func(n int, _, _ string) error {
			if n == at {
				return faultfs.ErrPowerOff
			}
			return nil
		})
		acked, unknowns := crashScript(t, fs)
		if len(unknowns) > 1 {
			t.Fatalf("crash at %d: %d commits of unknown outcome, one was under way", at, len(unknowns))
		}
		after := fs.Crash(rand.New(rand.NewPCG(uint64(at), 1)))
		e := configured(t, statestore.Config{Dir: "/d", FS: after, Logger: quiet()})
		got := read(t, e, "count", "k").GetValue().GetGcounter()
		if got < uint64(len(acked)) || got > uint64(len(acked)+len(unknowns)) {
			t.Fatalf("crash at %d: %d acknowledged, %d unknown, the value is %d", at, len(acked), len(unknowns), got)
		}
		// A client that asks again until it knows: value = distinct request ids.
		for i := range 50 {
			mustCommit(t, e, commitOf("count", "k", fmt.Sprint(i), inc(1)))
		}
		wantCount(t, e, "k", 50)
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestNothingIsSeenBeforeItIsDurable(t *testing.T) {
	fs := &faultfs.FS{}
	e := configured(t, statestore.Config{Dir: "/d", FS: fs})
	w, r := &wire{}, &recorder{}
	e.Connect(statestore.Links{Publisher: w})
	view(t, e, entity("count", "k"), r)
	syncing, goOn := make(chan struct{}), make(chan struct{})
	fs.Inject(func(_ int, op, _ string) error {
		if op == "sync" {
			close(syncing)
			<-goOn
		}
		return nil
	})
	answered := make(chan error, 1)
	go func() {
		_, err := e.Commit(context.Background(), commitOf("count", "k", "", inc(1)))
		answered <- err
	}()
	<-syncing
	if s := read(t, e, "count", "k"); s.Exists {
		t.Errorf("read shows %v before the sync", s)
	}
	r.mu.Lock()
	if len(r.states) != 0 {
		t.Error("pushed before the sync")
	}
	r.mu.Unlock()
	if len(w.take()) != 0 {
		t.Error("published before the sync")
	}
	select {
	case <-answered:
		t.Error("answered before the sync")
	default:
	}
	close(goOn)
	if err := <-answered; err != nil {
		t.Fatal(err)
	}
	fs.Inject(nil)
	wantCount(t, e, "k", 1)
}

func TestFailedDisk(t *testing.T) {
	fs := &faultfs.FS{}
	e := configured(t, statestore.Config{Dir: "/d", FS: fs, Logger: quiet()})
	w := &wire{}
	e.Connect(statestore.Links{Publisher: w})
	mustCommit(t, e, commitOf("count", "k", "", inc(1)))
	w.take()
	fs.Inject(func(_ int, op, _ string) error {
		if op == "sync" {
			return errors.New("medium error")
		}
		return nil
	})
	_, err := e.Commit(context.Background(), commitOf("count", "k", "1", inc(1)))
	wantError(t, "commit under way", err, codes.Unavailable, unknown, "medium error")
	fs.Inject(nil)
	_, err = e.Commit(context.Background(), commitOf("count", "k", "1", inc(1)))
	wantError(t, "its retry", err, codes.Unavailable, notApplied, "poisoned")
	if err := e.Merge(context.Background(), nil); err != nil {
		t.Errorf("merge of nothing: %v", err)
	}
	wantCount(t, e, "k", 1)
	if len(w.take()) != 0 {
		t.Error("what is not durable left the store")
	}
	// What is durable can still be handed over.
	other := configured(t, statestore.Config{Dir: t.TempDir()})
	repair(t, e, other)
	wantCount(t, other, "k", 1)
	if err := e.Ready(); err == nil {
		t.Error("ready with a failed disk")
	}
	if got := e.Status().Disk; !strings.Contains(got, "medium error") {
		t.Errorf("status says %q", got)
	}
}

// A full disk refuses writes, not reads, nor what others fetch; and once there is room the store goes on without a restart.
func TestFullDisk(t *testing.T) {
	fs := &faultfs.FS{}
	e := configured(t, statestore.Config{Dir: "/d", FS: fs, Logger: quiet()})
	other := configured(t, statestore.Config{Dir: t.TempDir()})
	ctx := context.Background()
	mustCommit(t, e, commitOf("count", "k", "1", inc(1)))
	for cycle := range 3 {
		if err := e.Recover(ctx); err != nil {
			t.Errorf("a store without a failure: %v", err)
		}
		fs.Inject(func(_ int, op, _ string) error {
			if op == "write" {
				return errors.New("no space left on device")
			}
			return nil
		})
		id := fmt.Sprint("new", cycle)
		_, err := e.Commit(ctx, commitOf("count", "k", id, inc(1)))
		// What was written of it was taken back.
		wantError(t, "commit", err, codes.Unavailable, notApplied, "no space")
		_, err = e.Commit(ctx, commitOf("count", "k", id, inc(1)))
		wantError(t, "commit after it", err, codes.Unavailable, notApplied, "no space")
		if err := e.Recover(ctx); err == nil {
			t.Error("recovered on a full disk")
		}
		wantCount(t, e, "k", uint64(cycle+1))
		repair(t, e, other)
		wantCount(t, other, "k", uint64(cycle+1))
		fs.Inject(nil)
		if err := e.Recover(ctx); err != nil {
			t.Fatal(err)
		}
		if mustCommit(t, e, commitOf("count", "k", id, inc(1))).Duplicate {
			t.Error("what was not durable counts as applied")
		}
		wantCount(t, e, "k", uint64(cycle+2))
	}
	repair(t, e, other)
	wantCount(t, other, "k", 4)
	after := fs.Crash(rand.New(rand.NewPCG(1, 1)))
	wantCount(t, configured(t, statestore.Config{Dir: "/d", FS: after, Logger: quiet()}), "k", 4)
}

func TestDamagedLogIsRefused(t *testing.T) {
	fs := &faultfs.FS{}
	e := configured(t, statestore.Config{Dir: "/d", FS: fs})
	for range 3 {
		mustCommit(t, e, commitOf("count", "k", "", inc(1)))
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	const segment = "/d/log/0000000000000001.log"
	data, err := fs.ReadFile(segment)
	if err != nil {
		t.Fatal(err)
	}
	data[60] ^= 1
	fs.WriteDurable(segment, data)
	if _, err := statestore.Open(statestore.Config{Node: "node-1", Dir: "/d", FS: fs}); err == nil || !strings.Contains(err.Error(), segment) {
		t.Errorf("got %v, want an error that names the file", err)
	}
}

// A log snapshot that is begun with the record of an identity has it.
func TestSnapshotHasWhatItStandsFor(t *testing.T) {
	cfg := statestore.Config{Dir: "/d", FS: &faultfs.FS{}, SegmentBytes: 1}
	a := configured(t, cfg)
	mustCommit(t, a, commitOf("count", "k", "", inc(1)))
	a.Settle()
	var ids []*replicationv1.Identity
	for i := range uint64(100) { // As much as the snapshot before, so that there is another one.
		ids = append(ids, &replicationv1.Identity{Replica: i + 1, Node: "x"})
	}
	if err := a.LearnIdentities(context.Background(), ids); err != nil {
		t.Fatal(err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if got := len(open(t, cfg).Identities()); got < len(ids) {
		t.Errorf("%d identities are left, want %d", got, len(ids))
	}
}
