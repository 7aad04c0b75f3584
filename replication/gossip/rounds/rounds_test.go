package rounds_test

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/holdfast-mesh/holdfast/internal/placement"
	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	replicationv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/replication/v1"
	"github.com/holdfast-mesh/holdfast/replication/gossip/rounds"
	"github.com/holdfast-mesh/holdfast/replication/gossip/sim"
	"github.com/holdfast-mesh/holdfast/statestore/crdt"
)

// end is one end of a stream between two stores. Messages wait in the other end's inbox until they are taken.
type end struct {
	t      fataler
	store  *sim.Store
	peer   *end
	opens  bool
	survey *rounds.Survey
	*rounds.Machine
	inbox  [][]byte
	number uint64
	sent   int
	offers []rounds.Offer
	counts map[rounds.Event]int
	claim  bool
	// forgets says that a store drops slots: what it was seen to have it need not have any more.
	forgets bool
}

type fataler interface{ Fatalf(string, ...any) }

func connect(t fataler, a, b *sim.Store) (opener, answerer *end) {
	x, y := &end{t: t, store: a, opens: true}, &end{t: t, store: b}
	x.peer, y.peer = y, x
	for _, e := range []*end{x, y} {
		e.claim, e.counts = true, map[rounds.Event]int{}
		e.survey = rounds.NewSurvey(e.store, e)
		e.Machine = rounds.New(e.store, e, &rounds.Budget{}, func() uint64 { e.number++; return e.number })
	}
	return x, y
}

func (e *end) Send(m *replicationv1.Message) bool {
	b, err := proto.Marshal(m)
	if err != nil {
		e.t.Fatalf("%v", err)
	}
	e.sent += len(b)
	e.peer.inbox = append(e.peer.inbox, b)
	return true
}

func (e *end) Common(string) func(uint32) bool { return func(slot uint32) bool { return slot < 4096 } }
func (e *end) Epoch() uint64                   { return 1 }

func (e *end) Told(set *crdt.Retired) (uint64, []uint64) { return 0, set.IDs() }

func (e *end) Retired(_ uint64, others []uint64) (*crdt.Retired, error) {
	return crdt.NewRetired(others...), nil
}
func (e *end) Claim(string, uint32, time.Time) bool  { return e.claim }
func (e *end) ClaimAnswer(string, uint32, bool) bool { return e.claim }
func (e *end) Release(string, uint32, bool, bool)    {}
func (e *end) Count(event rounds.Event, n int)       { e.counts[event] += n }
func (e *end) seen(typ string, slot uint32) *crdt.Context {
	c, _ := e.store.SlotSummary(typ, slot)
	return c
}

// Saw is never told more than the peer has seen.
func (e *end) Saw(typ string, slot uint32, seen *crdt.Context) {
	if has := e.peer.seen(typ, slot); !e.forgets && !has.Covers(seen) {
		e.t.Fatalf("the peer was said to have seen %v, and has seen %v", seen, has)
	}
}

func (e *end) Mark(typ string) any {
	mark := map[uint32]*crdt.Context{}
	for _, h := range e.store.SlotHashes(typ) {
		mark[h.GetSlot()] = e.seen(typ, h.GetSlot())
	}
	return mark
}

// Same is told of slots of which the peer has all that this store had.
func (e *end) Same(typ string, slots []uint32, mark any) {
	for _, slot := range slots {
		had := mark.(map[uint32]*crdt.Context)[slot]
		if had == nil || e.forgets {
			continue
		}
		if has := e.peer.seen(typ, slot); !has.Covers(had) {
			e.t.Fatalf("the peer was said to have %v, and has %v", had, has)
		}
	}
}

// step takes one message, or offers one slot; false where there is nothing to do.
func (e *end) step() bool {
	if len(e.offers) > 0 && e.Free() {
		o := e.offers[0]
		e.offers = e.offers[1:]
		e.Ask(o, time.Time{})
		return true
	}
	if len(e.inbox) == 0 {
		return false
	}
	m := &replicationv1.Message{}
	if err := proto.Unmarshal(e.inbox[0], m); err != nil {
		e.t.Fatalf("%v", err)
	}
	e.inbox = e.inbox[1:]
	switch k := m.GetKind().(type) {
	case *replicationv1.Message_Groups:
		e.survey.Groups(k.Groups)
	case *replicationv1.Message_SlotHashes:
		slots, _ := e.survey.SlotHashes(k.SlotHashes)
		for _, slot := range slots {
			e.offers = append(e.offers, rounds.Offer{Type: k.SlotHashes.GetType(), Slot: slot})
		}
	default:
		e.Take(context.Background(), m, time.Time{})
	}
	return true
}

// run carries a whole round.
func run(opener *end) {
	opener.survey.Open()
	for opener.peer.step() || opener.step() {
	}
}

func newStore(i int) *sim.Store {
	return sim.NewStore(fmt.Sprint("node-", i), uint64(i+1)<<32, sim.Types(configv1.Model_MODEL_GCOUNTER, "t"))
}

// crowd lists keys of one slot.
func crowd(n int) (keys []string) {
	for i := 0; len(keys) < n; i++ {
		if key := fmt.Sprint("k", i); placement.Slot("t", key) == 7 {
			keys = append(keys, key)
		}
	}
	return keys
}

// Whatever is lost, comes late or twice, and however rounds and changes interleave: what all have in the end is what a
// store has that got every delta; nothing comes back that was deleted, and nothing goes that was not.
func TestRoundsMakeEqual(t *testing.T) {
	keys := append(crowd(8), "a", "b")
	rapid.Check(t, func(t *rapid.T) {
		const n = 3
		var stores []*sim.Store
		reference := sim.NewStore("reference", 99, sim.Types(configv1.Model_MODEL_GCOUNTER, "t"))
		for i := range n {
			stores = append(stores, newStore(i))
		}
		type pair struct{ a, b int }
		streams := map[pair]*end{}
		stream := func(p pair) *end {
			if streams[p] == nil {
				streams[p], _ = connect(t, stores[p.a], stores[p.b])
			}
			return streams[p]
		}
		draw := func() pair {
			a := rapid.IntRange(0, n-1).Draw(t, "opener")
			return pair{a, (a + rapid.IntRange(1, n-1).Draw(t, "answerer")) % n}
		}
		var deltas []*replicationv1.Delta
		merge := func(s *sim.Store, d *replicationv1.Delta) {
			if err := s.Merge(context.Background(), []*replicationv1.Delta{d}); err != nil {
				t.Fatalf("merge: %v", err)
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				d := stores[rapid.IntRange(0, n-1).Draw(t, "store")].Add("t", rapid.SampledFrom(keys).Draw(t, "key"), 1)
				deltas = append(deltas, d)
			},
			"delete": func(t *rapid.T) {
				if d := stores[rapid.IntRange(0, n-1).Draw(t, "store")].Delete("t", rapid.SampledFrom(keys).Draw(t, "key")); d != nil {
					deltas = append(deltas, d)
				}
			},
			"deliver": func(t *rapid.T) {
				if len(deltas) > 0 {
					merge(stores[rapid.IntRange(0, n-1).Draw(t, "store")], rapid.SampledFrom(deltas).Draw(t, "delta"))
				}
			},
			"open": func(t *rapid.T) {
				s := stream(draw())
				if len(s.inbox)+len(s.peer.inbox)+len(s.offers) == 0 {
					s.survey.Open()
				}
			},
			"step": func(t *rapid.T) {
				s := stream(draw())
				if rapid.Bool().Draw(t, "at the peer") {
					s = s.peer
				}
				for range rapid.IntRange(1, 6).Draw(t, "steps") {
					s.step()
				}
			},
			"break": func(t *rapid.T) {
				if p := draw(); streams[p] != nil {
					streams[p].Close()
					streams[p].peer.Close()
					delete(streams, p)
				}
			},
		})
		for i := range n * n {
			if s := streams[pair{i / n, i % n}]; s != nil {
				for s.step() || s.peer.step() {
				}
			}
		}
		for range 3 {
			for a := range n {
				for b := range n {
					if a != b {
						run(stream(pair{a, b}))
					}
				}
			}
		}
		for _, d := range deltas {
			merge(reference, d)
		}
		want := reference.Values()
		for i, s := range stores {
			if got := s.Values(); !maps.Equal(got, want) {
				t.Fatalf("store %d has %v, want %v", i, got, want)
			}
			if r := s.Residues(); r != 0 {
				t.Fatalf("store %d holds %d residues", i, r)
			}
		}
	})
}

func TestOneRoundIsEnough(t *testing.T) {
	a, b := newStore(0), newStore(1)
	for i := range 500 {
		a.Add("t", fmt.Sprint("a", i), 1)
		b.Add("t", fmt.Sprint("b", i), 1)
	}
	for _, key := range crowd(300) {
		a.Add("t", key, 1)
		b.Add("t", key, 1)
	}
	x, y := connect(t, a, b)
	run(x)
	if !maps.Equal(a.Values(), b.Values()) || len(a.Values()) != 1300 || a.Residues()+b.Residues() > 0 {
		t.Errorf("%d and %d entities, %d and %d residues", len(a.Values()), len(b.Values()), a.Residues(), b.Residues())
	}
	if x.counts[rounds.Failed]+y.counts[rounds.Failed] > 0 || x.counts[rounds.Completed] != x.counts[rounds.Opened] {
		t.Errorf("opened %v, answered %v", x.counts, y.counts)
	}
}

// What rounds cost is in proportion to what differs.
func TestBytes(t *testing.T) {
	a, b := newStore(0), newStore(1)
	var deltas []*replicationv1.Delta
	for i := range 100_000 {
		deltas = append(deltas, a.Add("t", fmt.Sprint("key-", i), 1))
	}
	if err := b.Merge(t.Context(), deltas); err != nil {
		t.Fatal(err)
	}
	cost := func(what string, limit int) {
		t.Helper()
		x, y := connect(t, a, b)
		run(x)
		if !maps.Equal(a.Values(), b.Values()) {
			t.Fatalf("%s: not equal", what)
		}
		if got := x.sent + y.sent; got > limit {
			t.Errorf("%s: %d bytes, want at most %d", what, got, limit)
		} else {
			t.Logf("%s: %d bytes", what, got)
		}
	}
	cost("no difference", 1000)
	a.Add("t", "key-77", 1)
	cost("one of 100,000 entities differs", 4000)
	b.Delete("t", "key-78")
	cost("one was deleted", 4000)
	for i := range 100 {
		b.Add("t", fmt.Sprint("key-", i*13), 1)
	}
	cost("100 differ", 400_000)
}

// A slot with more keys than a round keeps is compared in several.
func TestLargeSlot(t *testing.T) {
	a, b := newStore(0).InOneSlot(7), newStore(1).InOneSlot(7)
	var keys []string
	long := strings.Repeat("x", 2000)
	for i := range 1200 {
		keys = append(keys, fmt.Sprint(long, i))
	}
	for _, key := range keys {
		b.Add("t", key, 1)
	}
	a.Add("t", keys[0], 1)
	took := 0
	for ; !maps.Equal(a.Values(), b.Values()) || a.Residues()+b.Residues() > 0; took++ {
		if took > 10 {
			t.Fatalf("%d and %d entities after %d rounds", len(a.Values()), len(b.Values()), took)
		}
		x, _ := connect(t, a, b)
		run(x)
	}
	if took < 2 {
		t.Errorf("equal after %d rounds: the slot is too small for this test", took)
	}
	// And so it is where the opener has nothing.
	c := newStore(2).InOneSlot(7)
	for took = 0; !maps.Equal(b.Values(), c.Values()) || c.Residues() > 0; took++ {
		if took > 10 {
			t.Fatalf("%d entities after %d rounds", len(c.Values()), took)
		}
		x, _ := connect(t, c, b)
		run(x)
	}
}

// What the engine refuses is left out, and completes nothing.
func TestRefusedStates(t *testing.T) {
	for _, opener := range []bool{true, false} {
		a, b := newStore(0), newStore(1)
		for _, key := range []string{"good", "bad"} {
			b.Add("t", key, 1)
		}
		a.Refuse(func(key string) bool { return key == "bad" })
		x, _ := connect(t, a, b)
		if !opener {
			x, _ = connect(t, b, a)
		}
		run(x)
		if got := a.Values(); got["t/good"] != 1 || len(got) != 1 {
			t.Errorf("merged %v", got)
		}
		a.Refuse(nil)
		run(x)
		if !maps.Equal(a.Values(), b.Values()) {
			t.Errorf("%v and %v", a.Values(), b.Values())
		}
	}
}

func TestGiveOnly(t *testing.T) {
	a, b := newStore(0), newStore(1)
	for _, key := range crowd(200) {
		a.Add("t", key, 1)
	}
	b.Add("t", crowd(1)[0], 5)
	b.Add("t", "other", 5)
	before := maps.Clone(a.Values())
	x, _ := connect(t, a, b)
	done := map[uint32]bool{}
	for _, slot := range []uint32{7, placement.Slot("t", "other")} {
		x.offers = append(x.offers, rounds.Offer{Type: "t", Slot: slot, GiveOnly: true, Done: func(ok bool) { done[slot] = ok }})
	}
	for x.peer.step() || x.step() {
	}
	if !done[7] || len(done) != 2 || !done[placement.Slot("t", "other")] {
		t.Errorf("done %v", done)
	}
	if !maps.Equal(a.Values(), before) {
		t.Error("it took something")
	}
	if got := b.Values(); got["t/"+crowd(1)[0]] != 6 || len(got) != 201 {
		t.Errorf("%d entities, %v", len(got), got["t/"+crowd(1)[0]])
	}
}

func TestDeclined(t *testing.T) {
	a, b := newStore(0), newStore(1)
	b.Add("t", "k", 1)
	x, y := connect(t, a, b)
	y.claim = false
	run(x)
	if len(a.Values()) != 0 || !x.Idle() || !y.Idle() || y.counts[rounds.Declined] != 1 {
		t.Errorf("%v, %v, %v", a.Values(), x.counts, y.counts)
	}
	x.claim, y.claim = false, true
	run(x)
	if x.counts[rounds.Opened] != 1 {
		t.Errorf("opened what was not to be opened: %v", x.counts)
	}
}

func TestExpire(t *testing.T) {
	a, b := newStore(0), newStore(1)
	b.Add("t", "k", 1)
	a.Add("t", "k", 1)
	x, y := connect(t, a, b)
	ended := false
	x.Ask(rounds.Offer{Type: "t", Slot: placement.Slot("t", "k"), Done: func(ok bool) { ended = !ok }}, time.Time{})
	y.step()
	x.inbox = nil // Lost.
	x.Expire(time.Time{}.Add(time.Minute))
	y.Expire(time.Time{}.Add(time.Minute))
	if !ended || !x.Idle() || !y.Idle() {
		t.Error("a round without messages goes on")
	}
}

// A store that drops a slot while it is compared does not tell that its entities were removed.
func TestDropDuringARound(t *testing.T) {
	keys := crowd(100)
	for _, opener := range []bool{true, false} {
		for after := range 8 {
			a, b := newStore(0), newStore(1)
			for i, key := range keys {
				if err := b.Merge(t.Context(), []*replicationv1.Delta{a.Add("t", key, 1)}); err != nil {
					t.Fatal(err)
				}
				if i%2 == 0 {
					b.Add("t", key, 1)
				}
			}
			want := b.Values()
			x, _ := connect(t, a, b)
			if !opener {
				x, _ = connect(t, b, a)
			}
			x.forgets, x.peer.forgets = true, true
			x.survey.Open()
			for i := 0; x.peer.step() || x.step(); i++ {
				if i == after {
					a.Drop("t", 7)
				}
			}
			if got := b.Values(); !maps.Equal(got, want) {
				t.Errorf("dropped after %d steps (opener %t): %d entities are left of %d", after, opener, len(got), len(want))
			}
			run(x)
			run(x)
			if got := a.Values(); !maps.Equal(got, want) {
				t.Errorf("dropped after %d steps (opener %t): it has %d entities again, want %d", after, opener, len(got), len(want))
			}
		}
	}
}

// FuzzMachine puts a message from outside in at any moment of a round, as opener and as answerer: no panic, what a round
// keeps is bounded, and the two stores are equal after the next round.
func FuzzMachine(f *testing.F) {
	setup := func(t fataler) (*end, *end) {
		a, b := newStore(0).InOneSlot(7), newStore(1).InOneSlot(7)
		for i := range 20 {
			a.Add("t", fmt.Sprint("a", i), 1)
			b.Add("t", fmt.Sprint("b", i), 1)
			a.Add("t", fmt.Sprint("both", i), 1)
			b.Add("t", fmt.Sprint("both", i), 1)
		}
		return connect(t, a, b)
	}
	x, y := setup(f)
	x.survey.Open()
	for i := 0; x.step() || y.step(); i++ {
		for _, b := range append(x.inbox, y.inbox...) {
			f.Add(b, uint8(i), i%2 == 0)
		}
	}
	f.Fuzz(func(t *testing.T, in []byte, moment uint8, opener bool) {
		if proto.Unmarshal(in, &replicationv1.Message{}) != nil {
			return
		}
		x, y := setup(t)
		x.forgets, y.forgets = true, true // What a forged message says has been seen need not be true.
		x.survey.Open()
		for range moment % 32 {
			if !y.step() {
				x.step()
			}
		}
		to := y
		if opener {
			to = x
		}
		to.inbox = append([][]byte{in}, to.inbox...)
		for i := 0; x.step() || y.step(); i++ {
			if i > 5_000 {
				t.Fatal("the round does not end")
			}
		}
	})
}

// BenchmarkFill fills an empty store; the figure is entities a second, both ends on one core and no disk.
func BenchmarkFill(b *testing.B) {
	const n = 200_000
	full := newStore(0)
	for i := range n {
		full.Add("t", fmt.Sprintf("entity-%09d", i), 1)
	}
	for b.Loop() {
		x, _ := connect(b, newStore(1), full)
		run(x)
		if got := len(x.store.Values()); got != n {
			b.Fatalf("%d entities, want %d", got, n)
		}
	}
	b.ReportMetric(n*float64(b.N)/b.Elapsed().Seconds(), "entities/s")
}
