package stateclient

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/holdfast-mesh/holdfast/internal/frame"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// dial returns a client that is connected.
func dial(t *testing.T, s *store, opts Options) *Client {
	t.Helper()
	opts.Panicked = func(r any) { t.Errorf("panic: %v", r) }
	c := New(s.socket, opts)
	t.Cleanup(c.Close)
	eventually(t, "connected", c.Up)
	return c
}

type result[T any] struct {
	v   T
	err error
}

// into makes a done function and where it tells.
func into[T any](t *testing.T) (func(T, error), func() (T, *Error)) {
	ch := make(chan result[T], 1)
	done := func(v T, err error) {
		select {
		case ch <- result[T]{v, err}:
		default:
			t.Error("done was told twice")
		}
	}
	wait := func() (T, *Error) {
		t.Helper()
		select {
		case r := <-ch:
			var e *Error
			if r.err != nil && !errors.As(r.err, &e) {
				t.Fatalf("error of type %T: %v", r.err, r.err)
			}
			return r.v, e
		case <-time.After(10 * time.Second):
			t.Fatal("done was not told")
			panic("unreachable")
		}
	}
	return done, wait
}

func read(c *Client, typ, key string, subscribe bool, timeout time.Duration, done func(*storev1.State, error)) {
	c.Get(&storev1.Get{Entity: entity(typ, key), Subscribe: subscribe}, timeout, func(st *storev1.State, _ []*storev1.State, err error) { done(st, err) })
}

func begin(c *Client, typ, key, requestID string, timeout time.Duration, done func(*storev1.Begun, error)) {
	c.Begin(&storev1.Begin{Entity: entity(typ, key), RequestId: requestID}, timeout, done)
}

func (c *Client) version(key string) string {
	st, ok := c.Cached("t", key)
	if !ok {
		return "-"
	}
	return st.GetVersion()
}

// subscribe brings an entity into the cache.
func subscribe(t *testing.T, s *store, c *Client, key, version string) *conn {
	t.Helper()
	done, wait := into[*storev1.State](t)
	read(c, "t", key, true, time.Minute, done)
	r := s.next()
	if !r.GetGet().GetSubscribe() {
		t.Fatalf("request %v does not subscribe", r.Request)
	}
	r.state(version)
	if st, err := wait(); err != nil || st.GetVersion() != version {
		t.Fatalf("Get: %v, %v", st, err)
	}
	return r.conn
}

func TestGetCachesAndPushesRefresh(t *testing.T) {
	s := newStore(t, nil)
	c := dial(t, s, Options{})
	if got := c.version("a"); got != "-" {
		t.Fatalf("cached %q before anything was read", got)
	}
	conn := subscribe(t, s, c, "a", "1")
	if got := c.version("a"); got != "1" {
		t.Fatalf("cached %q, want 1", got)
	}
	conn.push("a", "2")
	eventually(t, "the push is cached", func() bool { return c.version("a") == "2" })
}

func commit(key string) *storev1.Commit {
	return &storev1.Commit{Entity: entity("t", key), RequestId: "r"}
}

func TestEveryCallIsAnswered(t *testing.T) {
	s := newStore(t, func(c *conn, r *storev1.Request) bool {
		resp := &storev1.Response{Id: r.Id}
		switch call := r.GetCall().(type) {
		case *storev1.Request_Begin:
			resp.Result = &storev1.Response_Begun{Begun: &storev1.Begun{Token: call.Begin.GetRequestId() + "!"}}
		case *storev1.Request_Inspect:
			resp.Result = &storev1.Response_Inspection{Inspection: &storev1.Inspection{Owner: "node-1"}}
		case *storev1.Request_Abort, *storev1.Request_Configure:
			resp.Result = &storev1.Response_Done{Done: &storev1.Done{}}
		default:
			return false
		}
		c.send(resp)
		return true
	})
	c := dial(t, s, Options{})

	done, wait := into[*storev1.Begun](t)
	begin(c, "t", "a", "id", time.Minute, done)
	if b, err := wait(); err != nil || b.GetToken() != "id!" {
		t.Errorf("Begin: %v, %v", b, err)
	}

	cdone, cwait := into[*storev1.Committed](t)
	c.Commit(commit("a"), time.Minute, cdone)
	r := s.next()
	if got := r.GetCommit(); got.GetTimeoutMs() != 60_000 || got.GetRequestId() != "r" {
		t.Errorf("the store was sent %v", got)
	}
	r.committed("2")
	if m, err := cwait(); err != nil || m.GetState().GetVersion() != "2" {
		t.Errorf("Commit: %v, %v", m, err)
	}

	gdone, gwait := into[*storev1.State](t)
	read(c, "t", "a", false, 1500*time.Microsecond+time.Minute, gdone)
	r = s.next()
	if got := r.GetGet(); got.GetSubscribe() || got.GetTimeoutMs() != 60_002 {
		t.Errorf("the store was sent %v", got)
	}
	r.state("1")
	if st, err := gwait(); err != nil || st.GetVersion() != "1" {
		t.Errorf("Get: %v, %v", st, err)
	}
	if got := c.version("a"); got != "-" {
		t.Errorf("cached %q without a subscription", got)
	}

	others := func(_ *storev1.State, others []*storev1.State, err error) {
		gdone(others[0], err)
	}
	gdone, gwait = into[*storev1.State](t)
	c.Get(&storev1.Get{Entity: entity("t", "a"), Others: []string{"b"}, IfMatch: "1"}, time.Minute, others)
	r = s.next()
	if got := r.GetGet(); len(got.GetOthers()) != 1 || got.GetIfMatch() != "1" || got.GetTimeoutMs() != 60_000 {
		t.Errorf("the store was sent %v", got)
	}
	r.conn.send(&storev1.Response{
		Id: r.Id, Result: &storev1.Response_State{State: stateOf(entity("t", "a"), "1")}, Others: []*storev1.State{stateOf(entity("t", "b"), "2")},
	})
	if st, err := gwait(); err != nil || st.GetVersion() != "2" {
		t.Errorf("Get: the other is %v, %v", st, err)
	}

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if r, err := c.Call(ctx, &storev1.Request{Call: &storev1.Request_Inspect{Inspect: &storev1.Inspect{}}}); err != nil || r.GetInspection().GetOwner() != "node-1" {
		t.Errorf("Inspect: %v, %v", r, err)
	}
	if r, err := c.Call(ctx, &storev1.Request{Call: &storev1.Request_GetStatus{}}); err != nil || r.GetStatus().GetNode() != "node-1" {
		t.Errorf("GetStatus: %v, %v", r, err)
	}
	if _, err := c.Call(ctx, &storev1.Request{Call: &storev1.Request_Configure{}}); err != nil {
		t.Errorf("Configure: %v", err)
	}
	if _, err := c.Call(ctx, &storev1.Request{Call: &storev1.Request_Get{Get: &storev1.Get{Subscribe: true}}}); err == nil {
		t.Error("Call took a subscription")
	}
	if _, err := c.Call(ctx, &storev1.Request{Call: &storev1.Request_Unsubscribe{Unsubscribe: &storev1.Unsubscribe{}}}); err == nil {
		t.Error("Call took an unsubscription")
	}
}

func TestAnswersComeInAnyOrder(t *testing.T) {
	s := newStore(t, nil)
	c := dial(t, s, Options{})
	const n = 100
	waits := make([]func() (*storev1.State, *Error), n)
	for i := range n {
		var done func(*storev1.State, error)
		done, waits[i] = into[*storev1.State](t)
		read(c, "t", fmt.Sprint(i), false, time.Minute, done)
	}
	reqs := make([]request, n)
	for i := range n {
		reqs[i] = s.next()
	}
	for _, r := range slices.Backward(reqs) {
		r.state(r.GetGet().GetEntity().GetKey())
	}
	for i, wait := range waits {
		if st, err := wait(); err != nil || st.GetVersion() != fmt.Sprint(i) {
			t.Errorf("call %d: %v, %v", i, st, err)
		}
	}
}

func TestStoreErrors(t *testing.T) {
	const (
		applied    = storev1.Outcome_OUTCOME_APPLIED
		notApplied = storev1.Outcome_OUTCOME_NOT_APPLIED
		unknown    = storev1.Outcome_OUTCOME_UNKNOWN
		unsaid     = storev1.Outcome_OUTCOME_UNSPECIFIED
	)
	s := newStore(t, nil)
	c := dial(t, s, Options{})
	for _, tc := range []struct {
		name      string
		answer    *storev1.Response
		code      int32
		get, comm storev1.Outcome
	}{
		{"said", &storev1.Response{Error: &storev1.Error{Code: 9, Message: "m", Outcome: applied}}, 9, applied, applied},
		{"not applied", &storev1.Response{Error: &storev1.Error{Code: 14, Outcome: notApplied}}, 14, notApplied, notApplied},
		{"unsaid", &storev1.Response{Error: &storev1.Error{Code: 14, Outcome: unsaid}}, 14, notApplied, unknown},
		{"outcome from the future", &storev1.Response{Error: &storev1.Error{Code: 14, Outcome: 99}}, 14, notApplied, unknown},
		{"no code", &storev1.Response{Error: &storev1.Error{}}, 13, notApplied, unknown},
		{"no such code", &storev1.Response{Error: &storev1.Error{Code: 1000, Outcome: notApplied}}, 13, notApplied, notApplied},
		{"nothing", &storev1.Response{}, 13, notApplied, unknown},
		{"another's answer", &storev1.Response{Result: &storev1.Response_Begun{Begun: &storev1.Begun{}}}, 13, notApplied, unknown},
	} {
		t.Run(tc.name, func(t *testing.T) {
			answer := func() {
				r := s.next()
				tc.answer.Id = r.Id
				r.conn.send(tc.answer)
			}
			gdone, gwait := into[*storev1.State](t)
			read(c, "t", "a", false, time.Minute, gdone)
			answer()
			if st, err := gwait(); st != nil || err == nil || err.Code != tc.code || err.Outcome != tc.get {
				t.Errorf("Get: %v, %v; want code %d, %v", st, err, tc.code, tc.get)
			}
			cdone, cwait := into[*storev1.Committed](t)
			c.Commit(commit("a"), time.Minute, cdone)
			answer()
			if m, err := cwait(); m != nil || err == nil || err.Code != tc.code || err.Outcome != tc.comm {
				t.Errorf("Commit: %v, %v; want code %d, %v", m, err, tc.code, tc.comm)
			}
		})
	}
}

func TestDeadline(t *testing.T) {
	s := newStore(t, nil)
	c := dial(t, s, Options{})
	gdone, gwait := into[*storev1.State](t)
	read(c, "t", "a", true, 20*time.Millisecond, gdone)
	get := s.next()
	if _, err := gwait(); err == nil || err.Code != codeDeadlineExceeded || err.Outcome != storev1.Outcome_OUTCOME_NOT_APPLIED {
		t.Errorf("Get: %v", err)
	}
	cdone, cwait := into[*storev1.Committed](t)
	c.Commit(commit("a"), 20*time.Millisecond, cdone)
	com := s.next()
	if _, err := cwait(); err == nil || err.Code != codeDeadlineExceeded || err.Outcome != storev1.Outcome_OUTCOME_UNKNOWN {
		t.Errorf("Commit: %v", err)
	}
	bdone, bwait := into[*storev1.Begun](t)
	begin(c, "t", "b", "id", 20*time.Millisecond, bdone)
	begin := s.next()
	if _, err := bwait(); err == nil || err.Code != codeDeadlineExceeded {
		t.Errorf("Begin: %v", err)
	}
	for _, d := range []time.Duration{0, -time.Second} {
		gdone, gwait = into[*storev1.State](t)
		read(c, "t", "a", true, d, gdone)
		if _, err := gwait(); err == nil || err.Code != codeDeadlineExceeded {
			t.Errorf("Get with timeout %v: %v", d, err)
		}
	}

	// Late answers count where they matter.
	get.state("1")
	eventually(t, "the late state is cached", func() bool { return c.version("a") == "1" })
	com.committed("2")
	eventually(t, "the late commit is cached", func() bool { return c.version("a") != "1" })
	begin.conn.send(&storev1.Response{Id: begin.Id, Result: &storev1.Response_Begun{Begun: &storev1.Begun{Token: "late"}}})
	if r := s.next(); r.GetAbort().GetToken() != "late" || r.GetAbort().GetEntity().GetKey() != "b" {
		t.Errorf("a turn that came late was not given back, but %v sent", r.Request)
	}
}

func TestTooManyCallsFailAtOnce(t *testing.T) {
	s := newStore(t, nil)
	c := dial(t, s, Options{MaxPending: 3})
	var waits []func() (*storev1.State, *Error)
	for range 3 {
		done, wait := into[*storev1.State](t)
		read(c, "t", "a", false, time.Minute, done)
		waits = append(waits, wait)
	}
	done, wait := into[*storev1.State](t)
	read(c, "t", "a", true, time.Minute, done)
	if _, err := wait(); err == nil || err.Code != codeUnavailable || err.Outcome != storev1.Outcome_OUTCOME_NOT_APPLIED {
		t.Errorf("the fourth call: %v", err)
	}
	c.Abort("t", "a", "token") // has its own room
	for range 3 {
		s.next().state("1")
	}
	if r := s.next(); r.GetAbort() == nil {
		t.Errorf("got %v, want the abort", r.Request)
	}
	for _, wait := range waits {
		if _, err := wait(); err != nil {
			t.Error(err)
		}
	}
	subscribe(t, s, c, "a", "2") // there is room again, and what failed left nothing behind
}

// Commits of one type that get no answer leave room for reads and for other types.
func TestCommitsLeaveRoom(t *testing.T) {
	s := newStore(t, nil)
	c := dial(t, s, Options{MaxPending: 6})
	send := func(typ string) func() (*storev1.Committed, *Error) {
		done, wait := into[*storev1.Committed](t)
		req := commit("a")
		req.Entity.Type = typ
		c.Commit(req, time.Minute, done)
		return wait
	}
	var waits []func() (*storev1.Committed, *Error)
	for range 4 {
		waits = append(waits, send("slow"))
	}
	if _, err := send("slow")(); err == nil || err.Code != codeUnavailable || err.Outcome != storev1.Outcome_OUTCOME_NOT_APPLIED {
		t.Errorf("the fifth commit of a type: %v", err)
	}
	waits = append(waits, send("other"))
	var held []request
	for range waits {
		held = append(held, s.next())
	}
	subscribe(t, s, c, "a", "1")
	for i, r := range held {
		r.committed("2")
		if _, err := waits[i](); err != nil {
			t.Error(err)
		}
	}
	wait := send("slow")
	s.next().committed("3")
	if _, err := wait(); err != nil {
		t.Errorf("when they are answered there is room again: %v", err)
	}
}

func TestTooLargeRequest(t *testing.T) {
	s := newStore(t, nil)
	c := dial(t, s, Options{MaxQueuedBytes: 1000})
	for _, size := range []int{frame.Max, 2000} {
		req := commit("a")
		req.Token = strings.Repeat("x", size)
		done, wait := into[*storev1.Committed](t)
		c.Commit(req, time.Minute, done)
		if _, err := wait(); err == nil || err.Outcome != storev1.Outcome_OUTCOME_NOT_APPLIED {
			t.Errorf("a commit of %d bytes: %v", size, err)
		}
	}
	done, wait := into[*storev1.State](t)
	read(c, "t", "\xff", true, time.Minute, done)
	if _, err := wait(); err == nil || err.Code != codeInvalidArgument || err.Outcome != storev1.Outcome_OUTCOME_NOT_APPLIED {
		t.Errorf("a key that is no text: %v", err)
	}
	subscribe(t, s, c, "a", "1")
}

func TestLostConnection(t *testing.T) {
	s := newStore(t, nil)
	changes := make(chan bool, 10)
	c := dial(t, s, Options{StateChanged: func(up bool) { changes <- up }})
	subscribe(t, s, c, "a", "1")
	gdone, gwait := into[*storev1.State](t)
	read(c, "t", "b", true, time.Minute, gdone)
	s.next()
	cdone, cwait := into[*storev1.Committed](t)
	c.Commit(commit("a"), time.Minute, cdone)
	s.next()
	watched := watch(c, "a")
	if got := watched.next(t); got != "1" {
		t.Fatalf("the watch began with %s", got)
	}

	s.stop()
	if _, err := gwait(); err == nil || err.Code != codeUnavailable || err.Outcome != storev1.Outcome_OUTCOME_NOT_APPLIED {
		t.Errorf("Get: %v", err)
	}
	if _, err := cwait(); err == nil || err.Code != codeUnavailable || err.Outcome != storev1.Outcome_OUTCOME_UNKNOWN {
		t.Errorf("Commit: %v", err)
	}
	if got := watched.next(t); !strings.Contains(got, "connection to the store lost") {
		t.Errorf("the watch got %s", got)
	}
	if c.Up() {
		t.Error("up without a store")
	}
	if got := c.version("a"); got != "-" {
		t.Errorf("cached %q without a connection", got)
	}
	cdone, cwait = into[*storev1.Committed](t)
	c.Commit(commit("a"), time.Minute, cdone)
	if _, err := cwait(); err == nil || err.Code != codeUnavailable || err.Outcome != storev1.Outcome_OUTCOME_NOT_APPLIED {
		t.Errorf("Commit without a connection: %v", err)
	}
	if got := watch(c, "a").next(t); !strings.Contains(got, "not connected") {
		t.Errorf("a watch without a connection got %s", got)
	}
	c.Abort("t", "a", "token")

	s.listen()
	eventually(t, "connected again", c.Up)
	if got := c.version("a"); got != "-" {
		t.Errorf("cached %q from the connection before", got)
	}
	subscribe(t, s, c, "a", "3")
	for _, want := range []bool{true, false, true} {
		if got := <-changes; got != want {
			t.Errorf("StateChanged(%v), want %v", got, want)
		}
	}
}

func TestCallWaitsForTheConnection(t *testing.T) {
	c := New(filepath.Join(t.TempDir(), "none"), Options{})
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := c.Call(ctx, &storev1.Request{Call: &storev1.Request_GetStatus{}})
	var e *Error
	if !errors.As(err, &e) || e.Code != codeUnavailable || !strings.Contains(e.Message, "no such file") {
		t.Errorf("without a store: %v", err)
	}

	s := newStore(t, nil)
	c2 := dial(t, s, Options{})
	ctx, cancel = context.WithCancel(t.Context())
	go func() {
		s.next()
		cancel()
	}()
	if _, err := c2.Call(ctx, &storev1.Request{Call: &storev1.Request_Inspect{}}); err == nil {
		t.Error("a call that was given up was answered")
	}
	if !c2.Up() {
		t.Error("giving up a call lost the connection")
	}
}

func TestClose(t *testing.T) {
	s := newStore(t, nil)
	c := New(s.socket, Options{})
	eventually(t, "connected", c.Up)
	done, wait := into[*storev1.State](t)
	read(c, "t", "a", true, time.Minute, done)
	s.next()
	w := watch(c, "a")
	c.Close()
	c.Close()
	if _, err := wait(); err == nil {
		t.Error("a call survived Close")
	}
	if got := w.next(t); !strings.Contains(got, "error") {
		t.Errorf("the watch got %s", got)
	}
	done, wait = into[*storev1.State](t)
	read(c, "t", "a", true, time.Minute, done)
	if _, err := wait(); err == nil || err.Outcome != storev1.Outcome_OUTCOME_NOT_APPLIED {
		t.Errorf("a call after Close: %v", err)
	}
	if _, err := c.Call(t.Context(), &storev1.Request{Call: &storev1.Request_GetStatus{}}); err == nil {
		t.Error("a blocking call after Close was answered")
	}
}

func TestPanicInCallback(t *testing.T) {
	s := newStore(t, func(c *conn, r *storev1.Request) bool {
		request{r, c}.state("1")
		return true
	})
	panics := make(chan any, 10)
	c := New(s.socket, Options{Panicked: func(r any) { panics <- r }})
	defer c.Close()
	eventually(t, "connected", c.Up)
	read(c, "t", "a", true, time.Minute, func(*storev1.State, error) { panic("done") })
	if got := <-panics; got != "done" {
		t.Errorf("panicked with %v", got)
	}
	cancel := c.Watch("t", "a", func(*storev1.State, error) { panic("changed") })
	defer cancel()
	if got := <-panics; got != "changed" {
		t.Errorf("panicked with %v", got)
	}
	done, wait := into[*storev1.State](t)
	read(c, "t", "b", true, time.Minute, done)
	if _, err := wait(); err != nil || !c.Up() {
		t.Errorf("after a panic: %v, up %v", err, c.Up())
	}
}

func TestHungStoreIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &Client{opts: Options{}.withDefaults()}
		here, there := net.Pipe()
		defer there.Close()
		s := newSession(c, here)
		ended := make(chan struct{})
		go func() {
			s.run()
			s.fail()
			close(ended)
		}()
		go func() { // takes everything and says nothing
			_, _ = io.Copy(io.Discard, there)
		}()
		began := time.Now()
		told := make(chan time.Duration, 1)
		if err := s.start(&call{
			req:     &storev1.Request{Call: &storev1.Request_Commit{Commit: commit("a")}},
			timeout: time.Second,
			done: func(_ *storev1.Response, err *Error) {
				told <- time.Since(began)
				if err.Outcome != storev1.Outcome_OUTCOME_UNKNOWN {
					t.Errorf("outcome %v", err.Outcome)
				}
			},
		}); err != nil {
			t.Fatal(err)
		}
		<-ended
		if got := <-told; got != time.Second {
			t.Errorf("done was told after %v", got)
		}
		if got := time.Since(began); got != time.Second+grace {
			t.Errorf("the connection was given up after %v", got)
		}
	})
}

// TestUnwrittenIsNotApplied: what never left the queue, or left it by half, can't have happened.
func TestUnwrittenIsNotApplied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &Client{opts: Options{}.withDefaults()}
		here, there := net.Pipe() // has no buffer: a write ends when it was read
		s := newSession(c, here)
		ended := make(chan struct{})
		go func() {
			s.run()
			s.fail()
			close(ended)
		}()
		outcomes := map[string]storev1.Outcome{}
		var mu sync.Mutex
		send := func(key string, timeout time.Duration) {
			if err := s.start(&call{
				req:     &storev1.Request{Call: &storev1.Request_Commit{Commit: commit(key)}},
				timeout: timeout,
				done: func(_ *storev1.Response, err *Error) {
					mu.Lock()
					defer mu.Unlock()
					outcomes[key] = err.Outcome
				},
			}); err != nil {
				t.Fatal(err)
			}
		}
		send("first", time.Hour)
		synctest.Wait() // the writer is in its write
		send("whole", time.Hour)
		send("half", time.Hour)
		send("timed out", time.Second)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if outcomes["timed out"] != storev1.Outcome_OUTCOME_NOT_APPLIED {
			t.Errorf("timed out in the queue: %v", outcomes["timed out"])
		}
		for range 2 {
			if _, err := frame.Read(there, nil); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := io.ReadFull(there, make([]byte, 10)); err != nil {
			t.Fatal(err)
		}
		send("queued", time.Hour)
		there.Close()
		<-ended
		want := map[string]storev1.Outcome{
			"first": storev1.Outcome_OUTCOME_UNKNOWN, "whole": storev1.Outcome_OUTCOME_UNKNOWN,
			"half": storev1.Outcome_OUTCOME_NOT_APPLIED, "queued": storev1.Outcome_OUTCOME_NOT_APPLIED,
			"timed out": storev1.Outcome_OUTCOME_NOT_APPLIED,
		}
		if !maps.Equal(outcomes, want) {
			t.Errorf("outcomes %v, want %v", outcomes, want)
		}
	})
}

func TestBrokenStoreIsLeft(t *testing.T) {
	for name, bytes := range map[string][]byte{
		"frame too large": {0xff, 0xff, 0xff, 0xff}, "no protobuf": {0, 0, 0, 1, 0xff}, "half a frame": {0, 0, 1, 0, 1},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t, nil)
			c := dial(t, s, Options{})
			done, wait := into[*storev1.State](t)
			read(c, "t", "a", true, time.Minute, done)
			r := s.next()
			_, _ = r.conn.Write(bytes)
			r.conn.Close()
			if _, err := wait(); err == nil || err.Code != codeUnavailable {
				t.Errorf("Get: %v", err)
			}
			eventually(t, "connected again", c.Up)
			subscribe(t, s, c, "a", "1")
		})
	}
}

// TestStoppedStore: a store that is stopped keeps its connection and its socket takes new ones, but nobody waits for it.
func TestStoppedStore(t *testing.T) {
	s := newStore(t, nil)
	c := dial(t, s, Options{})
	s.mute.Store(true)
	done, wait := into[*storev1.State](t)
	read(c, "t", "a", true, time.Hour, done)
	var e *Error
	if _, err := wait(); !errors.As(err, &e) || e.Outcome != storev1.Outcome_OUTCOME_NOT_APPLIED {
		t.Errorf("Get of a stopped store: %v", err)
	}
	eventually(t, "a stopped store is down", func() bool { return !c.Up() })
	// Its next connection is taken, and asked for a sign of life: until then it stays down.
	for r := s.next(); r.GetGetStatus() == nil; r = s.next() {
	}
	for r := s.next(); r.GetGetStatus() == nil; r = s.next() {
	}
	if c.Up() {
		t.Error("up without an answer")
	}
	s.mute.Store(false)
	eventually(t, "up again", c.Up)
}
