package localmesh

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
)

// A folder is a mesh's data directory once it has the marker; only then may anything in it be removed. The marker is
// written into a folder that is empty but for what a start leaves behind that fails before it gets there.
const (
	markerFile = "holdfast-data"
	lockFile   = "lock"
	logsDir    = "logs"
	runLink    = "run"
	// marker is the marker's text: the format of the data beside it.
	marker = "holdfast data, format 1\n"
)

// kept are the folders of a data directory that hold a mesh's data; --reset removes them and nothing else.
var kept = []string{"etcd", "nodes", "controlplane", logsDir}

// leftover is what a start may leave that fails before the folder is marked. The lock is always among it.
var leftover = map[string]fs.FileMode{lockFile: 0, markerFile + ".new": 0, logsDir: fs.ModeDir, runLink: fs.ModeSymlink}

// reset removes the mesh's data. The folder must have been marked before this start.
func (p Paths) reset() error {
	for _, dir := range kept {
		if err := os.RemoveAll(filepath.Join(p.Data, dir)); err != nil {
			return fmt.Errorf("reset: %w", err)
		}
	}
	return nil
}

// marked reports whether the folder is a data directory already. It changes nothing, and refuses a folder that neither
// is one nor may become one.
func (p Paths) marked() (bool, error) {
	text, err := os.ReadFile(filepath.Join(p.Data, markerFile))
	switch {
	case err == nil && string(text) == marker:
		return true, nil
	case err == nil:
		return false, fmt.Errorf("the data in %s is of another version of holdfast (%s says %.40q): use that version, or another --data-dir", p.Data, markerFile, text)
	case !errors.Is(err, fs.ErrNotExist):
		return false, fmt.Errorf("data directory: %w", err)
	}
	entries, err := os.ReadDir(p.Data)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("data directory: %w", err)
	}
	locked := slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.Name() == lockFile && e.Type().IsRegular() })
	for _, e := range entries {
		if !locked || leftover[e.Name()] != e.Type() {
			return false, fmt.Errorf("%s is not a data directory of holdfast: it has %s and no file %s; nothing was changed: give a new or empty folder with --data-dir",
				p.Data, e.Name(), markerFile)
		}
	}
	return false, nil
}

// mark makes the folder a data directory. The marker has its name only when it is whole, and stays once there is data:
// without it a later start would refuse the folder.
func (p Paths) mark() error {
	if err := p.writeMarker(); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	return nil
}

func (p Paths) writeMarker() error {
	dir, err := os.Open(p.Data)
	if err != nil {
		return err
	}
	defer dir.Close()
	temporary := filepath.Join(p.Data, markerFile+".new")
	f, err := os.OpenFile(temporary, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(marker)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(temporary, filepath.Join(p.Data, markerFile)); err != nil {
		return err
	}
	return dir.Sync()
}

// lock takes the data directory for this process, creating it where it is missing: made says so. The lock ends with the
// process.
func (p Paths) lock() (f *os.File, made bool, err error) {
	if err := os.MkdirAll(filepath.Dir(p.Data), 0o700); err != nil {
		return nil, false, fmt.Errorf("data directory: %w", err)
	}
	err = os.Mkdir(p.Data, 0o700)
	made = err == nil
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, false, fmt.Errorf("data directory: %w", err)
	}
	path := filepath.Join(p.Data, lockFile)
	f, err = os.OpenFile(path, os.O_CREATE|os.O_RDWR|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, false, fmt.Errorf("data directory: %w", err)
	}
	if err := p.take(f, path); err != nil {
		f.Close()
		return nil, false, err
	}
	return f, made, nil
}

func (p Paths) take(f *os.File, path string) error {
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return fmt.Errorf("lock the data directory: %w", err)
		}
		var pid int
		if _, err := fmt.Fscan(f, &pid); err != nil {
			return fmt.Errorf("%s is in use by another holdfast: stop that one, or use another --data-dir", p.Data)
		}
		return fmt.Errorf("%s is in use by holdfast with pid %d: stop that one (kill %d), or use another --data-dir", p.Data, pid, pid)
	}
	// Whoever forgets a folder removes the file while holding its lock.
	opened, err := f.Stat()
	if err != nil {
		return fmt.Errorf("lock the data directory: %w", err)
	}
	if there, err := os.Stat(path); err != nil || !os.SameFile(opened, there) {
		return fmt.Errorf("%s was just removed by another holdfast that could not start: try again", p.Data)
	}
	if err := f.Truncate(0); err != nil {
		return nil // The pid in it is only for messages.
	}
	if _, err := f.WriteAt(fmt.Appendf(nil, "%d\n", os.Getpid()), 0); err != nil {
		return fmt.Errorf("lock the data directory: %w", err)
	}
	return nil
}

// forget removes a folder that this start made and did not get to mark. The lock must be held.
func (p Paths) forget() {
	_ = os.Remove(filepath.Join(p.Data, lockFile))
	_ = os.Remove(p.Data)
}
