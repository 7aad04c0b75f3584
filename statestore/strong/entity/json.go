package entity

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"google.golang.org/grpc/codes"
)

// object is a JSON object whose members are left as they are.
type object map[string]json.RawMessage

// checkJSON refuses what is no JSON text, or nests too deep.
func checkJSON(what string, b []byte) error {
	if !json.Valid(b) {
		return invalid("%s is no JSON text", what)
	}
	depth, inString := 0, false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case inString && c == '\\':
			i++
		case c == '"':
			inString = !inString
		case inString:
		case c == '{' || c == '[':
			if depth++; depth > maxDepth {
				return invalid("%s nests deeper than %d", what, maxDepth)
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return nil
}

// checkStored refuses a stored value that a patch can't be applied to.
func checkStored(value []byte) error {
	if err := checkJSON("the stored value", value); err != nil {
		return errorOf(codes.FailedPrecondition, "%v; replace it by set", err)
	}
	return nil
}

// asObject takes an object apart; nil where the JSON text is something else.
func asObject(b []byte) object {
	if b = bytes.TrimLeft(b, " \t\r\n"); len(b) == 0 || b[0] != '{' {
		return nil
	}
	o := object{}
	if json.Unmarshal(b, &o) != nil {
		return nil
	}
	return o
}

func isNull(b []byte) bool { return string(bytes.TrimSpace(b)) == "null" }

// encode writes the members in the order of their names.
func (o object) encode() []byte {
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	if err := e.Encode(map[string]json.RawMessage(o)); err != nil {
		panic(fmt.Sprintf("entity: JSON that was read can't be written: %v", err))
	}
	return bytes.TrimRight(out.Bytes(), "\n")
}

// mergeJSON is RFC 7396. It is our own because the known library prunes nulls inside of arrays too, and orders members at
// random.
func mergeJSON(value []byte, exists bool, patch []byte) ([]byte, error) {
	if err := checkJSON("the patch", patch); err != nil {
		return nil, err
	}
	if !exists {
		value = []byte("{}")
	} else if err := checkStored(value); err != nil {
		return nil, err
	}
	return merge(value, patch), nil
}

// merge applies a patch to a target that may be missing (nil). Both are valid.
func merge(target, patch []byte) []byte {
	changes := asObject(patch)
	if changes == nil {
		return patch
	}
	out := asObject(target)
	if out == nil {
		out = object{}
	}
	for name, change := range changes {
		if isNull(change) {
			delete(out, name)
			continue
		}
		out[name] = merge(out[name], change)
	}
	return out.encode()
}

// patchJSON replaces what the paths name by what from has there.
func patchJSON(value []byte, exists bool, from []byte, paths [][]string) ([]byte, error) {
	if err := checkJSON("the patch's value", from); err != nil {
		return nil, err
	}
	source := asObject(from)
	if source == nil {
		return nil, invalid("the patch's value is no JSON object")
	}
	if !exists {
		value = []byte("{}")
	} else if err := checkStored(value); err != nil {
		return nil, err
	}
	if len(paths) == 0 {
		// AIP-134: all that is set.
		for _, name := range slices.Sorted(maps.Keys(source)) {
			paths = append(paths, []string{name})
		}
	}
	if asObject(value) == nil {
		return nil, errorOf(codes.FailedPrecondition, "the stored value is no JSON object: it has no fields; replace it by set")
	}
	for _, path := range paths {
		if len(path) == 1 && path[0] == "*" {
			value = from
			continue
		}
		found, err := lookUp(source, path)
		if err != nil {
			return nil, err
		}
		if value, err = replace(value, path, found); err != nil {
			return nil, err
		}
	}
	return value, nil
}

// lookUp returns what is at the path; nil where there is nothing.
func lookUp(from object, path []string) (json.RawMessage, error) {
	found, ok := from[path[0]]
	if !ok || len(path) == 1 {
		return found, nil
	}
	next := asObject(found)
	switch {
	case isNull(found):
		return nil, nil
	case next == nil:
		return nil, invalid("the patch's value has no object at %q", path[0])
	}
	return lookUp(next, path[1:])
}

// replace puts found at the path of an object, or clears what is there where found is nil. Objects on the way are made.
func replace(target []byte, path []string, found json.RawMessage) ([]byte, error) {
	o := asObject(target)
	if o == nil {
		if len(target) > 0 && !isNull(target) {
			return nil, errorOf(codes.FailedPrecondition, "the stored value has no object above %q", path[0])
		}
		o = object{}
	}
	name := path[0]
	at, there := o[name]
	switch {
	case len(path) > 1:
		if !there && found == nil {
			return target, nil
		}
		next, err := replace(at, path[1:], found)
		if err != nil {
			return nil, err
		}
		o[name] = next
	case found == nil:
		delete(o, name)
	default:
		o[name] = found
	}
	return o.encode(), nil
}
