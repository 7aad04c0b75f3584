package controlplane

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/holdfast-mesh/holdfast/controlplane/resolve"
	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
)

// saved is what a control plane that starts again needs to serve at once, even where the services are down and the file
// is broken: the last good text, the descriptors that belong to it, and the placement.
type saved struct {
	Path      string                      `json:"path"`
	Source    []byte                      `json:"source"`
	Services  map[string]savedDescriptors `json:"services"`
	Placement json.RawMessage             `json:"placement"`
}

type savedDescriptors struct {
	Set    []byte   `json:"set"`
	Listed []string `json:"listed"`
	// Digest of the two, which pins them.
	Digest string `json:"digest"`
}

func savedPath(dir string) string     { return filepath.Join(dir, "last-good.json") }
func placementPath(dir string) string { return filepath.Join(dir, "placement.json") }

// loadSaved returns what was saved last, an empty one where there is none.
func loadSaved(dir string) (*saved, error) {
	out := &saved{}
	info, err := os.Stat(savedPath(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return out, nil
	}
	if err != nil {
		return out, fmt.Errorf("load the last good configuration: %w", err)
	}
	if info.Size() > maxSaved {
		return out, fmt.Errorf("load the last good configuration: %s has %d bytes, at most %d are read", savedPath(dir), info.Size(), maxSaved)
	}
	raw, err := os.ReadFile(savedPath(dir))
	if err == nil {
		err = json.Unmarshal(raw, out)
	}
	if err != nil {
		return &saved{}, fmt.Errorf("load the last good configuration: %w", err)
	}
	return out, nil
}

func (s *saved) descriptors() map[string]*resolve.Descriptors {
	out := map[string]*resolve.Descriptors{}
	for name, v := range s.Services {
		set := &descriptorpb.FileDescriptorSet{}
		if proto.Unmarshal(v.Set, set) != nil {
			continue
		}
		if d := (&resolve.Descriptors{Set: set, Listed: v.Listed}); d.Digest() == v.Digest {
			out[name] = d
		}
	}
	return out
}

func (s *saved) placement() *configv1.Placement {
	p := &configv1.Placement{}
	if len(s.Placement) == 0 || protojson.Unmarshal(s.Placement, p) != nil || len(p.GetMembers()) == 0 {
		return nil
	}
	return p
}

func (s *saved) write(dir string) error {
	raw, err := json.Marshal(s)
	if err == nil {
		err = replaceFile(savedPath(dir), raw)
	}
	if err != nil {
		return fmt.Errorf("save the last good configuration: %w", err)
	}
	return nil
}

func newSaved(path string, source []byte, members []member, p *configv1.Placement) (*saved, error) {
	out := &saved{Path: path, Source: source, Services: map[string]savedDescriptors{}}
	var err error
	if out.Placement, err = protojson.Marshal(p); err != nil {
		return nil, fmt.Errorf("save the last good configuration: %w", err)
	}
	for _, m := range members {
		d := m.service.Descriptors
		raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(d.Set)
		if err != nil {
			return nil, fmt.Errorf("save the last good configuration: %w", err)
		}
		out.Services[m.name] = savedDescriptors{Set: raw, Listed: d.Listed, Digest: d.Digest()}
	}
	return out, nil
}
