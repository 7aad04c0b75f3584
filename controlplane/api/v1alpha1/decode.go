package v1alpha1

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Error is one thing that is wrong in a file.
type Error struct {
	Path string
	Line int
	// Field is the path of the field, for example spec.entity.key.
	Field string
	// Message says what is wrong and, after a semicolon, what to do.
	Message string
}

func (e *Error) Error() string {
	if e.Field == "" {
		return fmt.Sprintf("%s:%d: %s", e.Path, e.Line, e.Message)
	}
	return fmt.Sprintf("%s:%d: %s: %s", e.Path, e.Line, e.Field, e.Message)
}

// Errors is everything that is wrong in a file, in the order of its lines.
type Errors []*Error

func (e Errors) Error() string {
	lines := make([]string, 0, len(e))
	for _, err := range e {
		lines = append(lines, err.Error())
	}
	return strings.Join(lines, "\n")
}

// document is one YAML document on its way to a typed value: the lines of its fields, and what is wrong so far.
type document struct {
	path  string
	node  *yaml.Node
	lines map[string]int
	errs  *Errors
}

func (d *document) errorf(field, format string, args ...any) {
	// A field that is absent has no line: its nearest ancestor's must do.
	line := 0
	for f := field; ; {
		if l, ok := d.lines[f]; ok {
			line = l
			break
		}
		i := strings.LastIndexByte(f, '.')
		if i < 0 {
			line = d.node.Line
			break
		}
		f = f[:i]
	}
	d.errorAt(line, field, format, args...)
}

func (d *document) errorAt(line int, field, format string, args ...any) {
	*d.errs = append(*d.errs, &Error{Path: d.path, Line: line, Field: field, Message: fmt.Sprintf(format, args...)})
}

// split parses data into its documents' nodes.
func split(path string, data []byte) ([]*yaml.Node, *Error) {
	if len(data) > maxFileBytes {
		return nil, &Error{Path: path, Line: 1, Message: fmt.Sprintf("the file has %d bytes, at most %d are read; split it", len(data), maxFileBytes)}
	}
	var nodes []*yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(data))
	for {
		var n yaml.Node
		err := dec.Decode(&n)
		if errors.Is(err, io.EOF) {
			return nodes, nil
		}
		if err != nil {
			return nil, syntaxError(path, err)
		}
		if n.Kind == yaml.DocumentNode && len(n.Content) == 1 && n.Content[0].Tag != "!!null" {
			nodes = append(nodes, n.Content[0])
		}
		if len(nodes) > maxDocuments {
			return nil, &Error{Path: path, Line: n.Line, Message: fmt.Sprintf("more than %d documents; split the file", maxDocuments)}
		}
	}
}

// syntaxError turns yaml's "yaml: line 3: …" into ours.
func syntaxError(path string, err error) *Error {
	line, msg := 1, strings.TrimPrefix(err.Error(), "yaml: ")
	if n, _ := fmt.Sscanf(msg, "line %d:", &line); n == 1 {
		_, msg, _ = strings.Cut(msg, ": ")
	}
	return &Error{Path: path, Line: line, Message: "not YAML: " + msg}
}

// decode checks the document against the type of out, strictly, and fills it in. It returns false where it reported an
// error.
func (d *document) decode(out any) bool {
	before := len(*d.errs)
	d.walk(d.node, reflect.TypeOf(out).Elem(), "", 0)
	if len(*d.errs) > before {
		return false
	}
	// The walk has found what a user can get wrong; this is the net below it.
	if err := d.node.Decode(out); err != nil {
		e := syntaxError(d.path, err)
		d.errorAt(max(e.Line, d.node.Line), "", "%s", e.Message)
		return false
	}
	return true
}

var (
	unmarshaler = reflect.TypeFor[yaml.Unmarshaler]()
	bareNamed   = reflect.TypeFor[interface{ bareNames() }]()
)

func (d *document) walk(n *yaml.Node, t reflect.Type, field string, depth int) {
	d.lines[field] = n.Line
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case depth > maxDepth:
		d.errorAt(n.Line, field, "is nested deeper than any field of ours")
		return
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		d.errorAt(n.Line, field, "anchors and aliases are not read; write the value out")
		return
	case reflect.PointerTo(t).Implements(unmarshaler):
		if err := reflect.New(t).Interface().(yaml.Unmarshaler).UnmarshalYAML(n); err != nil {
			d.errorAt(n.Line, field, "%s", err)
		}
		return
	case n.Tag == "!!null":
		want := "give it a value, or remove it"
		if reflect.PointerTo(t).Implements(bareNamed) {
			want = "name a model, for example gcounter"
		} else if t.Kind() == reflect.Struct {
			want = "write {} where you want it without settings, or remove it"
		}
		d.errorAt(n.Line, field, "is empty; %s", want)
		return
	}
	switch t.Kind() {
	case reflect.Struct:
		d.walkStruct(n, t, field, depth)
	case reflect.Slice:
		if n.Kind != yaml.SequenceNode {
			d.errorAt(n.Line, field, "is %s; write a list", kindName(n))
			return
		}
		for i, item := range n.Content {
			d.walk(item, t.Elem(), fmt.Sprintf("%s[%d]", field, i), depth+1)
		}
	case reflect.Map:
		if n.Kind != yaml.MappingNode {
			d.errorAt(n.Line, field, "is %s; write name: value pairs", kindName(n))
			return
		}
		for i := 0; i+1 < len(n.Content); i += 2 {
			d.walk(n.Content[i+1], t.Elem(), join(field, n.Content[i].Value), depth+1)
		}
	default:
		d.walkScalar(n, t, field)
	}
}

func (d *document) walkStruct(n *yaml.Node, t reflect.Type, field string, depth int) {
	if n.Kind != yaml.MappingNode {
		ft, known := fieldsOf(t)[n.Value]
		bare := reflect.PointerTo(t).Implements(bareNamed)
		switch {
		case n.Kind != yaml.ScalarNode:
			d.errorAt(n.Line, field, "is %s; write a mapping", kindName(n))
			return
		case known && !bare:
			// A carriage is easily written as a bare name.
			d.errorAt(n.Line, field, "is a bare name; write %s: {%s: {}}", last(field), n.Value)
			return
		case !bare:
			d.errorAt(n.Line, field, "is %s; write a mapping", kindName(n))
			return
		case !known:
			d.errorAt(n.Line, field, "%q is not known; %s", n.Value, suggest(n.Value, fieldsOf(t)))
			return
		case ft == reflect.TypeFor[*ORMap]():
			d.errorAt(n.Line, field, "ormap needs the model of its values; write {ormap: {values: gcounter}}")
			return
		}
		// From here on as if it were written in full.
		name := *n
		*n = yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Line: n.Line, Column: n.Column, Content: []*yaml.Node{
			&name, {Kind: yaml.MappingNode, Tag: "!!map", Line: n.Line, Column: n.Column},
		}}
	}
	known := fieldsOf(t)
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		at := join(field, key.Value)
		ft, ok := known[key.Value]
		switch {
		case key.Kind != yaml.ScalarNode || key.Value == "<<":
			d.errorAt(key.Line, field, "has a key that is no plain name")
		case !ok:
			d.errorAt(key.Line, at, "unknown field; %s", suggest(key.Value, known))
		case seen[key.Value]:
			d.errorAt(key.Line, at, "is given twice; remove one")
		default:
			seen[key.Value] = true
			d.walk(value, ft, at, depth+1)
			// The name's line is where a reader looks, not that of a block below it.
			d.lines[at] = key.Line
		}
	}
}

func (d *document) walkScalar(n *yaml.Node, t reflect.Type, field string) {
	if n.Kind != yaml.ScalarNode {
		d.errorAt(n.Line, field, "is %s; write one value", kindName(n))
		return
	}
	switch t.Kind() {
	case reflect.String:
		if n.Tag != "!!str" {
			d.errorAt(n.Line, field, "%s is not a string; put it in quotes", n.Value)
		}
	case reflect.Bool:
		if n.Tag != "!!bool" {
			d.errorAt(n.Line, field, "%q is neither true nor false", n.Value)
		}
	case reflect.Int, reflect.Int64:
		var v int64
		if n.Tag != "!!int" || n.Decode(&v) != nil {
			d.errorAt(n.Line, field, "%q is not a whole number", n.Value)
		}
	}
}

// fieldsOf maps the YAML names of t's fields to their types, those of inlined structs included.
func fieldsOf(t reflect.Type) map[string]reflect.Type {
	out := map[string]reflect.Type{}
	if t.Kind() != reflect.Struct {
		return out
	}
	for f := range t.Fields() {
		name, opts, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if opts == "inline" {
			for n, ft := range fieldsOf(f.Type) {
				out[n] = ft
			}
			continue
		}
		out[name] = f.Type
	}
	return out
}

var joiners = strings.NewReplacer("_", "", "-", "")

func suggest(name string, known map[string]reflect.Type) string {
	names := make([]string, 0, len(known))
	for k, t := range known {
		if strings.EqualFold(k, name) || strings.EqualFold(k, joiners.Replace(name)) {
			return "did you mean " + k + "?"
		}
		if t != reflect.TypeFor[*Unsupported]() {
			names = append(names, k)
		}
	}
	slices.Sort(names)
	if len(names) == 0 {
		return "nothing can be set here, write {}"
	}
	return "known here: " + strings.Join(names, ", ")
}

func kindName(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	default:
		return fmt.Sprintf("%q", n.Value)
	}
}

func join(field, name string) string {
	if field == "" {
		return name
	}
	return field + "." + name
}

func last(field string) string { return field[strings.LastIndexByte(field, '.')+1:] }

// lineOf is the line of a mapping's key, or of the mapping where it has no such key.
func lineOf(n *yaml.Node, key string) int {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i].Line
		}
	}
	return n.Line
}
