package main

import (
	"encoding/binary"
	"errors"

	"github.com/cespare/xxhash/v2"

	"github.com/holdfast-mesh/holdfast/statestore/wal"
)

const slots = 4096

var errNone = errors.New("no such entry")

// own is the log and its sections used as the store uses them: what changed since the snapshot is in memory, the rest is
// read from its slot's section.
type own struct {
	log     *wal.Log
	refs    [slots]wal.Ref
	changed [slots]map[string][]byte
}

func slotOf(key []byte) int { return int(xxhash.Sum64(key) % slots) }

func (o *own) open(dir string) (err error) {
	o.log, err = wal.Open(dir, wal.Options{}, func(meta []byte, ref wal.Ref) error {
		o.refs[binary.LittleEndian.Uint16(meta)] = ref
		return nil
	}, func(record []byte) error {
		return each(record, func(key, value []byte) bool {
			o.change(append([]byte{}, key...), append([]byte{}, value...))
			return true
		})
	})
	return err
}

func (o *own) change(key, value []byte) {
	slot := slotOf(key)
	if o.changed[slot] == nil {
		o.changed[slot] = map[string][]byte{}
	}
	o.changed[slot][string(key)] = value
}

func appendEntry(dst, key, value []byte) []byte {
	dst = append(binary.AppendUvarint(dst, uint64(len(key))), key...)
	return append(binary.AppendUvarint(dst, uint64(len(value))), value...)
}

// each calls yield for the entries in b.
func each(b []byte, yield func(key, value []byte) bool) error {
	next := func() []byte {
		n, w := binary.Uvarint(b)
		part := b[w : w+int(n)]
		b = b[w+int(n):]
		return part
	}
	for len(b) > 0 {
		key := next()
		if value := next(); !yield(key, value) {
			break
		}
	}
	return nil
}

func (o *own) fill(entries []entry) error {
	for _, e := range entries {
		o.change(e.key, e.value)
	}
	return o.snapshot()
}

func (o *own) write(batch []entry) error {
	records := make([][]byte, len(batch))
	for i, e := range batch {
		records[i] = appendEntry(nil, e.key, e.value)
	}
	if err := o.log.Append(records); err != nil {
		return err
	}
	for _, e := range batch {
		o.change(e.key, e.value)
	}
	if o.log.ShouldRotate() {
		// The store does this beside the commits; here it counts as a part of this one.
		return o.snapshot()
	}
	return nil
}

func (o *own) snapshot() error {
	number, err := o.log.Rotate()
	if err != nil {
		return err
	}
	refs := o.refs
	err = o.log.WriteSnapshot(number, func(w *wal.SnapshotWriter) error {
		for slot := range slots {
			var old, body []byte
			if refs[slot].Size() > 0 {
				if old, err = o.log.ReadSection(refs[slot]); err != nil {
					return err
				}
			}
			changed := o.changed[slot]
			_ = each(old, func(key, value []byte) bool {
				if _, ok := changed[string(key)]; !ok {
					body = appendEntry(body, key, value)
				}
				return true
			})
			for key, value := range changed {
				body = appendEntry(body, []byte(key), value)
			}
			if refs[slot], err = w.Section(binary.LittleEndian.AppendUint16(nil, uint16(slot)), body); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	o.refs, o.changed = refs, [slots]map[string][]byte{}
	return nil
}

func (o *own) get(key []byte) ([]byte, error) {
	slot := slotOf(key)
	if value, ok := o.changed[slot][string(key)]; ok {
		return value, nil
	}
	body, err := o.log.ReadSection(o.refs[slot])
	if err != nil {
		return nil, err
	}
	var found []byte
	_ = each(body, func(k, value []byte) bool {
		if string(k) == string(key) {
			found = value
		}
		return found == nil
	})
	if found == nil {
		return nil, errNone
	}
	return found, nil
}

func (o *own) close() error { return o.log.Close() }
