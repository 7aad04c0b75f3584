package strong

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/url"
	"strings"
)

const (
	recordVersion = 1
	flagExists    = 1
)

var errRecord = errors.New("not a record of an entity")

type record struct {
	value  []byte
	exists bool
	ids    []string
}

func (r record) encode() ([]byte, error) {
	size := 2 + binary.MaxVarintLen64 + len(r.value)
	if len(r.ids) > maxIDs {
		return nil, fmt.Errorf("%d request ids, at most %d", len(r.ids), maxIDs)
	}
	for _, id := range r.ids {
		if len(id) > maxIDBytes {
			return nil, fmt.Errorf("request id of %d bytes, at most %d", len(id), maxIDBytes)
		}
		size += binary.MaxVarintLen64 + len(id)
	}
	out := make([]byte, 0, size)
	var flags byte
	if r.exists {
		flags |= flagExists
	}
	out = append(out, recordVersion, flags)
	out = binary.AppendUvarint(out, uint64(len(r.ids)))
	for _, id := range r.ids {
		out = binary.AppendUvarint(out, uint64(len(id)))
		out = append(out, id...)
	}
	return append(out, r.value...), nil
}

func decodeRecord(b []byte) (record, error) {
	if len(b) < 3 || b[0] != recordVersion || b[1]&^flagExists != 0 {
		return record{}, errRecord
	}
	r := record{exists: b[1]&flagExists != 0}
	b = b[2:]
	n, w := binary.Uvarint(b)
	if w <= 0 || n > maxIDs {
		return record{}, errRecord
	}
	b = b[w:]
	for range n {
		l, w := binary.Uvarint(b)
		if w <= 0 || l > maxIDBytes || l > uint64(len(b)-w) {
			return record{}, errRecord
		}
		r.ids = append(r.ids, string(b[w:w+int(l)]))
		b = b[w+int(l):]
	}
	r.value = b
	return r, nil
}

const prefix = "/holdfast/"

func storeKey(node string) string { return prefix + "stores/" + url.PathEscape(node) }

func slotKey(s slotID) string {
	return fmt.Sprintf("%sslots/%s/%04d", prefix, url.PathEscape(s.entityType), s.slot)
}

func entityKey(s slotID, key string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%sentities/%s/%04d/", prefix, url.PathEscape(s.entityType), s.slot)
	b.WriteString(url.PathEscape(key))
	return b.String()
}
