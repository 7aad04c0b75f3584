package v1alpha1

import (
	"cmp"
	"fmt"
	"os"
	"slices"

	"go.yaml.in/yaml/v3"
)

// Load reads and parses the file at path. Errors about its content are of type Errors.
func Load(path string) (*Config, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	return Parse(path, data)
}

// Parse parses the documents in data, fills in the defaults and checks them. path is for messages only. The error, if
// any, is of type Errors.
func Parse(path string, data []byte) (*Config, error) {
	nodes, syntax := split(path, data)
	if syntax != nil {
		return nil, Errors{syntax}
	}
	var errs Errors
	c := &Config{Path: path}
	services := map[*StatefulService]*document{}
	for _, n := range nodes {
		d := &document{path: path, node: n, lines: map[string]int{}, errs: &errs}
		var header struct {
			APIVersion string `yaml:"apiVersion"`
			Kind       string `yaml:"kind"`
		}
		// What fails here is reported below.
		_ = n.Decode(&header)
		switch {
		case n.Kind != yaml.MappingNode:
			d.errorf("", "the document is %s; write a mapping that starts with apiVersion: %s", kindName(n), APIVersion)
		case header.APIVersion != "" && header.APIVersion != APIVersion:
			d.lines["apiVersion"] = lineOf(n, "apiVersion")
			d.errorf("apiVersion", "%q is not known; this version reads %s", header.APIVersion, APIVersion)
		case header.Kind == KindLocalMesh:
			mesh := &LocalMesh{}
			if !d.decode(mesh) {
				continue
			}
			d.validateMesh(mesh)
			if c.Mesh != nil {
				d.errorf("kind", "a second LocalMesh; list its workloads in the first, %q", c.Mesh.Metadata.Name)
				continue
			}
			c.Mesh = mesh
		case header.Kind == KindStatefulService:
			s := &StatefulService{}
			if !d.decode(s) {
				continue
			}
			d.validateService(s)
			c.Services = append(c.Services, s)
			services[s] = d
		default:
			d.lines["kind"] = lineOf(n, "kind")
			d.errorf("kind", "%q is not known; write %s or %s", header.Kind, KindStatefulService, KindLocalMesh)
		}
	}
	if len(nodes) == 0 {
		errs = append(errs, &Error{Path: path, Line: 1, Message: "has no document; write a " + KindStatefulService})
	}
	// What the documents say of each other makes sense only where each is right by itself.
	if len(errs) == 0 {
		c.validateTogether(services)
	}
	if len(errs) == 0 {
		return c, nil
	}
	slices.SortStableFunc(errs, func(a, b *Error) int { return cmp.Compare(a.Line, b.Line) })
	return nil, errs[:min(len(errs), maxErrors)]
}
