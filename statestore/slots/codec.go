package slots

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/holdfast-mesh/holdfast/statestore/crdt"
)

// ErrRecord says that bytes of the log are not a record or a section.
var ErrRecord = errors.New("unreadable record")

func appendString[T string | []byte](dst []byte, s T) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(s)))
	return append(dst, s...)
}

// appendContext writes runs and those retired identities that base has not.
func appendContext(dst []byte, c *crdt.Context, base *crdt.Retired) []byte {
	dst = appendString(dst, c.Append(nil))
	var ids []uint64
	if r := c.Retired(); r != base {
		for _, id := range r.IDs() {
			if !base.Has(id) {
				ids = append(ids, id)
			}
		}
	}
	return appendIDs(dst, ids)
}

func appendIDs(dst []byte, ids []uint64) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(ids)))
	for _, id := range ids {
		dst = binary.LittleEndian.AppendUint64(dst, id)
	}
	return dst
}

// cursor reads what the functions above wrote. After an error it yields zeros.
type cursor struct {
	b   []byte
	err error
}

func (c *cursor) fail(what string) {
	if c.err == nil {
		c.err = fmt.Errorf("%w: %s", ErrRecord, what)
	}
	c.b = nil
}

func (c *cursor) more() bool { return c.err == nil && len(c.b) > 0 }

func (c *cursor) uvarint() uint64 {
	n, w := binary.Uvarint(c.b)
	if w <= 0 {
		c.fail("bad number")
		return 0
	}
	c.b = c.b[w:]
	return n
}

func (c *cursor) fixed() uint64 {
	if len(c.b) < 8 {
		c.fail("cut short")
		return 0
	}
	n := binary.LittleEndian.Uint64(c.b)
	c.b = c.b[8:]
	return n
}

// bytes are a part of what is read.
func (c *cursor) bytes() []byte {
	n := c.uvarint()
	if n > uint64(len(c.b)) {
		c.fail("cut short")
		return nil
	}
	out := c.b[:n:n]
	c.b = c.b[n:]
	return out
}

func (c *cursor) millis() time.Time { return time.UnixMilli(int64(c.uvarint() & (1<<62 - 1))) }

func (c *cursor) string() string { return string(c.bytes()) }

func (c *cursor) ids() []uint64 {
	n := c.uvarint()
	if n > uint64(len(c.b)/8) {
		c.fail("cut short")
		return nil
	}
	ids := make([]uint64, n)
	for i := range ids {
		ids[i] = c.fixed()
	}
	return ids
}

// context reads one that was written with a base that is not more than this one.
func (c *cursor) context(base *crdt.Retired) *crdt.Context {
	runs := c.bytes()
	ids := c.ids()
	if c.err != nil {
		return nil
	}
	out, err := crdt.DecodeContext(runs)
	if err != nil {
		c.err = fmt.Errorf("%w: %w", ErrRecord, err)
		return nil
	}
	set := base
	if len(ids) > 0 {
		set = base.Union(crdt.NewRetired(ids...))
	}
	if set.Len() > 0 {
		out.Retire(set)
	}
	return out
}
