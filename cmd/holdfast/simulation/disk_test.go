package simulation

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/holdfast-mesh/holdfast/statestore/wal"
)

// disk is a file system in memory that forgets, at a crash, what was not synced: of a file's bytes all after the last
// Sync but a random prefix, and of a folder's entries all changes after the last SyncDir.
type disk struct {
	mu sync.Mutex
	// live is what the process sees, durable what a crash leaves.
	live, durable map[string]*content
	locked        map[string]bool
	dead          bool
}

type content struct {
	data   []byte
	synced int
}

var (
	_       wal.FS = (*disk)(nil)
	errDead        = errors.New("the machine of this disk is gone")
)

func newDisk() *disk {
	return &disk{live: map[string]*content{}, durable: map[string]*content{}, locked: map[string]bool{}}
}

// crash ends this disk's use and returns the disk of the next incarnation.
func (d *disk) crash(random *rand.Rand) *disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dead = true
	next := newDisk()
	var names []string
	for name := range d.durable {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		c := d.durable[name]
		keep := c.synced
		if len(c.data) > keep {
			keep += random.IntN(len(c.data) - keep + 1)
		}
		n := &content{data: slices.Clone(c.data[:keep]), synced: keep}
		next.live[name], next.durable[name] = n, n
	}
	return next
}

func (d *disk) enter() error {
	d.mu.Lock()
	if d.dead {
		d.mu.Unlock()
		return errDead
	}
	return nil
}

func (d *disk) MkdirAll(string) error { return nil }

func (d *disk) Create(name string) (wal.File, error) {
	if err := d.enter(); err != nil {
		return nil, err
	}
	defer d.mu.Unlock()
	c := &content{}
	d.live[path.Clean(name)] = c
	return &handle{d, c}, nil
}

func (d *disk) OpenAppend(name string) (wal.File, error) {
	if err := d.enter(); err != nil {
		return nil, err
	}
	defer d.mu.Unlock()
	c := d.live[path.Clean(name)]
	if c == nil {
		return nil, fmt.Errorf("open %s: %w", name, os.ErrNotExist)
	}
	return &handle{d, c}, nil
}

func (d *disk) ReadFile(name string) ([]byte, error) {
	if err := d.enter(); err != nil {
		return nil, err
	}
	defer d.mu.Unlock()
	c := d.live[path.Clean(name)]
	if c == nil {
		return nil, fmt.Errorf("read %s: %w", name, os.ErrNotExist)
	}
	return slices.Clone(c.data), nil
}

func (d *disk) Rename(from, to string) error {
	if err := d.enter(); err != nil {
		return err
	}
	defer d.mu.Unlock()
	c := d.live[path.Clean(from)]
	if c == nil {
		return fmt.Errorf("rename %s: %w", from, os.ErrNotExist)
	}
	delete(d.live, path.Clean(from))
	d.live[path.Clean(to)] = c
	return nil
}

func (d *disk) Remove(name string) error {
	if err := d.enter(); err != nil {
		return err
	}
	defer d.mu.Unlock()
	delete(d.live, path.Clean(name))
	return nil
}

func (d *disk) ReadDir(dir string) ([]string, error) {
	if err := d.enter(); err != nil {
		return nil, err
	}
	defer d.mu.Unlock()
	seen := map[string]bool{}
	for name := range d.live {
		if rest, ok := strings.CutPrefix(name, path.Clean(dir)+"/"); ok {
			first, _, _ := strings.Cut(rest, "/")
			seen[first] = true
		}
	}
	var out []string
	for name := range seen {
		out = append(out, name)
	}
	slices.Sort(out)
	return out, nil
}

func (d *disk) SyncDir(dir string) error {
	if err := d.enter(); err != nil {
		return err
	}
	defer d.mu.Unlock()
	for name := range d.durable {
		if path.Dir(name) == path.Clean(dir) && d.live[name] == nil {
			delete(d.durable, name)
		}
	}
	for name, c := range d.live {
		if path.Dir(name) == path.Clean(dir) {
			d.durable[name] = c
		}
	}
	return nil
}

func (d *disk) Lock(name string) (io.Closer, error) {
	if err := d.enter(); err != nil {
		return nil, err
	}
	defer d.mu.Unlock()
	if d.locked[name] {
		return nil, wal.ErrLocked
	}
	d.locked[name] = true
	return unlocker(func() { d.unlock(name) }), nil
}

func (d *disk) unlock(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.locked[name] = false
}

type unlocker func()

func (u unlocker) Close() error {
	u()
	return nil
}

type handle struct {
	disk *disk
	file *content
}

func (h *handle) Write(b []byte) (int, error) {
	if err := h.disk.enter(); err != nil {
		return 0, err
	}
	defer h.disk.mu.Unlock()
	h.file.data = append(h.file.data, b...)
	return len(b), nil
}

func (h *handle) Sync() error {
	if err := h.disk.enter(); err != nil {
		return err
	}
	defer h.disk.mu.Unlock()
	h.file.synced = len(h.file.data)
	return nil
}

func (h *handle) Truncate(size int64) error {
	if err := h.disk.enter(); err != nil {
		return err
	}
	defer h.disk.mu.Unlock()
	for int64(len(h.file.data)) < size {
		h.file.data = append(h.file.data, 0)
	}
	h.file.data = h.file.data[:size]
	h.file.synced = min(h.file.synced, int(size))
	return nil
}

func (h *handle) Close() error { return nil }
