package stateclient

import (
	"testing"
	"time"

	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
)

// TestCommitWhileSubscribing: the store read the subscribing Get after it had answered the commit, and after another's
// change of which there is no push. Only the Get's answer is news.
func TestCommitWhileSubscribing(t *testing.T) {
	s := newStore(t, nil)
	c := dial(t, s, Options{})
	got, waitGet := into[*storev1.State](t)
	committed, waitCommit := into[*storev1.Committed](t)
	read(c, "t", "a", true, time.Minute, got)
	read := s.next()
	c.Commit(commit("a"), time.Minute, committed)
	s.next().committed("2")
	if _, err := waitCommit(); err != nil {
		t.Fatal(err)
	}
	read.state("3")
	if _, err := waitGet(); err != nil {
		t.Fatal(err)
	}
	if got := c.version("a"); got != "3" {
		t.Errorf("cached %q, want 3", got)
	}
}

// TestWatchBeginsDuringACommit: its first state must not be lost to the commit's reply.
func TestWatchBeginsDuringACommit(t *testing.T) {
	s := newStore(t, nil)
	c := dial(t, s, Options{})
	committed, waitCommit := into[*storev1.Committed](t)
	c.Commit(commit("a"), time.Minute, committed)
	write := s.next()
	states := make(chan string, 10)
	cancel := c.Watch("t", "a", func(st *storev1.State, err error) { states <- st.GetVersion() })
	defer cancel()
	read := s.next()
	write.committed("2")
	if _, err := waitCommit(); err != nil {
		t.Fatal(err)
	}
	read.state("2")
	select {
	case v := <-states:
		if v != "2" {
			t.Errorf("told %q, want 2", v)
		}
	case <-time.After(5 * time.Second):
		t.Error("the watch is told nothing")
	}
}

// TestWatchOfADroppedStateDuringACommit: the read that a new watch waits for tells it, whatever was dropped meanwhile.
func TestWatchOfADroppedStateDuringACommit(t *testing.T) {
	s := newStore(t, nil)
	c := dial(t, s, Options{})
	conn := subscribe(t, s, c, "a", "1")
	first, waitFirst := into[*storev1.Committed](t)
	second, waitSecond := into[*storev1.Committed](t)
	c.Commit(commit("a"), time.Minute, first)
	r1 := s.next()
	c.Commit(commit("a"), time.Minute, second)
	r2 := s.next()
	conn.push("a", "4")
	r1.committed("2")
	if _, err := waitFirst(); err != nil {
		t.Fatal(err)
	}
	states := make(chan string, 10)
	cancel := c.Watch("t", "a", func(st *storev1.State, err error) { states <- st.GetVersion() })
	defer cancel()
	read := s.next()
	r2.committed("3")
	if _, err := waitSecond(); err != nil {
		t.Fatal(err)
	}
	read.state("4")
	select {
	case v := <-states:
		if v != "4" {
			t.Errorf("told %q, want 4", v)
		}
	case <-time.After(5 * time.Second):
		t.Error("the watch is told nothing")
	}
}
