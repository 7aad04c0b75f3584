package etcd_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/holdfast-mesh/holdfast/internal/etcd"
	"github.com/holdfast-mesh/holdfast/internal/etcd/etcdtest"
)

// TestWaitChange goes through what a key can do while somebody waits for it.
func TestWaitChange(t *testing.T) {
	server := etcdtest.Start(t)
	c := server.Dial()
	ctx := within(t, 30*time.Second)
	do := func(ops ...etcd.Op) int64 {
		t.Helper()
		r, err := c.Txn(ctx, nil, ops, nil)
		if err != nil {
			t.Fatal(err)
		}
		return r.Rev
	}
	type seen struct {
		kv  etcd.KV
		err error
	}
	wait := func(ctx context.Context, rev int64) <-chan seen {
		ch := make(chan seen, 1)
		go func() {
			kv, err := c.WaitChange(ctx, "/k", rev)
			ch <- seen{kv, err}
		}()
		return ch
	}
	still := func(ch <-chan seen) {
		t.Helper()
		select {
		case s := <-ch:
			t.Fatalf("did not wait: %+v", s)
		case <-time.After(50 * time.Millisecond):
		}
	}

	ch := wait(ctx, 0)
	still(ch)
	do(etcd.Put("/k2", nil, 0))
	first := do(etcd.Put("/k", []byte("1"), 0))
	if s := <-ch; s.err != nil || s.kv.ModRev != first || string(s.kv.Value) != "1" {
		t.Fatalf("created: %+v", s)
	}
	if s := <-wait(ctx, first-1); s.err != nil || s.kv.ModRev != first {
		t.Fatalf("changed already: %+v", s)
	}
	ch = wait(ctx, first)
	still(ch)
	second := do(etcd.Put("/k", []byte("2"), 0))
	if s := <-ch; s.err != nil || s.kv.ModRev != second {
		t.Fatalf("changed: %+v", s)
	}
	ch = wait(ctx, second)
	still(ch)
	server.Stop()
	still(ch)
	server.Restart()
	eventually(t, 10*time.Second, "up", c.Up)
	do(etcd.Delete("/k"))
	if s := <-ch; s.err != nil || s.kv.ModRev != 0 {
		t.Fatalf("gone, over a restart of etcd: %+v", s)
	}
	if s := <-wait(ctx, second); s.err != nil || s.kv.ModRev != 0 {
		t.Fatalf("gone already: %+v", s)
	}
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if s := <-wait(short, 0); !errors.Is(s.err, context.DeadlineExceeded) {
		t.Fatalf("nothing happens: %+v", s)
	}
}

func TestRanges(t *testing.T) {
	c := etcdtest.Start(t).Dial()
	ctx := within(t, 10*time.Second)
	var puts []etcd.Op
	for i := range 10 {
		puts = append(puts, etcd.Put(fmt.Sprintf("/a/%d", i), nil, 0))
	}
	r, err := c.Txn(ctx, nil, append(puts, etcd.Put("/a0", nil, 0), etcd.Put("/b", nil, 0)), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		from, to string
		limit    int
		keys     int
		more     bool
	}{
		{"/a/", etcd.PrefixEnd("/a/"), 0, 10, false},
		{"/a/", etcd.PrefixEnd("/a/"), 10, 10, false},
		{"/a/", etcd.PrefixEnd("/a/"), 9, 9, true},
		{"/a/3", "/a/5", 9, 2, false},
		{"/a/5", "/a/5", 9, 0, false},
		{"/a/5", "", 9, 1, false},
	} {
		page, err := c.Range(ctx, tc.from, tc.to, tc.limit)
		if err != nil || len(page.KVs) != tc.keys || page.More != tc.more || page.Rev != r.Rev {
			t.Errorf("%+v: %d keys, more %v at %d, %v", tc, len(page.KVs), page.More, page.Rev, err)
		}
	}
	if _, err := c.Txn(ctx, nil, []etcd.Op{etcd.DeleteRange("/a/3", "/a/5"), etcd.DeletePrefix("/b")}, nil); err != nil {
		t.Fatal(err)
	}
	page, err := c.Range(ctx, "/", "0", 0)
	if err != nil || len(page.KVs) != 9 {
		t.Errorf("after deletes: %+v, %v", page, err)
	}
	if _, err := c.Txn(ctx, nil, []etcd.Op{etcd.DeletePrefix("/a/")}, nil); err != nil {
		t.Fatal(err)
	}
	if page, err = c.Range(ctx, "/", "0", 0); err != nil || len(page.KVs) != 1 || page.KVs[0].Key != "/a0" {
		t.Errorf("after the prefix went: %+v, %v", page, err)
	}
}

// TestScan: every key once, whatever the sizes of the values are.
func TestScan(t *testing.T) {
	c := etcdtest.Start(t).Dial()
	ctx := within(t, 60*time.Second)
	const small, large = 300, 90
	for i := range small + large {
		size := 1
		if i >= small {
			size = 1_000_000 // So many of them in one page are more than the client takes.
		}
		if _, err := c.Txn(ctx, nil, []etcd.Op{etcd.Put(fmt.Sprintf("/s/%03d", i), make([]byte, size), 0)}, nil); err != nil {
			t.Fatal(err)
		}
	}
	n := 0
	err := c.Scan(ctx, "/s/", etcd.PrefixEnd("/s/"), func(kv etcd.KV) {
		if want := fmt.Sprintf("/s/%03d", n); kv.Key != want {
			t.Fatalf("got %s, want %s", kv.Key, want)
		}
		n++
	})
	if err != nil || n != small+large {
		t.Errorf("%d keys, %v", n, err)
	}
}
