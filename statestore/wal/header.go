package wal

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

const (
	headerSize = 28
	version    = 2
	// headerSize1 is the size of a header of version 1, which ended behind the salt.
	headerSize1 = 20
)

// The kinds of file.
const (
	segmentKind  = 'L'
	snapshotKind = 'S'
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ErrDamaged says that a file of the log is not as it was written, other than by a crash.
var ErrDamaged = errors.New("log is damaged")

// ErrVersion says that the folder was written by a version of Holdfast with another layout of the log.
var ErrVersion = errors.New("log has another version's layout")

// header begins each file.
type header struct {
	kind   byte
	salt   uint64
	before uint64 // frames of the segment before that count
}

func newHeader(kind byte, before uint64) header {
	var salt [8]byte
	_, _ = rand.Read(salt[:])
	return header{kind: kind, salt: binary.LittleEndian.Uint64(salt[:]), before: before}
}

func (h header) bytes() []byte {
	b := make([]byte, 0, headerSize)
	b = append(b, 'h', 'f', 'w', 'a', 'l', h.kind, 0, version)
	b = binary.LittleEndian.AppendUint64(b, h.salt)
	b = binary.LittleEndian.AppendUint64(b, h.before)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// readHeader reads the header of a file that should be of a kind.
func readHeader(w *window, kind byte) (header, error) {
	b, err := w.bytes(0, min(headerSize, w.size))
	if err != nil {
		return header{}, err
	}
	if err := otherVersion(b); err != nil {
		return header{}, err
	}
	h := header{kind: kind}
	if len(b) == headerSize {
		h.salt, h.before = binary.LittleEndian.Uint64(b[8:]), binary.LittleEndian.Uint64(b[16:])
	}
	if !bytes.Equal(b, h.bytes()) {
		return header{}, fmt.Errorf("%w at offset 0: not a header of version %d", ErrDamaged, version)
	}
	return h, nil
}

// otherVersion tells a header that is whole but another version's from a spoilt one.
func otherVersion(b []byte) error {
	whole := func(size int) bool {
		return len(b) >= size && bytes.HasPrefix(b, []byte("hfwal")) &&
			binary.LittleEndian.Uint32(b[size-4:]) == crc32.Checksum(b[:size-4], castagnoli)
	}
	switch {
	case whole(headerSize1) && b[7] == 1:
		return fmt.Errorf("%w: version 1, this is version %d. Version 1 was a development version's and is not converted: start the version that wrote it, or move the store's data directory away and start empty, then the other replicas fill it", ErrVersion, version)
	case whole(headerSize) && b[7] != version:
		return fmt.Errorf("%w: version %d, this is version %d: start the version that wrote it, or a later one", ErrVersion, b[7], version)
	}
	return nil
}

// checksum is a checksum that begins with the salt.
func checksum(salt uint64, parts ...[]byte) uint32 {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], salt)
	sum := crc32.Update(0, castagnoli, b[:])
	for _, p := range parts {
		sum = crc32.Update(sum, castagnoli, p)
	}
	return sum
}
