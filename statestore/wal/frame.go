package wal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

const (
	headerSize      = 20
	frameHeaderSize = 20
	version         = 1
)

var (
	headerMagic = []byte{'h', 'f', 'w', 'a', 'l', 0, 0, version}
	frameMagic  = []byte{0xf0, 'H', 'F', 0x0d}
	castagnoli  = crc32.MakeTable(crc32.Castagnoli)
)

// ErrDamaged says that a file of the log is not as it was written, other than by a crash.
var ErrDamaged = errors.New("log is damaged")

// errSpoilt says that no whole frame is here.
var errSpoilt = errors.New("no whole frame")

func header(salt uint64) []byte {
	b := binary.LittleEndian.AppendUint64(bytes.Clone(headerMagic), salt)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// saltOf reads a header.
func saltOf(b []byte) (salt uint64, ok bool) {
	if len(b) < headerSize || !bytes.Equal(b[:len(headerMagic)], headerMagic) {
		return 0, false
	}
	salt = binary.LittleEndian.Uint64(b[len(headerMagic):])
	return salt, bytes.Equal(b[:headerSize], header(salt))
}

func checksum(salt uint64, head, payload []byte) uint32 {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], salt)
	sum := crc32.Update(0, castagnoli, b[:])
	sum = crc32.Update(sum, castagnoli, head)
	return crc32.Update(sum, castagnoli, payload)
}

// appendFrame appends a frame of the records.
func appendFrame(dst []byte, salt, seq uint64, records [][]byte) []byte {
	start := len(dst)
	dst = append(dst, frameMagic...)
	dst = binary.LittleEndian.AppendUint64(dst, seq)
	dst = append(dst, make([]byte, 8)...)
	for _, r := range records {
		dst = binary.LittleEndian.AppendUint32(dst, uint32(len(r)))
		dst = append(dst, r...)
	}
	frame := dst[start:]
	binary.LittleEndian.PutUint32(frame[12:], uint32(len(frame)-frameHeaderSize))
	binary.LittleEndian.PutUint32(frame[16:], checksum(salt, frame[4:16], frame[frameHeaderSize:]))
	return dst
}

// readFrame takes the frame at the start of b.
func readFrame(b []byte, salt uint64) (seq uint64, payload, rest []byte, err error) {
	if len(b) < frameHeaderSize || !bytes.Equal(b[:4], frameMagic) {
		return 0, nil, nil, errSpoilt
	}
	n := int64(binary.LittleEndian.Uint32(b[12:]))
	if n > MaxBatch || n > int64(len(b)-frameHeaderSize) {
		return 0, nil, nil, errSpoilt
	}
	payload, rest = b[frameHeaderSize:frameHeaderSize+n], b[frameHeaderSize+n:]
	if binary.LittleEndian.Uint32(b[16:]) != checksum(salt, b[4:16], payload) {
		return 0, nil, nil, errSpoilt
	}
	return binary.LittleEndian.Uint64(b[4:]), payload, rest, nil
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

// scan calls yield for each record of a segment and returns how many bytes of it are good and the last frame's sequence.
// torn is true where something follows the good bytes that a crash can have left there.
func scan(b []byte, yield func(record []byte) error) (good int64, seq uint64, torn bool, err error) {
	if len(b) < headerSize {
		// The header is synced before the first frame is written.
		return 0, 0, true, nil
	}
	salt, ok := saltOf(b)
	if !ok {
		if len(b) == headerSize {
			return 0, 0, true, nil
		}
		return 0, 0, false, fmt.Errorf("%w at offset 0: not a header of version %d", ErrDamaged, version)
	}
	rest := b[headerSize:]
	for len(rest) > 0 {
		offset := len(b) - len(rest)
		got, payload, after, err := readFrame(rest, salt)
		if err != nil {
			if at := findFrame(rest[1:], salt); at >= 0 {
				return 0, 0, false, fmt.Errorf("%w at offset %d: a whole frame follows at %d", ErrDamaged, offset, offset+1+at)
			}
			return int64(offset), seq, true, nil
		}
		if got != seq+1 {
			return 0, 0, false, fmt.Errorf("%w at offset %d: frame %d follows frame %d", ErrDamaged, offset, got, seq)
		}
		if err := eachRecord(payload, yield); err != nil {
			return 0, 0, false, fmt.Errorf("frame at offset %d: %w", offset, err)
		}
		seq, rest = got, after
	}
	return int64(len(b)), seq, false, nil
}

// findFrame looks for a whole frame anywhere in b.
func findFrame(b []byte, salt uint64) int {
	for at := 0; ; at++ {
		i := bytes.Index(b[at:], frameMagic)
		if i < 0 {
			return -1
		}
		at += i
		if _, _, _, err := readFrame(b[at:], salt); err == nil {
			return at
		}
	}
}
