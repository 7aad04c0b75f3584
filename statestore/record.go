package statestore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// A log record is a mergeable state of one entity, a request id that was applied, or both:
//
//	byte 1 | u length, type | u length, key | u length, request id | u unix milliseconds | state (empty: none)
//
// u is an unsigned varint. Types and keys, not slots or numbers, so that records outlive configuration.
type record struct {
	entityID
	requestID string
	at        time.Time
	state     []byte
}

const recordKind = 1

var errRecord = errors.New("unreadable record")

func (r record) append(dst []byte) []byte {
	dst = append(dst, recordKind)
	for _, s := range []string{r.typ, r.key, r.requestID} {
		dst = binary.AppendUvarint(dst, uint64(len(s)))
		dst = append(dst, s...)
	}
	dst = binary.AppendUvarint(dst, uint64(max(r.at.UnixMilli(), 0)))
	return append(dst, r.state...)
}

// decodeRecord's state is a part of b.
func decodeRecord(b []byte) (record, error) {
	if len(b) == 0 || b[0] != recordKind {
		return record{}, fmt.Errorf("%w: unknown kind", errRecord)
	}
	b = b[1:]
	r := record{}
	for _, s := range []*string{&r.typ, &r.key, &r.requestID} {
		n, w := binary.Uvarint(b)
		if w <= 0 || n > uint64(len(b)-w) {
			return record{}, fmt.Errorf("%w: cut short", errRecord)
		}
		*s, b = string(b[w:w+int(n)]), b[w+int(n):]
	}
	ms, w := binary.Uvarint(b)
	if w <= 0 || ms > 1<<62 {
		return record{}, fmt.Errorf("%w: bad time", errRecord)
	}
	r.at, r.state = time.UnixMilli(int64(ms)), b[w:]
	return r, nil
}
