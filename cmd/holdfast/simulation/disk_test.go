package simulation

import (
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/holdfast-mesh/holdfast/statestore/wal"
	"github.com/holdfast-mesh/holdfast/statestore/wal/faultfs"
)

// disk is a forgetting disk that takes time to sync, stalls, and is full for a while. The time is virtual.
type disk struct {
	*faultfs.FS

	// mu guards what follows.
	mu     sync.Mutex
	random *rand.Rand
	// stalled is until when no sync ends.
	stalled time.Time
}

var _ wal.FS = (*disk)(nil)

var errFull = errors.New("no space left on device")

// syncTime is the longest sync of a disk that is well.
const syncTime = 2 * time.Millisecond

func newDisk(fs *faultfs.FS, seed uint64) *disk {
	return &disk{FS: fs, random: rand.New(rand.NewPCG(seed, 2))}
}

// full makes writes fail, or not any more.
func (d *disk) full(on bool) {
	if !on {
		d.Inject(nil)
		return
	}
	d.Inject(func(_ int, op, _ string) error {
		if op == "write" || op == "create" {
			return errFull
		}
		return nil
	})
}

func (d *disk) stall(until time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stalled = until
}

// wait takes the time of a sync. A stall may end early.
func (d *disk) wait() {
	d.mu.Lock()
	wait := time.Duration(d.random.Int64N(int64(syncTime)))
	d.mu.Unlock()
	for wait > 0 {
		time.Sleep(wait)
		d.mu.Lock()
		wait = min(time.Until(d.stalled), 5*time.Millisecond)
		d.mu.Unlock()
	}
}

func (d *disk) Create(name string) (wal.File, error)     { return d.file(d.FS.Create(name)) }
func (d *disk) OpenAppend(name string) (wal.File, error) { return d.file(d.FS.OpenAppend(name)) }

func (d *disk) SyncDir(dir string) error {
	d.wait()
	return d.FS.SyncDir(dir)
}

func (d *disk) file(f wal.File, err error) (wal.File, error) {
	if err != nil {
		return nil, err
	}
	return file{f, d}, nil
}

type file struct {
	wal.File
	disk *disk
}

func (f file) Sync() error {
	f.disk.wait()
	return f.File.Sync()
}
