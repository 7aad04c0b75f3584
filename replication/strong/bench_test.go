package strong

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/holdfast-mesh/holdfast/internal/etcd"
	"github.com/holdfast-mesh/holdfast/internal/etcd/etcdtest"
)

// BenchmarkCommit compares clients that commit to entities of their own, whose commits share transactions, with clients
// that put one transaction each.
func BenchmarkCommit(b *testing.B) {
	server := etcdtest.Start(b)
	client := server.Dial()
	c, err := New(Config{Node: "a", Etcd: client, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = c.Close() })
	ctx := context.Background()
	_, epoch, err := c.Claim(ctx, "t", 1)
	if err != nil {
		b.Fatal(err)
	}
	value := make([]byte, 100)
	run := func(b *testing.B, clients int, commit func(key string, rev int64) (int64, error)) {
		var left atomic.Int64
		left.Store(int64(b.N))
		b.ResetTimer()
		var wg sync.WaitGroup
		for i := range clients {
			wg.Go(func() {
				key, rev := fmt.Sprint(b.Name(), b.N, "/", i), int64(0)
				for left.Add(-1) >= 0 {
					r, err := commit(key, rev)
					if err != nil {
						b.Error(err)
						return
					}
					rev = r
				}
			})
		}
		wg.Wait()
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "commits/s")
	}
	for _, clients := range []int{1, 8, 64} {
		b.Run(fmt.Sprint("shared/clients=", clients), func(b *testing.B) {
			run(b, clients, func(key string, rev int64) (int64, error) {
				return c.Commit(ctx, "t", 1, epoch, key, rev, value, true, []string{"id"})
			})
		})
		b.Run(fmt.Sprint("alone/clients=", clients), func(b *testing.B) {
			run(b, clients, func(key string, rev int64) (int64, error) {
				res, err := client.Txn(ctx, []etcd.Guard{etcd.ModifiedAt(key, rev)}, []etcd.Op{etcd.Put(key, value, 0)}, nil)
				return res.Rev, err
			})
		})
	}
}
