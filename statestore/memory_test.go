package statestore_test

import (
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
	"github.com/holdfast-mesh/holdfast/statestore"
)

// heap is what is live.
func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestMemoryBudget: a counter with a 16-byte key takes at most 230 bytes of live heap while it is in memory, so that a million
// of them stay below 300 bytes of resident memory each with GOGC=30 or less, and at most 60 bytes when it is passive (the 4,096 slots of the
// type included). Raise a budget only with the reason in the same commit.
func TestMemoryBudget(t *testing.T) {
	const n, hotBudget, passiveBudget = 40_000, 230, 60
	e := configured(t, statestore.Config{Dir: t.TempDir()})
	mustCommit(t, e, commitOf("count", "first", "", inc(1)))
	before := heap()
	var wg sync.WaitGroup
	slots := make(chan struct{}, 2000)
	for i := range n {
		wg.Add(1)
		slots <- struct{}{}
		e.CommitAsync(commitOf("count", fmt.Sprintf("key-%012d", i), "", inc(1)), time.Time{}, func(_ *storev1.Committed, err error) {
			if err != nil {
				t.Error(err)
			}
			<-slots
			wg.Done()
		})
	}
	wg.Wait()
	hot := float64(heap()-before) / n
	t.Logf("%.0f bytes a counter in memory", hot)
	if hot > hotBudget {
		t.Errorf("%.0f bytes a counter in memory, at most %d", hot, hotBudget)
	}
	if err := e.Age(time.Hour); err != nil {
		t.Fatal(err)
	}
	if got := e.Status().Passive; got != n+1 {
		t.Errorf("%d are passive", got)
	}
	passive := (float64(heap()) - float64(before)) / n
	t.Logf("%.0f bytes a passive counter", passive)
	if passive > passiveBudget {
		t.Errorf("%.0f bytes a passive counter, at most %d", passive, passiveBudget)
	}
}
