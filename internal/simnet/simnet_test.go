package simnet_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-mesh/holdfast/internal/simnet"
	replicationv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/replication/v1"
)

var quick = simnet.Faults{MinDelay: time.Millisecond, MaxDelay: 2 * time.Millisecond}

// received are the packets that a host got by now.
func received(h *simnet.Host) []string {
	var out []string
	for {
		synctest.Wait()
		select {
		case p := <-h.Packets():
			out = append(out, string(p.Data))
		default:
			return out
		}
	}
}

func TestFrozenHostIsLateAndLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New(1, quick)
		a, b := n.Attach("a", 1), n.Attach("b", 2)
		defer a.Detach()
		defer b.Detach()
		n.Freeze("b", true)
		a.Send([]byte("x"), b.Address().String())
		time.Sleep(time.Hour)
		if got := received(b); len(got) != 0 {
			t.Errorf("a frozen host got %q", got)
		}
		n.Freeze("b", false)
		if got := received(b); len(got) != 1 {
			t.Errorf("got %q after the thaw, want the packet", got)
		}
	})
}

// Who dials across a cut waits, but not longer than its own host is up.
func TestDialEndsWithTheHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New(1, quick)
		a, b := n.Attach("a", 1), n.Attach("b", 2)
		defer b.Detach()
		n.Cut("b", "a")
		ended := make(chan error, 1)
		go func() {
			_, err := a.DialMessages(t.Context(), b.Address().String())
			ended <- err
		}()
		time.Sleep(time.Hour)
		synctest.Wait()
		if len(ended) > 0 {
			t.Errorf("dialed across a cut: %v", <-ended)
		}
		a.Detach()
		synctest.Wait()
		if len(ended) == 0 || <-ended == nil {
			t.Error("dials on though its host is down")
		}
	})
}

func TestCutLosesPacketsAndStallsStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New(1, quick)
		a, b := n.Attach("a", 1), n.Attach("b", 2)
		defer a.Detach()
		defer b.Detach()
		mine, err := a.DialMessages(t.Context(), b.Address().String())
		if err != nil {
			t.Fatal(err)
		}
		defer mine.Close()
		theirs := <-b.Calls()
		n.Cut("a", "b")
		a.Send([]byte("x"), b.Address().String())
		if err := mine.Send(hello()); err != nil {
			t.Fatal(err)
		}
		got := make(chan error, 1)
		go func() {
			_, err := theirs.Recv()
			got <- err
		}()
		time.Sleep(time.Hour)
		synctest.Wait()
		select {
		case <-got:
			t.Error("a message crossed the cut")
		default:
		}
		n.Mend("a", "b")
		if err := <-got; err != nil {
			t.Error(err)
		}
		if got := received(b); len(got) != 0 {
			t.Errorf("%q crossed the cut", got)
		}
	})
}

func TestLatePacketsComeAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := quick
		f.Late = 1
		n := simnet.New(1, f)
		a, b := n.Attach("a", 1), n.Attach("b", 2)
		defer a.Detach()
		defer b.Detach()
		for range 10 {
			a.Send([]byte("x"), b.Address().String())
		}
		time.Sleep(time.Second)
		if got := received(b); len(got) != 19 {
			t.Errorf("got %d packets, want each and an old one after all but the first", len(got))
		}
	})
}

func hello() *replicationv1.Message {
	return &replicationv1.Message{Kind: &replicationv1.Message_Hello{Hello: &replicationv1.Hello{Version: 2, Node: "a"}}}
}
