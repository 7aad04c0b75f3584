// Package statefield cuts one top-level field out of a serialised protobuf message, or appends it.
//
// The filter uses it for field carriage: it cuts what a client sent as state, appends the entity's state, and cuts the
// service's changes out of the reply. It is pure, knows no schema and walks the wire format without decoding.
package statefield

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// ErrMalformed says that the bytes are not the wire format of a protobuf message.
var ErrMalformed = errors.New("malformed message")

// Cut removes every occurrence of the field from the top level of msg, whatever its wire type: nothing that a reader
// could take for the field is left. merged is the payloads of the length-delimited occurrences, one after the other,
// which is how protobuf merges a submessage that occurs several times; found tells whether there was one. An occurrence
// of another wire type (which protobuf counts as an unknown field) goes without being found.
//
// rest and merged may alias msg, and do where that saves a copy: with nothing to cut rest is msg.
func Cut(msg []byte, field uint32) (rest, merged []byte, found bool, err error) {
	var (
		kept []byte // what stays of msg[:from]
		from int    // where the piece of msg that stays and is not yet in kept begins
		cut  bool
	)
	for at := 0; at < len(msg); {
		num, typ, tag := protowire.ConsumeTag(msg[at:])
		if tag < 0 {
			return nil, nil, false, fmt.Errorf("%w: %w", ErrMalformed, protowire.ParseError(tag))
		}
		if num > protowire.MaxValidNumber {
			return nil, nil, false, fmt.Errorf("%w: field number %d", ErrMalformed, num)
		}
		n := protowire.ConsumeFieldValue(num, typ, msg[at+tag:])
		if n < 0 {
			return nil, nil, false, fmt.Errorf("%w: field %d: %w", ErrMalformed, num, protowire.ParseError(n))
		}
		end := at + tag + n
		if uint32(num) == field {
			if typ == protowire.BytesType {
				payload, _ := protowire.ConsumeBytes(msg[at+tag:])
				payload = payload[:len(payload):len(payload)]
				if len(merged) == 0 {
					merged = payload
				} else {
					// The first append copies: the capacity of an aliasing payload ends with it.
					merged = append(merged, payload...)
				}
				found = true
			}
			if from < at {
				kept = join(kept, msg[from:at:at], len(msg)-end)
			}
			from, cut = end, true
		}
		at = end
	}
	if !cut {
		return msg, nil, false, nil
	}
	if from < len(msg) {
		kept = join(kept, msg[from:], 0)
	}
	return kept, merged, found, nil
}

// join appends piece to kept, which is an alias of the message while it is one piece of it (its capacity then ends with
// it). more is how much may still come.
func join(kept, piece []byte, more int) []byte {
	if len(kept) == 0 {
		return piece
	}
	if cap(kept)-len(kept) < len(piece) {
		kept = append(make([]byte, 0, len(kept)+len(piece)+more), kept...)
	}
	return append(kept, piece...)
}

// Append appends the field with this payload to the message dst. Protobuf lets fields come in any order, so this sets a
// field that Cut removed.
func Append(dst []byte, field uint32, payload []byte) []byte {
	dst = protowire.AppendTag(dst, protowire.Number(field), protowire.BytesType)
	return protowire.AppendBytes(dst, payload)
}
