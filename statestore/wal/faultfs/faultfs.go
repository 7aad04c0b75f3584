// Package faultfs is a disk for tests: in memory, it fails where it is told to, and forgets in a crash what was not synced.
//
// A crash keeps of each file all that was synced, and of the rest any part: a prefix, with some of its blocks zeroed. Of a
// folder's changes since its last sync it keeps some first ones, or any: a rename is one change.
package faultfs

import (
	"errors"
	"fmt"
	"io"
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
	off     bool
	fault   func(n int, op, name string) error
}

type inode struct {
	data   []byte
	synced []byte
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
// failed write leaves any part of its bytes; a failed sync leaves them unsynced for ever.
func (f *FS) Inject(fault func(n int, op, name string) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault = fault
}

// PowerOff makes every later operation fail.
func (f *FS) PowerOff() { f.mu.Lock(); f.off = true; f.mu.Unlock() }

// Kill is the end of the process, not of the power: what was written is there, synced or not. f goes on without faults.
func (f *FS) Kill() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.off, f.fault = false, nil
	clear(f.locks)
}

// Ops counts the operations so far that changed something.
func (f *FS) Ops() int { f.mu.Lock(); defer f.mu.Unlock(); return f.ops }

func (f *FS) begin(op, name string) error {
	if f.off {
		return ErrPowerOff
	}
	f.ops++
	if f.names == nil {
		f.names, f.durable, f.locks = map[string]*inode{}, map[string]*inode{}, map[string]bool{}
	}
	if f.fault != nil {
		if err := f.fault(f.ops, op, name); err != nil {
			if errors.Is(err, ErrPowerOff) {
				f.off = true
			}
			return fmt.Errorf("%s %s: %w", op, name, err)
		}
	}
	return nil
}

// Crash returns the disk as it may be found after a crash now. f is not changed.
func (f *FS) Crash(rng *rand.Rand) *FS {
	f.mu.Lock()
	defer f.mu.Unlock()
	after := &FS{names: map[string]*inode{}, durable: map[string]*inode{}, locks: map[string]bool{}}
	names := map[string]*inode{}
	for name, n := range f.durable {
		names[name] = n
	}
	kept := f.pending[:rng.IntN(len(f.pending)+1)]
	if rng.IntN(2) == 0 {
		kept = slices.DeleteFunc(slices.Clone(f.pending), func(change) bool { return rng.IntN(2) == 0 })
	}
	for _, c := range kept {
		c.apply(names)
	}
	for name, n := range names {
		data := n.remains(rng)
		left := &inode{data: data, synced: slices.Clone(data)}
		after.names[name], after.durable[name] = left, left
	}
	return after
}

func (n *inode) remains(rng *rand.Rand) []byte {
	if len(n.lost) > 0 {
		return slices.Clone(n.synced)
	}
	if len(n.data) < len(n.synced) || string(n.data[:len(n.synced)]) != string(n.synced) {
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
		n = &inode{}
		f.change(step{name, n})
	}
	n.data, n.lost = nil, nil
	return &file{fs: f, name: name, inode: n}, nil
}

// OpenAppend implements wal.FS.
func (f *FS) OpenAppend(name string) (wal.File, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.names[name] == nil {
		return nil, os.ErrNotExist
	}
	return &file{fs: f, name: name, inode: f.names[name]}, nil
}

// ReadFile implements wal.FS.
func (f *FS) ReadFile(name string) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.names[name] == nil {
		return nil, os.ErrNotExist
	}
	return slices.Clone(f.names[name].data), nil
}

// WriteDurable puts a file on the disk, for tests that damage one.
func (f *FS) WriteDurable(name string, data []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := &inode{data: slices.Clone(data), synced: slices.Clone(data)}
	f.names[name], f.durable[name] = n, n
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
	if f.locks == nil {
		f.names, f.durable, f.locks = map[string]*inode{}, map[string]*inode{}, map[string]bool{}
	}
	if f.locks[name] {
		return nil, wal.ErrLocked
	}
	f.locks[name] = true
	return unlocker{f, name}, nil
}

type unlocker struct {
	fs   *FS
	name string
}

func (u unlocker) Close() error {
	u.fs.mu.Lock()
	defer u.fs.mu.Unlock()
	delete(u.fs.locks, u.name)
	return nil
}

type file struct {
	fs    *FS
	name  string
	inode *inode
}

func (h *file) Write(b []byte) (int, error) {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if err := h.fs.begin("write", h.name); err != nil {
		// What was on its way may still get there.
		if errors.Is(err, ErrPowerOff) && h.fs.off {
			h.inode.data = append(h.inode.data, b...)
		} else {
			h.inode.data = append(h.inode.data, b[:len(b)/2]...)
		}
		return 0, err
	}
	h.inode.data = append(h.inode.data, b...)
	return len(b), nil
}

func (h *file) Sync() error {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	n := h.inode
	if err := h.fs.begin("sync", h.name); err != nil {
		if !h.fs.off && len(n.data) > len(n.synced) {
			n.lost = append(n.lost, span{len(n.synced), len(n.data)})
		}
		return err
	}
	n.synced = slices.Clone(n.data)
	for _, l := range n.lost {
		clear(n.synced[min(l.from, len(n.synced)):min(l.to, len(n.synced))])
	}
	return nil
}

func (h *file) Truncate(size int64) error {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if err := h.fs.begin("truncate", h.name); err != nil {
		return err
	}
	h.inode.data = slices.Clone(h.inode.data[:min(int(size), len(h.inode.data))])
	return nil
}

func (h *file) Close() error { return nil }
