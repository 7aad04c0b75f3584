package etcd_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/holdfast-mesh/holdfast/internal/etcd"
	"github.com/holdfast-mesh/holdfast/internal/etcd/etcdtest"
)

// keep lets n clients look after the etcd; the function that it returns ends them.
func keep(t *testing.T, n int, dial func() *etcd.Client, cfg etcd.KeepConfig) ([]*etcd.Client, func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	var clients []*etcd.Client
	for i := range n {
		c := dial()
		clients = append(clients, c)
		cfg.Name = fmt.Sprint("keeper-", i)
		wg.Go(func() { c.Keep(ctx, cfg) })
	}
	end := func() { cancel(); wg.Wait() }
	t.Cleanup(end)
	return clients, end
}

// TestHistoryIsForgotten: old revisions go, whoever compacts; young ones never do.
func TestHistoryIsForgotten(t *testing.T) {
	server := etcdtest.Start(t)
	const every = 500 * time.Millisecond
	clients, end := keep(t, 3, server.Dial, etcd.KeepConfig{CompactEvery: every})
	raw, err := clientv3.New(clientv3.Config{Endpoints: []string{server.Endpoint}, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	type written struct {
		rev int64
		at  time.Time
	}
	var all []written
	by := map[string]bool{}
	gone := 0
	for range 150 {
		ctx := within(t, 10*time.Second)
		at := time.Now()
		r, err := clients[0].Txn(ctx, nil, []etcd.Op{etcd.Put("/a", nil, 0)}, nil)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, written{r.Rev, at})
		for ; gone < len(all); gone++ {
			_, err := raw.Get(ctx, "/a", clientv3.WithRev(all[gone].rev))
			if err == nil {
				break
			}
			if !errors.Is(err, rpctypes.ErrCompacted) {
				t.Fatal(err)
			}
			if age := time.Since(all[gone].at); age < every {
				t.Fatalf("revision %d was forgotten when it was %s old", all[gone].rev, age)
			}
		}
		last, err := clients[0].LastCompaction(ctx)
		if err != nil {
			t.Fatal(err)
		}
		by[last.By] = true
		time.Sleep(20 * time.Millisecond)
	}
	end()
	if gone == 0 {
		t.Error("no revision was forgotten")
	}
	t.Logf("%d of %d revisions forgotten, by %v", gone, len(all), by)
}

// TestRefusesBeforeEtcdDoes fills an etcd with a small quota: the budget refuses while etcd still takes writes, and
// admits again when enough was deleted.
func TestRefusesBeforeEtcdDoes(t *testing.T) {
	const quota = 48 << 20
	server := etcdtest.StartWithQuota(t, quota)
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	dial := func() *etcd.Client {
		return etcdtest.Dial(t, etcd.ClientConfig{Endpoints: []string{server.Endpoint}, Logger: log})
	}
	clients, _ := keep(t, 1, dial, etcd.KeepConfig{CompactEvery: 200 * time.Millisecond, Own: true})
	c := clients[0]
	value := make([]byte, 128<<10)
	n := 0
	for ; c.Room() == nil; n++ {
		if n*len(value) > quota {
			t.Fatal("more was written than the quota, and nothing was refused")
		}
		if _, err := c.Txn(within(t, 10*time.Second), nil, []etcd.Op{etcd.Put(fmt.Sprintf("/%04d", n), value, 0)}, nil); err != nil {
			t.Fatalf("after %d values: %v", n, err)
		}
		time.Sleep(5 * time.Millisecond) // Slower than the looks at the usage.
	}
	err := c.Room()
	if !errors.Is(err, etcd.ErrNoRoom) || !strings.Contains(err.Error(), "48.0 MiB") || !strings.Contains(err.Error(), "--quota-bytes") {
		t.Errorf("the refusal: %v", err)
	}
	t.Logf("after %d values of %d bytes: %v", n, len(value), err)
	if u, err := c.Usage(within(t, 10*time.Second)); err != nil || u.Full || u.Quota != quota {
		t.Errorf("usage: %+v, %v", u, err)
	}
	// Whoever deletes still may.
	if _, err := c.Txn(within(t, 10*time.Second), nil, []etcd.Op{etcd.DeleteRange("/0000", fmt.Sprintf("/%04d", n/2))}, nil); err != nil {
		t.Errorf("delete: %v", err)
	}
	eventually(t, 20*time.Second, "room again", func() bool { return c.Room() == nil })

	// Etcd itself full, as others than us may fill it.
	full := false
	for i := 0; !full; i++ {
		_, err := c.Txn(within(t, 10*time.Second), nil, []etcd.Op{etcd.Put(fmt.Sprintf("/x%04d", i), value, 0)}, nil)
		full = errors.Is(err, etcd.ErrFull)
		if err != nil && !full {
			t.Fatal(err)
		}
	}
	eventually(t, 20*time.Second, "full is seen", func() bool { return c.Room() != nil })
	if _, err := c.Txn(within(t, 10*time.Second), nil, []etcd.Op{etcd.DeletePrefix("/0"), etcd.DeletePrefix("/x")}, nil); err != nil {
		t.Errorf("delete: %v", err)
	}
	eventually(t, 30*time.Second, "etcd takes writes again", func() bool {
		_, err := c.Txn(within(t, 10*time.Second), nil, []etcd.Op{etcd.Put("/y", nil, 0)}, nil)
		return err == nil && c.Room() == nil
	})
}

func TestMembersOfACluster(t *testing.T) {
	cluster := etcdtest.StartCluster(t, false, 64<<20)
	c := cluster.Dial()
	cluster.Members[1].Signal(9)
	// Where it was the leader the others elect another first.
	eventually(t, 30*time.Second, "two members answer, one of them the leader", func() bool {
		leaders, answers := 0, 0
		for _, m := range c.Members(within(t, 30*time.Second)) {
			if m.Err != nil {
				continue
			}
			answers++
			if m.Leader {
				leaders++
			}
			if m.Quota != 64<<20 || m.Size == 0 || m.InUse == 0 || m.Version == "" || m.Rev == 0 || m.Endpoint == cluster.Members[1].Endpoint {
				t.Errorf("%+v", m)
			}
		}
		return answers == 2 && leaders == 1
	})
}

// TestFullMayBeWritten: etcd says that it is full of writes that it carried out, too.
func TestFullMayBeWritten(t *testing.T) {
	c := etcdtest.StartWithQuota(t, 16<<20).Dial()
	value := make([]byte, 256<<10)
	var wg sync.WaitGroup
	var there atomic.Int32
	for w := range 16 {
		wg.Go(func() {
			for i := range 100 {
				key := fmt.Sprintf("/x/%d/%d", w, i)
				_, err := c.Txn(within(t, 20*time.Second), nil, []etcd.Op{etcd.Put(key, value, 0)}, nil)
				if err == nil {
					continue
				}
				var e *etcd.Error
				if !errors.As(err, &e) || !errors.Is(err, etcd.ErrFull) || !e.Sent {
					t.Errorf("sent %v, %v", e != nil && e.Sent, err)
				}
				if kv, err := c.Get(within(t, 20*time.Second), key); err != nil {
					t.Error(err)
				} else if kv.ModRev != 0 {
					there.Add(1)
				}
				return
			}
		})
	}
	wg.Wait()
	t.Logf("%d of 16 writes that etcd had no room for are there", there.Load())
}
