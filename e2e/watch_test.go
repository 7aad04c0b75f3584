package e2e

import (
	"fmt"
	"io"
	"testing"
	"time"

	qav1 "github.com/holdfast-mesh/holdfast/examples/demo/questions/qa/v1"

	"github.com/holdfast-mesh/holdfast/e2e/rig"
)

// A vote cast at one node arrives as a server-sent event at another: first everything, then only what changed.
func TestWatchOverREST(t *testing.T) {
	m := mesh(t)
	key := newKey(t)
	for _, q := range []string{"one", "two"} {
		must(t)(ask(m, m.Ingress(2), key, q))
	}
	within(t, 10*time.Second, agree(m.Ingresses(), func(a string) (int, error) {
		all, err := votes(m, a, key)
		return len(all), err
	}, exactly(2)))

	for name, address := range map[string]string{"node": m.Ingress(2), "gateway": m.Gateway()} {
		t.Run(name, func(t *testing.T) {
			watch, err := m.Events(t.Context(), address, "/v1/presentations/"+key+"/watch")
			if err != nil {
				t.Fatal(err)
			}
			defer watch.Close()
			within(t, 10*time.Second, events(watch, 1))
			first := seen(t, watch, 0)
			if len(first) != 2 {
				t.Errorf("the first event has %v, want both questions", first)
			}
			before := first["two"]
			must(t)(vote(m, m.Ingress(5), key, "two"))
			within(t, 10*time.Second, events(watch, 2))
			second := seen(t, watch, 1)
			if len(second) != 1 || second["two"] != before+1 {
				t.Errorf("the second event has %v, want only two: %v", second, before+1)
			}
		})
	}
}

// The same over gRPC, with a caller that sees the end it asks for and nothing of ours in the headers.
func TestWatchOverGRPC(t *testing.T) {
	m := mesh(t)
	key := newKey(t)
	stream, err := qav1.NewQuestionsClient(dial(t, m.Ingress(4))).Watch(t.Context(), &qav1.WatchRequest{Presentation: key})
	if err != nil {
		t.Fatal(err)
	}
	if p, err := stream.Recv(); err != nil || len(p.GetQuestions()) != 0 {
		t.Fatalf("first message is %v, %v; want an empty presentation", p, err)
	}
	for i := range 3 {
		must(t)(vote(m, m.Ingress(1+i), key, question))
	}
	got := uint32(0)
	for got < 3 {
		p, err := stream.Recv()
		if err != nil {
			t.Fatalf("after %d of 3 votes: %v", got, err)
		}
		now := p.GetQuestions()[question]
		if now < got {
			t.Errorf("votes went from %d back to %d", got, now)
		}
		got = now
	}
	head, err := stream.Header()
	if err != nil {
		t.Fatal(err)
	}
	for name := range head {
		if ours(name) {
			t.Errorf("the caller got our header %s", name)
		}
	}
}

// A watch ends with an error when the store it hangs on dies: the caller can tell, and ask again.
func TestWatchEndsWithItsStore(t *testing.T) {
	m := mesh(t)
	key := newKey(t)
	watch, err := m.Events(t.Context(), m.Ingress(6), "/v1/presentations/"+key+"/watch")
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Close()
	within(t, 10*time.Second, events(watch, 1))
	n, err := m.Node("node-6")
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Kill(n.StorePID); err != nil {
		t.Fatal(err)
	}
	within(t, 15*time.Second, func() error {
		if _, err := watch.Seen(); err == nil {
			return fmt.Errorf("the watch is still open")
		}
		return nil
	})
	restarted(t, m, "node-6", func(n rig.NodeStatus) int { return n.StorePID }, n.StorePID)
}

// events waits for n events.
func events(watch *rig.Events, n int) func() error {
	return func() error {
		all, err := watch.Seen()
		if len(all) >= n {
			return nil
		}
		if err != nil && err != io.EOF {
			return err
		}
		return fmt.Errorf("%d events, want %d (%v)", len(all), n, err)
	}
}

// seen is the questions in one event.
func seen(t *testing.T, watch *rig.Events, i int) map[string]float64 {
	t.Helper()
	all, _ := watch.Seen()
	got := map[string]float64{}
	questions, _ := all[i]["questions"].(map[string]any)
	for q, n := range questions {
		count, isNumber := n.(float64)
		if !isNumber {
			t.Errorf("event %v: votes of %q are no number", all[i], q)
		}
		got[q] = count
	}
	return got
}
