package statestore

import (
	"context"
	"time"
)

// Age lets time pass for what is idle, and goes over all slots twice: once to see what is idle, after a log snapshot to take
// it out of memory.
func (e *Engine) Age(d time.Duration) error {
	round := func() {
		e.sweep.slots = nil
		e.tick()
		for len(e.sweep.slots) > 0 {
			e.tick()
		}
	}
	err := e.do(context.Background(), func() {
		e.started = e.started.Add(-d)
		e.sweep.snapshot = time.Time{}
		round()
		round()
	})
	e.snapshots.Wait()
	if err == nil {
		err = e.do(context.Background(), round)
	}
	return err
}

// Queued is how much waits for the committer.
func (e *Engine) Queued() int { return len(e.queue) }

// Settle waits for the log snapshot that is being written.
func (e *Engine) Settle() {
	_ = e.do(context.Background(), func() {})
	e.snapshots.Wait()
}
