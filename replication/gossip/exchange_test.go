package gossip_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	replicationv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/replication/v1"
	"github.com/holdfast-mesh/holdfast/replication/gossip"
	"github.com/holdfast-mesh/holdfast/replication/gossip/sim"
)

// filled is an engine with some of everything.
func filled() *sim.Counters {
	e := sim.NewCounters("t", "u")
	for i := range 100 {
		e.Add("t", fmt.Sprint("k", i), 1, 1)
	}
	e.Add("u", strings.Repeat("long", 1000), 1, 1)
	return e
}

// round carries the messages of a round between two stores until none is left, losing and repeating some.
func round(opener, answerer gossip.Exchange, fate func() int) {
	type letter struct {
		m    *replicationv1.Message
		back bool
	}
	var post []letter
	send := func(ms []*replicationv1.Message, back bool) {
		for _, m := range ms {
			for range fate() {
				post = append(post, letter{m, back})
			}
		}
	}
	send(opener.Open(), false)
	for len(post) > 0 {
		l := post[0]
		post = post[1:]
		to := answerer
		if l.back {
			to = opener
		}
		answers, _ := to.Take(l.m)
		send(answers, !l.back)
	}
}

func TestOneRoundMakesEqual(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := sim.NewCounters("t", "u"), sim.NewCounters("u", "t")
		add := rapid.Custom(func(t *rapid.T) struct{} {
			e := a
			if rapid.Bool().Draw(t, "at b") {
				e = b
			}
			typ := rapid.SampledFrom([]string{"t", "u"}).Draw(t, "type")
			e.Add(typ, fmt.Sprint("k", rapid.IntRange(0, 30).Draw(t, "key")), rapid.Uint64Range(1, 4).Draw(t, "replica"), 1)
			return struct{}{}
		})
		rapid.SliceOfN(add, 0, 60).Draw(t, "writes")
		xa, xb := gossip.NewExchange(a), gossip.NewExchange(b)
		// A lossy round may leave differences, but never makes something up.
		round(xa, xb, func() int { return rapid.IntRange(0, 2).Draw(t, "copies") })
		round(xb, xa, func() int { return 1 })
		if !maps.Equal(a.Values(), b.Values()) {
			t.Fatalf("%v\n%v", a.Values(), b.Values())
		}
	})
}

func TestLargeAnswersComeInParts(t *testing.T) {
	a, b := sim.NewCounters("t"), sim.NewCounters("t")
	long := strings.Repeat("x", 10<<10)
	for i := range 200 {
		a.Add("t", fmt.Sprint(long, i), 1, 1)
	}
	answers, err := gossip.NewExchange(b).Take(gossip.NewExchange(a).Open()[0])
	if err != nil {
		t.Fatal(err)
	}
	var states int
	for _, m := range answers {
		back, _ := gossip.NewExchange(a).Take(m)
		for _, m := range back {
			states += len(m.GetDeltas().GetDeltas())
			if proto.Size(m) > gossip.MaxMessageBytes {
				t.Errorf("message of %d bytes", proto.Size(m))
			}
		}
	}
	if states != 200 {
		t.Errorf("%d states, want 200", states)
	}
}

// FuzzExchange hands whatever comes from outside to the state machine: it never panics, and what it answers is bounded by
// what it has and was asked.
func FuzzExchange(f *testing.F) {
	x := gossip.NewExchange(filled())
	for _, m := range append(x.Open(),
		&replicationv1.Message{},
		&replicationv1.Message{Kind: &replicationv1.Message_Hello{Hello: &replicationv1.Hello{Version: 1, Node: "n"}}},
		&replicationv1.Message{Kind: &replicationv1.Message_Digest{}},
		&replicationv1.Message{Kind: &replicationv1.Message_Digest{Digest: &replicationv1.Digest{Type: "t", Slots: []*replicationv1.SlotHash{{Slot: 1 << 31}, {Slot: 1}, {Slot: 1}}}}},
		&replicationv1.Message{Kind: &replicationv1.Message_SlotKeys{SlotKeys: &replicationv1.SlotKeys{Type: "t", Slot: 5, Keys: []*replicationv1.KeyHash{{Key: "k1"}}}}},
		&replicationv1.Message{Kind: &replicationv1.Message_Want{Want: &replicationv1.Want{Type: "t", Keys: []string{"k1", "k1", "none", ""}}}},
		&replicationv1.Message{Kind: &replicationv1.Message_Deltas{Deltas: &replicationv1.Deltas{Deltas: []*replicationv1.Delta{
			{}, {Type: "t", Key: "k", State: make([]byte, 16)}, {Type: "t", State: []byte{1}}, {Type: "none"},
		}}}},
	) {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m := &replicationv1.Message{}
		if proto.Unmarshal(b, m) != nil {
			return
		}
		engine := filled()
		x := gossip.NewExchange(engine)
		answers, _ := x.Take(m)
		states, size := 0, 0
		for _, a := range answers {
			n := proto.Size(a)
			size += n
			states += len(a.GetDeltas().GetDeltas())
			if n > max(gossip.MaxMessageBytes, gossip.MaxSlotKeysBytes)+len(b)+1024 {
				t.Errorf("an answer of %d bytes", n)
			}
		}
		// 101 entities, and at worst one list of keys for each slot that was named.
		if states > 101 || size > 100_000+64*len(b) {
			t.Errorf("%d bytes were answered with %d bytes and %d states", len(b), size, states)
		}
		// What was merged can be told on.
		for _, d := range x.Open() {
			if _, err := proto.Marshal(d); err != nil && m.GetDeltas() == nil {
				t.Error(err)
			}
		}
	})
}

// tape is a stream on which the peer says what is on the tape.
type tape struct{ in [][]byte }

func (c *tape) Send(*replicationv1.Message) error { return nil }
func (c *tape) Close() error                      { return nil }
func (c *tape) Recv() (*replicationv1.Message, error) {
	if len(c.in) == 0 {
		return nil, io.EOF
	}
	m := &replicationv1.Message{}
	err := proto.Unmarshal(c.in[0], m)
	c.in = c.in[1:]
	return m, err
}

func TestGreetRefuses(t *testing.T) {
	self := &replicationv1.Hello{Version: 1, Node: "me", Replica: 7}
	hello := func(h *replicationv1.Hello) *replicationv1.Message {
		return &replicationv1.Message{Kind: &replicationv1.Message_Hello{Hello: h}}
	}
	for name, c := range map[string]struct {
		first *replicationv1.Message
		ok    bool
	}{
		"a peer":          {hello(&replicationv1.Hello{Version: 1, Node: "you", Replica: 8}), true},
		"a later version": {hello(&replicationv1.Hello{Version: 9, Node: "you", Replica: 8}), true},
		"no version":      {hello(&replicationv1.Hello{Node: "you", Replica: 8}), false},
		"no name":         {hello(&replicationv1.Hello{Version: 1, Replica: 8}), false},
		"own name":        {hello(&replicationv1.Hello{Version: 1, Node: "me", Replica: 8}), false},
		"own replica":     {hello(&replicationv1.Hello{Version: 1, Node: "you", Replica: 7}), false},
		"no hello":        {&replicationv1.Message{Kind: &replicationv1.Message_Deltas{}}, false},
		"nothing":         {&replicationv1.Message{}, false},
	} {
		b, err := proto.Marshal(c.first)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := gossip.Greet(context.Background(), &tape{[][]byte{b}}, self); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := gossip.Greet(context.Background(), &tape{}, self); !errors.Is(err, io.EOF) {
		t.Errorf("a stream that ends: %v", err)
	}
}

func TestParseKeys(t *testing.T) {
	if k, err := gossip.ParseKeys(gossip.NewKeyFile()); err != nil || len(k) != 1 || len(k[0]) != 32 {
		t.Errorf("new key file: %d keys, %v", len(k), err)
	}
	two := string(gossip.NewKeyFile()) + "\n" + string(gossip.NewKeyFile())
	if k, err := gossip.ParseKeys([]byte(two)); err != nil || len(k) != 2 {
		t.Errorf("two keys: %d, %v", len(k), err)
	}
	for _, bad := range []string{"", "\n", "short", "!!!", "c2hvcnQ="} {
		if _, err := gossip.ParseKeys([]byte(bad)); err == nil || bad == "!!!" && strings.Contains(err.Error(), bad) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
