package cli

import (
	"os"
	"runtime/debug"
	"runtime/metrics"
)

// heapTuner trades a store's time for its memory. Its heap is a great many small things that live long: the usual 100 percent
// would let it grow to twice of them before it looks, and the more there are the more that is. GOGC in the environment
// overrides it.
type heapTuner struct {
	off     bool
	percent int
}

func newHeapTuner() *heapTuner { return &heapTuner{off: os.Getenv("GOGC") != ""} }

// tune sets the percentage for what lives now. It costs a microsecond.
func (h *heapTuner) tune() {
	if h.off {
		return
	}
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(live)
	if p := gcPercent(live[0].Value.Uint64()); p != h.percent {
		h.percent = p
		debug.SetGCPercent(p)
	}
}

// gcPercent bounds the slack: at most some 16 MB while the heap is small, a quarter of it when it is large.
func gcPercent(live uint64) int {
	switch {
	case live < 32<<20:
		return 50
	case live < 96<<20:
		return 35
	}
	return 25
}
