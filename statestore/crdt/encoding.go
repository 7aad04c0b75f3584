package crdt

import (
	"encoding/binary"
	"fmt"
)

// encodingVersion 1 never left development.
const encodingVersion = 2

// reader takes an encoding apart. After the first failure every read returns zero and err stays.
type reader struct {
	b   []byte
	err error
}

func (r *reader) fail(why string) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %s", ErrCorrupt, why)
		r.b = nil
	}
}

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		r.fail("cut short")
		return 0
	}
	c := r.b[0]
	r.b = r.b[1:]
	return c
}

func (r *reader) uint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail("bad varint")
		return 0
	}
	if n > 1 && r.b[n-1] == 0 {
		r.fail("varint is not minimal")
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) replica() uint64 {
	if len(r.b) < 8 {
		r.fail("cut short")
		return 0
	}
	v := binary.BigEndian.Uint64(r.b)
	r.b = r.b[8:]
	if v == 0 {
		r.fail("replica 0")
	}
	return v
}

// count reads a number of items of at least size bytes each, and refuses one that can't be there: what is allocated for
// it stays in proportion to the input.
func (r *reader) count(size int) int {
	n := r.uint()
	if n > uint64(len(r.b)/size) {
		r.fail("count over the bytes that follow")
		return 0
	}
	return int(n)
}

// bytes returns a part of the input, not a copy.
func (r *reader) bytes() []byte {
	n := r.count(1)
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

// dot reads a dot that must come after last.
func (r *reader) dot(last Dot) Dot {
	d := Dot{Replica: r.replica(), Seq: r.uint()}
	if r.err == nil && d.Seq == 0 {
		r.fail("sequence 0")
	}
	if r.err == nil && d.compare(last) <= 0 {
		r.fail("dots out of order")
	}
	return d
}

func appendDot(dst []byte, d Dot) []byte {
	dst = binary.BigEndian.AppendUint64(dst, d.Replica)
	return binary.AppendUvarint(dst, d.Seq)
}

func appendBytes[T ~string | ~[]byte](dst []byte, b T) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(b)))
	return append(dst, b...)
}

// cutUint takes a varint off s, which is known to begin with one.
func cutUint(s string) (uint64, string) {
	if len(s) > 0 && s[0] < 0x80 {
		return uint64(s[0]), s[1:]
	}
	v := uint64(0)
	for i := 0; i < len(s); i++ {
		v |= uint64(s[i]&0x7f) << (7 * i)
		if s[i] < 0x80 {
			return v, s[i+1:]
		}
	}
	return 0, ""
}

// cutReplica takes a replica off s, which is known to begin with one.
func cutReplica(s string) (uint64, string) {
	_ = s[7]
	return uint64(s[0])<<56 | uint64(s[1])<<48 | uint64(s[2])<<40 | uint64(s[3])<<32 |
		uint64(s[4])<<24 | uint64(s[5])<<16 | uint64(s[6])<<8 | uint64(s[7]), s[8:]
}
