package gossip

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast-mesh/holdfast/replication/gossip/settle"
	"github.com/holdfast-mesh/holdfast/statestore/crdt"
)

// A replica that a slot was taken from and given to again may have dropped what it acknowledged.
func TestAcknowledgementsOfAnotherLayoutDoNotCount(t *testing.T) {
	var l atomic.Pointer[layout]
	l.Store(&layout{members: []string{"a", "b"}, types: map[string]*typeLayout{"t": {acked: true}}})
	a := &acks{self: "a", layout: &l, waiting: map[settle.Slot][]*waiter{}, acked: map[string]map[settle.Slot]*crdt.Context{}}
	at, dot := settle.Slot{Type: "t", Slot: 1}, crdt.Dot{Replica: 1, Seq: 1}
	seen := &crdt.Context{}
	seen.Add(dot)
	reached := 0
	wait := func() {
		a.wait(&waiter{
			slot: at, seen: func(c *crdt.Context) bool { return c.Has(dot) },
			need: func(*layout) (int, bool) { return 1, true },
			done: func(ok bool) {
				if ok {
					reached++
				}
			},
		}, time.Now().Add(time.Hour))
	}
	a.saw("b", at, seen, true)
	wait()
	if reached != 1 {
		t.Error("an acknowledgement that came before the wait does not count")
	}
	a.changed()
	wait()
	if reached != 1 {
		t.Error("one of the layout before counts")
	}
	a.saw("b", at, seen, true)
	if reached != 2 {
		t.Error("a new one does not count")
	}
}
