package strong

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/holdfast-mesh/holdfast/internal/etcd/etcdtest"
	"github.com/holdfast-mesh/holdfast/internal/fenced"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
	"github.com/holdfast-mesh/holdfast/replication/strong/ownership"
)

func TestMain(m *testing.M) {
	if args := os.Getenv(pausedVar); args != "" {
		runPaused(args)
		return
	}
	goleak.VerifyTestMain(m)
}

func open(t *testing.T, path *etcdtest.Path, node string, change ...func(*Config)) *Committer {
	t.Helper()
	cfg := Config{Node: node, Home: "home-of-" + node, Etcd: path.Dial(), Logger: slog.New(slog.DiscardHandler)}
	for _, f := range change {
		f(&cfg)
	}
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// eventually polls a condition that another goroutine or process brings about.
func eventually(t *testing.T, d time.Duration, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(d); !ok(); {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not within %s: %s", d, what)
		}
	}
}

// head makes a head that no other command makes.
func head(value []byte, id string) []byte { return append(append(slices.Clone(value), '#'), id...) }

func one(epoch int64, key string, rev int64, head []byte) fenced.Write {
	return fenced.Write{Slot: fenced.Slot{Type: "t", Number: 1}, Epoch: epoch, Key: key, Revision: rev, Head: head}
}

// commit writes one entity's head.
func commit(ctx context.Context, c *Committer, epoch int64, key string, rev int64, head []byte) (int64, error) {
	return c.Commit(ctx, []fenced.Write{one(epoch, key, rev, head)})
}

func claim(t *testing.T, c *Committer, slot uint32) int64 {
	t.Helper()
	owner, epoch, err := c.Claim(within(t, 5*time.Second), "t", slot)
	if err != nil || owner != c.cfg.Node || epoch == 0 {
		t.Fatalf("claim of slot %d by %s: owner %q, epoch %d, %v", slot, c.cfg.Node, owner, epoch, err)
	}
	return epoch
}

func outcome(err error) storev1.Outcome {
	if e := (*Error)(nil); errors.As(err, &e) {
		return e.Outcome()
	}
	return storev1.Outcome_OUTCOME_UNSPECIFIED
}

func TestTwoStoresContendForSlots(t *testing.T) {
	server := etcdtest.Start(t)
	stores := []*Committer{open(t, server.Path, "a"), open(t, server.NewPath(), "b")}
	const slots = 20
	owners := make([][slots]string, len(stores))
	var wg sync.WaitGroup
	for i, c := range stores {
		for slot := range uint32(slots) {
			wg.Go(func() {
				owner, epoch, err := c.Claim(within(t, 5*time.Second), "t", slot)
				if err != nil {
					t.Errorf("claim: %v", err)
				}
				if (owner == c.cfg.Node) != (epoch != 0) || c.Held("t", slot, epoch) != (epoch != 0) {
					t.Errorf("%s: slot %d: owner %q, epoch %d", c.cfg.Node, slot, owner, epoch)
				}
				owners[i][slot] = owner
			})
		}
	}
	wg.Wait()
	if owners[0] != owners[1] {
		t.Errorf("owners differ:\n%v\n%v", owners[0], owners[1])
	}
	if owner, err := stores[0].Owner(within(t, time.Second), "t", 99); owner != "" || err != nil {
		t.Errorf("owner of a free slot: %q, %v", owner, err)
	}
	if owner, err := stores[0].Owner(within(t, time.Second), "t", 3); owner != owners[0][3] || err != nil {
		t.Errorf("owner of slot 3: %q, %v, want %q", owner, err, owners[0][3])
	}
	// What a store gives back is free at once.
	_ = stores[0].Close()
	for slot := range uint32(slots) {
		claim(t, stores[1], slot)
	}
}

func TestExpiredHolderIsFenced(t *testing.T) {
	server := etcdtest.Start(t)
	path := server.NewPath()
	a, b := open(t, path, "a"), open(t, server.Path, "b")
	epoch := claim(t, a, 1)
	rev, err := commit(within(t, time.Second), a, epoch, "k", 0, head([]byte("by a"), "1"))
	if err != nil {
		t.Fatal(err)
	}
	path.Pause()
	var newEpoch int64
	eventually(t, 10*time.Second, "b owns the slot after a's lease expired", func() bool {
		owner, e, err := b.Claim(within(t, time.Second), "t", 1)
		if err != nil {
			t.Fatal(err)
		}
		if owner == "b" && a.Held("t", 1, epoch) {
			t.Fatal("b owns the slot while a serves it from memory")
		}
		newEpoch = e
		return owner == "b"
	})
	path.Resume()
	// a does not know yet, or does: in no case may it write.
	eventually(t, 10*time.Second, "a refuses by name", func() bool {
		_, err := commit(within(t, time.Second), a, epoch, "k", rev, head([]byte("by a again"), "2"))
		if err == nil {
			t.Fatal("the former owner's commit was applied")
		}
		var e *Error
		return errors.As(err, &e) && e.NotOwner()
	})
	value, rev, err := b.Load(within(t, time.Second), "t", 1, "k")
	if string(value) != "by a#1" || err != nil {
		t.Errorf("loaded %q, %v", value, err)
	}
	if _, err := commit(within(t, time.Second), b, newEpoch, "k", rev, head([]byte("by b"), "3")); err != nil {
		t.Errorf("the new owner's commit: %v", err)
	}
	if owner, _, err := a.Claim(within(t, 5*time.Second), "t", 1); owner != "b" || err != nil {
		t.Errorf("a asks who owns the slot: %q, %v", owner, err)
	}
}

func TestHeldEndsWithTheLeaseOnThisClock(t *testing.T) {
	server := etcdtest.Start(t)
	var ahead atomic.Int64
	c := open(t, server.Path, "a", func(cfg *Config) {
		cfg.Now = func() time.Duration { return bootTime() + time.Duration(ahead.Load()) }
	})
	epoch := claim(t, c, 1)
	if !c.Held("t", 1, epoch) || c.Held("t", 1, epoch+1) || c.Held("t", 2, epoch) {
		t.Error("held: want this epoch of this slot and no other")
	}
	ahead.Store(int64(ownership.MinTTL)) // The machine slept.
	if c.Held("t", 1, epoch) {
		t.Error("held although the clock is past the lease's deadline")
	}
	eventually(t, 5*time.Second, "held again after the next keep-alive", func() bool { return c.Held("t", 1, epoch) })
}

func TestIncrementsAreNotLost(t *testing.T) {
	server := etcdtest.Start(t)
	c := open(t, server.Path, "a")
	const clients, each, entities = 8, 60, 3
	epoch := claim(t, c, 1)
	var wg sync.WaitGroup
	var conflicts atomic.Int64
	for client := range clients {
		wg.Go(func() {
			for i := range each {
				key := fmt.Sprint("k", i%entities)
				for {
					value, rev, err := c.Load(within(t, 5*time.Second), "t", 1, key)
					if err != nil {
						t.Error(err)
						return
					}
					var n uint64
					if rev != 0 {
						n = binary.BigEndian.Uint64(value)
					}
					_, err = commit(within(t, 5*time.Second), c, epoch, key, rev, head(binary.BigEndian.AppendUint64(nil, n+1), fmt.Sprint(client, "/", i)))
					var e *Error
					if errors.As(err, &e) && e.Conflict() {
						conflicts.Add(1)
						continue
					}
					if err != nil {
						t.Error(err)
					}
					break
				}
			}
		})
	}
	wg.Wait()
	var sum uint64
	for k := range entities {
		value, _, err := c.Load(within(t, time.Second), "t", 1, fmt.Sprint("k", k))
		if err != nil {
			t.Fatal(err)
		}
		sum += binary.BigEndian.Uint64(value)
	}
	if sum != clients*each {
		t.Errorf("sum %d, want %d", sum, clients*each)
	}
	if conflicts.Load() == 0 {
		t.Error("no conflict: the clients did not contend")
	}
}

func TestUnknownOutcomeIsSaidAndRecognised(t *testing.T) {
	server := etcdtest.Start(t)
	c := open(t, server.Path, "a")
	epoch := claim(t, c, 1)
	server.PauseAnswers()
	_, err := commit(within(t, 200*time.Millisecond), c, epoch, "k", 0, head([]byte("v"), "id"))
	if outcome(err) != storev1.Outcome_OUTCOME_UNKNOWN {
		t.Errorf("commit without an answer: %v, outcome %v", err, outcome(err))
	}
	eventually(t, 5*time.Second, "etcd counts as gone", func() bool { return !c.Up() })
	start := time.Now()
	_, err = commit(within(t, 5*time.Second), c, epoch, "k", 0, head([]byte("w"), "id2"))
	if outcome(err) != storev1.Outcome_OUTCOME_NOT_APPLIED || time.Since(start) > 50*time.Millisecond {
		t.Errorf("commit while etcd is known to be gone: %v after %s", err, time.Since(start))
	}
	server.Resume()
	eventually(t, 5*time.Second, "etcd is back", c.Up)
	rev, err := commit(within(t, 5*time.Second), c, epoch, "k", 0, head([]byte("v"), "id"))
	if err != nil || rev == 0 {
		t.Errorf("the same commit again: rev %d, %v", rev, err)
	}
	if _, err := commit(within(t, 5*time.Second), c, epoch, "k", 0, head([]byte("v"), "other")); !errors.Is(err, ErrConflict) {
		t.Errorf("another commit of the same value at the old revision: %v", err)
	}
	if _, got, _ := c.Load(within(t, time.Second), "t", 1, "k"); got != rev {
		t.Errorf("entity at revision %d, want %d", got, rev)
	}
}

func TestEtcdStopsAndComesBack(t *testing.T) {
	server := etcdtest.Start(t)
	c := open(t, server.Path, "a")
	epoch := claim(t, c, 1)
	server.Stop()
	eventually(t, 5*time.Second, "etcd counts as gone", func() bool { return !c.Up() })
	if !c.Held("t", 1, epoch) {
		t.Error("reads from memory ended before the lease's deadline")
	}
	for range 20 {
		start := time.Now()
		_, err := commit(within(t, 5*time.Second), c, epoch, "k", 0, head([]byte("v"), "id"))
		if d := time.Since(start); outcome(err) != storev1.Outcome_OUTCOME_NOT_APPLIED || d > 50*time.Millisecond {
			t.Fatalf("commit without etcd: %v after %s", err, d)
		}
		_, _, err = c.Claim(within(t, 5*time.Second), "t", 2)
		if d := time.Since(start); err == nil || d > 50*time.Millisecond {
			t.Fatalf("claim without etcd: %v after %s", err, d)
		}
	}
	server.Restart()
	eventually(t, 10*time.Second, "etcd is back", c.Up)
	// The lease outlived the restart, and the claim with it.
	if _, err := commit(within(t, 5*time.Second), c, epoch, "k", 0, head([]byte("v"), "id")); err != nil {
		t.Errorf("commit after the restart: %v", err)
	}
	eventually(t, 5*time.Second, "reads from memory again", func() bool { return c.Held("t", 1, epoch) })
	if got := claim(t, c, 1); got != epoch {
		t.Errorf("epoch %d after the restart, want %d", got, epoch)
	}
}

func TestRestartedStoreTakesItsSlotsBackAtOnce(t *testing.T) {
	server := etcdtest.Start(t)
	long := func(cfg *Config) { cfg.TTL = time.Minute }
	crashed := open(t, server.Path, "a", long)
	old := claim(t, crashed, 1)
	// What a kill leaves: a lease that nobody keeps or revokes.
	crashed.cancel()
	crashed.done.Wait()

	again := open(t, server.NewPath(), "a", long)
	if epoch := claim(t, again, 1); epoch == old {
		t.Errorf("epoch %d as before: hot copies of the former process would count", epoch)
	}
	if _, err := commit(within(t, time.Second), crashed, old, "k", 0, head(nil, "")); !errors.Is(err, ErrNotOwner) {
		t.Errorf("commit in the name of the former process: %v", err)
	}
	// Another process under the same name proves nothing about this one.
	stranger := open(t, server.NewPath(), "a", long, func(cfg *Config) { cfg.Home = "elsewhere" })
	if _, _, err := stranger.Claim(within(t, 5*time.Second), "t", 1); !errors.Is(err, ownership.ErrFormer) {
		t.Errorf("same node name from another home: %v", err)
	}
	if got := claim(t, again, 1); got != again.epoch(fenced.Slot{Type: "t", Number: 1}) {
		t.Errorf("epoch %d", got)
	}
}

func TestInnocentCommitsOfABatchAreApplied(t *testing.T) {
	server := etcdtest.Start(t)
	c := open(t, server.Path, "a")
	epoch := claim(t, c, 1)
	mk := func(key string, epoch, expected int64) *command {
		p, err := newCommand(context.Background(), []fenced.Write{one(epoch, key, expected, head([]byte("v"), key))})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	transact := func(commands ...*command) []*command {
		shared := newTransaction()
		for _, p := range commands {
			if added, _ := shared.add(p); !added {
				t.Fatal("does not fit")
			}
		}
		return c.transact(shared)
	}
	good, conflicting := mk("good", epoch, 0), mk("conflicting", epoch, 7)
	late := mk("late", epoch-1, 0)
	again := transact(good, conflicting)
	if len(again) != 1 || again[0] != good {
		t.Fatalf("%d commits go again, want the innocent one", len(again))
	}
	if again := transact(again...); again != nil {
		t.Fatal("the innocent one goes again for ever")
	}
	if res := <-good.done; res.err != nil {
		t.Errorf("innocent: %v", res.err)
	}
	if res := <-conflicting.done; !errors.Is(res.err, ErrConflict) {
		t.Errorf("conflicting: %v", res.err)
	}
	good = mk("good2", epoch, 0)
	again = transact(late, good)
	if len(again) != 1 || again[0] != good {
		t.Fatalf("%d commits go again, want the one with the right epoch", len(again))
	}
	if res := <-late.done; !errors.Is(res.err, ErrNotOwner) {
		t.Errorf("late: %v", res.err)
	}
	if got := claim(t, c, 1); got != epoch {
		t.Errorf("a late commit of an old epoch dropped the claim: epoch %d, want %d", got, epoch)
	}
}

func TestCommitRefusesWhatIsTooLarge(t *testing.T) {
	server := etcdtest.Start(t)
	c := open(t, server.Path, "a")
	epoch := claim(t, c, 1)
	big := make([]byte, MaxHeadBytes+1)
	if _, err := commit(within(t, time.Second), c, epoch, "k", 0, big); !errors.Is(err, ErrTooLarge) {
		t.Errorf("too large: %v", err)
	}
	// Many large ones at once never exceed a transaction.
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			if _, err := commit(within(t, 10*time.Second), c, epoch, fmt.Sprint(i), 0, head(big[:MaxHeadBytes/2], "")); err != nil {
				t.Errorf("large: %v", err)
			}
		})
	}
	wg.Wait()
}

// A store whose keep-alives arrive but which hears no answers may serve nothing, and so must not keep its slots.
func TestDeafHolderLosesItsSlots(t *testing.T) {
	server := etcdtest.Start(t)
	path := server.NewPath()
	a, b := open(t, path, "a"), open(t, server.Path, "b")
	epoch := claim(t, a, 1)
	path.PauseAnswers()
	eventually(t, 20*time.Second, "b owns the slot", func() bool {
		owner, _, err := b.Claim(within(t, time.Second), "t", 1)
		if owner == "b" && a.Held("t", 1, epoch) {
			t.Fatal("b owns the slot while a serves it from memory")
		}
		return err == nil && owner == "b"
	})
}
