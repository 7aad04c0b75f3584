package v1alpha1

import (
	"fmt"
	"strconv"
	"time"

	"go.yaml.in/yaml/v3"
)

// Duration is written as Go writes it: 10m, 1h30m.
type Duration time.Duration

// UnmarshalYAML implements yaml.Unmarshaler.
func (d *Duration) UnmarshalYAML(n *yaml.Node) error {
	v, err := time.ParseDuration(n.Value)
	if n.Kind != yaml.ScalarNode || err != nil {
		return fmt.Errorf("%q is no duration; write it like 10m or 1h30m", n.Value)
	}
	*d = Duration(v)
	return nil
}

// Replicas is a number, or "all" (0).
type Replicas int

// UnmarshalYAML implements yaml.Unmarshaler.
func (r *Replicas) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.ScalarNode && n.Value == "all" {
		*r = 0
		return nil
	}
	v, err := strconv.Atoi(n.Value)
	if n.Kind != yaml.ScalarNode || err != nil || v < 1 || v > MaxReplicas {
		return fmt.Errorf("%q is not a number of replicas; write all, or 1 to %d", n.Value, MaxReplicas)
	}
	*r = Replicas(v)
	return nil
}

// Unsupported is the place of a field that the design has and this version has not: any content is taken, so that the
// error can say so instead of "unknown field".
type Unsupported struct{}

// UnmarshalYAML implements yaml.Unmarshaler.
func (*Unsupported) UnmarshalYAML(*yaml.Node) error {
	return fmt.Errorf("is not in this version; remove it")
}

// String is the duration as it is written, "none" where there is none.
func (d Duration) String() string {
	if d == 0 {
		return "none"
	}
	return time.Duration(d).String()
}

// String is the number as it is written.
func (r Replicas) String() string {
	if r == 0 {
		return "all"
	}
	return strconv.Itoa(int(r))
}
