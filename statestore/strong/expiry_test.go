package strong_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"

	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
	"github.com/holdfast-mesh/holdfast/statestore/refusal"
	"github.com/holdfast-mesh/holdfast/statestore/strong"
)

func (n *node) getOf(typ, key string) (*storev1.State, *refusal.Error) {
	r, err := n.call(context.Background(), nil, &storev1.Request{Call: &storev1.Request_Get{Get: &storev1.Get{Entity: &storev1.Entity{Type: typ, Key: key}}}})
	return r.GetState(), err
}

func (n *node) do(typ, key string, ops ...*holdfastv1.Operation) (*storev1.State, *refusal.Error) {
	caller := strong.NewCaller()
	defer n.cmd.Gone(caller)
	ent := &storev1.Entity{Type: typ, Key: key}
	r, err := n.call(context.Background(), caller, &storev1.Request{Call: &storev1.Request_Begin{Begin: &storev1.Begin{Entity: ent}}})
	if err != nil {
		return nil, err
	}
	r, err = n.call(context.Background(), caller, &storev1.Request{Call: &storev1.Request_Commit{Commit: &storev1.Commit{
		Entity: ent, Token: r.GetBegun().Token, Operations: ops,
	}}})
	return r.GetCommitted().GetState(), err
}

func (n *node) wantExists(typ, key string, want bool) *storev1.State {
	n.mesh.t.Helper()
	s, err := n.getOf(typ, key)
	if err != nil || s.Exists != want {
		n.mesh.t.Errorf("%s %s at %s: %v, %v, want exists = %v", typ, key, n.name, s, err, want)
	}
	return s
}

func deleteOp() *holdfastv1.Operation {
	return &holdfastv1.Operation{Operation: &holdfastv1.Operation_Delete{Delete: &holdfastv1.Delete{}}}
}

func TestTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, "a", "b")
		a, b := m.nodes["a"], m.nodes["b"]
		for _, typ := range []string{"session", "used"} {
			if _, err := a.do(typ, "k", setOp("x")[0]); err != nil {
				t.Fatal(err)
			}
		}
		version := b.wantExists("used", "k", true).Version
		time.Sleep(40 * time.Second)
		if got := b.wantExists("used", "k", true).Version; got != version {
			t.Errorf("a read has changed the version: %s, was %s", got, version)
		}
		a.wantExists("session", "k", true)
		time.Sleep(30 * time.Second)
		// A minute after the write, but not after the last read.
		a.wantExists("used", "k", true)
		// A command that began in time keeps it; who reads meanwhile does not wait.
		if _, err := a.do("session", "late", setOp("x")[0]); err != nil {
			t.Fatal(err)
		}
		a.wantExists("session", "k", false)
		if head, _, _ := m.etcd.Entity("session", "k"); len(head) == 0 {
			t.Error("the head went with the state, and with it the request ids")
		}
		time.Sleep(59 * time.Second)
		caller := strong.NewCaller()
		late := &storev1.Entity{Type: "session", Key: "late"}
		r, err := a.call(context.Background(), caller, &storev1.Request{Call: &storev1.Request_Begin{Begin: &storev1.Begin{Entity: late}}})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		b.wantExists("session", "late", true)
		if _, err := a.call(context.Background(), caller, &storev1.Request{Call: &storev1.Request_Commit{Commit: &storev1.Commit{
			Entity: late, Token: r.GetBegun().Token, Operations: setOp("y"),
		}}}); err != nil {
			t.Error(err)
		}
		b.wantExists("session", "late", true)
		// Past its TTL, a command finds nothing.
		time.Sleep(time.Minute)
		r, err = b.call(context.Background(), strong.NewCaller(), &storev1.Request{Call: &storev1.Request_Begin{Begin: &storev1.Begin{Entity: late, IfNoneMatch: true}}})
		if err != nil || r.GetBegun().GetState().GetExists() {
			t.Errorf("begin past the ttl: %v, %v", r, err)
		}
	})
}

// What is past its TTL is gone for everybody only once that is committed.
func TestTTLNeedsEtcd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newMesh(t, "a").nodes["a"]
		if _, err := a.do("session", "k", setOp("x")[0]); err != nil {
			t.Fatal(err)
		}
		time.Sleep(61 * time.Second)
		a.etcd.SetDown(true)
		_, err := a.getOf("session", "k")
		wantRefusal(t, "read past the ttl without etcd", err, codes.Unavailable, notApplied)
		a.etcd.SetDown(false)
		a.wantExists("session", "k", false)
	})
}

func TestSweep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, "a", "b")
		a, b := m.nodes["a"], m.nodes["b"]
		for _, key := range []string{"1", "2", "3"} {
			if _, err := a.do("session", key, setOp("x")[0]); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := b.do("account", "k", setOp("x")[0]); err != nil {
			t.Fatal(err)
		}
		if _, err := b.do("account", "k", deleteOp()); err != nil {
			t.Fatal(err)
		}
		sweep := func() {
			for _, n := range m.nodes {
				n.cmd.Sweep(context.Background())
			}
		}
		exists := func(typ, key string) bool {
			r, _, err := a.cmd.Inspect(context.Background(), typ, key)
			return err == nil && r.Exists()
		}
		time.Sleep(50 * time.Second)
		if _, err := a.do("session", "1", setOp("y")[0]); err != nil {
			t.Fatal(err)
		}
		sweep()
		if n := len(m.etcd.Marks("session")); n != 3 {
			t.Errorf("%d marks, want one for each entity", n)
		}
		// Their owner is gone, and the slots are free: the first placed store takes them.
		a.etcd.Lapse()
		time.Sleep(15 * time.Second)
		sweep()
		if !exists("session", "1") || exists("session", "2") || exists("session", "3") {
			t.Error("after 65 s there should be only what was written last")
		}
		time.Sleep(50 * time.Second)
		sweep()
		if exists("session", "1") {
			t.Error("a mark was not moved")
		}
		if len(m.etcd.Marks("account")) == 0 {
			t.Error("a deleted entity has no mark")
		}
		time.Sleep(11 * time.Minute)
		sweep()
		for _, id := range [][2]string{{"account", "k"}, {"session", "1"}, {"session", "2"}} {
			if head, _, cells := m.etcd.Entity(id[0], id[1]); head != nil || len(cells) != 0 {
				t.Errorf("%v left a head of %d bytes and cells %v", id, len(head), cells)
			}
		}
		for _, typ := range []string{"account", "session"} {
			if marks := m.etcd.Marks(typ); len(marks) != 0 {
				t.Errorf("marks of %s are left: %v", typ, marks)
			}
		}
		// And it can begin anew.
		if s, err := b.do("account", "k", setOp("again")[0]); err != nil || !s.Exists {
			t.Error(s, err)
		}
		a.wantValue("k", "again")
		// By itself, too.
		a.cmd.Start()
		a.cmd.Start()
		if _, err := a.do("session", "alone", setOp("x")[0]); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute)
		if exists("session", "alone") {
			t.Error("nobody has swept")
		}
	})
}

// Marks of entities that can't be read don't keep the others from being seen to.
func TestSweepPassesWhatItCannotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, "a")
		a := m.nodes["a"]
		value := m.types["session"]
		// More than a batch.
		for i := range 300 {
			if _, err := a.do("session", fmt.Sprint("old", i), setOp("x")[0]); err != nil {
				t.Fatal(err)
			}
		}
		a.etcd.Lapse()
		time.Sleep(10 * time.Second)
		basket := *m.types["basket"]
		basket.Name = "session"
		m.types["session"] = &basket
		if _, err := a.do("session", "new", &holdfastv1.Operation{Operation: &holdfastv1.Operation_Append{Append: &holdfastv1.AppendEvents{
			Events: []*holdfastv1.Event{{Type: "e"}},
		}}}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute)
		for range 3 {
			a.cmd.Sweep(context.Background())
		}
		if r, _, err := a.cmd.Inspect(context.Background(), "session", "new"); err != nil || r.Exists() {
			t.Errorf("not swept: %v", err)
		}
		// They are tried again.
		m.types["session"] = value
		time.Sleep(11 * time.Minute)
		for range 3 {
			a.cmd.Sweep(context.Background())
		}
		if r, _, err := a.cmd.Inspect(context.Background(), "session", "old7"); err != nil || r.Exists() {
			t.Errorf("not swept: %v", err)
		}
	})
}
