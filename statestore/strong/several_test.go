package strong_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"

	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
	"github.com/holdfast-mesh/holdfast/statestore/refusal"
	"github.com/holdfast-mesh/holdfast/statestore/strong"
	"github.com/holdfast-mesh/holdfast/statestore/strong/strongtest"
)

func (n *node) beginSeveral(caller *strong.Caller, id string, keys ...string) (*storev1.Begun, *refusal.Error) {
	r, err := n.call(context.Background(), caller, &storev1.Request{Call: &storev1.Request_Begin{Begin: &storev1.Begin{
		Entity: ent(keys[0]), Others: keys[1:], RequestId: id,
	}}})
	return r.GetBegun(), err
}

// commitSeveral sets keys' values; "-" leaves one as it is.
func (n *node) commitSeveral(caller *strong.Caller, id, token string, keys []string, values ...string) (*storev1.Committed, *refusal.Error) {
	cm := &storev1.Commit{Entity: ent(keys[0]), RequestId: id, Token: token}
	for i, v := range values {
		switch {
		case v == "-":
		case i == 0:
			cm.Operations = setOp(v)
		default:
			cm.Others = append(cm.Others, &entityOut{Key: keys[i], Operations: setOp(v)})
		}
	}
	r, err := n.call(context.Background(), caller, &storev1.Request{Call: &storev1.Request_Commit{Commit: cm}})
	return r.GetCommitted(), err
}

type entityOut = holdfastv1.EntityOut

func (n *node) getSeveral(keys ...string) ([]string, *refusal.Error) {
	r, err := n.call(context.Background(), nil, &storev1.Request{Call: &storev1.Request_Get{Get: &storev1.Get{Entity: ent(keys[0]), Others: keys[1:]}}})
	if err != nil {
		return nil, err
	}
	got := []string{string(r.GetState().GetValue().GetValue())}
	for _, s := range r.Others {
		got = append(got, string(s.GetValue().GetValue()))
	}
	return got, nil
}

func valuesOf(first *storev1.State, others []*storev1.State) []string {
	var got []string
	for _, s := range append([]*storev1.State{first}, others...) {
		got = append(got, string(s.GetValue().GetValue()))
	}
	return got
}

// spread is a mesh whose stores a, b and c own the slots of the keys "ka", "kb" and "kc", each with its name as value.
func spread(t *testing.T) *mesh {
	m := newMesh(t, "a", "b", "c")
	for _, name := range m.placed {
		m.nodes[name].mustPut("k"+name, "", name)
	}
	return m
}

func TestSeveralEntitiesOfSeveralOwners(t *testing.T) {
	m := spread(t)
	for i, name := range []string{"a", "b", "c"} {
		n, caller, id := m.nodes[name], strong.NewCaller(), fmt.Sprint("several", i)
		keys := []string{"kc", "ka", "kb"}
		begun, err := n.beginSeveral(caller, id, keys...)
		if err != nil {
			t.Fatal(err)
		}
		want := []string{"c", "a", "b"}
		if i > 0 {
			want = []string{fmt.Sprint("c", i-1), fmt.Sprint("a", i-1), "b"}
		}
		if got := valuesOf(begun.State, begun.Others); !slices.Equal(got, want) {
			t.Errorf("begun at %s with %v, want %v", name, got, want)
		}
		c, err := n.commitSeveral(caller, id, begun.Token, keys, fmt.Sprint("c", i), fmt.Sprint("a", i), "-")
		if err != nil {
			t.Fatal(err)
		}
		want = []string{fmt.Sprint("c", i), fmt.Sprint("a", i), "b"}
		if got := valuesOf(c.State, c.Others); !slices.Equal(got, want) {
			t.Errorf("committed at %s: %v, want %v", name, got, want)
		}
		for _, reader := range m.placed {
			got, err := m.nodes[reader].getSeveral(keys...)
			if err != nil || !slices.Equal(got, want) {
				t.Errorf("%s reads %v, %v, want %v", reader, got, err, want)
			}
		}
		// Sent again it is known, whichever entity is looked at, and its turns are free.
		again, err := m.nodes["b"].beginSeveral(strong.NewCaller(), id, keys...)
		if err != nil || !again.AlreadyApplied || !slices.Equal(valuesOf(again.State, again.Others), want) {
			t.Errorf("begun again: %v, %v", again, err)
		}
		late, err := n.commitSeveral(caller, id, begun.Token, keys, "late", "late", "late")
		if err != nil || !late.Duplicate {
			t.Errorf("committed again: %v, %v", late, err)
		}
	}
	// All their turns are free.
	for _, name := range m.placed {
		m.nodes["a"].mustPut("k"+name, "", "free")
	}
}

// A command that only looks at an entity must not be applied when that entity was changed meanwhile.
func TestSeveralEntitiesGuardWhatTheyOnlyRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := spread(t)
		a, b := m.nodes["a"], m.nodes["b"]
		keys := []string{"ka", "kb"}
		begun, err := a.beginSeveral(strong.NewCaller(), "1", keys...)
		if err != nil {
			t.Fatal(err)
		}
		// The owner forgets the turn that it lent, and another command has it.
		old := b.peers
		b.peers = strong.NewCaller()
		b.cmd.Gone(old)
		b.mustPut("kb", "2", "changed")
		_, err = a.commitSeveral(strong.NewCaller(), "1", begun.Token, keys, "decided by kb's old state", "-")
		wantRefusal(t, "commit on an old state", err, codes.Aborted, notApplied)
		a.wantValue("ka", "a")
		a.wantValue("kb", "changed")
	})
}

func TestWhatSeveralRefuses(t *testing.T) {
	m := spread(t)
	a := m.nodes["a"]
	_, err := a.beginSeveral(strong.NewCaller(), "", "ka", "kb", "ka")
	wantRefusal(t, "twice", err, codes.InvalidArgument, notApplied)
	var many []string
	for i := range 100 {
		many = append(many, "k"+strconv.Itoa(i))
	}
	_, err = a.beginSeveral(strong.NewCaller(), "", many...)
	wantRefusal(t, "too many", err, codes.ResourceExhausted, notApplied)
	if !strings.Contains(err.Message, "100 entities") || !strings.Contains(err.Message, "at most 128") {
		t.Errorf("too many: %v", err)
	}
	_, err = a.getSeveral(many...)
	wantRefusal(t, "read too many", err, codes.ResourceExhausted, notApplied)

	keys := []string{"ka", "kb"}
	for what, commit := range map[string]*storev1.Commit{
		"an entity that was not begun": {Entity: ent("ka"), Others: []*entityOut{{Key: "kc", Operations: setOp("x")}}},
		"twice":                        {Entity: ent("ka"), Others: []*entityOut{{Key: "kb", Operations: setOp("x")}, {Key: "kb", Operations: setOp("y")}}},
		"the first among the others":   {Entity: ent("ka"), Others: []*entityOut{{Key: "ka", Operations: setOp("x")}}},
		"not a value's operation": {Entity: ent("ka"), Operations: setOp("x"), Others: []*entityOut{{Key: "kb", Operations: []*holdfastv1.Operation{
			{Operation: &holdfastv1.Operation_Increment{Increment: &holdfastv1.Increment{By: 1}}},
		}}}},
	} {
		begun, err := a.beginSeveral(strong.NewCaller(), "", keys...)
		if err != nil {
			t.Fatal(what, err)
		}
		commit.Token = begun.Token
		_, err = a.call(context.Background(), strong.NewCaller(), &storev1.Request{Call: &storev1.Request_Commit{Commit: commit}})
		wantRefusal(t, what, err, codes.InvalidArgument, notApplied)
	}
	if got, err := a.getSeveral(keys...); err != nil || !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("changed by what was refused: %v, %v", got, err)
	}
	for what, req := range map[string]*storev1.Request{
		"a part":   {Call: &storev1.Request_Begin{Begin: &storev1.Begin{Entity: ent("ka"), Part: true}}},
		"a settle": {Call: &storev1.Request_Settle{Settle: &storev1.Settle{Entity: ent("ka"), Token: "x.a"}}},
	} {
		_, err = a.call(context.Background(), strong.NewCaller(), req)
		wantRefusal(t, what+" from a caller", err, codes.InvalidArgument, notApplied)
	}
	// And all turns are free, which the next takes at once.
	begun, err := a.beginSeveral(strong.NewCaller(), "", keys...)
	if err != nil {
		t.Fatal(err)
	}
	// A part can't be committed by itself.
	_, err = a.commit(strong.NewCaller(), "kb", "", begun.Token, "x")
	wantRefusal(t, "a part by itself", err, codes.Aborted, notApplied)
}

func TestSeveralEndWithTheirCallerAndDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := spread(t)
		a := m.nodes["a"]
		caller := strong.NewCaller()
		if _, err := a.beginSeveral(caller, "1", "ka", "kb", "kc"); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		a.cmd.Gone(caller)
		for _, name := range m.placed {
			m.nodes[name].mustPut("k"+name, "", "2")
		}
		if waited := time.Since(start); waited > 0 {
			t.Errorf("waited %s for the turns of a lost connection", waited)
		}
		begun, err := a.beginSeveral(strong.NewCaller(), "3", "ka", "kb", "kc")
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(6 * time.Second)
		_, err = a.commitSeveral(strong.NewCaller(), "3", begun.Token, []string{"ka", "kb", "kc"}, "x", "x", "x")
		wantRefusal(t, "after the deadline", err, codes.Aborted, notApplied)
		begun, err = a.beginSeveral(strong.NewCaller(), "4", "ka", "kb", "kc")
		if err != nil {
			t.Fatal(err)
		}
		a.abort(strong.NewCaller(), "ka", begun.Token)
		for _, name := range m.placed {
			m.nodes[name].mustPut("k"+name, "", "5")
			// What was given up is served from memory again.
			loads := m.nodes[name].etcd.Loads()
			m.nodes[name].wantValue("k"+name, "5")
			if m.nodes[name].etcd.Loads() != loads {
				t.Errorf("%s reads etcd", name)
			}
		}
	})
}

// The coordinator dies, or gets no answer, and its transaction lands when nobody waits any more: who reads several entities
// must never see one changed and the other not, though their owners know of nothing.
func TestSeveralThatLandLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := spread(t)
		a, b := m.nodes["a"], m.nodes["b"]
		keys := []string{"ka", "kb", "kc"}
		var late func() (int64, error)
		a.etcd.OnCommit(func(apply func() (int64, error)) (int64, error) {
			late = apply
			return 0, strongtest.ErrLost
		})
		caller := strong.NewCaller()
		begun, err := a.beginSeveral(caller, "1", keys...)
		if err != nil {
			t.Fatal(err)
		}
		_, err = a.commitSeveral(caller, "1", begun.Token, keys, "late", "late", "late")
		wantRefusal(t, "no answer", err, codes.DeadlineExceeded, unknown)
		a.etcd.OnCommit(nil)
		synctest.Wait()
		for _, n := range m.nodes {
			if got, err := n.getSeveral(keys...); err != nil || !slices.Equal(got, []string{"a", "b", "c"}) {
				t.Errorf("before: %v, %v", got, err)
			}
		}
		if _, err := late(); err != nil {
			t.Fatal(err)
		}
		for _, n := range m.nodes {
			for _, key := range keys {
				n.wantValue(key, "late")
			}
		}
		begun, err = b.beginSeveral(strong.NewCaller(), "1", keys...)
		if err != nil || !begun.AlreadyApplied {
			t.Errorf("sent again: %v, %v", begun, err)
		}
		loads := b.etcd.Loads()
		b.wantValue("kb", "late")
		if b.etcd.Loads() != loads {
			t.Error("what has landed is read from etcd still")
		}
	})
}

// An owner that does not hear what became of its part reads etcd.
func TestSettleThatIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := spread(t)
		a, b := m.nodes["a"], m.nodes["b"]
		keys := []string{"ka", "kb"}
		begun, err := a.beginSeveral(strong.NewCaller(), "1", keys...)
		if err != nil {
			t.Fatal(err)
		}
		m.setCut("b", errors.New("broken"))
		if _, err := a.commitSeveral(strong.NewCaller(), "1", begun.Token, keys, "x", "x"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		m.setCut("b", nil)
		b.wantValue("kb", "x")
		a.wantValue("ka", "x")
		// The turn ends with its deadline.
		time.Sleep(6 * time.Second)
		b.mustPut("kb", "2", "y")
	})
}

func TestSeveralWhoseOwnerMoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, gone := range []string{"a", "b"} {
			m := spread(t)
			a := m.nodes["a"]
			keys := []string{"ka", "kb"}
			begun, err := a.beginSeveral(strong.NewCaller(), "1", keys...)
			if err != nil {
				t.Fatal(err)
			}
			m.nodes[gone].etcd.Lapse()
			m.nodes["c"].wantValue("k"+gone, gone)
			_, err = a.commitSeveral(strong.NewCaller(), "1", begun.Token, keys, "x", "x")
			wantRefusal(t, "commit after a slot moved", err, codes.Aborted, notApplied)
			begun, err = a.beginSeveral(strong.NewCaller(), "1", keys...)
			if err != nil || begun.AlreadyApplied {
				t.Fatal(begun, err)
			}
			if _, err := a.commitSeveral(strong.NewCaller(), "1", begun.Token, keys, "y", "y"); err != nil {
				t.Error(err)
			}
			for _, n := range m.nodes {
				n.wantValue("ka", "y")
				n.wantValue("kb", "y")
			}
		}
	})
}

// Money goes around between accounts of three owners, by commands that name them in any order: none is lost, and nobody
// waits for ever.
func TestTransfersLoseNothing(t *testing.T) {
	m := newMesh(t, "a", "b", "c")
	accounts := []string{"1", "2", "3", "4", "5"}
	for i, key := range accounts {
		m.nodes[m.placed[i%3]].mustPut(key, "", "100")
	}
	number := func(s *storev1.State) int {
		n, err := strconv.Atoi(string(s.GetValue().GetValue()))
		if err != nil {
			t.Error(err)
		}
		return n
	}
	var wg sync.WaitGroup
	for i, name := range m.placed {
		wg.Go(func() {
			n, caller := m.nodes[name], strong.NewCaller()
			for j := range 60 {
				keys := []string{accounts[(i+j)%5], accounts[(i+j*j+1+i+j)%5]}
				if keys[0] == keys[1] {
					continue
				}
				for {
					begun, err := n.beginSeveral(caller, fmt.Sprint(i, "-", j), keys...)
					if err == nil && begun.AlreadyApplied {
						break
					}
					if err == nil {
						_, err = n.commitSeveral(caller, fmt.Sprint(i, "-", j), begun.Token, keys,
							strconv.Itoa(number(begun.State)-1), strconv.Itoa(number(begun.Others[0])+1))
					}
					if err == nil {
						break
					}
					if err.Outcome != notApplied {
						t.Error(err)
						return
					}
				}
				if j%20 == 19 {
					n.etcd.Lapse()
				}
				got, err := n.getSeveral(accounts...)
				if err != nil {
					continue
				}
				sum := 0
				for _, v := range got {
					x, _ := strconv.Atoi(v)
					sum += x
				}
				if sum != 500 {
					t.Errorf("%s saw %v: %d together, want 500", name, got, sum)
				}
			}
		})
	}
	wg.Wait()
}

// What does not fit an answer is refused by its size, and no turn stays taken.
func TestSeveralThatAreTooLarge(t *testing.T) {
	m := newMesh(t, "a")
	a := m.nodes["a"]
	keys := []string{"1", "2", "3", "4", "5", "6"}
	for _, key := range keys {
		if _, err := a.do("large", key, setOp(strings.Repeat("x", 1_000_000))[0]); err != nil {
			t.Fatal(err)
		}
	}
	large := &storev1.Entity{Type: "large", Key: "1"}
	for range 2 {
		_, err := a.call(context.Background(), strong.NewCaller(), &storev1.Request{Call: &storev1.Request_Begin{Begin: &storev1.Begin{Entity: large, Others: keys[1:]}}})
		wantRefusal(t, "begin", err, codes.ResourceExhausted, notApplied)
		_, err = a.call(context.Background(), nil, &storev1.Request{Call: &storev1.Request_Get{Get: &storev1.Get{Entity: large, Others: keys[1:]}}})
		wantRefusal(t, "get", err, codes.ResourceExhausted, notApplied)
	}
	if _, err := a.do("large", "1", setOp("small")[0]); err != nil {
		t.Error(err)
	}
}
