package faultfs

import (
	"errors"
	"io"
	"os"
	"slices"
)

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
	inode *inode
}

func (h *file) Write(b []byte) (int, error) {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if err := h.fs.begin("write", h.inode.name); err != nil {
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
	if err := h.fs.begin("sync", n.name); err != nil {
		if !h.fs.off && len(n.data) > len(n.synced) {
			n.lost = append(n.lost, span{len(n.synced), len(n.data)})
		}
		return err
	}
	if n.rewritten {
		n.synced, n.rewritten = nil, false
	}
	n.synced = append(n.synced, n.data[len(n.synced):]...)
	for _, l := range n.lost {
		clear(n.synced[min(l.from, len(n.synced)):min(l.to, len(n.synced))])
	}
	return nil
}

func (h *file) Truncate(size int64) error {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if err := h.fs.begin("truncate", h.inode.name); err != nil {
		return err
	}
	h.inode.data = slices.Clone(h.inode.data[:min(int(size), len(h.inode.data))])
	h.inode.rewritten = true
	return nil
}

func (h *file) Close() error { return nil }

type reader struct {
	fs     *FS
	inode  *inode
	closed bool
}

func (r *reader) ReadAt(b []byte, offset int64) (int, error) {
	r.fs.mu.Lock()
	defer r.fs.mu.Unlock()
	if r.closed {
		return 0, os.ErrClosed
	}
	if err := r.fs.begin("read", r.inode.name); err != nil {
		return 0, err
	}
	n := copy(b, r.inode.data[min(offset, int64(len(r.inode.data))):])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (r *reader) Size() (int64, error) {
	r.fs.mu.Lock()
	defer r.fs.mu.Unlock()
	return int64(len(r.inode.data)), nil
}

func (r *reader) Close() error {
	r.fs.mu.Lock()
	defer r.fs.mu.Unlock()
	if r.closed {
		return os.ErrClosed
	}
	r.closed = true
	r.fs.readers--
	return nil
}
