package etcd_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/holdfast-mesh/holdfast/internal/etcd"
	"github.com/holdfast-mesh/holdfast/internal/etcd/etcdtest"
)

func TestMain(m *testing.M) {
	etcdtest.Main()
	goleak.VerifyTestMain(m)
}

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

func eventually(t *testing.T, d time.Duration, what string, ok func() bool) time.Duration {
	t.Helper()
	start := time.Now()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(d); !ok(); {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not within %s: %s", d, what)
		}
	}
	return time.Since(start)
}

func TestTransactions(t *testing.T) {
	c := etcdtest.Start(t).Dial()
	ctx := within(t, 10*time.Second)
	res, err := c.Txn(ctx, []etcd.Guard{etcd.CreatedAt("/a", 0)}, []etcd.Op{etcd.Put("/a", []byte("1"), 0)}, []etcd.Op{etcd.Read("/a", false)})
	if err != nil || !res.Held || res.Rev == 0 {
		t.Fatalf("create: %+v, %v", res, err)
	}
	kv, err := c.Get(ctx, "/a")
	if err != nil || string(kv.Value) != "1" || kv.CreateRev != res.Rev || kv.ModRev != res.Rev {
		t.Errorf("get: %+v, %v", kv, err)
	}
	again, err := c.Txn(ctx,
		[]etcd.Guard{etcd.CreatedAt("/a", 0)},
		[]etcd.Op{etcd.Put("/a", []byte("2"), 0)},
		[]etcd.Op{etcd.Read("/none", false), etcd.Read("/a", false), etcd.Read("/a", true)})
	if err != nil || again.Held || len(again.Reads) != 3 {
		t.Fatalf("create again: %+v, %v", again, err)
	}
	if r := again.Reads; r[0].ModRev != 0 || string(r[1].Value) != "1" || len(r[2].Value) != 0 || r[2].ModRev != res.Rev {
		t.Errorf("reads: %+v", r)
	}
	if _, err := c.Txn(ctx, []etcd.Guard{etcd.ModifiedAt("/a", res.Rev)}, []etcd.Op{etcd.Put("/a", []byte("3"), 0), etcd.Put("/b", nil, 0)}, nil); err != nil {
		t.Error(err)
	}
	if _, err := c.Txn(ctx, nil, []etcd.Op{etcd.Delete("/b")}, nil); err != nil {
		t.Error(err)
	}
	list, rev, err := c.List(ctx, "/", 10)
	if err != nil || len(list) != 1 || string(list[0].Value) != "3" || rev <= res.Rev {
		t.Errorf("list: %+v at %d, %v", list, rev, err)
	}
}

func TestLeases(t *testing.T) {
	c := etcdtest.Start(t).Dial()
	ctx := within(t, 10*time.Second)
	lease, ttl, err := c.Grant(ctx, 2500*time.Millisecond)
	if err != nil || ttl != 3*time.Second {
		t.Fatalf("grant: %d for %s, %v", lease, ttl, err)
	}
	if _, err := c.Txn(ctx, nil, []etcd.Op{etcd.Put("/a", nil, lease)}, nil); err != nil {
		t.Fatal(err)
	}
	if ttl, err := c.KeepAlive(ctx, lease); err != nil || ttl != 3*time.Second {
		t.Errorf("keep alive: %s, %v", ttl, err)
	}
	if err := c.Revoke(ctx, lease); err != nil {
		t.Error(err)
	}
	if err := c.Revoke(ctx, lease); err != nil {
		t.Errorf("revoke again: %v", err)
	}
	if kv, err := c.Get(ctx, "/a"); err != nil || kv.ModRev != 0 {
		t.Errorf("the lease's key: %+v, %v", kv, err)
	}
	if _, err := c.KeepAlive(ctx, lease); !errors.Is(err, etcd.ErrLeaseGone) {
		t.Errorf("keep alive of a lease that is gone: %v", err)
	}
	_, err = c.Txn(ctx, nil, []etcd.Op{etcd.Put("/a", nil, lease)}, nil)
	var e *etcd.Error
	if !errors.As(err, &e) || e.Sent || !errors.Is(err, etcd.ErrLeaseGone) {
		t.Errorf("put under a lease that is gone: %v", err)
	}
}

func TestErrorsSayWhatIsKnown(t *testing.T) {
	server := etcdtest.Start(t)
	c := server.Dial()
	put := func(ctx context.Context, n, size int) (sent bool, err error) {
		var ops []etcd.Op
		for i := range n {
			ops = append(ops, etcd.Put(fmt.Sprint("/", i), make([]byte, size), 0))
		}
		_, err = c.Txn(ctx, nil, ops, nil)
		var e *etcd.Error
		if err != nil && !errors.As(err, &e) {
			t.Fatalf("%T: %v", err, err)
		}
		return e != nil && e.Sent, err
	}
	if _, err := put(within(t, 5*time.Second), etcd.MaxOps, 1); err != nil {
		t.Errorf("as many operations as allowed: %v", err)
	}
	if sent, err := put(within(t, 5*time.Second), etcd.MaxOps+1, 1); sent || !errors.Is(err, etcd.ErrTooLarge) {
		t.Errorf("one operation more: %v", err)
	}
	if _, err := put(within(t, 5*time.Second), 1, etcd.MaxTxnBytes); err != nil {
		t.Errorf("as large as allowed: %v", err)
	}
	if sent, err := put(within(t, 5*time.Second), 1, 1_600_000); sent || !errors.Is(err, etcd.ErrTooLarge) {
		t.Errorf("larger: %v", err)
	}
	server.PauseAnswers()
	if sent, err := put(within(t, 100*time.Millisecond), 1, 1); !sent || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("no answer: sent %v, %v", sent, err)
	}
	server.Resume()
	server.Stop()
	took := eventually(t, 5*time.Second, "down", func() bool { return !c.Up() })
	t.Logf("down seen %s after the server was gone", took)
	start := time.Now()
	if sent, err := put(within(t, 5*time.Second), 1, 1); sent || !errors.Is(err, etcd.ErrDown) || time.Since(start) > 50*time.Millisecond {
		t.Errorf("no server: sent %v, %v after %s", sent, err, time.Since(start))
	}
	server.Restart()
	took = eventually(t, 10*time.Second, "up", c.Up)
	t.Logf("up seen %s after the server was ready", took)
	if kv, err := c.Get(within(t, 5*time.Second), "/0"); err != nil || kv.ModRev == 0 {
		t.Errorf("what was written before the stop: %+v, %v", kv, err)
	}
}

func TestServeRefuses(t *testing.T) {
	for name, cfg := range map[string]etcd.Config{
		"client URL": {Dir: t.TempDir(), ClientURL: "://", PeerURL: "http://127.0.0.1:1"},
		"peer URL":   {Dir: t.TempDir(), ClientURL: "http://127.0.0.1:1", PeerURL: "://"},
		"no port":    {Dir: t.TempDir(), ClientURL: "http://127.0.0.1", PeerURL: "http://127.0.0.1"},
	} {
		if err := etcd.Serve(within(t, 5*time.Second), cfg); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
