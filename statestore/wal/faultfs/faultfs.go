// Package faultfs is a disk for tests: in memory, it fails where it is told to, and forgets in a crash what was not synced.
//
// A crash keeps of each file all that was synced, and of the rest any part: a prefix, with some of its blocks zeroed. Of a
// folder's changes since its last sync it keeps some first ones, or any: a rename is one change.
package faultfs

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/holdfast-mesh/holdfast/statestore/wal"
)

// ErrPowerOff is what every operation answers once the power is off.
var ErrPowerOff = errors.New("power is off")

// FS implements wal.FS. The zero value is an empty disk.
type FS struct {
	mu      sync.Mutex
	names   map[string]*inode // as the running system sees them
	durable map[string]*inode // as they are after a crash, but for pending
	pending []change
	locks   map[string]bool
	ops     int
	readers int
	off     bool
	fault   func(n int, op, name string) error
	disturb func(op, name string) error
}

type inode struct {
	name   string // the last one it had
	data   []byte
	synced []byte
	// rewritten says that synced need not be the beginning of data.
	rewritten bool
	// lost is where a sync failed: the system still shows those bytes, and takes them for written.
	lost []span
}

type span struct{ from, to int }

// change is a change of a folder that was not synced, as one step.
type change struct {
	dir   string
	steps []step
}

type step struct {
	name string
	to   *inode // nil: removed
}

var _ wal.FS = (*FS)(nil)

// Inject calls fault before each operation that changes something, with its number from 1 on; an error makes it fail. A
// failed write leaves any part of its bytes; a failed sync leaves them unsynced for ever. Reads are passed to it too, as "read"
// with number 0.
func (f *FS) Inject(fault func(n int, op, name string) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault = fault
}

// Disturb is Inject for a fault that belongs to what a test does, beside one by number: both are asked.
func (f *FS) Disturb(fault func(op, name string) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.disturb = fault
}

// PowerOff makes every later operation fail.
func (f *FS) PowerOff() { f.mu.Lock(); f.off = true; f.mu.Unlock() }

// Kill is the end of the process, not of the power: what was written is there, synced or not. f goes on without faults.
func (f *FS) Kill() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.off, f.fault, f.disturb = false, nil, nil
	clear(f.locks)
}

// Ops counts the operations so far that changed something.
func (f *FS) Ops() int { f.mu.Lock(); defer f.mu.Unlock(); return f.ops }

func (f *FS) init() {
	if f.names == nil {
		f.names, f.durable, f.locks = map[string]*inode{}, map[string]*inode{}, map[string]bool{}
	}
}

// begin is called with the mutex held.
func (f *FS) begin(op, name string) error {
	if f.off {
		return ErrPowerOff
	}
	f.init()
	n := 0
	if op != "read" {
		f.ops++
		n = f.ops
	}
	var err error
	if f.fault != nil {
		err = f.fault(n, op, name)
	}
	if err == nil && f.disturb != nil {
		err = f.disturb(op, name)
	}
	if err == nil {
		return nil
	}
	f.off = f.off || errors.Is(err, ErrPowerOff)
	return fmt.Errorf("%s %s: %w", op, name, err)
}

// Crash returns the disk as it may be found after a crash now. f is not changed.
func (f *FS) Crash(rng *rand.Rand) *FS {
	f.mu.Lock()
	defer f.mu.Unlock()
	after := &FS{names: map[string]*inode{}, durable: map[string]*inode{}, locks: map[string]bool{}}
	names := map[string]*inode{}
	maps.Copy(names, f.durable)
	kept := f.pending[:rng.IntN(len(f.pending)+1)]
	if rng.IntN(2) == 0 {
		kept = slices.DeleteFunc(slices.Clone(f.pending), func(change) bool { return rng.IntN(2) == 0 })
	}
	for _, c := range kept {
		c.apply(names)
	}
	// In order, so that the same random numbers lose the same bytes.
	for _, name := range slices.Sorted(maps.Keys(names)) {
		data := names[name].remains(rng)
		left := &inode{name: name, data: data, synced: slices.Clone(data)}
		after.names[name], after.durable[name] = left, left
	}
	return after
}

func (n *inode) remains(rng *rand.Rand) []byte {
	if len(n.lost) > 0 {
		return slices.Clone(n.synced)
	}
	if n.rewritten {
		// A truncation that was not synced: either.
		if rng.IntN(2) == 0 {
			return slices.Clone(n.synced)
		}
		return slices.Clone(n.data)
	}
	size := len(n.synced) + rng.IntN(len(n.data)-len(n.synced)+1)
	if rng.IntN(3) == 0 {
		size = len(n.data)
	}
	data := slices.Clone(n.data[:size])
	if rng.IntN(2) == 0 {
		const block = 8
		for at := len(n.synced); at < len(data); at += block {
			if rng.IntN(3) == 0 {
				clear(data[at:min(at+block, len(data))])
			}
		}
	}
	return data
}

func set(names map[string]*inode, name string, n *inode) {
	if n == nil {
		delete(names, name)
		return
	}
	names[name] = n
}

func (c change) apply(names map[string]*inode) {
	for _, s := range c.steps {
		set(names, s.name, s.to)
	}
}

func (f *FS) change(steps ...step) {
	c := change{dir: filepath.Dir(steps[0].name), steps: steps}
	c.apply(f.names)
	f.pending = append(f.pending, c)
}

// MkdirAll implements wal.FS; every folder is there.
func (f *FS) MkdirAll(string) error { return nil }

// Create implements wal.FS.
func (f *FS) Create(name string) (wal.File, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.begin("create", name); err != nil {
		return nil, err
	}
	n := f.names[name]
	if n == nil {
		n = &inode{name: name}
		f.change(step{name, n})
	}
	n.data, n.lost, n.rewritten = nil, nil, true
	return &file{fs: f, inode: n}, nil
}

// OpenAppend implements wal.FS.
func (f *FS) OpenAppend(name string) (wal.File, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.names[name] == nil {
		return nil, os.ErrNotExist
	}
	return &file{fs: f, inode: f.names[name]}, nil
}

// ReadFile implements wal.FS.
func (f *FS) ReadFile(name string) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.names[name] == nil {
		return nil, os.ErrNotExist
	}
	if err := f.begin("read", name); err != nil {
		return nil, err
	}
	return slices.Clone(f.names[name].data), nil
}

// OpenRead implements wal.FS.
func (f *FS) OpenRead(name string) (wal.Reader, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.names[name] == nil {
		return nil, os.ErrNotExist
	}
	if err := f.begin("read", name); err != nil {
		return nil, err
	}
	f.readers++
	return &reader{fs: f, inode: f.names[name]}, nil
}

// Readers counts the readers that are open.
func (f *FS) Readers() int { f.mu.Lock(); defer f.mu.Unlock(); return f.readers }

// WriteDurable puts a file on the disk, for tests that damage one.
func (f *FS) WriteDurable(name string, data []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.init()
	n := &inode{name: name, data: slices.Clone(data), synced: slices.Clone(data)}
	f.names[name], f.durable[name] = n, n
}

// Damage changes a byte of a file, under those who have it open too.
func (f *FS) Damage(name string, at int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.names[name]
	n.data, n.rewritten = slices.Clone(n.data), true
	n.data[at] ^= 0x20
}

// Rename implements wal.FS.
func (f *FS) Rename(from, to string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.begin("rename", to); err != nil {
		return err
	}
	n := f.names[from]
	if n == nil {
		return os.ErrNotExist
	}
	n.name = to
	f.change(step{to, n}, step{from, nil})
	return nil
}

// Remove implements wal.FS.
func (f *FS) Remove(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.begin("remove", name); err != nil {
		return err
	}
	if f.names[name] == nil {
		return os.ErrNotExist
	}
	f.change(step{name, nil})
	return nil
}

// ReadDir implements wal.FS.
func (f *FS) ReadDir(dir string) ([]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var names []string
	for name := range f.names {
		if strings.HasPrefix(name, dir+"/") {
			names = append(names, strings.TrimPrefix(name, dir+"/"))
		}
	}
	slices.Sort(names)
	return names, nil
}

// SyncDir implements wal.FS.
func (f *FS) SyncDir(dir string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.begin("sync folder", dir); err != nil {
		return err
	}
	rest := f.pending[:0]
	for _, c := range f.pending {
		if c.dir != dir {
			rest = append(rest, c)
			continue
		}
		c.apply(f.durable)
	}
	f.pending = rest
	return nil
}

// Lock implements wal.FS.
func (f *FS) Lock(name string) (io.Closer, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.init()
	if f.locks[name] {
		return nil, wal.ErrLocked
	}
	f.locks[name] = true
	return unlocker{f, name}, nil
}
