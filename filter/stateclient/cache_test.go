package stateclient

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
)

// TestCommitAgainstPush: whatever order a commit's reply and the pushes come in, the cache never goes back, and the
// committer reads its write.
func TestCommitAgainstPush(t *testing.T) {
	for _, tc := range []struct {
		name string
		// come is what the connection carries after the commit was sent: "r" is the reply with version 2, else a push.
		come []string
		want string
	}{
		{"reply only", []string{"r"}, "2"},
		{"reply, then its push", []string{"r", "2"}, "2"},
		{"push, then its reply", []string{"2", "r"}, "2"},
		{"push, a newer one, then the reply", []string{"2", "3", "r"}, "3"},
		{"reply, push, a newer one", []string{"r", "2", "3"}, "3"},
		{"reply, a newer one that took its push's place", []string{"r", "3"}, "3"},
		// Here version 3 may have come before or after the commit: only the store knows.
		{"another push, then the reply", []string{"3", "r"}, "-"},
		{"another push, the reply, then its push", []string{"3", "r", "2"}, "2"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newStore(t, nil)
			c := dial(t, s, Options{})
			conn := subscribe(t, s, c, "a", "1")
			subscribe(t, s, c, "end", "0")
			cached := make(chan string, 1)
			c.Commit(commit("a"), time.Minute, func(*storev1.Committed, error) { cached <- c.version("a") })
			r := s.next()
			for _, v := range tc.come {
				if v == "r" {
					r.committed("2")
					if got := <-cached; got == "1" {
						t.Error("done ran before the cache had the commit")
					}
				} else {
					conn.push("a", v)
				}
			}
			conn.push("end", "1")
			eventually(t, "all came", func() bool { return c.version("end") == "1" })
			if got := c.version("a"); got != tc.want {
				t.Errorf("cached %q, want %q", got, tc.want)
			}
			if tc.want == "-" { // the next read brings it back
				done, wait := into[*storev1.State](t)
				read(c, "t", "a", true, time.Minute, done)
				if r = s.next(); r.GetGet().GetSubscribe() {
					t.Error("subscribed twice")
				}
				r.state("3")
				if _, err := wait(); err != nil || c.version("a") != "3" {
					t.Errorf("cached %q, %v; want 3", c.version("a"), err)
				}
			}
		})
	}
}

// TestReturningVersion: a state may become what it was, and then has the version that it had.
func TestReturningVersion(t *testing.T) {
	s := newStore(t, nil)
	c := dial(t, s, Options{})
	conn := subscribe(t, s, c, "a", "off")
	conn.push("a", "on")
	eventually(t, "on", func() bool { return c.version("a") == "on" })
	cached := make(chan string, 1)
	c.Commit(commit("a"), time.Minute, func(*storev1.Committed, error) { cached <- c.version("a") })
	s.next().committed("off")
	if got := <-cached; got != "off" {
		t.Errorf("cached %q, want off", got)
	}
}

func TestPushBeforeTheSubscribingReply(t *testing.T) {
	s := newStore(t, nil)
	c := dial(t, s, Options{})
	done, wait := into[*storev1.State](t)
	read(c, "t", "a", true, time.Minute, done)
	r := s.next()
	r.conn.push("a", "2")
	r.state("1")
	if _, err := wait(); err != nil {
		t.Fatal(err)
	}
	if got := c.version("a"); got != "2" {
		t.Errorf("cached %q, want 2", got)
	}
}

func TestCommitOfWhatIsNotSubscribedIsNotCached(t *testing.T) {
	s := newStore(t, nil)
	c := dial(t, s, Options{})
	done, wait := into[*storev1.Committed](t)
	c.Commit(commit("a"), time.Minute, done)
	r := s.next()
	r.committed("1")
	if _, err := wait(); err != nil {
		t.Fatal(err)
	}
	r.conn.push("a", "2")
	subscribe(t, s, c, "b", "1")
	if got := c.version("a"); got != "-" {
		t.Errorf("cached %q, which no push keeps fresh", got)
	}
}

func TestEvictionUnsubscribes(t *testing.T) {
	s := newStore(t, nil)
	c := dial(t, s, Options{CacheEntries: 2})
	subscribe(t, s, c, "a", "1")
	conn := subscribe(t, s, c, "b", "1")
	c.version("a") // used, so b goes
	subscribe(t, s, c, "c", "1")
	un := s.next()
	if got := un.GetUnsubscribe().GetEntity().GetKey(); got != "b" {
		t.Fatalf("got %v, want b unsubscribed", un.Request)
	}
	if a, b, cc := c.version("a"), c.version("b"), c.version("c"); a != "1" || b != "-" || cc != "1" {
		t.Errorf("cached %q, %q, %q; want b gone", a, b, cc)
	}

	// Until the store has let go of it, b is neither cached nor subscribed: the two could be handled in either order.
	conn.push("b", "2")
	done, wait := into[*storev1.State](t)
	read(c, "t", "b", true, time.Minute, done)
	r := s.next()
	if r.GetGet().GetSubscribe() {
		t.Error("subscribed while the unsubscription is under way")
	}
	r.state("2")
	if _, err := wait(); err != nil || c.version("b") != "-" {
		t.Errorf("cached %q, %v", c.version("b"), err)
	}
	un.ok()
	eventually(t, "b can be subscribed again", func() bool {
		done, wait := into[*storev1.State](t)
		read(c, "t", "b", true, time.Minute, done)
		r := s.next()
		r.state("3")
		_, err := wait()
		return err == nil && r.GetGet().GetSubscribe()
	})
	if got := c.version("b"); got != "3" {
		t.Errorf("cached %q, want 3", got)
	}
}

// TestEvictionWaits: what can't be unsubscribed now stays, and goes when there is room for the call.
func TestEvictionWaits(t *testing.T) {
	s := newStore(t, nil)
	c := dial(t, s, Options{CacheEntries: 1})
	subscribe(t, s, c, "a", "1")
	subscribe(t, s, c, "b", "1")
	un := s.next()
	key := un.GetUnsubscribe().GetEntity().GetKey()
	un.fail(&storev1.Error{Code: 8, Message: "too much to do"})
	conn := subscribe(t, s, c, "end", "0") // evicts again
	seen := map[string]bool{}
	for range 2 {
		un = s.next()
		seen[un.GetUnsubscribe().GetEntity().GetKey()] = true
		un.ok()
	}
	if !seen[key] {
		t.Errorf("%v unsubscribed, want %s among them", seen, key)
	}
	conn.push("end", "1")
	eventually(t, "the books balance", func() bool {
		ca := c.cur.Load().cache
		ca.mu.Lock()
		defer ca.mu.Unlock()
		return ca.leaving == 0 && ca.live == 1
	})

	// Many at once go a few at a time.
	ca := newCache(200, 1<<20, 10)
	for i := range 200 {
		m, _ := ca.reading(entityKey{"t", fmt.Sprint(i)})
		ca.subscribed(m, stateOf(entity("t", fmt.Sprint(i)), "1"), nil)
	}
	ca.maxEntries = 10
	m, _ := ca.reading(entityKey{"t", "new"})
	going := ca.subscribed(m, stateOf(entity("t", "new"), "1"), nil).unsubscribe
	if len(going) != maxLeaving {
		t.Errorf("%d go at once, want %d", len(going), maxLeaving)
	}
	for len(going) > 0 {
		going = append(going[1:], ca.left(going[0], nil).unsubscribe...)
	}
	if ca.live != 10 || ca.leaving != 0 {
		t.Errorf("%d live, %d leaving; want 10 and 0", ca.live, ca.leaving)
	}
	ca.balance(t)
}

// TestSweep: what nobody reads between two rounds is unsubscribed; what is read or watched stays.
func TestSweep(t *testing.T) {
	var unsubscribed atomic.Int64
	s := newStore(t, func(c *conn, r *storev1.Request) bool {
		if r.GetUnsubscribe() != nil {
			unsubscribed.Add(1)
			c.send(&storev1.Response{Id: r.Id, Result: &storev1.Response_Done{Done: &storev1.Done{}}})
			return true
		}
		return false
	})
	c := dial(t, s, Options{})
	many := 3 * maxLeaving / 2
	for i := range many {
		subscribe(t, s, c, fmt.Sprint("idle", i), "1")
	}
	subscribe(t, s, c, "read", "1")
	subscribe(t, s, c, "watched", "1")
	cancel := c.Watch("t", "watched", func(*storev1.State, error) {})
	defer cancel()
	session := c.cur.Load()
	session.follow(session.cache.sweep(true))
	eventually(t, "the first part is gone", func() bool { return unsubscribed.Load() == int64(maxLeaving) })
	if c.version("read") != "1" {
		t.Error("what is read is gone")
	}
	eventually(t, "the round goes on", func() bool {
		session.follow(session.cache.sweep(false))
		return unsubscribed.Load() == int64(many)
	})
	session.follow(session.cache.sweep(false))
	for range 2 {
		if c.version("read") != "1" || c.version("watched") != "1" || c.version("idle0") != "-" {
			t.Errorf("cached: read %q, watched %q, idle %q; want 1, 1 and none", c.version("read"), c.version("watched"), c.version("idle0"))
		}
		session.follow(session.cache.sweep(true))
	}
	session.follow(session.cache.sweep(true))
	eventually(t, "read is gone", func() bool { return unsubscribed.Load() == int64(many)+1 })
	if c.version("read") != "-" || c.version("watched") != "1" {
		t.Errorf("cached: read %q, watched %q; want none and 1", c.version("read"), c.version("watched"))
	}
	subscribe(t, s, c, "read", "2")
}

func TestCacheBytes(t *testing.T) {
	s := newStore(t, nil)
	c := dial(t, s, Options{CacheBytes: 10 * entryOverhead})
	subscribe(t, s, c, "small", "1")
	subscribe(t, s, c, "large", fmt.Sprintf("%*d", 20*entryOverhead, 1))
	if got := s.next().GetUnsubscribe().GetEntity().GetKey(); got != "large" {
		t.Errorf("%q was evicted, want what can't fit", got)
	}
	if got := c.version("small"); got != "1" {
		t.Errorf("what is small was evicted")
	}
	// A push may make an entry too large.
	conn := subscribe(t, s, c, "grows", "1")
	conn.push("grows", fmt.Sprintf("%*d", 20*entryOverhead, 1))
	if got := s.next().GetUnsubscribe().GetEntity().GetKey(); got != "grows" {
		t.Errorf("%q was evicted, want what has grown", got)
	}
	ca := c.cur.Load().cache
	ca.mu.Lock()
	defer ca.mu.Unlock()
	if want := ca.entries[entityKey{"t", "small"}].size; ca.live != 1 || ca.bytes != want {
		t.Errorf("%d entries of %d bytes are counted, want 1 of %d", ca.live, ca.bytes, want)
	}
}

// watched is a watch's calls as text.
type watched struct {
	calls  chan string
	cancel func()
}

func watch(c *Client, key string) watched {
	w := watched{calls: make(chan string, 1000)}
	w.cancel = c.Watch("t", key, func(st *storev1.State, err error) {
		if err != nil {
			w.calls <- "error: " + err.Error()
			return
		}
		w.calls <- st.GetVersion()
	})
	return w
}

func (w watched) next(t *testing.T) string {
	t.Helper()
	select {
	case got := <-w.calls:
		return got
	case <-time.After(10 * time.Second):
		t.Fatal("the watch was not called")
		return ""
	}
}

// until waits for a version; others may come before it.
func (w watched) until(t *testing.T, version string) {
	t.Helper()
	for w.next(t) != version {
	}
}

func TestWatch(t *testing.T) {
	s := newStore(t, nil)
	c := dial(t, s, Options{CacheEntries: 1})
	w := watch(c, "a")
	r := s.next()
	if !r.GetGet().GetSubscribe() {
		t.Fatalf("got %v, want a subscription", r.Request)
	}
	also := watch(c, "a") // shares it
	r.state("1")
	if a, b := w.next(t), also.next(t); a != "1" || b != "1" {
		t.Errorf("began with %s and %s", a, b)
	}
	if got := c.version("a"); got != "1" {
		t.Errorf("cached %q, want 1", got)
	}
	r.conn.push("a", "2")
	if a, b := w.next(t), also.next(t); a != "2" || b != "2" {
		t.Errorf("went on with %s and %s", a, b)
	}
	third := watch(c, "a")
	if got := third.next(t); got != "2" {
		t.Errorf("a later watch began with %s", got)
	}

	// Our own commit shows at once, and its push is not told again.
	done, wait := into[*storev1.Committed](t)
	c.Commit(commit("a"), time.Minute, done)
	s.next().committed("3")
	if _, err := wait(); err != nil {
		t.Fatal(err)
	}
	r.conn.push("a", "3")
	r.conn.push("a", "4")
	if got := w.next(t); got != "3" && got != "4" {
		t.Errorf("after a commit: %s", got)
	} else if got == "3" {
		if got = w.next(t); got != "4" {
			t.Errorf("after the commit and its push: %s, want 4", got)
		}
	}
	also.until(t, "4")
	third.until(t, "4")

	// What is watched is not evicted; the last watch that ends leaves it in the cache.
	subscribe(t, s, c, "b", "1")
	un := s.next()
	if got := un.GetUnsubscribe().GetEntity().GetKey(); got != "b" {
		t.Fatalf("got %v, want b unsubscribed", un.Request)
	}
	un.ok()
	w.cancel()
	w.cancel()
	also.cancel()
	r.conn.push("a", "5")
	if got := third.next(t); got != "5" {
		t.Errorf("the watch that is left got %s", got)
	}
	third.cancel()
	if got := c.version("a"); got != "5" {
		t.Errorf("cached %q after the watches", got)
	}
	subscribe(t, s, c, "c", "1")
	if got := s.next().GetUnsubscribe().GetEntity().GetKey(); got != "a" && got != "c" {
		t.Errorf("%q was evicted", got)
	}
	if len(w.calls)+len(also.calls) > 0 {
		t.Error("a watch was called after its end")
	}
}

func TestWatchFails(t *testing.T) {
	s := newStore(t, nil)
	c := dial(t, s, Options{MaxWatches: 2})
	w := watch(c, "a")
	r := s.next()
	also := watch(c, "a")
	if got := watch(c, "a").next(t); got != "error: store: 2 watches, at most 2 (code 8, OUTCOME_NOT_APPLIED)" {
		t.Errorf("the third watch of two: %s", got)
	}
	r.fail(&storev1.Error{Code: 5, Message: "no such type"})
	for _, w := range []watched{w, also} {
		if got := w.next(t); got != "error: store: no such type (code 5, OUTCOME_NOT_APPLIED)" {
			t.Errorf("got %s", got)
		}
	}
	// The failed ones left nothing behind.
	one := dial(t, s, Options{CacheEntries: 1})
	first := watch(one, "a")
	if got := watch(one, "b").next(t); !strings.Contains(got, "1 entities are watched") {
		t.Errorf("a watch of a second entity where the cache holds one: %s", got)
	}
	s.next().state("1")
	if got := first.next(t); got != "1" {
		t.Errorf("the first got %s", got)
	}
	again := watch(c, "a")
	r = s.next()
	if !r.GetGet().GetSubscribe() {
		t.Errorf("got %v, want a subscription", r.Request)
	}
	r.state("1")
	if got := again.next(t); got != "1" {
		t.Errorf("got %s", got)
	}
}

func TestWatchWhileLeaving(t *testing.T) {
	s := newStore(t, nil)
	c := dial(t, s, Options{CacheEntries: 1})
	subscribe(t, s, c, "a", "1")
	subscribe(t, s, c, "b", "1")
	un := s.next()
	key := un.GetUnsubscribe().GetEntity().GetKey()
	w := watch(c, key)
	un.ok()
	r := s.next()
	for r.GetUnsubscribe() != nil { // the other one, to make room
		r = s.next()
	}
	if !r.GetGet().GetSubscribe() {
		t.Fatalf("got %v, want a subscription", r.Request)
	}
	r.state("2")
	if got := w.next(t); got != "2" {
		t.Errorf("got %s, want 2", got)
	}
}

// TestWatchOfADroppedState: the cache forgot the state, not the subscription.
func TestWatchOfADroppedState(t *testing.T) {
	s := newStore(t, nil)
	c := dial(t, s, Options{})
	conn := subscribe(t, s, c, "a", "1")
	done, wait := into[*storev1.Committed](t)
	c.Commit(commit("a"), time.Minute, done)
	r := s.next()
	conn.push("a", "3")
	r.committed("2")
	if _, err := wait(); err != nil || c.version("a") != "-" {
		t.Fatalf("cached %q, %v; want nothing", c.version("a"), err)
	}
	w := watch(c, "a")
	r = s.next()
	if r.GetGet() == nil || r.GetGet().GetSubscribe() {
		t.Errorf("got %v, want a read", r.Request)
	}
	r.state("3")
	if got := w.next(t); got != "3" {
		t.Errorf("got %s, want 3", got)
	}

	// And where that read fails, the watch does.
	c.Commit(commit("a"), time.Minute, func(*storev1.Committed, error) {})
	r = s.next()
	conn.push("a", "5")
	r.committed("4")
	eventually(t, "dropped", func() bool { return c.version("a") == "-" })
	w = watch(c, "a")
	s.next().fail(&storev1.Error{Code: 14, Message: "gone"})
	if got := w.next(t); got != "error: store: gone (code 14, OUTCOME_NOT_APPLIED)" {
		t.Errorf("got %s", got)
	}
}

func TestSlowWatcherSkips(t *testing.T) {
	s := newStore(t, nil)
	c := dial(t, s, Options{})
	conn := subscribe(t, s, c, "a", "0")
	subscribe(t, s, c, "end", "0")
	entered, leave := make(chan struct{}), make(chan struct{})
	var calls []string // by one goroutine at a time
	last := make(chan struct{})
	cancel := c.Watch("t", "a", func(st *storev1.State, _ error) {
		calls = append(calls, st.GetVersion())
		if len(calls) == 1 {
			close(entered)
			<-leave
		}
		if st.GetVersion() == "99" {
			close(last)
		}
	})
	defer cancel()
	<-entered
	for i := 1; i < 100; i++ {
		conn.push("a", fmt.Sprint(i))
	}
	conn.push("end", "1")
	eventually(t, "a slow watcher does not hold up the others", func() bool { return c.version("end") == "1" })
	close(leave)
	<-last
	if len(calls) != 2 {
		t.Errorf("called with %v, want the first and the last", calls)
	}
}

// TestManyAtOnce drives the client from many goroutines against a store that counts. Run with -race.
func TestManyAtOnce(t *testing.T) {
	const keys, workers, rounds = 8, 8, 200
	var mu sync.Mutex
	count := map[string]int{}
	subscribed := map[string]bool{}
	s := newStore(t, func(c *conn, r *storev1.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		q := request{r, c}
		switch call := r.GetCall().(type) {
		case *storev1.Request_Get:
			key := call.Get.GetEntity().GetKey()
			if call.Get.GetSubscribe() {
				subscribed[key] = true
			}
			q.state(fmt.Sprint(count[key]))
		case *storev1.Request_Unsubscribe:
			delete(subscribed, call.Unsubscribe.GetEntity().GetKey())
			q.ok()
		case *storev1.Request_Commit:
			key := call.Commit.GetEntity().GetKey()
			count[key]++
			v := fmt.Sprint(count[key])
			if subscribed[key] && count[key]%2 == 0 {
				c.push(key, v)
				q.committed(v)
			} else {
				q.committed(v)
				if subscribed[key] {
					c.push(key, v)
				}
			}
		default:
			return false
		}
		return true
	})
	c := dial(t, s, Options{CacheEntries: keys / 2})
	num := func(v string) (n int) {
		_, _ = fmt.Sscan(v, &n)
		return n
	}
	var wg sync.WaitGroup
	var watchCalls atomic.Int64
	for w := range workers {
		wg.Go(func() {
			own := map[string]int{} // what this worker has seen committed
			for i := range rounds {
				key := fmt.Sprint((w + i*i) % keys)
				switch (w + i) % 4 {
				case 0:
					done, wait := into[*storev1.Committed](t)
					c.Commit(commit(key), time.Minute, done)
					m, err := wait()
					if err != nil {
						t.Error(err)
						return
					}
					own[key] = num(m.GetState().GetVersion())
				case 1:
					cancel := c.Watch("t", key, func(*storev1.State, error) { watchCalls.Add(1) })
					defer cancel()
					if i%8 != 0 {
						cancel()
					}
				default:
					if st, ok := c.Cached("t", key); ok {
						if got := num(st.GetVersion()); got < own[key] {
							t.Errorf("worker %d: cached %s at %d after a commit made it %d", w, key, got, own[key])
						}
						continue
					}
					done, wait := into[*storev1.State](t)
					read(c, "t", key, true, time.Minute, done)
					if _, err := wait(); err != nil {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
	mu.Lock()
	defer mu.Unlock()
	eventually(t, "what is cached is what the store has", func() bool {
		for key, n := range count {
			if v := c.version(key); v != "-" && num(v) != n {
				return false
			}
		}
		return true
	})
	c.cur.Load().cache.balance(t)
}

func BenchmarkCached(b *testing.B) {
	ca := newCache(1000, 1<<30, 10)
	for i := range 1000 {
		m, _ := ca.reading(entityKey{"qa.Presentation", fmt.Sprint(i)})
		ca.subscribed(m, stateOf(entity("qa.Presentation", fmt.Sprint(i)), "1"), nil)
	}
	c := &Client{}
	c.cur.Store(&session{cache: ca})
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, ok := c.Cached("qa.Presentation", "17"); !ok {
				b.Error("not cached")
			}
		}
	})
}
