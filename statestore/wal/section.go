package wal

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"
)

const (
	sectionHeaderSize = 28
	endMarkSize       = 16
)

var (
	sectionMagic = []byte{0xf1, 'H', 'S', 0x0d}
	endMagic     = []byte{0xf2, 'H', 'E', 0x0d}
)

// Ref names a section's body in the snapshot file that was in force when it was made. It is good until that file is
// replaced. The zero value is of a section that is gone.
type Ref struct {
	file   uint64 // counts the snapshot files of this process, from 1
	offset int64
	size   uint32
	sum    uint32
}

// Size is the body's size in bytes.
func (r Ref) Size() int { return int(r.size) }

// SnapshotWriter writes the sections of one log snapshot. It is for one goroutine.
type SnapshotWriter struct {
	f         File
	header    header
	file      uint64
	buf       []byte
	sections  uint64
	written   int64 // bytes of the file, those in buf included
	synced    int64
	err       error // the first error: the snapshot can't become one any more
	installed func()
}

func newSnapshotWriter(f File, file uint64) *SnapshotWriter {
	w := &SnapshotWriter{f: f, file: file, header: newHeader(snapshotKind, 0)}
	w.put(w.header.bytes())
	return w
}

// Section adds a section; meta and body are not kept. After an error all later calls and the snapshot fail with it.
func (w *SnapshotWriter) Section(meta, body []byte) (Ref, error) {
	if w.err != nil {
		return Ref{}, w.err
	}
	if len(meta) > MaxMeta || len(body) > MaxBody {
		// Nobody could read it back, and what it stands for would be gone.
		w.err = fmt.Errorf("%w: section with %d bytes of meta and %d of body, at most %d and %d", ErrTooLarge, len(meta), len(body), MaxMeta, MaxBody)
		return Ref{}, w.err
	}
	w.sections++
	ref := Ref{
		file: w.file, offset: w.written + sectionHeaderSize + int64(len(meta)),
		size: uint32(len(body)), sum: crc32.Checksum(body, castagnoli),
	}
	head := append(make([]byte, 0, sectionHeaderSize), sectionMagic...)
	head = binary.LittleEndian.AppendUint64(head, w.sections)
	head = binary.LittleEndian.AppendUint32(head, uint32(len(meta)))
	head = binary.LittleEndian.AppendUint32(head, ref.size)
	head = binary.LittleEndian.AppendUint32(head, ref.sum)
	head = binary.LittleEndian.AppendUint32(head, checksum(w.header.salt, head[4:], meta))
	w.put(head)
	w.put(meta)
	w.put(body)
	if w.err != nil {
		return Ref{}, w.err
	}
	return ref, nil
}

// Installed has f called when the snapshot is durable and in force, so that the new Refs can take the old ones' place:
// both can be read until f returns. f must not call the log, other than ReadSection.
func (w *SnapshotWriter) Installed(f func()) { w.installed = f }

func (w *SnapshotWriter) put(b []byte) {
	w.written += int64(len(b))
	if len(w.buf)+len(b) > windowBytes {
		w.flush()
	}
	if len(b) > windowBytes {
		w.write(b)
		return
	}
	w.buf = append(w.buf, b...)
}

func (w *SnapshotWriter) flush() {
	w.write(w.buf)
	w.buf = w.buf[:0]
}

func (w *SnapshotWriter) write(b []byte) {
	if w.err != nil || len(b) == 0 {
		return
	}
	if _, w.err = w.f.Write(b); w.err != nil {
		return
	}
	if w.synced += int64(len(b)); w.synced >= syncEvery {
		w.synced = 0
		w.err = w.f.Sync()
	}
}

func appendEndMark(dst []byte, salt, sections uint64) []byte {
	dst = append(dst, endMagic...)
	dst = binary.LittleEndian.AppendUint64(dst, sections)
	return binary.LittleEndian.AppendUint32(dst, checksum(salt, dst[len(dst)-8:]))
}

// finish writes the end mark and makes the file durable.
func (w *SnapshotWriter) finish() error {
	w.put(appendEndMark(nil, w.header.salt, w.sections))
	w.flush()
	if w.err == nil {
		w.err = w.f.Sync()
	}
	return w.err
}

// readSections calls yield for each section of a snapshot file, whose every byte it checks. The file was synced before it
// got its name, so all of it must be there.
func readSections(w *window, file uint64, yield func(meta []byte, ref Ref) error) error {
	h, err := readHeader(w, snapshotKind)
	if err != nil {
		return err
	}
	offset := int64(headerSize)
	for sections := uint64(0); ; sections++ {
		left := w.size - offset
		if left == endMarkSize {
			b, err := w.bytes(offset, endMarkSize)
			if err == nil && !bytes.Equal(b, appendEndMark(nil, h.salt, sections)) {
				err = fmt.Errorf("%w at offset %d: no end mark of %d sections", ErrDamaged, offset, sections)
			}
			return err
		}
		if left < sectionHeaderSize {
			return fmt.Errorf("%w at offset %d: not whole", ErrDamaged, offset)
		}
		meta, ref, err := readSection(w, h.salt, sections+1, offset)
		if err != nil {
			return err
		}
		ref.file = file
		if err := yield(meta, ref); err != nil {
			return fmt.Errorf("section at offset %d: %w", offset, err)
		}
		offset = ref.offset + int64(ref.size)
	}
}

func readSection(w *window, salt, seq uint64, offset int64) (meta []byte, ref Ref, err error) {
	b, err := w.bytes(offset, sectionHeaderSize)
	if err != nil {
		return nil, Ref{}, err
	}
	metaSize, bodySize := int64(binary.LittleEndian.Uint32(b[12:])), int64(binary.LittleEndian.Uint32(b[16:]))
	size := sectionHeaderSize + metaSize + bodySize
	if !bytes.Equal(b[:4], sectionMagic) || metaSize > MaxMeta || bodySize > MaxBody || size > w.size-offset {
		return nil, Ref{}, fmt.Errorf("%w at offset %d: not a section", ErrDamaged, offset)
	}
	small := size <= windowBytes
	if small {
		b, err = w.bytes(offset, size)
	} else {
		b, err = w.bytes(offset, sectionHeaderSize+metaSize)
	}
	if err != nil {
		return nil, Ref{}, err
	}
	meta = b[sectionHeaderSize:][:metaSize]
	if got := binary.LittleEndian.Uint64(b[4:]); binary.LittleEndian.Uint32(b[24:]) != checksum(salt, b[4:24], meta) || got != seq {
		return nil, Ref{}, fmt.Errorf("%w at offset %d: not section %d as it was written", ErrDamaged, offset, seq)
	}
	ref = Ref{offset: offset + sectionHeaderSize + metaSize, size: uint32(bodySize), sum: binary.LittleEndian.Uint32(b[20:])}
	sum := uint32(0)
	if small {
		sum = crc32.Checksum(b[sectionHeaderSize+metaSize:], castagnoli)
	} else {
		meta = slices.Clone(meta)
		err = w.each(ref.offset, bodySize, func(piece []byte) error {
			sum = crc32.Update(sum, castagnoli, piece)
			return nil
		})
	}
	if err == nil && sum != ref.sum {
		err = fmt.Errorf("%w at offset %d: body of section %d has another checksum", ErrDamaged, ref.offset, seq)
	}
	return meta, ref, err
}
