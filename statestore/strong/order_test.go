package strong_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc/codes"

	"github.com/holdfast-mesh/holdfast/statestore/strong"
	"github.com/holdfast-mesh/holdfast/statestore/strong/strongtest"
)

// slowLoads is an etcd whose answers to loads can be held back, before or after they are carried out.
type slowLoads struct {
	*strongtest.Store
	mu            sync.Mutex
	before, after chan struct{}
}

func (s *slowLoads) Load(ctx context.Context, typ string, slot uint32, key string) ([]byte, bool, int64, []string, error) {
	s.mu.Lock()
	before, after := s.before, s.after
	s.before, s.after = nil, nil
	s.mu.Unlock()
	if before != nil {
		<-before
	}
	value, exists, rev, ids, err := s.Store.Load(ctx, typ, slot, key)
	if after != nil {
		<-after
	}
	return value, exists, rev, ids, err
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
			m := &mesh{t: t, nodes: map[string]*node{}, cut: map[string]error{}}
			a := &node{mesh: m, name: "a", etcd: etcd.Store, peers: strong.NewCaller()}
			a.cmd = strong.New(strong.Config{
				Node:  "a",
				Links: func() (strong.Committer, strong.Forwarder) { return etcd, m },
				Type: func(string) (strong.Type, error) {
					return strong.Type{MaxStateBytes: 100, Replicas: func(uint32) []string { return []string{"a"} }}, nil
				},
				Committed: func(string) {},
			})
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
