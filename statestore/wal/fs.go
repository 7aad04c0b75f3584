package wal

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// FS is the disk as the log sees it. Tests put one in its place that fails or forgets what was not synced.
type FS interface {
	// MkdirAll makes a folder and its parents; its entry in the parent is durable when it returns.
	MkdirAll(dir string) error
	// Create makes an empty file for writing, or empties the one that is there.
	Create(name string) (File, error)
	// OpenAppend opens a file to write at its end.
	OpenAppend(name string) (File, error)
	// ReadFile reads a whole file; errors.Is(err, os.ErrNotExist) where there is none.
	ReadFile(name string) ([]byte, error)
	// OpenRead opens a file for reading at offsets; errors.Is(err, os.ErrNotExist) where there is none. It can be read
	// until it is closed, also where the file was removed or another one has its name by then.
	OpenRead(name string) (Reader, error)
	Rename(from, to string) error
	Remove(name string) error
	// ReadDir lists the names in a folder.
	ReadDir(dir string) ([]string, error)
	// SyncDir makes the folder's creations, renames and removals durable.
	SyncDir(dir string) error
	// Lock takes the file as an exclusive lock until the Closer is closed or the process ends, or fails at once.
	Lock(name string) (io.Closer, error)
}

// File is an open file. Writes are durable once Sync returned nil, never before.
type File interface {
	io.WriteCloser
	Sync() error
	Truncate(size int64) error
}

// Reader is an open file that any number of goroutines may read.
type Reader interface {
	io.ReaderAt
	io.Closer
	Size() (int64, error)
}

// ErrLocked says that another process (or another Log of this one) has the folder.
var ErrLocked = errors.New("folder is in use by another process")

// OS is the operating system's file system. Folders are 0700, files 0600: states are their service's business.
type OS struct{}

func (OS) MkdirAll(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return OS{}.SyncDir(filepath.Dir(dir))
}

func (OS) Create(name string) (File, error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_TRUNC|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (OS) OpenAppend(name string) (File, error) {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (OS) OpenRead(name string) (Reader, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (OS) ReadFile(name string) ([]byte, error) { return os.ReadFile(name) }
func (OS) Rename(from, to string) error         { return os.Rename(from, to) }
func (OS) Remove(name string) error             { return os.Remove(name) }

func (OS) ReadDir(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, nil
}

func (OS) SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if cerr := d.Close(); err == nil {
		err = cerr
	}
	return err
}

func (OS) Lock(name string) (io.Closer, error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, ErrLocked
		}
		return nil, fmt.Errorf("flock: %w", err)
	}
	return f, nil
}

type osFile struct{ *os.File }

// Sync is fdatasync: the length is metadata that it keeps, times are not wanted.
func (f osFile) Sync() error {
	for {
		if err := unix.Fdatasync(int(f.Fd())); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// Size is the file's size now.
func (f osFile) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// WriteFile replaces a small file as a whole: temporary file, sync, rename, sync of the folder.
func WriteFile(fs FS, name string, data []byte) error {
	tmp := name + ".tmp"
	f, err := fs.Create(tmp)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		_ = fs.Remove(tmp)
		return err
	}
	if err = fs.Rename(tmp, name); err == nil {
		err = fs.SyncDir(filepath.Dir(name))
	}
	return err
}
