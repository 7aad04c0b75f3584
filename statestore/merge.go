package statestore

import (
	"context"
	"errors"
	"fmt"

	replicationv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/replication/v1"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
	"github.com/holdfast-mesh/holdfast/statestore/crdt"
)

// Merge joins what other stores sent, and returns when it is durable. Deltas of types that are not configured here, or
// that do not fit, are left out and reported; the others are merged all the same.
func (e *Engine) Merge(ctx context.Context, deltas []*replicationv1.Delta) error {
	var errs []error
	for len(deltas) > 0 {
		part, size := 0, 0
		for part < len(deltas) && (part == 0 || size+len(deltas[part].GetState()) <= maxBatchBytes) {
			size += len(deltas[part].GetState())
			part++
		}
		merged := make(chan error, 1)
		it := item{merge: deltas[:part], merged: func(err error) { merged <- err }}
		if err := e.enqueue(ctx, it); err != nil {
			return errors.Join(append(errs, err)...)
		}
		if err := <-merged; err != nil {
			errs = append(errs, err)
		}
		deltas = deltas[part:]
	}
	return errors.Join(errs...)
}

func (e *Engine) applyMerge(b *batch, deltas []*replicationv1.Delta) error {
	if err := e.log.Err(); err != nil {
		return nil // finish reports it
	}
	var errs []error
	for _, d := range deltas {
		if err := e.mergeOne(b, d); err != nil {
			errs = append(errs, fmt.Errorf("merge delta of %s %q: %w", d.GetType(), d.GetKey(), err))
		}
	}
	return errors.Join(errs...)
}

func (e *Engine) mergeOne(b *batch, d *replicationv1.Delta) error {
	id := entityID{d.GetType(), d.GetKey()}
	if err := checkEntity(&storev1.Entity{Type: id.typ, Key: id.key}); err != nil {
		return err
	}
	typ, err := e.eventualType(id.typ)
	if err != nil {
		return err
	}
	state, err := crdt.Decode(d.State)
	if err != nil {
		return err
	}
	if !sameModel(state, typ) {
		return fmt.Errorf("%w: the type is a %s here", crdt.ErrModel, crdt.Name(typ.Model))
	}
	if state.Bottom() {
		return nil
	}
	ent := e.lookup(id)
	if ent == nil {
		ent = e.newEntity(id, state)
		e.keep(ent)
	} else {
		changed, err := ent.state.Merge(state)
		if err != nil || !changed {
			return err
		}
		e.types[id.typ].touch(ent)
	}
	ent.size += len(d.State)
	b.touched[ent] = struct{}{}
	b.log(record{entityID: id, at: e.cfg.Now(), state: d.State})
	return nil
}
