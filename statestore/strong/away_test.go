package strong_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"

	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
	"github.com/holdfast-mesh/holdfast/statestore/refusal"
	"github.com/holdfast-mesh/holdfast/statestore/strong"
	"github.com/holdfast-mesh/holdfast/statestore/strong/strongtest"
)

// An owner is killed. Calls at the other store wait until its lease is over, and then succeed; none is refused that has the
// time.
func TestDeadOwnerIsWaitedFor(t *testing.T) {
	for what, how := range map[string]func(m *mesh) (heal func()){
		"killed": func(m *mesh) func() {
			m.setCut("a", errors.New("connection refused"))
			return func() {}
		},
		"silent": func(m *mesh) func() { return m.silence("a") },
		"cut off from etcd": func(m *mesh) func() {
			m.nodes["a"].etcd.SetDown(true)
			m.nodes["a"].etcd.SetHeld(false)
			return func() {}
		},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMesh(t, "a", "b")
				a, b := m.nodes["a"], m.nodes["b"]
				a.mustPut("k", "1", "x")
				b.wantValue("k", "x")
				heal := how(m)
				start := time.Now()
				results := make(chan *refusal.Error, 2)
				go func() {
					_, err := b.get("k")
					results <- err
				}()
				go func() { results <- b.put("k", "2", "y") }()
				time.Sleep(2 * time.Second)
				a.etcd.Lapse()
				for range 2 {
					if err := <-results; err != nil {
						t.Error(err)
					}
				}
				if took := time.Since(start); took > 2500*time.Millisecond {
					t.Errorf("took %s, with a lease that was over after 2 s", took)
				}
				b.wantValue("k", "y")
				heal()
			})
		})
	}
}

// silence makes calls of a node wait for their time to be up.
func (m *mesh) silence(name string) (end func()) {
	over := make(chan struct{})
	m.mu.Lock()
	m.silent = map[string]chan struct{}{name: over}
	m.mu.Unlock()
	return func() { close(over) }
}

// An owner that stays away keeps its slot as long as its lease lives: who has no time left is refused, not applied.
func TestDeadOwnerWithoutTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, "a", "b")
		m.nodes["a"].mustPut("k", "1", "x")
		m.setCut("a", errors.New("connection refused"))
		start := time.Now()
		wantRefusal(t, "put", m.nodes["b"].put("k", "2", "y"), codes.Unavailable, notApplied)
		if took := time.Since(start); took < 4*time.Second || took > 5*time.Second {
			t.Errorf("took %s of the 5 s", took)
		}
		// It comes back.
		results := make(chan *refusal.Error, 1)
		go func() { results <- m.nodes["b"].put("k", "3", "z") }()
		time.Sleep(time.Second)
		m.setCut("a", nil)
		if err := <-results; err != nil {
			t.Error(err)
		}
	})
}

// An owner dies with a commit under way. Once its lease is over, what became of it is known.
func TestCommitAtAnOwnerThatDies(t *testing.T) {
	for _, applied := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			m := newMesh(t, "a", "b")
			a, b := m.nodes["a"], m.nodes["b"]
			a.mustPut("k", "1", "x")
			m.deaf = map[string]bool{"a": true}
			if !applied {
				a.etcd.OnCommit(func(func() (int64, error)) (int64, error) { return 0, strongtest.ErrLost })
			}
			results := make(chan *refusal.Error, 1)
			go func() { results <- b.put("k", "2", "y") }()
			time.Sleep(2 * time.Second)
			synctest.Wait()
			if len(results) != 0 {
				t.Error("answered while the owner may live")
			}
			a.etcd.Lapse()
			err := <-results
			if applied && err != nil {
				t.Error(err)
			}
			if !applied {
				wantRefusal(t, "commit at a dead owner", err, codes.Unavailable, notApplied)
			}
			b.wantValue("k", map[bool]string{true: "y", false: "x"}[applied])
			// One that stays leaves its callers in doubt.
			a.etcd.OnCommit(nil)
			b.etcd.Lapse()
			a.mustPut("k", "3", "z")
			wantRefusal(t, "commit at an owner that lives", b.put("k", "4", "w"), codes.DeadlineExceeded, unknown)
		})
	}
}

// Not placed, a store tries all that are, for a slot that is free.
func TestNotPlacedTriesEachPlaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, "a", "b")
		c := m.add("c")
		m.setCut("a", errors.New("connection refused"))
		c.mustPut("k", "1", "x")
		m.nodes["b"].wantValue("k", "x")
	})
}

// The three cases of etcd's absence, one by one, each with its end.
func TestEtcdAway(t *testing.T) {
	t.Run("known gone", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			m := newMesh(t, "a", "b")
			a, b := m.nodes["a"], m.nodes["b"]
			a.mustPut("k", "1", "x")
			caller := strong.NewCaller()
			begun, err := a.begin(caller, "k", "2")
			if err != nil {
				t.Fatal(err)
			}
			a.etcd.SetDown(true)
			b.etcd.SetDown(true)
			start := time.Now()
			_, err = a.commit(caller, "k", "2", begun.Token, "y")
			wantRefusal(t, "commit", err, codes.Unavailable, notApplied)
			_, err = a.begin(strong.NewCaller(), "k", "3")
			wantRefusal(t, "begin", err, codes.Unavailable, notApplied)
			wantRefusal(t, "command at the other store", b.put("k", "4", "y"), codes.Unavailable, notApplied)
			_, err = a.beginSeveral(strong.NewCaller(), "5", "k", "l")
			wantRefusal(t, "begin on several", err, codes.Unavailable, notApplied)
			_, err = a.get("other")
			wantRefusal(t, "read of what is not in memory", err, codes.Unavailable, notApplied)
			if took := time.Since(start); took > 50*time.Millisecond {
				t.Errorf("refused after %s", took)
			}
			// Memory is served as long as the lease is held.
			a.wantValue("k", "x")
			a.etcd.SetHeld(false)
			_, err = a.get("k")
			wantRefusal(t, "read without lease", err, codes.Unavailable, notApplied)
			a.etcd.SetDown(false)
			b.etcd.SetDown(false)
			a.etcd.SetHeld(true)
			b.mustPut("k", "2", "y")
			a.wantValue("k", "y")
		})
	})
	t.Run("silent", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a := newMesh(t, "a").nodes["a"]
			a.mustPut("k", "1", "x")
			caller := strong.NewCaller()
			begun, err := a.begin(caller, "k", "2")
			if err != nil {
				t.Fatal(err)
			}
			a.etcd.SetSilent(true)
			a.wantValue("k", "x")
			start := time.Now()
			_, err = a.commit(caller, "k", "2", begun.Token, "y")
			wantRefusal(t, "commit", err, codes.DeadlineExceeded, unknown)
			if took := time.Since(start); took != 5*time.Second {
				t.Errorf("the caller had 5 s, and was answered after %s", took)
			}
			// What became of it nobody knows: memory is not served.
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			r := a.cmd.Call(ctx, nil, false, &storev1.Request{Call: &storev1.Request_Get{Get: &storev1.Get{Entity: ent("k")}}})
			wantRefusal(t, "read of what may have changed", refusal.FromProto(r.Error), codes.DeadlineExceeded, notApplied)
			a.etcd.SetSilent(false)
			a.wantValue("k", "x")
			a.mustPut("k", "2", "y")
			loads := a.etcd.Loads()
			a.wantValue("k", "y")
			if a.etcd.Loads() != loads {
				t.Error("memory is not served again after the next commit")
			}
		})
	})
}
