package wal_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"slices"
	"testing"

	"github.com/holdfast-mesh/holdfast/statestore/wal"
	"github.com/holdfast-mesh/holdfast/statestore/wal/faultfs"
)

// The naive readers below take a file's whole bytes and know nothing of windows, limits of memory or recovery.

func naiveSum(salted []byte, parts ...[]byte) uint32 {
	return crc32.Checksum(append(bytes.Clone(salted), bytes.Join(parts, nil)...), crc32.MakeTable(crc32.Castagnoli))
}

func naiveHeader(b []byte, kind byte) bool {
	return len(b) >= 28 && bytes.Equal(b[:8], []byte{'h', 'f', 'w', 'a', 'l', kind, 0, 2}) &&
		binary.LittleEndian.Uint32(b[24:]) == naiveSum(nil, b[:24])
}

// naiveFrame is the frame that b begins with; its size is 0 where its records are not as they should be.
func naiveFrame(b, salt []byte) (seq uint64, records []string, size int, ok bool) {
	if len(b) < 20 || !bytes.Equal(b[:4], []byte{0xf0, 'H', 'F', 0x0d}) {
		return 0, nil, 0, false
	}
	n := int(binary.LittleEndian.Uint32(b[12:]))
	if n > wal.MaxBatch || n > len(b)-20 || binary.LittleEndian.Uint32(b[16:]) != naiveSum(salt, b[4:16], b[20:20+n]) {
		return 0, nil, 0, false
	}
	for p := b[20 : 20+n]; len(p) > 0; {
		if len(p) < 4 || uint64(binary.LittleEndian.Uint32(p)) > uint64(len(p)-4) {
			return binary.LittleEndian.Uint64(b[4:]), nil, 0, true
		}
		m := 4 + int(binary.LittleEndian.Uint32(p))
		records, p = append(records, string(p[4:m])), p[m:]
	}
	return binary.LittleEndian.Uint64(b[4:]), records, 20 + n, true
}

// naiveSegment is what the only segment of a log holds, nil where it is damaged.
func naiveSegment(b []byte) []string {
	if !naiveHeader(b, 'L') {
		return nil
	}
	salt, rest, last := b[8:16], b[28:], uint64(0)
	records := []string{}
	for len(rest) > 0 {
		seq, got, size, ok := naiveFrame(rest, salt)
		if ok {
			if seq != last+1 || size == 0 {
				return nil
			}
			records, rest, last = append(records, got...), rest[size:], seq
			continue
		}
		for i := range rest {
			if seq, _, _, ok := naiveFrame(rest[i:], salt); ok && seq > last {
				return nil
			}
		}
		break
	}
	return records
}

// naiveSections are the metas and bodies of a snapshot, one after the other, nil where it is damaged.
func naiveSections(b []byte) []string {
	if !naiveHeader(b, 'S') {
		return nil
	}
	salt, rest := b[8:16], b[28:]
	all := []string{}
	for n := uint64(0); ; n++ {
		if len(rest) == 16 {
			if !bytes.Equal(rest[:4], []byte{0xf2, 'H', 'E', 0x0d}) || binary.LittleEndian.Uint64(rest[4:]) != n ||
				binary.LittleEndian.Uint32(rest[12:]) != naiveSum(salt, rest[4:12]) {
				return nil
			}
			return all
		}
		if len(rest) < 28 || !bytes.Equal(rest[:4], []byte{0xf1, 'H', 'S', 0x0d}) || binary.LittleEndian.Uint64(rest[4:]) != n+1 {
			return nil
		}
		meta, body := uint64(binary.LittleEndian.Uint32(rest[12:])), uint64(binary.LittleEndian.Uint32(rest[16:]))
		if meta > wal.MaxMeta || body > wal.MaxBody || meta+body > uint64(len(rest)-28) {
			return nil
		}
		m, d := rest[28:28+meta], rest[28+meta:28+meta+body]
		if binary.LittleEndian.Uint32(rest[20:]) != naiveSum(nil, d) || binary.LittleEndian.Uint32(rest[24:]) != naiveSum(salt, rest[4:24], m) {
			return nil
		}
		all, rest = append(all, string(m), string(d)), rest[28+meta+body:]
	}
}

// fixed has right checksums where the fuzzer can't find them: it fills in those of the header and of every frame or section
// that the bytes seem to have.
func fixed(b []byte, kind byte) []byte {
	b = bytes.Clone(b)
	if len(b) < 28 {
		return b
	}
	copy(b, []byte{'h', 'f', 'w', 'a', 'l', kind, 0, 2})
	binary.LittleEndian.PutUint32(b[24:], naiveSum(nil, b[:24]))
	salt := b[8:16]
	for rest := b[28:]; len(rest) >= 16; rest = rest[1:] {
		left := uint64(len(rest))
		switch {
		case kind == 'L' && bytes.HasPrefix(rest, []byte{0xf0, 'H', 'F', 0x0d}) && left >= 20:
			if n := uint64(binary.LittleEndian.Uint32(rest[12:])); n <= left-20 {
				binary.LittleEndian.PutUint32(rest[16:], naiveSum(salt, rest[4:16], rest[20:20+n]))
			}
		case kind == 'S' && bytes.HasPrefix(rest, []byte{0xf1, 'H', 'S', 0x0d}) && left >= 28:
			m, d := uint64(binary.LittleEndian.Uint32(rest[12:])), uint64(binary.LittleEndian.Uint32(rest[16:]))
			if m+d <= left-28 {
				binary.LittleEndian.PutUint32(rest[20:], naiveSum(nil, rest[28+m:28+m+d]))
				binary.LittleEndian.PutUint32(rest[24:], naiveSum(salt, rest[4:24], rest[28:28+m]))
			}
		case kind == 'S' && bytes.HasPrefix(rest, []byte{0xf2, 'H', 'E', 0x0d}):
			binary.LittleEndian.PutUint32(rest[12:], naiveSum(salt, rest[4:12]))
		}
	}
	return b
}

// modest refuses reads of more than the file holds.
type modest struct{ *faultfs.FS }

func (m modest) OpenRead(name string) (wal.Reader, error) {
	r, err := m.FS.OpenRead(name)
	return modestReader{r}, err
}

type modestReader struct{ wal.Reader }

func (r modestReader) ReadAt(b []byte, offset int64) (int, error) {
	if size, _ := r.Size(); int64(len(b)) > size {
		panic("reads more than there is")
	}
	return r.Reader.ReadAt(b, offset)
}

// openFuzzed opens a log with one file that a fuzzer made; nil where it is damaged.
func openFuzzed(t *testing.T, fs *faultfs.FS) (*wal.Log, []string) {
	t.Helper()
	all := []string{}
	var refs []wal.Ref
	l, err := wal.Open("/log", wal.Options{FS: modest{fs}}, func(meta []byte, ref wal.Ref) error {
		all, refs = append(all, string(meta), ""), append(refs, ref)
		return nil
	}, func(record []byte) error {
		all = append(all, string(record))
		return nil
	})
	if errors.Is(err, wal.ErrDamaged) || errors.Is(err, wal.ErrVersion) {
		return nil, nil
	}
	if err != nil {
		t.Fatalf("error of another kind: %v", err)
	}
	for i, ref := range refs {
		body, err := l.ReadSection(ref)
		if err != nil {
			t.Fatal(err)
		}
		all[2*i+1] = string(body)
	}
	return l, all
}

func FuzzSegment(f *testing.F) {
	fs := &faultfs.FS{}
	l, _, err := open(fs, 0)
	if err != nil {
		f.Fatal(err)
	}
	for _, r := range []string{"a", "bb", ""} {
		if err := l.Append(batch(r, r)); err != nil {
			f.Fatal(err)
		}
	}
	l.Close()
	whole, err := fs.ReadFile(firstSegment)
	if err != nil {
		f.Fatal(err)
	}
	for _, fix := range []bool{false, true} {
		f.Add(whole, fix)
		f.Add(whole[:len(whole)-3], fix)
		f.Add(slices.Concat(whole, whole[28:]), fix)
		f.Add(slices.Concat(whole[:len(whole)-9], whole[28:]), fix)
		f.Add([]byte{}, fix)
	}
	f.Fuzz(func(t *testing.T, b []byte, fix bool) {
		if fix {
			b = fixed(b, 'L')
		}
		want := naiveSegment(b)
		fs := &faultfs.FS{}
		fs.WriteDurable(firstSegment, b)
		l, got := openFuzzed(t, fs)
		if !slices.Equal(got, want) || (got == nil) != (want == nil) {
			t.Fatalf("got %q, want %q", got, want)
		}
		if l == nil {
			return
		}
		mustAppend(t, l, "more")
		l.Close()
		l, again := mustOpen(t, fs, 0)
		wantRecords(t, again, append(got, "more")...)
		l.Close()
	})
}

func FuzzSections(f *testing.F) {
	fs := &faultfs.FS{}
	l, _, err := open(fs, 0)
	if err != nil {
		f.Fatal(err)
	}
	number, err := l.Rotate()
	if err == nil {
		err = l.WriteSnapshot(number, snapshotOf("first", "", "third"))
	}
	if err != nil {
		f.Fatal(err)
	}
	l.Close()
	whole, err := fs.ReadFile(secondSnapshot)
	if err != nil {
		f.Fatal(err)
	}
	segment, err := fs.ReadFile("/log/0000000000000002.log")
	if err != nil {
		f.Fatal(err)
	}
	for _, fix := range []bool{false, true} {
		f.Add(whole, fix)
		f.Add(whole[:len(whole)-16], fix)
		f.Add(slices.Concat(whole, whole[28:]), fix)
		f.Add(whole[:28], fix)
		f.Add(segment, fix)
	}
	f.Fuzz(func(t *testing.T, b []byte, fix bool) {
		if fix {
			b = fixed(b, 'S')
		}
		want := naiveSections(b)
		fs := &faultfs.FS{}
		fs.WriteDurable("/log/0000000000000002.log", segment)
		fs.WriteDurable(secondSnapshot, b)
		l, got := openFuzzed(t, fs)
		if !slices.Equal(got, want) || (got == nil) != (want == nil) {
			t.Fatalf("got %q, want %q", got, want)
		}
		if l != nil {
			l.Close()
		}
	})
}
