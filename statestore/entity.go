package statestore

import (
	"fmt"

	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
)

// entityID names an entity.
type entityID struct {
	typ string
	key string
}

func idOf(e *storev1.Entity) entityID { return entityID{typ: e.GetType(), key: e.GetKey()} }

func (id entityID) String() string { return fmt.Sprintf("%s %q", id.typ, id.key) }

// absent is the state of an entity that does not exist.
func absent(id entityID) *storev1.State {
	return &storev1.State{Entity: &storev1.Entity{Type: id.typ, Key: id.key}}
}
