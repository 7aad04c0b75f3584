package strong_test

import (
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/holdfast-mesh/holdfast/statestore/strong"
)

// The same command on several entities, begun twice (a caller that hedges or repeats by Idempotency-Key): the first commit is
// acknowledged, the second must not be told "not applied".
func TestSeveralTwiceWithOneID(t *testing.T) {
	m := newMesh(t, "a")
	a := m.nodes["a"]
	keys := []string{"ka", "kb"}
	c1, c2 := strong.NewCaller(), strong.NewCaller()
	b1, err := a.beginSeveral(c1, "same", keys...)
	if err != nil {
		t.Fatal(err)
	}
	b2, err := a.beginSeveral(c2, "same", keys...)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.commitSeveral(c1, "same", b1.Token, keys, "x", "y"); err != nil {
		t.Fatal(err)
	}
	c, err := a.commitSeveral(c2, "same", b2.Token, keys, "x", "y")
	if err != nil || !c.Duplicate {
		t.Errorf("second commit of the applied command: got %v, %v; want duplicate", c, err)
	}
}

// The single-entity form of the same, for comparison.
func TestOneTwiceWithOneID(t *testing.T) {
	m := newMesh(t, "a")
	a := m.nodes["a"]
	c1, c2 := strong.NewCaller(), strong.NewCaller()
	b1, _ := a.begin(c1, "k", "same")
	b2, _ := a.begin(c2, "k", "same")
	if _, err := a.commit(c1, "k", "same", b1.Token, "x"); err != nil {
		t.Fatal(err)
	}
	c, err := a.commit(c2, "k", "same", b2.Token, "x")
	if err != nil || !c.Duplicate {
		t.Errorf("second: got %v, %v; want duplicate", c, err)
	}
}

// A commit that etcd has carried out, but whose answer is on its way, is acknowledged by a late commit with the same id; a
// read after that must see it.
func TestLateCommitAndReadersAgree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, "a")
		a := m.nodes["a"]
		a.mustPut("k", "0", "old")
		c1, c2 := strong.NewCaller(), strong.NewCaller()
		b1, err := a.begin(c1, "k", "same")
		if err != nil {
			t.Fatal(err)
		}
		a.abort(c1, "k", b1.Token) // its turn is over, as by its deadline; its service still runs
		b2, err := a.begin(c2, "k", "same")
		if err != nil {
			t.Fatal(err)
		}
		answer := make(chan struct{})
		a.etcd.OnCommit(func(apply func() (int64, error)) (int64, error) {
			rev, err := apply()
			<-answer
			return rev, err
		})
		done := make(chan struct{})
		go func() { defer close(done); _, _ = a.commit(c2, "k", "same", b2.Token, "new") }()
		synctest.Wait()
		c, err := a.commit(c1, "k", "same", b1.Token, "new")
		if err != nil {
			t.Logf("late commit: %v", err)
		} else {
			t.Logf("late commit acknowledged: duplicate=%v", c.Duplicate)
			a.wantValue("k", "new")
		}
		close(answer)
		<-done
	})
}

// The same with two stores: a lost the slot, b carries out the repeated command.
func TestOldOwnerAndReadersAgree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, "a", "b")
		a, b := m.nodes["a"], m.nodes["b"]
		a.mustPut("k", "0", "old")
		c1, c2 := strong.NewCaller(), strong.NewCaller()
		b1, err := a.begin(c1, "k", "same")
		if err != nil {
			t.Fatal(err)
		}
		a.etcd.Lapse()
		b.wantValue("k", "old")
		b2, err := b.begin(c2, "k", "same")
		if err != nil {
			t.Fatal(err)
		}
		answer := make(chan struct{})
		b.etcd.OnCommit(func(apply func() (int64, error)) (int64, error) {
			rev, err := apply()
			<-answer
			return rev, err
		})
		done := make(chan struct{})
		go func() { defer close(done); _, _ = b.commit(c2, "k", "same", b2.Token, "new") }()
		synctest.Wait()
		// The old owner: once with the turn, once more without (late).
		_, err = a.commit(c1, "k", "same", b1.Token, "new")
		t.Logf("first: %v", err)
		c, err := a.commit(c1, "k", "same", b1.Token, "new")
		t.Logf("again: %v %v", c.GetDuplicate(), err)
		if err == nil {
			b.wantValue("k", "new")
		}
		close(answer)
		<-done
	})
}

// Entities of commands on several that were committed and settled are as idle as others.
func TestSettledEntitiesAreForgotten(t *testing.T) {
	m := newMesh(t, "a")
	a := m.nodes["a"]
	for i := range 50 {
		c := strong.NewCaller()
		keys := []string{fmt.Sprint("x", i), fmt.Sprint("y", i)}
		b, err := a.beginSeveral(c, fmt.Sprint(i), keys...)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.commitSeveral(c, fmt.Sprint(i), b.Token, keys, "1", "2"); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 50 {
		a.mustPut(fmt.Sprint("z", i), "", "1")
	}
	before := a.cmd.Sizes()
	a.cmd.ForgetAll()
	if left := a.cmd.Sizes(); left != 0 {
		t.Errorf("of %d idle entities %d can't be forgotten", before, left)
	}
}
