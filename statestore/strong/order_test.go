package strong_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc/codes"

	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
	"github.com/holdfast-mesh/holdfast/statestore/strong"
	"github.com/holdfast-mesh/holdfast/statestore/strong/strongtest"
)

// slowLoads is an etcd whose answers to loads can be held back, before or after they are carried out.
type slowLoads struct {
	*strongtest.Store
	mu            sync.Mutex
	before, after chan struct{}
}

func (s *slowLoads) Load(ctx context.Context, typ string, slot uint32, key string) ([]byte, int64, error) {
	s.mu.Lock()
	before, after := s.before, s.after
	s.before, s.after = nil, nil
	s.mu.Unlock()
	if before != nil {
		<-before
	}
	head, rev, err := s.Store.Load(ctx, typ, slot, key)
	if after != nil {
		<-after
	}
	return head, rev, err
}

// hold makes the next load wait.
func (s *slowLoads) hold(before, after chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before, s.after = before, after
}

// A commit that was given up as unknown lands late. Once one reader was given its state, no later one may be given the
// state before it.
func TestReadsNeverGoBack(t *testing.T) {
	for _, slowerReader := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			etcd := &slowLoads{Store: strongtest.New().Store("a")}
			m := &mesh{t: t, nodes: map[string]*node{}, types: types(t), cut: map[string]error{}}
			a := &node{mesh: m, name: "a", etcd: etcd.Store, peers: strong.NewCaller()}
			m.placed = []string{"a"}
			a.cmd = strong.New(m.config("a", func() (strong.Committer, strong.Forwarder) { return etcd, m }))
			t.Cleanup(a.cmd.Close)
			a.mustPut("k", "1", "old")
			var late func() (int64, error)
			lose := func(id, v string) {
				etcd.OnCommit(func(apply func() (int64, error)) (int64, error) {
					late = apply
					return 0, strongtest.ErrLost
				})
				wantRefusal(t, "lost", a.put("k", id, v), codes.DeadlineExceeded, unknown)
				etcd.OnCommit(nil)
			}
			lose("2", "never")
			got := func() chan string {
				out := make(chan string, 1)
				go func() {
					st, err := a.get("k")
					if err != nil {
						t.Error(err)
					}
					out <- string(st.GetValue().GetValue())
				}()
				synctest.Wait()
				return out
			}
			release := make(chan struct{})
			etcd.hold(release, nil)
			first := got() // On its way to etcd.
			lose("3", "new")
			releaseSecond := make(chan struct{})
			if !slowerReader {
				close(releaseSecond)
			}
			etcd.hold(nil, releaseSecond)
			second := got() // Etcd carries it out; the answer may take its time.
			if _, err := late(); err != nil {
				t.Fatal(err)
			}
			close(release)
			if v := <-first; v != "new" {
				t.Fatalf("first reader got %q", v)
			}
			if slowerReader {
				close(releaseSecond)
			}
			<-second // Either will do: it began before the first one ended.
			if v := <-got(); v != "new" {
				t.Errorf("a later reader got %q after another was given the new state", v)
			}
		})
	}
}

// A load is carried out, and its answer takes longer than a commit that comes after it. What memory had is dropped meanwhile:
// the old state must not be what memory has from then on.
func TestSlowLoadsAreNotKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		etcd := &slowLoads{Store: strongtest.New().Store("a")}
		m := &mesh{t: t, nodes: map[string]*node{}, types: types(t), cut: map[string]error{}, placed: []string{"a"}}
		a := &node{mesh: m, name: "a", etcd: etcd.Store, peers: strong.NewCaller()}
		a.cmd = strong.New(m.config("a", func() (strong.Committer, strong.Forwarder) { return etcd, m }))
		t.Cleanup(a.cmd.Close)
		a.mustPut("k", "1", "old")
		release := make(chan struct{})
		etcd.hold(nil, release)
		etcd.SetHeld(false)
		slow := make(chan struct{})
		go func() {
			defer close(slow)
			if _, err := a.get("k"); err != nil {
				t.Error(err)
			}
		}()
		synctest.Wait()
		etcd.SetHeld(true)
		a.mustPut("k", "2", "new")
		r := a.cmd.Call(context.Background(), a.peers, true, &storev1.Request{Call: &storev1.Request_Settle{
			Settle: &storev1.Settle{Entity: ent("k"), Token: "another.b", Revision: 1000},
		}})
		if r.Error != nil {
			t.Fatal(r.Error)
		}
		close(release)
		<-slow
		a.wantValue("k", "new")
	})
}

// A load that a store began as the owner ends after another has become it, and brings what the new owner has committed but
// not been told of. Nobody must see that before the new owner's readers do.
func TestLoadsOfAFormerOwnerAreNotGivenOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, "b")
		b := m.nodes["b"]
		etcd := &slowLoads{Store: m.etcd.Store("a")}
		a := &node{mesh: m, name: "a", etcd: etcd.Store, peers: strong.NewCaller()}
		m.placed = []string{"a", "b"}
		a.cmd = strong.New(m.config("a", func() (strong.Committer, strong.Forwarder) { return etcd, m }))
		m.nodes["a"] = a
		t.Cleanup(a.cmd.Close)
		a.mustPut("k", "1", "old")
		a.cmd.Call(context.Background(), a.peers, true, &storev1.Request{Call: &storev1.Request_Settle{
			Settle: &storev1.Settle{Entity: ent("k"), Token: "another.b", Revision: 1000},
		}})
		release, answer := make(chan struct{}), make(chan struct{})
		etcd.hold(release, nil)
		saw := make(chan string, 1)
		go func() {
			s, err := a.get("k")
			if err != nil {
				t.Error(err)
			}
			saw <- string(s.GetValue().GetValue())
		}()
		synctest.Wait()
		a.etcd.Lapse()
		b.wantValue("k", "old")
		b.etcd.OnCommit(func(apply func() (int64, error)) (int64, error) {
			rev, err := apply()
			<-answer
			return rev, err
		})
		done := make(chan struct{})
		go func() {
			defer close(done)
			b.mustPut("k", "2", "new")
		}()
		synctest.Wait()
		close(release)
		if got := <-saw; got != "old" {
			t.Errorf("the former owner's reader saw %q", got)
		}
		b.wantValue("k", "old")
		close(answer)
		<-done
		b.wantValue("k", "new")
	})
}
