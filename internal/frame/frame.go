// Package frame reads and writes the frames of the store's API on a Unix socket.
//
// A frame is a 4-byte big-endian length and that many bytes of one serialised protobuf message. Both sides refuse a
// frame over Max before they allocate for it.
package frame

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"google.golang.org/protobuf/proto"
)

// Max is the largest frame's payload, in bytes: the largest entity state (1 MiB) with room for a reply that holds the
// value it had before, and the envelope.
const Max = 4 << 20

// ErrTooLarge says that a frame's declared length is over Max. The stream can't be read on.
var ErrTooLarge = errors.New("frame too large")

// Append appends m as one frame to dst.
func Append(dst []byte, m proto.Message) ([]byte, error) {
	start := len(dst)
	out, err := proto.MarshalOptions{}.MarshalAppend(append(dst, 0, 0, 0, 0), m)
	if err != nil {
		return dst, fmt.Errorf("encode frame: %w", err)
	}
	n := len(out) - start - 4
	if n > Max {
		return dst, fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, n, Max)
	}
	binary.BigEndian.PutUint32(out[start:], uint32(n))
	return out, nil
}

// Read reads one frame into buf, which it grows as needed, and returns the payload: valid until buf is used again.
// A clean end of the stream is io.EOF, an end within a frame io.ErrUnexpectedEOF.
func Read(r io.Reader, buf []byte) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > Max {
		return nil, fmt.Errorf("%w: declared length %d, at most %d", ErrTooLarge, n, Max)
	}
	if uint32(cap(buf)) < n {
		buf = make([]byte, n)
	}
	buf = buf[:n]
	if _, err := io.ReadFull(r, buf); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return buf, nil
}
