package statestore

import (
	"context"
	"time"

	"github.com/holdfast-mesh/holdfast/statestore/crdt"
	"github.com/holdfast-mesh/holdfast/statestore/slots"
	"github.com/holdfast-mesh/holdfast/statestore/wal"
)

// maybeSnapshot begins a new segment when the old one is full, or at once, and writes the log snapshot beside the running
// commits.
func (e *Engine) maybeSnapshot(atOnce bool) {
	if e.snapshot.Load() || !atOnce && !e.log.ShouldRotate() {
		return
	}
	number, err := e.log.Rotate()
	if err != nil {
		e.cfg.Logger.Error("log failed: no writes until it is recovered", "error", err)
		return
	}
	head := e.head()
	e.snapshot.Store(true)
	e.snapshots.Add(1)
	go func() {
		defer e.snapshots.Done()
		defer e.snapshot.Store(false)
		var inForce func()
		err := e.log.WriteSnapshot(number, func(w *wal.SnapshotWriter) (err error) {
			inForce, err = e.index.WriteSnapshot(w, head)
			return err
		})
		if err != nil {
			// The log is whole without it, and only grows.
			e.snapshotBad.Store(&err)
			e.cfg.Logger.Error("log snapshot failed", "error", err)
			return
		}
		inForce()
		e.snapshotBad.Store(nil)
	}()
}

// head is what the snapshot holds beside entities. Only the committer calls it, between batches.
func (e *Engine) head() slots.Head {
	h := slots.Head{Time: e.lastTime, Records: e.identities.records(e.replica)}
	e.ids.each(func(id appliedID, a applied) {
		r := slots.Delta{Type: id.typ, Key: id.key, RequestID: id.requestID, Dot: a.dot, At: a.at}
		h.Records = append(h.Records, r.Append(nil))
	})
	return h
}

func (e *Engine) replayRequest(typ, key, id string, dot crdt.Dot, at time.Time) {
	e.ids.replay(appliedID{entityID{typ, key}, id}, applied{at: at, dot: dot})
}

// Recover ends a failure of the log where the disk takes writes again: what was under way when it failed is then surely not
// there, and what was in force is still here. It is cheap where there is no failure; nil says that the store takes writes.
func (e *Engine) Recover(ctx context.Context) error {
	if e.log.Err() == nil {
		return nil
	}
	return e.doErr(ctx, func() error {
		if err := e.log.Recover(); err != nil {
			return err
		}
		e.cfg.Logger.Info("log recovered: writes are taken again")
		return e.logNow(nil)
	})
}

// dropSlot forgets a slot that other stores have, but not this store's next sequence. On the committer, between batches.
func (e *Engine) dropSlot(s *slots.Slot) error {
	return e.logNow(s.Drop, slots.AppendDrop(nil, s.Type(), s.Number))
}
