package wal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

const frameHeaderSize = 20

var frameMagic = []byte{0xf0, 'H', 'F', 0x0d}

// errSpoilt says that no whole frame is here.
var errSpoilt = errors.New("no whole frame")

// appendFrame appends a frame of the records.
func appendFrame(dst []byte, salt, seq uint64, records [][]byte) []byte {
	start := len(dst)
	dst = append(dst, make([]byte, frameHeaderSize)...)
	for _, r := range records {
		dst = binary.LittleEndian.AppendUint32(dst, uint32(len(r)))
		dst = append(dst, r...)
	}
	fillFrame(dst[start:], salt, seq)
	return dst
}

// appendPayload appends the frame of a payload.
func appendPayload(dst []byte, salt, seq uint64, payload []byte) []byte {
	start := len(dst)
	dst = append(dst, make([]byte, frameHeaderSize)...)
	dst = append(dst, payload...)
	fillFrame(dst[start:], salt, seq)
	return dst
}

// fillFrame fills in the header before a payload.
func fillFrame(frame []byte, salt, seq uint64) {
	copy(frame, frameMagic)
	binary.LittleEndian.PutUint64(frame[4:], seq)
	binary.LittleEndian.PutUint32(frame[12:], uint32(len(frame)-frameHeaderSize))
	binary.LittleEndian.PutUint32(frame[16:], checksum(salt, frame[4:16], frame[frameHeaderSize:]))
}

// readFrame takes the frame at the offset. The error is errSpoilt, or the disk's.
func readFrame(w *window, offset int64, salt uint64) (seq uint64, payload []byte, err error) {
	left := w.size - offset
	if left < frameHeaderSize {
		return 0, nil, errSpoilt
	}
	b, err := w.bytes(offset, frameHeaderSize)
	if err != nil {
		return 0, nil, err
	}
	n := int64(binary.LittleEndian.Uint32(b[12:]))
	if !bytes.Equal(b[:4], frameMagic) || n > MaxBatch || n > left-frameHeaderSize {
		return 0, nil, errSpoilt
	}
	if b, err = w.bytes(offset, frameHeaderSize+n); err != nil {
		return 0, nil, err
	}
	payload = b[frameHeaderSize:]
	if binary.LittleEndian.Uint32(b[16:]) != checksum(salt, b[4:16], payload) {
		return 0, nil, errSpoilt
	}
	return binary.LittleEndian.Uint64(b[4:]), payload, nil
}

// eachRecord splits a frame's payload, whose checksum was right.
func eachRecord(payload []byte, yield func(record []byte) error) error {
	for len(payload) > 0 {
		if len(payload) < 4 {
			return fmt.Errorf("%w: cut record", ErrDamaged)
		}
		n := int64(binary.LittleEndian.Uint32(payload))
		if n > int64(len(payload)-4) {
			return fmt.Errorf("%w: record of %d bytes in a frame with %d left", ErrDamaged, n, len(payload)-4)
		}
		if err := yield(payload[4 : 4+n]); err != nil {
			return err
		}
		payload = payload[4+n:]
	}
	return nil
}

// segment is what a scan found.
type segment struct {
	header
	// frames are whole and fill the first good bytes.
	frames uint64
	good   int64
	// last is where the last of them begins.
	last int64
}

// everyFrame is a limit for scan.
const everyFrame = math.MaxUint64

// scan calls yield for each record of a segment's first frames, at most limit; what follows them is not looked at.
func scan(w *window, limit uint64, yield func(record []byte) error) (s segment, err error) {
	if s.header, err = readHeader(w, segmentKind); err != nil {
		return s, err
	}
	s.good = headerSize
	for s.good < w.size && s.frames < limit {
		seq, payload, err := readFrame(w, s.good, s.salt)
		if errors.Is(err, errSpoilt) {
			at, err := findFrame(w, s.good+1, s.salt, s.frames+1)
			if err != nil {
				return s, err
			}
			if at >= 0 {
				return s, fmt.Errorf("%w at offset %d: a whole frame follows at %d", ErrDamaged, s.good, at)
			}
			// What follows the good bytes is what a crash can have left there.
			return s, nil
		}
		if err != nil {
			return s, err
		}
		if seq != s.frames+1 {
			return s, fmt.Errorf("%w at offset %d: frame %d follows frame %d", ErrDamaged, s.good, seq, s.frames)
		}
		if err := eachRecord(payload, yield); err != nil {
			return s, fmt.Errorf("frame at offset %d: %w", s.good, err)
		}
		s.frames, s.last = seq, s.good
		s.good += frameHeaderSize + int64(len(payload))
	}
	return s, nil
}

// findFrame looks for a whole frame of a sequence from least on, anywhere from the offset on; -1 where there is none.
func findFrame(w *window, offset int64, salt, least uint64) (int64, error) {
	candidate := &window{r: w.r, size: w.size}
	for offset+frameHeaderSize <= w.size {
		b, err := w.bytes(offset, min(windowBytes, w.size-offset))
		if err != nil {
			return -1, err
		}
		for at := 0; ; at++ {
			i := bytes.Index(b[at:], frameMagic)
			if i < 0 {
				break
			}
			at += i
			if len(b)-at >= 12 && binary.LittleEndian.Uint64(b[at+4:]) < least {
				continue
			}
			seq, _, err := readFrame(candidate, offset+int64(at), salt)
			if err == nil && seq >= least {
				return offset + int64(at), nil
			}
			if err != nil && !errors.Is(err, errSpoilt) {
				return -1, err
			}
		}
		// The next piece begins with what may be a magic's beginning.
		offset += max(int64(len(b)-len(frameMagic)+1), 1)
	}
	return -1, nil
}
