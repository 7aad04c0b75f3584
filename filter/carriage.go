package filter

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
)

var (
	// errStateTooLarge is the refusal of a state that does not fit into metadata; it names the remedy.
	errStateTooLarge  = fmt.Errorf("the entity's state is over the %d bytes that metadata carries; use field carriage for this type", MaxMetadataValue)
	errStatesTooLarge = fmt.Errorf("the states of the request's entities are together over the %d bytes that metadata carries; use field carriage for this type, or name fewer", MaxStateHeader)
	errBadStateOut    = errors.New("the service's state out is malformed")
)

// stateIn is what the service is told of the entity.
func stateIn(entityType, key string, st *storev1.State, previous *holdfastv1.Value) *holdfastv1.StateIn {
	in := &holdfastv1.StateIn{Type: entityType, Key: key, Exists: st.GetExists(), Version: st.GetVersion(), Previous: previous}
	if in.Exists {
		in.Value = st.GetValue()
	}
	return in
}

// stateHeader encodes state in for metadata carriage, as the header's value.
func stateHeader(carriage configv1.Carriage, in *holdfastv1.StateIn) (string, error) {
	size := proto.Size(in)
	if size > MaxMetadataValue && proto.Size(in.GetValue()) > MaxMetadataValue+valueFraming {
		return "", errStateTooLarge
	}
	var out string
	if carriage == configv1.Carriage_CARRIAGE_METADATA_JSON {
		b, err := protojson.Marshal(in)
		if err != nil {
			return "", fmt.Errorf("encode state in: %w", err)
		}
		out = asciiJSON(b)
	} else {
		// One buffer for both encodings: this is done for every request.
		encoded := base64.RawStdEncoding.EncodedLen(size)
		b := make([]byte, encoded, encoded+size)
		raw, err := proto.MarshalOptions{UseCachedSize: true}.MarshalAppend(b[encoded:], in)
		if err != nil {
			return "", fmt.Errorf("encode state in: %w", err)
		}
		base64.RawStdEncoding.Encode(b, raw)
		out = string(b)
	}
	switch {
	case len(out) <= MaxStateHeader:
	case len(in.Others) > 0:
		return "", errStatesTooLarge
	default:
		return "", errStateTooLarge
	}
	return out, nil
}

// statePayload encodes state in for field carriage. The user's own type has no way to say "does not exist" but by being
// absent: ok is false then.
func statePayload(m *method, in *holdfastv1.StateIn) (payload []byte, ok bool, err error) {
	if m.inWrapped {
		payload, err = proto.Marshal(in)
		return payload, err == nil, err
	}
	switch v := in.GetValue().GetKind().(type) {
	case *holdfastv1.Value_Value:
		return v.Value, true, nil
	case *holdfastv1.Value_Lww:
		return v.Lww, true, nil
	default:
		return nil, false, nil
	}
}

// asciiJSON writes every character over ASCII as a JSON escape: header values are ASCII, and such characters can only
// stand inside JSON strings.
func asciiJSON(b []byte) string {
	ascii := true
	for _, c := range b {
		if c > '~' || c < ' ' {
			ascii = false
			break
		}
	}
	if ascii {
		return string(b)
	}
	var out strings.Builder
	for _, r := range string(b) {
		switch {
		case r < ' ':
			// protojson writes white space between tokens only; control characters in strings are escaped already.
			out.WriteByte(' ')
		case r <= '~':
			out.WriteByte(byte(r))
		case r > 0xffff:
			r -= 0x10000
			fmt.Fprintf(&out, `\u%04x\u%04x`, 0xd800+(r>>10), 0xdc00+(r&0x3ff))
		default:
			fmt.Fprintf(&out, `\u%04x`, r)
		}
	}
	return out.String()
}

// parseStateOut decodes the value of a reply's state trailer. Whether the operations fit the state is the store's to say.
func parseStateOut(carriage configv1.Carriage, value string) (*holdfastv1.StateOut, error) {
	out := &holdfastv1.StateOut{}
	if len(value) > MaxStateOut {
		return nil, fmt.Errorf("%w: over %d bytes; use field carriage for this type", errBadStateOut, MaxStateOut)
	}
	if carriage == configv1.Carriage_CARRIAGE_METADATA_JSON {
		if err := protojson.Unmarshal([]byte(value), out); err != nil {
			return nil, fmt.Errorf("%w: %w", errBadStateOut, err)
		}
		return out, nil
	}
	// gRPC allows padded and unpadded base64.
	b, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(value, "="))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errBadStateOut, err)
	}
	if err := proto.Unmarshal(b, out); err != nil {
		return nil, fmt.Errorf("%w: %w", errBadStateOut, err)
	}
	return out, nil
}

// parseStateField decodes the payload of a reply's state_out field.
func parseStateField(m *method, payload []byte) (*holdfastv1.StateOut, error) {
	out := &holdfastv1.StateOut{}
	if !m.outWrapped {
		set := &holdfastv1.Set{Value: bytes.Clone(payload)}
		out.Operations = []*holdfastv1.Operation{{Operation: &holdfastv1.Operation_Set{Set: set}}}
		return out, nil
	}
	if err := proto.Unmarshal(payload, out); err != nil {
		return nil, fmt.Errorf("%w: %w", errBadStateOut, err)
	}
	return out, nil
}

// changes reports whether state out changes anything.
func changes(out *holdfastv1.StateOut) bool {
	return len(out.GetOperations()) > 0 || slices.ContainsFunc(out.GetOthers(), func(o *holdfastv1.EntityOut) bool { return len(o.GetOperations()) > 0 })
}

var (
	errEncoding = errors.New("message encoding is not supported, only gzip and identity")
	errTooLarge = fmt.Errorf("message over %d bytes", MaxMessage)
	errBadGzip  = errors.New("malformed gzip message")
)

// plain undoes a message's compression, bounded: a few bytes of gzip can become gigabytes.
func plain(msg []byte, encoding string) ([]byte, error) {
	if encoding != "gzip" {
		return nil, errEncoding
	}
	r, err := gzip.NewReader(bytes.NewReader(msg))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errBadGzip, err)
	}
	out, err := io.ReadAll(io.LimitReader(r, MaxMessage+1))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errBadGzip, err)
	}
	if len(out) > MaxMessage {
		return nil, errTooLarge
	}
	return out, nil
}
