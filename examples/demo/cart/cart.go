package main

import (
	"fmt"
	"maps"

	"google.golang.org/protobuf/proto"

	cartv1 "github.com/holdfast-mesh/holdfast/examples/demo/cart/cart/v1"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
)

// The events' names, as the log has them.
var (
	itemAdded   = name(&cartv1.ItemAdded{})
	itemRemoved = name(&cartv1.ItemRemoved{})
	checkedOut  = name(&cartv1.CheckedOut{})
)

func name(event proto.Message) string { return string(event.ProtoReflect().Descriptor().FullName()) }

// cart is a cart as it is after some event.
type cart struct {
	items      map[string]uint32
	checkedOut bool
}

// fold makes the cart of its last snapshot and the events since.
func fold(v *holdfastv1.EventSourcedValue) (*cart, error) {
	var last cartv1.Snapshot
	if err := proto.Unmarshal(v.GetSnapshot(), &last); err != nil {
		return nil, fmt.Errorf("snapshot at %d: %w", v.GetSnapshotSequence(), err)
	}
	c := &cart{items: maps.Clone(last.GetItems()), checkedOut: last.GetCheckedOut()}
	if c.items == nil {
		c.items = map[string]uint32{}
	}
	for _, e := range v.GetEvents() {
		if err := c.apply(e); err != nil {
			return nil, fmt.Errorf("event %d: %w", e.GetSequence(), err)
		}
	}
	return c, nil
}

// apply changes the cart by what has happened. It checks nothing: that was done before the event was kept.
func (c *cart) apply(e *holdfastv1.Event) error {
	switch e.GetType() {
	case itemAdded:
		var added cartv1.ItemAdded
		if err := proto.Unmarshal(e.GetPayload(), &added); err != nil {
			return err
		}
		c.items[added.GetItem()] += added.GetQuantity()
	case itemRemoved:
		var removed cartv1.ItemRemoved
		if err := proto.Unmarshal(e.GetPayload(), &removed); err != nil {
			return err
		}
		delete(c.items, removed.GetItem())
	case checkedOut:
		c.checkedOut = true
	default:
		// An event of a newer version of this service: to guess what it did to the cart would be wrong.
		return fmt.Errorf("type %q is not known", e.GetType())
	}
	return nil
}

// snapshot is all that fold needs of the cart as it is now.
func (c *cart) snapshot() ([]byte, error) {
	return proto.MarshalOptions{Deterministic: true}.Marshal(&cartv1.Snapshot{Items: c.items, CheckedOut: c.checkedOut})
}
