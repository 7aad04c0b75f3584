package wal_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"

	"github.com/holdfast-mesh/holdfast/statestore/wal"
	"github.com/holdfast-mesh/holdfast/statestore/wal/faultfs"
)

// errBroken is a disk error that passes.
var errBroken = errors.New("broken")

var records sync.Map // id → []byte

// recordOf is record id: its content says which it is and that all of it is there.
func recordOf(id uint64) []byte {
	if b, ok := records.Load(id); ok {
		return b.([]byte)
	}
	b := makeRecord(id)
	records.Store(id, b)
	return b
}

func makeRecord(id uint64) []byte {
	sizes := []int{0, 1, 30, 90, 400}
	size := sizes[id%uint64(len(sizes))]
	b := binary.BigEndian.AppendUint64(make([]byte, 0, 8+size), id)
	for i := range size {
		b = append(b, byte(uint64(i)*(id+3)>>3))
	}
	return b
}

func idOf(record []byte) (uint64, error) {
	if len(record) < 8 {
		return 0, fmt.Errorf("record of %d bytes", len(record))
	}
	id := binary.BigEndian.Uint64(record)
	if id > 1<<20 || !bytes.Equal(record, recordOf(id)) {
		return 0, fmt.Errorf("record %d is not as it was appended", id)
	}
	return id, nil
}

// content is what a log holds, as a user of it would build it up.
type content struct {
	ids []uint64 // sorted
	// replayed are those that came as records, in the order they came.
	replayed []uint64
	// refs and bodies are of the snapshot's sections.
	refs   map[string]wal.Ref
	bodies map[string][]byte
}

// sections is how many a script's snapshots have.
const sections = 5

func sectionName(id uint64) string { return fmt.Sprintf("section %d", id%sections) }

// metaOf is name, number of records and their ids' sum.
func metaOf(name string, ids []uint64) []byte {
	sum := uint64(0)
	for _, id := range ids {
		sum += id
	}
	return fmt.Appendf(nil, "%s: %d records, sum %d", name, len(ids), sum)
}

// load opens a log and reads everything.
func load(fs wal.FS) (*wal.Log, *content, error) {
	c := &content{refs: map[string]wal.Ref{}, bodies: map[string][]byte{}}
	metas := map[string][]byte{}
	l, err := wal.Open("/log", wal.Options{FS: fs, SegmentBytes: 2000}, func(meta []byte, ref wal.Ref) error {
		name, _, _ := bytes.Cut(meta, []byte(":"))
		c.refs[string(name)], metas[string(name)] = ref, bytes.Clone(meta)
		return nil
	}, func(r []byte) error {
		id, err := idOf(r)
		if n := len(c.replayed); err == nil && n > 0 && id <= c.replayed[n-1] {
			err = fmt.Errorf("record %d replayed after %d", id, c.replayed[n-1])
		}
		c.replayed = append(c.replayed, id)
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	c.ids = slices.Clone(c.replayed)
	for name, ref := range c.refs {
		ids, body, err := readSection(l, ref)
		if err == nil && !bytes.Equal(metas[name], metaOf(name, ids)) {
			err = fmt.Errorf("section holds %q, its meta is %q", metaOf(name, ids), metas[name])
		}
		if err != nil {
			l.Close()
			return nil, nil, err
		}
		c.bodies[name], c.ids = body, append(c.ids, ids...)
	}
	slices.Sort(c.ids)
	c.ids = slices.Compact(c.ids)
	return l, c, nil
}

func readSection(l *wal.Log, ref wal.Ref) (ids []uint64, body []byte, err error) {
	body, err = l.ReadSection(ref)
	if err != nil {
		return nil, nil, err
	}
	for b := body; len(b) > 0; {
		n, w := binary.Uvarint(b)
		id, err := idOf(b[w:][:n])
		if err != nil {
			return nil, nil, err
		}
		ids, b = append(ids, id), b[w+int(n):]
	}
	return ids, body, nil
}

// run is one run of a script: what it did to the log, and what the log must hold.
type run struct {
	fs  *faultfs.FS
	l   *wal.Log
	rng *rand.Rand
	// log's content, as acknowledged.
	content
	next uint64
	// pending is the batch whose fate is unknown, disowned are those that Recover took back.
	pending, disowned []uint64
	recoveries, gone  int
	// snapshot waits to be written.
	snapshot uint64
	older    wal.Ref
}

// script does operations on a fresh log until the power is off, and checks what can be checked on the way. What it does
// depends on seed only, as long as nothing fails.
func script(fs *faultfs.FS, seed uint64, operations int) (*run, error) {
	r := &run{fs: fs, rng: rand.New(rand.NewPCG(seed, 8)), next: 1}
	var err error
	if r.l, _, err = retry(fs); err != nil {
		return r, ignorePowerOff(err)
	}
	defer r.l.Close()
	r.refs, r.bodies = map[string]wal.Ref{}, map[string][]byte{}
	if r.l.Err() != nil {
		if err := r.recover(); err != nil {
			return r, ignorePowerOff(err)
		}
	}
	for range operations {
		if err := r.step(); err != nil {
			return r, ignorePowerOff(err)
		}
	}
	return r, nil
}

// retry opens a log whose disk has errors that pass.
func retry(fs wal.FS) (l *wal.Log, c *content, err error) {
	for range 50 {
		if l, c, err = load(fs); !errors.Is(err, errBroken) {
			return l, c, err
		}
	}
	return nil, nil, err
}

func ignorePowerOff(err error) error {
	if errors.Is(err, faultfs.ErrPowerOff) {
		return nil
	}
	return err
}

func (r *run) step() error {
	switch n := r.rng.IntN(20); {
	case n < 11:
		return r.append(1 + r.rng.IntN(3)*r.rng.IntN(3))
	case n < 13 && r.snapshot == 0:
		return r.rotate()
	case n < 15 && r.snapshot != 0:
		return r.writeSnapshot()
	case n < 18:
		return r.read()
	default:
		return r.failAndRecover()
	}
}

func (r *run) append(records int) error {
	var b [][]byte
	var ids []uint64
	for range records {
		ids, b = append(ids, r.next), append(b, recordOf(r.next))
		r.next++
	}
	r.pending = ids
	switch err := r.l.Append(b); {
	case err == nil:
		r.ids, r.pending = append(r.ids, ids...), nil
		return nil
	case errors.Is(err, wal.ErrPoisoned):
		// Surely not there, whether Recover comes to it or not.
		r.disowned, r.pending = append(r.disowned, ids...), nil
	case !errors.Is(err, wal.ErrUnknown):
		return fmt.Errorf("append to a log that is well: %w", err)
	}
	return r.recover()
}

// recover ends the poisoning; the batch that caused it is gone.
func (r *run) recover() error {
	if err := r.l.Append([][]byte{recordOf(1 << 19)}); !errors.Is(err, wal.ErrPoisoned) {
		return fmt.Errorf("append to a poisoned log: %w", err)
	}
	for try := 0; ; try++ {
		err := r.l.Recover()
		if err == nil {
			break
		}
		if errors.Is(err, faultfs.ErrPowerOff) || try > 50 {
			return err
		}
	}
	r.recoveries++
	r.disowned, r.pending = append(r.disowned, r.pending...), nil
	return nil
}

// failAndRecover has the next writes or syncs of the segment fail.
func (r *run) failAndRecover() error {
	op, times := []string{"write", "sync"}[r.rng.IntN(2)], 1+r.rng.IntN(3)
	r.fs.Disturb(func(o, _ string) error {
		if o == op && times > 0 {
			times--
			return errBroken
		}
		return nil
	})
	defer r.fs.Disturb(nil)
	return r.append(1 + r.rng.IntN(2))
}

func (r *run) rotate() error {
	n, err := r.l.Rotate()
	switch {
	case err == nil:
		r.snapshot = n
		return nil
	case r.l.Err() == nil:
		return ignoreBroken(err)
	}
	return r.recover()
}

func ignoreBroken(err error) error {
	if errors.Is(err, errBroken) {
		return nil
	}
	return err
}

// writeSnapshot writes all that is acknowledged by now, which may be more than the snapshot must hold.
func (r *run) writeSnapshot() error {
	number := r.snapshot
	r.snapshot = 0
	refs, bodies := map[string]wal.Ref{}, map[string][]byte{}
	var installed bool
	err := r.l.WriteSnapshot(number, func(w *wal.SnapshotWriter) error {
		w.Installed(func() {
			installed = true
			for _, ref := range r.refs {
				r.older = ref
			}
			r.refs, r.bodies = refs, bodies
		})
		of := map[string][]uint64{}
		for _, id := range r.ids {
			of[sectionName(id)] = append(of[sectionName(id)], id)
		}
		for i := range uint64(sections) {
			name := sectionName(i)
			var body []byte
			for _, id := range of[name] {
				record := recordOf(id)
				body = append(binary.AppendUvarint(body, uint64(len(record))), record...)
			}
			ref, err := w.Section(metaOf(name, of[name]), body)
			if err != nil {
				return err
			}
			refs[name], bodies[name] = ref, body
		}
		return nil
	})
	if (err == nil) != installed {
		return fmt.Errorf("snapshot installed: %v, and the answer is %w", installed, err)
	}
	return ignoreBroken(err)
}

func (r *run) read() error {
	for name, ref := range r.refs {
		body, err := r.l.ReadSection(ref)
		if err != nil {
			return ignoreBroken(err)
		}
		if !bytes.Equal(body, r.bodies[name]) {
			return fmt.Errorf("%s read back is not what was written", name)
		}
	}
	if _, err := r.l.ReadSection(r.older); !errors.Is(err, wal.ErrGone) {
		return fmt.Errorf("section that was replaced: %w", err)
	}
	r.gone++
	return nil
}

// check says whether what a later open found is what the run must have left.
func (r *run) check(got *content) error {
	missing := slices.DeleteFunc(slices.Clone(r.ids), func(id uint64) bool {
		_, ok := slices.BinarySearch(got.ids, id)
		return ok
	})
	extra := slices.DeleteFunc(slices.Clone(got.ids), func(id uint64) bool {
		_, ok := slices.BinarySearch(r.ids, id)
		return ok
	})
	if len(missing) > 0 {
		return fmt.Errorf("acknowledged and lost: %d", missing)
	}
	if len(extra) > 0 && !slices.Equal(extra, r.pending) {
		return fmt.Errorf("records %d turned up; unknown are %d, disowned %d", extra, r.pending, r.disowned)
	}
	return nil
}
