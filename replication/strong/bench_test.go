package strong

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-mesh/holdfast/internal/etcd"
	"github.com/holdfast-mesh/holdfast/internal/etcd/etcdtest"
	"github.com/holdfast-mesh/holdfast/internal/fenced"
)

// BenchmarkCommit compares clients that commit to entities of their own with clients that each put a key where its revision
// is the one they know, and with one client alone. An operation is a round that tries each for a moment, because a busy
// machine is not the same from one second to the next; what is reported are medians of the rounds:
//
//	go test -run - -bench Commit -benchtime 15x ./replication/strong
func BenchmarkCommit(b *testing.B) {
	server := etcdtest.Start(b)
	client := server.Dial()
	c, err := New(Config{Node: "a", Etcd: client, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = c.Close() })
	ctx := context.Background()
	const slots = 64
	var epochs [slots]int64
	for slot := range uint32(slots) {
		if _, epochs[slot], err = c.Claim(ctx, "t", slot); err != nil {
			b.Fatal(err)
		}
	}
	value := make([]byte, 100)
	shared := func(client int, key string, rev int64) (int64, error) {
		slot := uint32(client % slots)
		return c.Commit(ctx, []fenced.Write{{
			Slot: fenced.Slot{Type: "t", Number: slot}, Epoch: epochs[slot], Key: key, Revision: rev, Head: value,
		}})
	}
	alone := func(_ int, key string, rev int64) (int64, error) {
		key = "/holdfast/entities/t/0001/" + key
		res, err := client.Txn(ctx, []etcd.Guard{etcd.ModifiedAt(key, rev)}, []etcd.Op{etcd.Put(key, value, 0)}, nil)
		return res.Rev, err
	}
	var serial atomic.Int64
	// try returns commits per second, and what each costs this process and the etcd in it, in microseconds of CPU time.
	try := func(clients int, write func(client int, key string, rev int64) (int64, error)) (rate, cost float64) {
		var n atomic.Int64
		var wg sync.WaitGroup
		begin, spent := time.Now(), cpuTime()
		for i := range clients {
			wg.Go(func() {
				rev := int64(0)
				key := fmt.Sprint(serial.Add(1))
				for time.Since(begin) < benchMoment {
					r, err := write(i, key, rev)
					if err != nil {
						b.Error(err)
						return
					}
					rev = r
					n.Add(1)
				}
			})
		}
		wg.Wait()
		return float64(n.Load()) / time.Since(begin).Seconds(), float64((cpuTime() - spent).Microseconds()) / float64(n.Load())
	}
	for _, clients := range []int{1, 8, 32, 64} {
		b.Run(fmt.Sprint("clients=", clients), func(b *testing.B) {
			var ours, theirs, one, ratio, serial, ourCost, theirCost []float64
			for range b.N {
				o, oc := try(clients, shared)
				t, tc := try(clients, alone)
				s, _ := try(1, alone)
				ourCost, theirCost = append(ourCost, oc), append(theirCost, tc)
				ours, theirs, one = append(ours, o), append(theirs, t), append(one, s)
				ratio, serial = append(ratio, o/t), append(serial, o/s)
			}
			b.ReportMetric(median(ours), "commits/s")
			b.ReportMetric(median(theirs), "puts/s")
			b.ReportMetric(median(one), "puts-by-one/s")
			b.ReportMetric(median(ratio), "times-puts")
			b.ReportMetric(median(serial), "times-one")
			b.ReportMetric(median(ourCost), "µs-CPU/commit")
			b.ReportMetric(median(theirCost), "µs-CPU/put")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// benchMoment is how long one side is tried at a time.
const benchMoment = 250 * time.Millisecond

func cpuTime() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func median(v []float64) float64 {
	slices.Sort(v)
	return v[len(v)/2]
}
