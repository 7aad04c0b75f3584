package stateclient

import (
	"errors"
	"testing"
	"time"

	"go.uber.org/goleak"

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
	c.Get("t", key, true, time.Minute, done)
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
