package statestore

// maybeSnapshot begins a new segment when the old one is full, and writes the log snapshot beside the running commits.
func (e *Engine) maybeSnapshot() {
	if !e.log.ShouldRotate() || e.snapshot.Load() {
		return
	}
	number, err := e.log.Rotate()
	if err != nil {
		e.cfg.Logger.Error("log failed: this store takes no more writes until it is restarted", "error", err)
		return
	}
	records := e.allRecords()
	e.snapshot.Store(true)
	e.snapshots.Add(1)
	go func() {
		defer e.snapshots.Done()
		defer e.snapshot.Store(false)
		err := e.log.WriteSnapshot(number, func(add func([]byte) error) error {
			for _, r := range records {
				if err := add(r); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			// The log is whole without it, and only grows.
			e.snapshotBad.Store(&err)
			e.cfg.Logger.Error("log snapshot failed", "error", err)
			return
		}
		e.snapshotBad.Store(nil)
	}()
}

// allRecords is the whole durable content. Only the committer calls it, between batches.
func (e *Engine) allRecords() [][]byte {
	now := e.cfg.Now()
	records := make([][]byte, 0, len(e.entities)+len(e.ids.at))
	for id, ent := range e.entities {
		records = append(records, record{entityID: id, at: now, state: ent.state.Append(nil)}.append(nil))
	}
	for _, id := range e.ids.queue[e.ids.head:] {
		if at, ok := e.ids.at[id]; ok {
			records = append(records, record{entityID: id.entityID, requestID: id.requestID, at: at}.append(nil))
		}
	}
	return records
}
