package main

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	cartv1 "github.com/holdfast-mesh/holdfast/examples/demo/cart/cart/v1"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
)

// server answers from the events that come with each request and keeps nothing itself.
type server struct {
	cartv1.UnimplementedCartsServer
}

func (server) AddItem(_ context.Context, r *cartv1.AddItemRequest) (*cartv1.Cart, error) {
	return command(r.GetState(), func(c *cart) (proto.Message, error) {
		switch {
		case r.GetItem() == "" || len(r.GetItem()) > maxItem:
			return nil, status.Errorf(codes.InvalidArgument, "item must have 1 to %d bytes", maxItem)
		case r.GetQuantity() == 0 || r.GetQuantity() > maxQuantity:
			return nil, status.Errorf(codes.InvalidArgument, "quantity must be from 1 to %d", maxQuantity)
		case c.items[r.GetItem()]+r.GetQuantity() > maxQuantity:
			return nil, status.Errorf(codes.FailedPrecondition, "%d of %q are in the cart, and %d are the most", c.items[r.GetItem()], r.GetItem(), maxQuantity)
		case c.items[r.GetItem()] == 0 && len(c.items) >= maxItems:
			return nil, status.Errorf(codes.FailedPrecondition, "the cart is full: %d different items are the most", maxItems)
		}
		return &cartv1.ItemAdded{Item: r.GetItem(), Quantity: r.GetQuantity()}, nil
	})
}

func (server) RemoveItem(_ context.Context, r *cartv1.RemoveItemRequest) (*cartv1.Cart, error) {
	return command(r.GetState(), func(c *cart) (proto.Message, error) {
		if c.items[r.GetItem()] == 0 {
			return nil, nil // Nothing happens, so there is no event.
		}
		return &cartv1.ItemRemoved{Item: r.GetItem()}, nil
	})
}

func (server) CheckOut(_ context.Context, r *cartv1.CheckOutRequest) (*cartv1.Cart, error) {
	return command(r.GetState(), func(c *cart) (proto.Message, error) {
		if len(c.items) == 0 {
			return nil, status.Error(codes.FailedPrecondition, "the cart is empty")
		}
		return &cartv1.CheckedOut{}, nil
	})
}

func (server) Get(_ context.Context, r *cartv1.GetRequest) (*cartv1.Cart, error) {
	c, err := stateIn(r.GetState())
	if err != nil {
		return nil, err
	}
	return reply(c), nil
}

// command folds the cart and lets decide say what happens to it: one event, none, or a refusal. The reply is the cart after
// the event, with the event to be kept.
func command(state *holdfastv1.StateIn, decide func(*cart) (proto.Message, error)) (*cartv1.Cart, error) {
	c, err := stateIn(state)
	if err != nil {
		return nil, err
	}
	if c.checkedOut {
		return nil, status.Error(codes.FailedPrecondition, "the cart is checked out: it stays as it is")
	}
	happened, err := decide(c)
	if err != nil || happened == nil {
		return reply(c), err
	}
	payload, err := proto.Marshal(happened)
	if err != nil {
		return nil, status.Errorf(codes.Internal, "encode event: %v", err)
	}
	event := &holdfastv1.Event{Type: name(happened), Payload: payload}
	if err := c.apply(event); err != nil {
		return nil, status.Errorf(codes.Internal, "apply event: %v", err)
	}
	changes := []*holdfastv1.Operation{
		{Operation: &holdfastv1.Operation_Append{Append: &holdfastv1.AppendEvents{Events: []*holdfastv1.Event{event}}}},
	}
	if state.GetValue().GetEventSourced().GetSnapshotWanted() {
		snapshot, err := c.snapshot()
		if err != nil {
			return nil, status.Errorf(codes.Internal, "encode snapshot: %v", err)
		}
		changes = append(changes, &holdfastv1.Operation{Operation: &holdfastv1.Operation_Snapshot{
			Snapshot: &holdfastv1.SaveSnapshot{Snapshot: snapshot},
		}})
	}
	out := reply(c)
	out.Changes = &holdfastv1.StateOut{Operations: changes}
	return out, nil
}

// stateIn is the cart that came with the request. A request without any state is refused, because an empty cart would be a
// guess.
func stateIn(state *holdfastv1.StateIn) (*cart, error) {
	if state == nil {
		return nil, status.Error(codes.Internal, "the request came without its state: call this service through Holdfast")
	}
	c, err := fold(state.GetValue().GetEventSourced())
	if err != nil {
		return nil, status.Errorf(codes.Internal, "cart %q: %v", state.GetKey(), err)
	}
	return c, nil
}

func reply(c *cart) *cartv1.Cart { return &cartv1.Cart{Items: c.items, CheckedOut: c.checkedOut} }
