package strong

import (
	"context"
	"slices"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
	"github.com/holdfast-mesh/holdfast/statestore/refusal"
)

// readSeveral reads several entities as one: as they were at one moment. Two readings, one after the other, that find the
// same revisions are of every moment between; where writers are too busy for that, the turns are taken.
func (c *Commands) readSeveral(ctx context.Context, get *storev1.Get) (*storev1.Response, error) {
	t, err := c.cfg.Type(get.Entity.Type)
	if err != nil {
		return nil, err
	}
	keys := append([]string{get.Entity.Key}, get.Others...)
	if err := checkKeys(t.Name, keys); err != nil {
		return nil, err
	}
	var before []*storev1.State
	for range attempts {
		states, err := c.readEach(ctx, t.Name, keys, get.IfMatch)
		if err != nil {
			return nil, err
		}
		if slices.EqualFunc(before, states, func(a, b *storev1.State) bool { return a.Revision == b.Revision }) {
			r := &storev1.Response{Result: &storev1.Response_State{State: states[0]}, Others: states[1:]}
			return r, tooLarge(t, len(keys), proto.Size(r))
		}
		before = states
	}
	caller := NewCaller()
	defer c.Gone(caller)
	r, err := c.beginSeveral(ctx, caller, &storev1.Begin{Entity: get.Entity, Others: get.Others, IfMatch: get.IfMatch})
	if err != nil {
		return nil, err
	}
	begun := r.GetBegun()
	return &storev1.Response{Result: &storev1.Response_State{State: begun.State}, Others: begun.Others}, nil
}

// readEach reads each entity by itself, all at a time.
func (c *Commands) readEach(ctx context.Context, typ string, keys []string, ifMatch string) ([]*storev1.State, error) {
	states, errs := make([]*storev1.State, len(keys)), make([]error, len(keys))
	var wg sync.WaitGroup
	for i, key := range keys {
		wg.Go(func() {
			get := &storev1.Get{Entity: &storev1.Entity{Type: typ, Key: key}}
			if i == 0 {
				get.IfMatch = ifMatch
			}
			r, err := c.get(ctx, false, &storev1.Request{Id: 1, Call: &storev1.Request_Get{Get: get}}, get)
			if err == nil && r.Error != nil {
				err = refusal.FromProto(r.Error)
			}
			states[i], errs[i] = r.GetState(), err
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return states, nil
}

// tooLarge refuses states that don't fit one answer.
func tooLarge(t Type, entities, bytes int) error {
	if bytes <= maxAnswer {
		return nil
	}
	return refusal.NotApplied(codes.ResourceExhausted,
		"the states of %d entities of %s take %d bytes, at most %d together: name fewer in a command, or lower maxStateBytes of the type",
		entities, t.Name, bytes, maxAnswer)
}
