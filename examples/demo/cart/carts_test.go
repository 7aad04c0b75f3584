package main

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	cartv1 "github.com/holdfast-mesh/holdfast/examples/demo/cart/cart/v1"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
)

// log is a cart's events and last snapshot as a store keeps them.
type log struct {
	t     *testing.T
	value holdfastv1.EventSourcedValue
}

// state is what comes with the next request.
func (l *log) state() *holdfastv1.StateIn {
	in := &holdfastv1.StateIn{Type: "cart.Cart", Key: "ada", Exists: l.value.GetSequence() > 0}
	if in.Exists || l.value.GetSnapshotWanted() {
		value := proto.Clone(&l.value).(*holdfastv1.EventSourcedValue)
		in.Value = &holdfastv1.Value{Kind: &holdfastv1.Value_EventSourced{EventSourced: value}}
	}
	return in
}

// keep does what a store does with a reply's changes, and names them.
func (l *log) keep(out *holdfastv1.StateOut) []string {
	l.t.Helper()
	var kept []string
	for _, o := range out.GetOperations() {
		switch o := o.GetOperation().(type) {
		case *holdfastv1.Operation_Append:
			for _, e := range o.Append.GetEvents() {
				l.value.Sequence++
				e.Sequence = l.value.Sequence
				l.value.Events = append(l.value.Events, e)
				kept = append(kept, e.GetType())
			}
		case *holdfastv1.Operation_Snapshot:
			l.value.Snapshot, l.value.SnapshotSequence, l.value.Events = o.Snapshot.GetSnapshot(), l.value.Sequence, nil
			l.value.SnapshotWanted = false
			kept = append(kept, "snapshot")
		default:
			l.t.Fatalf("operation %v", o)
		}
	}
	return kept
}

type call func(*holdfastv1.StateIn) (*cartv1.Cart, error)

func add(item string, quantity uint32) call {
	return func(in *holdfastv1.StateIn) (*cartv1.Cart, error) {
		return server{}.AddItem(context.Background(), &cartv1.AddItemRequest{Cart: "ada", Item: item, Quantity: quantity, State: in})
	}
}

func remove(item string) call {
	return func(in *holdfastv1.StateIn) (*cartv1.Cart, error) {
		return server{}.RemoveItem(context.Background(), &cartv1.RemoveItemRequest{Cart: "ada", Item: item, State: in})
	}
}

func checkOut(in *holdfastv1.StateIn) (*cartv1.Cart, error) {
	return server{}.CheckOut(context.Background(), &cartv1.CheckOutRequest{Cart: "ada", State: in})
}

func get(in *holdfastv1.StateIn) (*cartv1.Cart, error) {
	return server{}.Get(context.Background(), &cartv1.GetRequest{Cart: "ada", State: in})
}

// logOf is a log after these calls, which must succeed.
func logOf(t *testing.T, calls ...call) *log {
	t.Helper()
	l := &log{t: t}
	for i, c := range calls {
		reply, err := c(l.state())
		if err != nil {
			t.Fatalf("call %d: %v", i, err)
		}
		l.keep(reply.GetChanges())
	}
	return l
}

func full() []call {
	var calls []call
	for i := range maxItems {
		calls = append(calls, add(fmt.Sprint(i), 1))
	}
	return calls
}

func TestCommands(t *testing.T) {
	for name, c := range map[string]struct {
		before []call
		call   call
		want   map[string]uint32
		// kept are the events by their short names.
		kept string
		code codes.Code
	}{
		"first item":           {nil, add("tea", 2), map[string]uint32{"tea": 2}, "ItemAdded", codes.OK},
		"more of it":           {[]call{add("tea", 2)}, add("tea", 3), map[string]uint32{"tea": 5}, "ItemAdded", codes.OK},
		"another":              {[]call{add("tea", 2)}, add("pot", 1), map[string]uint32{"tea": 2, "pot": 1}, "ItemAdded", codes.OK},
		"the most":             {[]call{add("tea", 1)}, add("tea", maxQuantity-1), map[string]uint32{"tea": maxQuantity}, "ItemAdded", codes.OK},
		"more than the most":   {[]call{add("tea", 1)}, add("tea", maxQuantity), nil, "", codes.FailedPrecondition},
		"none":                 {nil, add("tea", 0), nil, "", codes.InvalidArgument},
		"far too many":         {nil, add("tea", maxQuantity+1), nil, "", codes.InvalidArgument},
		"no name":              {nil, add("", 1), nil, "", codes.InvalidArgument},
		"long name":            {nil, add(strings.Repeat("x", maxItem+1), 1), nil, "", codes.InvalidArgument},
		"one item too many":    {full(), add("tea", 1), nil, "", codes.FailedPrecondition},
		"remove":               {[]call{add("tea", 2), add("pot", 1)}, remove("tea"), map[string]uint32{"pot": 1}, "ItemRemoved", codes.OK},
		"remove what isn't in": {[]call{add("tea", 2)}, remove("pot"), map[string]uint32{"tea": 2}, "", codes.OK},
		"add it again":         {[]call{add("tea", 2), remove("tea")}, add("tea", 1), map[string]uint32{"tea": 1}, "ItemAdded", codes.OK},
		"check out":            {[]call{add("tea", 2)}, checkOut, map[string]uint32{"tea": 2}, "CheckedOut", codes.OK},
		"check out nothing":    {nil, checkOut, nil, "", codes.FailedPrecondition},
		"add after check-out":  {[]call{add("tea", 2), checkOut}, add("tea", 1), nil, "", codes.FailedPrecondition},
		"remove after it":      {[]call{add("tea", 2), checkOut}, remove("tea"), nil, "", codes.FailedPrecondition},
		"check out twice":      {[]call{add("tea", 2), checkOut}, checkOut, nil, "", codes.FailedPrecondition},
		"get":                  {[]call{add("tea", 2)}, get, map[string]uint32{"tea": 2}, "", codes.OK},
		"get a new one":        {nil, get, nil, "", codes.OK},
	} {
		t.Run(name, func(t *testing.T) {
			l := logOf(t, c.before...)
			reply, err := c.call(l.state())
			if status.Code(err) != c.code {
				t.Fatalf("got %v, want %v", err, c.code)
			}
			if c.code == codes.OK && !maps.Equal(reply.GetItems(), c.want) {
				t.Errorf("got %v, want %v", reply.GetItems(), c.want)
			}
			kept := l.keep(reply.GetChanges())
			if got := strings.TrimPrefix(strings.Join(kept, " "), "cart.v1."); err == nil && got != c.kept {
				t.Errorf("kept %q, want %q", got, c.kept)
			}
			after, err := get(l.state())
			if err != nil {
				t.Fatal(err)
			}
			if c.code == codes.OK && !proto.Equal(after, &cartv1.Cart{Items: reply.GetItems(), CheckedOut: reply.GetCheckedOut()}) {
				t.Errorf("read afterwards: %v, replied: %v", after, reply)
			}
		})
	}
}

// TestSnapshots: whenever the store asks for a snapshot, the cart stays the same.
func TestSnapshots(t *testing.T) {
	calls := []call{add("tea", 2), add("pot", 1), remove("tea"), add("cup", 4), add("tea", 1), add("cup", 2), checkOut}
	want, err := get(logOf(t, calls...).state())
	if err != nil {
		t.Fatal(err)
	}
	for every := 1; every <= len(calls); every++ {
		l := &log{t: t}
		snapshots := 0
		for i, c := range calls {
			l.value.SnapshotWanted = len(l.value.Events)+1 >= every
			reply, err := c(l.state())
			if err != nil {
				t.Fatal(err)
			}
			kept := l.keep(reply.GetChanges())
			if asked := kept[len(kept)-1] == "snapshot"; asked != ((i+1)%every == 0) {
				t.Errorf("every %d: after call %d a snapshot was kept: %v", every, i, asked)
			} else if asked {
				snapshots++
			}
		}
		got, err := get(l.state())
		if err != nil {
			t.Fatal(err)
		}
		if !proto.Equal(got, want) || snapshots != len(calls)/every {
			t.Errorf("every %d: %v with %d snapshots, want %v with %d", every, got, snapshots, want, len(calls)/every)
		}
	}
}

func TestWhatCantBeReadIsNoEmptyCart(t *testing.T) {
	sourced := func(v *holdfastv1.EventSourcedValue) *holdfastv1.StateIn {
		return &holdfastv1.StateIn{Exists: true, Value: &holdfastv1.Value{Kind: &holdfastv1.Value_EventSourced{EventSourced: v}}}
	}
	for name, in := range map[string]*holdfastv1.StateIn{
		"no state":         nil,
		"a newer event":    sourced(&holdfastv1.EventSourcedValue{Events: []*holdfastv1.Event{{Sequence: 1, Type: "cart.v1.CouponUsed"}}, Sequence: 1}),
		"a broken event":   sourced(&holdfastv1.EventSourcedValue{Events: []*holdfastv1.Event{{Sequence: 1, Type: itemAdded, Payload: []byte{0xff}}}, Sequence: 1}),
		"a broken removal": sourced(&holdfastv1.EventSourcedValue{Events: []*holdfastv1.Event{{Sequence: 1, Type: itemRemoved, Payload: []byte{0xff}}}, Sequence: 1}),
		"broken snapshot":  sourced(&holdfastv1.EventSourcedValue{Snapshot: []byte{0xff}, SnapshotSequence: 3, Sequence: 3}),
	} {
		for call, c := range map[string]call{"get": get, "add": add("tea", 1), "remove": remove("tea"), "check out": checkOut} {
			if _, err := c(in); status.Code(err) != codes.Internal {
				t.Errorf("%s, %s: got %v, want INTERNAL", name, call, err)
			}
		}
	}
}
