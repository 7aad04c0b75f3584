package wal

import (
	"errors"
	"io"
)

// window reads a file of a known size in order, some at a time.
type window struct {
	r    io.ReaderAt
	size int64
	// buf holds the file's bytes from at on.
	buf []byte
	at  int64
}

func newWindow(r Reader) (*window, error) {
	size, err := r.Size()
	return &window{r: r, size: size}, err
}

// bytes returns the n bytes at offset, which must lie in the file. They are good until the next call.
func (w *window) bytes(offset, n int64) ([]byte, error) {
	if offset >= w.at && offset+n <= w.at+int64(len(w.buf)) {
		return w.buf[offset-w.at:][:n], nil
	}
	want := min(max(n, windowBytes), w.size-offset)
	if int64(cap(w.buf)) < want || int64(cap(w.buf)) > windowBytes && want <= windowBytes {
		w.buf = make([]byte, want)
	}
	w.buf, w.at = w.buf[:want], offset
	if got, err := w.r.ReadAt(w.buf, offset); int64(got) < want {
		w.buf = w.buf[:0]
		if err == nil || errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return w.buf[:n], nil
}

// each calls yield for the n bytes at offset, piece by piece.
func (w *window) each(offset, n int64, yield func([]byte) error) error {
	for n > 0 {
		piece := min(n, windowBytes)
		b, err := w.bytes(offset, piece)
		if err != nil {
			return err
		}
		if err := yield(b); err != nil {
			return err
		}
		offset, n = offset+piece, n-piece
	}
	return nil
}
