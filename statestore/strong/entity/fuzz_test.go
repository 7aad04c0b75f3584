package entity_test

import (
	"bytes"
	"testing"

	"github.com/holdfast-mesh/holdfast/internal/fenced"
	"github.com/holdfast-mesh/holdfast/statestore/strong/entity"
)

// Whatever etcd holds, decoding does not panic, and what it takes can be written and read again.
func FuzzDecode(f *testing.F) {
	for _, build := range goldenEntities(&testing.T{}) {
		_, d := build()
		f.Add(d.head, d.cells["s"], d.cells[entity.EventCell(1)], d.cells["r/000"])
	}
	f.Add([]byte("\x01\x01\x02\x01a\x01bvalue"), []byte(nil), []byte(nil), []byte(nil))
	f.Fuzz(func(t *testing.T, head, snap, events, page []byte) {
		cells := map[string][]byte{"s": snap, entity.EventCell(1): events, entity.EventCell(3): events, "r/000": page, "r/001": page}
		for _, typ := range []*entity.Type{valueType(t), eventType(t)} {
			d := &disk{head: bytes.Clone(head), rev: 5, cells: cells}
			r, err := entity.Decode(typ, d.head, d.rev, d.load)
			if err != nil {
				continue
			}
			text := describe(typ, r)
			for _, c := range d.cells {
				_, _ = entity.DecodeEvents(fenced.Cell{Name: entity.EventCell(1), Value: c})
			}
			// A commit that changes nothing but bookkeeping.
			typ.TTL, typ.TTLByUse = 1<<40, true
			next, w, changed := typ.Touch(r, start)
			if !changed {
				continue
			}
			next = next.At(6)
			again, err := entity.Decode(typ, w.Head, 6, d.load)
			if err != nil {
				t.Fatalf("what was written can't be read: %v", err)
			}
			if got := describe(typ, again); got != describe(typ, next) || r.Exists() && got != text && r.Version() == again.Version() {
				t.Fatalf("got %s, want %s", got, text)
			}
		}
	})
}
