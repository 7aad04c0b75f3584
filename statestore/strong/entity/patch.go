package entity

import (
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"

	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
)

// patchError is why a patch can't be applied, with the code that says whose fault it is.
type patchError struct {
	code codes.Code
	text string
}

func (e *patchError) Error() string { return e.text }

func errorOf(code codes.Code, format string, args ...any) error {
	return &patchError{code, fmt.Sprintf(format, args...)}
}

// invalid is the patch's own fault.
func invalid(format string, args ...any) error {
	return errorOf(codes.InvalidArgument, format, args...)
}

func patchCode(err error) codes.Code {
	var e *patchError
	if errors.As(err, &e) {
		return e.code
	}
	return codes.InvalidArgument
}

// mergePatch is RFC 7396 on a JSON value, or on a protobuf message as if it were in its JSON form. An entity that does not
// exist is patched as an empty one.
func (t *Type) mergePatch(value []byte, exists bool, patch []byte) ([]byte, error) {
	switch t.Encoding {
	case configv1.ValueEncoding_VALUE_ENCODING_JSON:
		return mergeJSON(value, exists, patch)
	case configv1.ValueEncoding_VALUE_ENCODING_PROTO:
		return t.mergeProto(value, patch)
	}
	return nil, errNoEncoding
}

// fieldPatch is AIP-134 on a JSON object or a protobuf message.
func (t *Type) fieldPatch(value []byte, exists bool, patch *holdfastv1.FieldPatch) ([]byte, error) {
	if n := len(patch.GetPaths()); n > maxPaths {
		return nil, invalid("%d paths, at most %d", n, maxPaths)
	}
	paths := make([][]string, len(patch.GetPaths()))
	for i, p := range patch.GetPaths() {
		var err error
		if paths[i], err = splitPath(p); err != nil {
			return nil, err
		}
	}
	switch t.Encoding {
	case configv1.ValueEncoding_VALUE_ENCODING_JSON:
		return patchJSON(value, exists, patch.GetValue(), paths)
	case configv1.ValueEncoding_VALUE_ENCODING_PROTO:
		return t.patchProto(value, patch.GetValue(), paths)
	}
	return nil, errNoEncoding
}

// splitPath takes a path apart: names between dots; a name with dots of its own stands between backticks (AIP-161).
func splitPath(path string) ([]string, error) {
	var steps []string
	for rest := path; ; {
		step, quoted := "", len(rest) > 0 && rest[0] == '`'
		end := 0
		if quoted {
			for end = 1; end < len(rest) && rest[end] != '`'; end++ {
			}
			if end == len(rest) {
				return nil, invalid("path %q: a backtick is missing", path)
			}
			step, rest = rest[1:end], rest[end+1:]
		} else {
			for end < len(rest) && rest[end] != '.' && rest[end] != '`' {
				end++
			}
			step, rest = rest[:end], rest[end:]
		}
		if step == "" && !quoted {
			return nil, invalid("path %q: a name is missing", path)
		}
		if steps = append(steps, step); len(steps) > maxDepth {
			return nil, invalid("path %.40q… has more than %d steps", path, maxDepth)
		}
		switch {
		case rest == "":
			return steps, nil
		case rest[0] != '.':
			return nil, invalid("path %q: a dot is missing after %q", path, step)
		}
		rest = rest[1:]
	}
}
