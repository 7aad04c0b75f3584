// Package grpcframe cuts gRPC messages out of the bytes of a request or reply body.
//
// The filter calls it on what has arrived so far. It is pure: it keeps nothing, never copies and never allocates for a
// length that was only declared.
//
// A gRPC frame is a flag byte (0: plain, 1: compressed), a 4-byte big-endian length and that many bytes of message.
package grpcframe

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// HeaderSize is the number of bytes before a frame's message.
const HeaderSize = 5

var (
	// ErrIncomplete says that the frame's end has not arrived: ask again with more bytes.
	ErrIncomplete = errors.New("grpc frame incomplete")
	// ErrTooLarge says that the frame declares more bytes than the caller takes.
	ErrTooLarge = errors.New("grpc frame too large")
	// ErrBadFlag says that the frame's first byte is neither 0 nor 1, so this is not a gRPC frame.
	ErrBadFlag = errors.New("grpc frame has a bad flag byte")
)

// Parse cuts the first frame off buf. msg and rest alias buf. max bounds the message's length, without the frame's
// header. On an error rest is buf and msg nil; a refusal comes as early as its bytes are there, and more bytes never
// change it.
func Parse(buf []byte, max int) (msg []byte, compressed bool, rest []byte, err error) {
	if len(buf) == 0 {
		return nil, false, buf, ErrIncomplete
	}
	if buf[0] > 1 {
		return nil, false, buf, fmt.Errorf("%w: %#x", ErrBadFlag, buf[0])
	}
	compressed = buf[0] == 1
	if len(buf) < HeaderSize {
		return nil, compressed, buf, ErrIncomplete
	}
	n := int64(binary.BigEndian.Uint32(buf[1:]))
	if n > int64(max) {
		return nil, compressed, buf, fmt.Errorf("%w: declared length %d, at most %d", ErrTooLarge, n, max)
	}
	if int64(len(buf)-HeaderSize) < n {
		return nil, compressed, buf, ErrIncomplete
	}
	end := HeaderSize + int(n)
	// The capacity ends with the message, so that an append to it cannot overwrite the next frame.
	return buf[HeaderSize:end:end], compressed, buf[end:], nil
}

// Append appends msg to dst as one plain frame. The caller has bounded msg: a message over 4 GiB is our own bug.
func Append(dst, msg []byte) []byte {
	if uint64(len(msg)) > math.MaxUint32 {
		panic("grpcframe: message over 4 GiB")
	}
	dst = append(dst, 0)
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(msg)))
	return append(dst, msg...)
}
