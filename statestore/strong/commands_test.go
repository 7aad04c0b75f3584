package strong_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
	"github.com/holdfast-mesh/holdfast/statestore/refusal"
	"github.com/holdfast-mesh/holdfast/statestore/strong"
	"github.com/holdfast-mesh/holdfast/statestore/strong/entity"
	"github.com/holdfast-mesh/holdfast/statestore/strong/strongtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// mesh is some stores with one etcd.
type mesh struct {
	t      *testing.T
	etcd   *strongtest.Etcd
	nodes  map[string]*node
	placed []string
	types  map[string]*entity.Type
	// cut makes calls to a node fail.
	mu  sync.Mutex
	cut map[string]error
	// silent are nodes that do not answer before the channel is closed.
	silent map[string]chan struct{}
	// deaf are nodes whose answers to commits are lost.
	deaf map[string]bool
	// work counts calls that went on without their caller.
	work sync.WaitGroup
}

type node struct {
	mesh  *mesh
	name  string
	etcd  *strongtest.Store
	cmd   *strong.Commands
	peers *strong.Caller
}

func newMesh(t *testing.T, names ...string) *mesh {
	m := &mesh{t: t, etcd: strongtest.New(), nodes: map[string]*node{}, placed: names, types: types(t), cut: map[string]error{}}
	for _, name := range names {
		m.add(name)
	}
	return m
}

// types are those that tests use.
func types(t *testing.T) map[string]*entity.Type {
	all := map[string]*entity.Type{}
	for _, typ := range []*configv1.EntityType{
		{Type: "account", Model: configv1.Model_MODEL_VALUE, MaxStateBytes: 1000},
		{Type: "cart", Model: configv1.Model_MODEL_EVENT_SOURCED, SnapshotEvery: 3},
		{Type: "session", Model: configv1.Model_MODEL_VALUE, Ttl: durationpb.New(time.Minute)},
		{Type: "basket", Model: configv1.Model_MODEL_EVENT_SOURCED, Ttl: durationpb.New(time.Minute)},
		{Type: "large", Model: configv1.Model_MODEL_VALUE, MaxStateBytes: 1_000_000},
		{Type: "used", Model: configv1.Model_MODEL_VALUE, Ttl: durationpb.New(time.Minute), TtlByUse: true},
	} {
		parsed, err := entity.NewType(typ)
		if err != nil {
			t.Fatal(err)
		}
		all[typ.Type] = parsed
	}
	return all
}

func (m *mesh) add(name string) *node {
	n := &node{mesh: m, name: name, etcd: m.etcd.Store(name), peers: strong.NewCaller()}
	n.cmd = strong.New(m.config(name, func() (strong.Committer, strong.Forwarder) { return n.etcd, m }))
	m.nodes[name] = n
	m.t.Cleanup(n.cmd.Close)
	return n
}

func (m *mesh) config(name string, links func() (strong.Committer, strong.Forwarder)) strong.Config {
	return strong.Config{
		Node:  name,
		Links: links,
		Type: func(typ string) (strong.Type, error) {
			return strong.Type{Type: m.types[typ], Replicas: func(uint32) []string { return m.placed }}, nil
		},
		Types:     func() []string { return slices.Sorted(maps.Keys(m.types)) },
		Committed: func(string) {},
	}
}

// Call implements strong.Forwarder.
func (m *mesh) Call(ctx context.Context, to string, req *storev1.Request) (*storev1.Response, error) {
	m.mu.Lock()
	err, silent, deaf := m.cut[to], m.silent[to], m.deaf[to] && req.GetCommit() != nil
	m.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if silent != nil {
		select {
		case <-silent:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	n := m.nodes[to]
	if n == nil {
		return nil, errors.New("no such node")
	}
	r := n.cmd.Call(ctx, n.peers, true, req)
	if deaf {
		return nil, errors.New("connection reset")
	}
	return r, nil
}

func (m *mesh) setCut(to string, err error) {
	m.mu.Lock()
	m.cut[to] = err
	m.mu.Unlock()
}

func ent(key string) *storev1.Entity { return &storev1.Entity{Type: "account", Key: key} }

func (n *node) call(ctx context.Context, caller *strong.Caller, req *storev1.Request) (*storev1.Response, *refusal.Error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	r := n.cmd.Call(ctx, caller, false, req)
	if r.Error != nil {
		return nil, refusal.FromProto(r.Error)
	}
	return r, nil
}

func (n *node) begin(caller *strong.Caller, key, id string) (*storev1.Begun, *refusal.Error) {
	r, err := n.call(context.Background(), caller, &storev1.Request{Call: &storev1.Request_Begin{Begin: &storev1.Begin{Entity: ent(key), RequestId: id}}})
	return r.GetBegun(), err
}

func setOp(v string) []*holdfastv1.Operation {
	return []*holdfastv1.Operation{{Operation: &holdfastv1.Operation_Set{Set: &holdfastv1.Set{Value: []byte(v)}}}}
}

func (n *node) commit(caller *strong.Caller, key, id, token, v string) (*storev1.Committed, *refusal.Error) {
	r, err := n.call(context.Background(), caller, &storev1.Request{Call: &storev1.Request_Commit{Commit: &storev1.Commit{
		Entity: ent(key), RequestId: id, Token: token, Operations: setOp(v),
	}}})
	return r.GetCommitted(), err
}

func (n *node) abort(caller *strong.Caller, key, token string) {
	_, _ = n.call(context.Background(), caller, &storev1.Request{Call: &storev1.Request_Abort{Abort: &storev1.Abort{Entity: ent(key), Token: token}}})
}

func (n *node) get(key string) (*storev1.State, *refusal.Error) {
	r, err := n.call(context.Background(), nil, &storev1.Request{Call: &storev1.Request_Get{Get: &storev1.Get{Entity: ent(key)}}})
	return r.GetState(), err
}

// put is a whole command.
func (n *node) put(key, id, v string) *refusal.Error {
	n.mesh.t.Helper()
	caller := strong.NewCaller()
	defer n.cmd.Gone(caller)
	begun, err := n.begin(caller, key, id)
	if err != nil {
		return err
	}
	_, err = n.commit(caller, key, id, begun.Token, v)
	return err
}

func (n *node) mustPut(key, id, v string) {
	n.mesh.t.Helper()
	if err := n.put(key, id, v); err != nil {
		n.mesh.t.Fatalf("put %s=%s at %s: %v", key, v, n.name, err)
	}
}

func (n *node) wantValue(key, want string) {
	n.mesh.t.Helper()
	s, err := n.get(key)
	if err != nil {
		n.mesh.t.Fatalf("get %s at %s: %v", key, n.name, err)
	}
	if got := string(s.GetValue().GetValue()); got != want {
		n.mesh.t.Errorf("get %s at %s: got %q, want %q", key, n.name, got, want)
	}
}

func wantRefusal(t *testing.T, what string, err *refusal.Error, code codes.Code, outcome storev1.Outcome) {
	t.Helper()
	if err == nil {
		t.Fatalf("%s: was not refused", what)
	}
	if err.Code != code || err.Outcome != outcome {
		t.Errorf("%s: got %s, %s (%s), want %s, %s", what, err.Code, err.Outcome, err, code, outcome)
	}
}

const (
	notApplied = storev1.Outcome_OUTCOME_NOT_APPLIED
	unknown    = storev1.Outcome_OUTCOME_UNKNOWN
)

func TestCommandReadAndForward(t *testing.T) {
	m := newMesh(t, "a", "b")
	a, b := m.nodes["a"], m.nodes["b"]
	a.wantValue("k", "")
	a.mustPut("k", "1", "x")
	b.wantValue("k", "x")
	b.mustPut("k", "2", "y")
	a.wantValue("k", "y")
	loads := a.etcd.Loads()
	a.wantValue("k", "y")
	if got := a.etcd.Loads() - loads; got != 0 {
		t.Errorf("a read of memory asked etcd %d times", got)
	}
	if b.etcd.Loads() != 0 {
		t.Errorf("a store that is not the owner read etcd %d times", b.etcd.Loads())
	}
}

func TestNotPlacedForwards(t *testing.T) {
	m := newMesh(t, "a")
	b := m.add("b")
	b.mustPut("k", "1", "x")
	m.nodes["a"].wantValue("k", "x")
}

func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, "a", "b")
		a := m.nodes["a"]
		c1, c2 := strong.NewCaller(), strong.NewCaller()
		first, err := a.begin(c1, "k", "1")
		if err != nil {
			t.Fatal(err)
		}
		again, err := a.begin(c2, "k", "1")
		if err != nil || again.Token != first.Token {
			t.Fatalf("begin again: got %v, %v, want the same token", again, err)
		}
		// Another command waits; after one abort the turn is still held by the other who began it.
		granted := make(chan string)
		go func() {
			next, err := a.begin(strong.NewCaller(), "k", "2")
			if err != nil {
				t.Error(err)
			}
			granted <- next.GetToken()
		}()
		synctest.Wait()
		a.abort(c1, "k", first.Token)
		synctest.Wait()
		select {
		case <-granted:
			t.Fatal("the turn was given away while it was held")
		default:
		}
		a.cmd.Gone(c2)
		second := <-granted
		if _, err := a.commit(c1, "k", "1", first.Token, "late"); err == nil {
			t.Fatal("a late commit was taken")
		} else {
			wantRefusal(t, "late commit", err, codes.Aborted, notApplied)
		}
		// Its deadline ends it, before that of who waits.
		time.Sleep(time.Second)
		start := time.Now()
		if _, err := a.begin(strong.NewCaller(), "k", "3"); err != nil {
			t.Fatal(err)
		}
		if got := time.Since(start); got > 5*time.Second {
			t.Errorf("waited %s for a turn whose deadline was 5 s", got)
		}
		_, err = a.commit(strong.NewCaller(), "k", "2", second, "late")
		wantRefusal(t, "commit after the deadline", err, codes.Aborted, notApplied)
		a.wantValue("k", "")
	})
}

func TestQueueIsBoundedAndInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newMesh(t, "a").nodes["a"]
		caller := strong.NewCaller()
		holder, err := a.begin(caller, "k", "holder")
		if err != nil {
			t.Fatal(err)
		}
		const waiting = 128
		var mu sync.Mutex
		var order []int
		var wg sync.WaitGroup
		for i := range waiting {
			wg.Go(func() {
				caller := strong.NewCaller()
				begun, err := a.begin(caller, "k", fmt.Sprint(i))
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				order = append(order, i)
				mu.Unlock()
				if _, err := a.commit(caller, "k", fmt.Sprint(i), begun.Token, fmt.Sprint(i)); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		_, err = a.begin(strong.NewCaller(), "k", "too many")
		wantRefusal(t, "begin over the bound", err, codes.ResourceExhausted, notApplied)
		a.abort(caller, "k", holder.Token)
		wg.Wait()
		a.wantValue("k", fmt.Sprint(waiting-1))
		if !slices.IsSorted(order) {
			t.Errorf("not in order: %v", order)
		}
	})
}

func TestAlreadyApplied(t *testing.T) {
	a := newMesh(t, "a", "b").nodes["a"]
	a.mustPut("k", "1", "x")
	begun, err := a.begin(strong.NewCaller(), "k", "1")
	if err != nil || !begun.AlreadyApplied || string(begun.State.GetValue().GetValue()) != "x" {
		t.Fatalf("got %v, %v, want already applied", begun, err)
	}
	a.mustPut("k", "2", "y")
}

func TestLostAnswer(t *testing.T) {
	for _, applied := range []bool{true, false} {
		t.Run(fmt.Sprintf("applied=%v", applied), func(t *testing.T) {
			a := newMesh(t, "a").nodes["a"]
			a.mustPut("k", "1", "x")
			a.etcd.OnCommit(func(apply func() (int64, error)) (int64, error) {
				if applied {
					_, _ = apply()
				}
				return 0, strongtest.ErrLost
			})
			wantRefusal(t, "lost answer", a.put("k", "2", "y"), codes.DeadlineExceeded, unknown)
			a.etcd.OnCommit(nil)
			loads := a.etcd.Loads()
			want := map[bool]string{true: "y", false: "x"}[applied]
			a.wantValue("k", want)
			if a.etcd.Loads() == loads {
				t.Error("served from memory after an unknown outcome")
			}
			begun, err := a.begin(strong.NewCaller(), "k", "2")
			if err != nil || begun.AlreadyApplied != applied {
				t.Errorf("begin with its id: got %v, %v, want already applied = %v", begun, err, applied)
			}
		})
	}
}

func TestLostAnswerThatArrivesAfterTheNextLoad(t *testing.T) {
	a := newMesh(t, "a").nodes["a"]
	a.mustPut("k", "1", "x")
	var late func() (int64, error)
	a.etcd.OnCommit(func(apply func() (int64, error)) (int64, error) {
		late = apply
		return 0, strongtest.ErrLost
	})
	wantRefusal(t, "lost", a.put("k", "2", "y"), codes.DeadlineExceeded, unknown)
	a.etcd.OnCommit(nil)
	a.wantValue("k", "x")
	caller := strong.NewCaller()
	begun, err := a.begin(caller, "k", "3")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := late(); err != nil {
		t.Fatal(err)
	}
	// Whoever reads from now on reads what etcd has, though nobody told this store.
	a.wantValue("k", "y")
	_, err = a.commit(caller, "k", "3", begun.Token, "z")
	wantRefusal(t, "commit on an old state", err, codes.Aborted, notApplied)
	a.wantValue("k", "y")
	a.mustPut("k", "4", "w")
}

func TestConflictThatIsItsOwn(t *testing.T) {
	a := newMesh(t, "a").nodes["a"]
	a.etcd.OnCommit(func(apply func() (int64, error)) (int64, error) {
		if _, err := apply(); err != nil {
			return 0, err
		}
		return apply()
	})
	a.mustPut("k", "1", "x")
	a.etcd.OnCommit(nil)
	a.wantValue("k", "x")
}

func TestOwnershipMoves(t *testing.T) {
	m := newMesh(t, "a", "b")
	a, b := m.nodes["a"], m.nodes["b"]
	a.mustPut("k", "1", "x")
	caller := strong.NewCaller()
	begun, err := a.begin(caller, "k", "2")
	if err != nil {
		t.Fatal(err)
	}
	a.etcd.Lapse()
	b.mustPut("k", "3", "y")
	_, err = a.commit(caller, "k", "2", begun.Token, "stale")
	wantRefusal(t, "commit after the slot moved", err, codes.Aborted, notApplied)
	a.wantValue("k", "y")
	a.mustPut("k", "4", "z")
	b.wantValue("k", "z")
	// A call that was forwarded once is refused, not sent on.
	r := a.cmd.Call(context.Background(), a.peers, true, &storev1.Request{Call: &storev1.Request_Begin{Begin: &storev1.Begin{Entity: ent("k")}}})
	wantRefusal(t, "forwarded twice", refusal.FromProto(r.Error), codes.Aborted, notApplied)
	// And who holds an old hint finds the new owner.
	b.etcd.Lapse()
	a.mustPut("k", "5", "w")
	b.wantValue("k", "w")
}

func TestOldHint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, "a", "b", "c")
		a, b, c := m.nodes["a"], m.nodes["b"], m.nodes["c"]
		a.mustPut("k", "1", "x")
		c.wantValue("k", "x")
		a.etcd.Lapse()
		b.mustPut("k", "2", "y")
		c.wantValue("k", "y")
		b.etcd.Lapse()
		a.mustPut("k", "3", "z")
		c.mustPut("k", "4", "w")
		a.wantValue("k", "w")
		// An owner that can't be reached is asked for again, too.
		m.setCut("a", errors.New("broken"))
		if _, err := c.get("k"); err == nil {
			t.Fatal("read through a cut")
		}
		a.etcd.Lapse()
		c.wantValue("k", "w")
	})
}

func TestEtcdGone(t *testing.T) {
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
	a.wantValue("k", "x")
	_, err = a.begin(strong.NewCaller(), "other", "3")
	wantRefusal(t, "begin", err, codes.Unavailable, notApplied)
	_, err = a.commit(caller, "k", "2", begun.Token, "y")
	wantRefusal(t, "commit", err, codes.Unavailable, notApplied)
	a.etcd.SetHeld(false)
	_, err = a.get("k")
	wantRefusal(t, "read after the lease's deadline", err, codes.Unavailable, notApplied)
	a.etcd.SetDown(false)
	a.etcd.SetHeld(true)
	a.mustPut("k", "4", "z")
}

func TestReadWithoutLeaseLoads(t *testing.T) {
	a := newMesh(t, "a").nodes["a"]
	a.mustPut("k", "1", "x")
	a.etcd.SetHeld(false)
	loads := a.etcd.Loads()
	a.wantValue("k", "x")
	if a.etcd.Loads() == loads {
		t.Error("served from memory without the lease")
	}
}

func TestOwnerUnreachable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, "a", "b")
		a, b := m.nodes["a"], m.nodes["b"]
		a.mustPut("k", "1", "x")
		begun, err := b.begin(strong.NewCaller(), "k", "2")
		if err != nil {
			t.Fatal(err)
		}
		m.setCut("a", errors.New("broken"))
		_, err = b.get("k")
		wantRefusal(t, "get", err, codes.Unavailable, notApplied)
		_, err = b.begin(strong.NewCaller(), "k", "3")
		wantRefusal(t, "begin", err, codes.Unavailable, notApplied)
		_, err = b.commit(strong.NewCaller(), "k", "2", begun.Token, "y")
		wantRefusal(t, "commit", err, codes.DeadlineExceeded, unknown)
		m.setCut("a", &strongtest.Error{Text: "no connection", Result: notApplied, GRPC: codes.Unavailable})
		_, err = b.commit(strong.NewCaller(), "k", "2", begun.Token, "y")
		wantRefusal(t, "commit that was never sent", err, codes.Unavailable, notApplied)
	})
}

func TestLostConnectionEndsRemoteTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, "a", "b")
		a, b := m.nodes["a"], m.nodes["b"]
		a.mustPut("k", "1", "x")
		caller := strong.NewCaller()
		if _, err := b.begin(caller, "k", "2"); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		b.cmd.Gone(caller)
		a.mustPut("k", "3", "y")
		if waited := time.Since(start); waited > time.Second {
			t.Errorf("waited %s for the turn of a lost connection", waited)
		}
	})
}

func TestWhatCommitRefuses(t *testing.T) {
	a := newMesh(t, "a").nodes["a"]
	caller := strong.NewCaller()
	_, err := a.commit(caller, "k", "1", "", "x")
	wantRefusal(t, "no token", err, codes.InvalidArgument, notApplied)
	begun, err := a.begin(caller, "k", "1")
	if err != nil {
		t.Fatal(err)
	}
	_, err = a.commit(caller, "k", "1", begun.Token, string(make([]byte, 1001)))
	wantRefusal(t, "too large", err, codes.ResourceExhausted, notApplied)
	begun, err = a.begin(caller, "k", "1")
	if err != nil {
		t.Fatal(err)
	}
	_, err = a.call(context.Background(), caller, &storev1.Request{Call: &storev1.Request_Commit{Commit: &storev1.Commit{
		Entity: ent("k"), Token: begun.Token,
		Operations: append(setOp("x"), &holdfastv1.Operation{Operation: &holdfastv1.Operation_Increment{Increment: &holdfastv1.Increment{By: 1}}}),
	}}})
	wantRefusal(t, "increment", err, codes.InvalidArgument, notApplied)
	a.wantValue("k", "")
	a.mustPut("k", "2", "y")
}

func TestManyCommandsLoseNothing(t *testing.T) {
	m := newMesh(t, "a", "b", "c")
	names := []string{"a", "b", "c"}
	const each = 40
	var wg sync.WaitGroup
	for i, name := range names {
		n := m.nodes[name]
		wg.Go(func() {
			caller := strong.NewCaller()
			for j := range each {
				id := fmt.Sprintf("%d-%d", i, j)
				if j%13 == 7 {
					n.etcd.Lapse()
				}
				for {
					begun, err := n.begin(caller, "k", id)
					if err == nil && begun.AlreadyApplied {
						break
					}
					if err == nil {
						old := len(begun.State.GetValue().GetValue())
						if _, err = n.commit(caller, "k", id, begun.Token, string(make([]byte, (old+1)%100))); err == nil {
							break
						}
					}
					if err.Outcome != notApplied {
						t.Errorf("%s: %v", id, err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
	s, err := m.nodes["a"].get("k")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := len(s.GetValue().GetValue()), len(names)*each%100; got != want {
		t.Errorf("got %d increments (mod 100), want %d", got, want)
	}
}
