package crdt

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/cespare/xxhash/v2"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
)

// slot is one slot of one store, as the engine keeps it: entities without contexts of their own but for residues, and
// beside it what the specification says that the store knows of each key.
type slot struct {
	shape    *configv1.Shape
	id, next uint64
	node     string
	seen     *Context
	entities map[string]*State
	known    map[string]history
	// deltas of this store's commits, by key.
	deltas map[string][]State
	// loose: what the store knows is not said event by event.
	loose bool
}

func newSlot(p *configv1.Shape, i int) *slot {
	return &slot{
		shape: p, id: uint64(i + 1), next: 1, node: node(i), seen: &Context{},
		entities: map[string]*State{}, known: map[string]history{}, deltas: map[string][]State{},
	}
}

func (s *slot) entity(key string) *State {
	if s.entities[key] == nil {
		e := bottom(s.shape)
		s.entities[key] = &e
	}
	return s.entities[key]
}

func (s *slot) history(key string) history {
	if s.known[key] == nil {
		s.known[key] = history{}
	}
	return s.known[key]
}

// tidy strips residues and forgets entities that say nothing.
func (s *slot) tidy(t fataler) {
	for key, e := range s.entities {
		e.Strip(s.seen)
		if e.Bottom() {
			delete(s.entities, key)
		}
	}
}

func (s *slot) hash(bucket uint32) uint64 {
	h := uint64(0)
	for key, e := range s.entities {
		if e.Exists() && bucketOf(key) == bucket {
			h ^= xxhash.Sum64(e.AppendLive([]byte(key)))
		}
	}
	return h
}

const keys = 3

func keyOf(i int) string { return fmt.Sprintf("k%d", i) }

func bucketOf(key string) uint32 { return uint32(key[1]) % 2 }

// message is what goes from store to store; it may be lost, doubled and late.
type message struct {
	key   string
	state []byte
	// residue and fill of a whole state; nil in a delta.
	residue, fill *Context
	known         history
}

// commit makes one to three operations one delta.
func (s *slot) commit(t *rapid.T, now uint64) (message, bool) {
	key := keyOf(rapid.IntRange(0, keys-1).Draw(t, "key"))
	var delta State
	m := message{key: key, known: history{}}
	after, known := s.entity(key).Clone(), maps.Clone(s.history(key))
	for range rapid.SampledFrom([]int{1, 1, 1, 2, 3}).Draw(t, "operations") {
		op := operation(t, s.shape, false)
		by := Mutator{Replica: s.id, Seq: s.next, Now: now, Node: s.node}
		d, err := after.Delta(op, by)
		if err != nil {
			t.Fatalf("%s: %v", OperationName(op), err)
		}
		if !s.loose {
			e := specify(s.shape, known, op, by)
			if (e == nil) != d.Bottom() {
				t.Fatalf("%s: delta %s, specified %v", op, show(d), e)
			}
			if e != nil {
				known[e], m.known[e] = true, true
			}
		}
		if d.Bottom() {
			continue
		}
		s.next = d.Context().Next(s.id)
		if !joinIn(t, &after, d, s.seen, nil) {
			t.Fatalf("a change changed nothing")
		}
		if delta.shape == nil {
			delta = d
		} else {
			merge(t, &delta, d)
		}
	}
	if delta.shape == nil {
		s.tidy(t)
		return m, false
	}
	m.state = delta.Append(nil)
	s.deltas[key] = append(s.deltas[key], delta)
	return m, true
}

func (s *slot) receive(t fataler, m message) {
	o, err := Decode(m.state)
	if err != nil {
		t.Fatalf("decode: %v", err)
	}
	e := s.entity(m.key)
	if m.fill == nil {
		joinIn(t, e, o, s.seen, nil)
	} else {
		joinIn(t, e, o, s.seen, union(m.fill, m.residue))
	}
	// The explicit context: of a whole state the live dots. The fill is about other keys, too: not that.
	s.seen.Merge(o.Context())
	maps.Copy(s.history(m.key), m.known)
	s.tidy(t)
}

// whole is a whole state, also of a key that the slot does not have.
func (s *slot) whole(key string) message {
	e := bottom(s.shape)
	if s.entities[key] != nil {
		e = *s.entities[key]
	}
	return message{key: key, state: e.AppendLive(nil), residue: e.Residue(), fill: s.seen.Clone(), known: maps.Clone(s.history(key))}
}

func (s *slot) check(t fataler) {
	if s.loose {
		return
	}
	view := View{Node: s.node, Voters: []string{node(0), node(2)}}
	for i := range keys {
		key := keyOf(i)
		e := bottom(s.shape)
		if s.entities[key] != nil {
			e = *s.entities[key]
		}
		got, want := e.Value(view), specValue(s.shape, "", s.history(key).marks(), view)
		if !proto.Equal(got, want) {
			t.Fatalf("store %d, %s: got %v, want %v (%x)", s.id, key, got, want, e.Append(nil))
		}
	}
}

// compareNow is a comparison that nothing gets in between.
func compareNow(t fataler, a, b *slot) {
	seenA, seenB := a.seen.Clone(), b.seen.Clone()
	var toA, toB []message
	for i := range keys {
		toA, toB = append(toA, b.whole(keyOf(i))), append(toB, a.whole(keyOf(i)))
	}
	for i := range keys {
		a.receive(t, toA[i])
		b.receive(t, toB[i])
	}
	a.seen.Merge(seenB)
	b.seen.Merge(seenA)
	a.tidy(t)
	b.tidy(t)
}

func TestEveryStoreShowsWhatItsEventsMean(t *testing.T) {
	each(t, func(t *testing.T, p *configv1.Shape) {
		if p.Model == bcounterModel {
			return // See bounded_test.go.
		}
		rapid.Check(t, func(t *rapid.T) {
			slots := newSlots(t, p)
			var sent []message
			clock := uint64(MinTime)
			for range rapid.IntRange(1, 20).Draw(t, "steps") {
				s := rapid.SampledFrom(slots).Draw(t, "store")
				switch rapid.IntRange(0, 9).Draw(t, "step") {
				case 0:
					if from := rapid.SampledFrom(slots).Draw(t, "compare with"); from != s {
						compareNow(t, s, from)
					}
				case 1:
					sent = append(sent, s.whole(keyOf(rapid.IntRange(0, keys-1).Draw(t, "whole key"))))
				case 2, 3, 4:
					if len(sent) > 0 {
						s.receive(t, rapid.SampledFrom(sent).Draw(t, "message"))
					}
				default:
					clock += rapid.Uint64Range(0, 2).Draw(t, "clock")
					if m, ok := s.commit(t, clock+3*s.id); ok {
						s.receive(t, m)
						sent = append(sent, m)
					}
				}
				for _, s := range slots {
					s.check(t)
				}
			}
			converge(t, slots)
		})
	})
}

func newSlots(t *rapid.T, p *configv1.Shape) []*slot {
	var slots []*slot
	for i := range rapid.IntRange(3, 5).Draw(t, "stores") {
		slots = append(slots, newSlot(p, i))
	}
	return slots
}

// converge compares all with all, after which all are equal, and have what all deltas joined have.
func converge(t fataler, slots []*slot) {
	for range 2 {
		for _, a := range slots {
			for _, b := range slots {
				if a != b {
					compareNow(t, a, b)
				}
			}
		}
	}
	truth := map[string]State{}
	for i := range keys {
		all := bottom(slots[0].shape)
		for _, s := range slots {
			for _, d := range s.deltas[keyOf(i)] {
				merge(t, &all, d)
			}
		}
		truth[keyOf(i)] = all
	}
	for _, s := range slots {
		s.check(t)
		for key, all := range truth {
			if got := s.whole(key); !bytes.Equal(got.state, all.AppendLive(nil)) {
				t.Fatalf("store %d: %s is %x after all compared, all deltas are %s", s.id, key, got.state, show(all))
			}
		}
		if !s.seen.Equal(slots[0].seen) || s.seen.Hash() != slots[0].seen.Hash() || s.hash(0) != slots[0].hash(0) || s.hash(1) != slots[0].hash(1) {
			t.Fatalf("stores %d and %d are not equal after they compared", s.id, slots[0].id)
		}
		for key, e := range s.entities {
			if e.Residue() != nil || !e.Exists() {
				t.Fatalf("store %d: something is left of %s: %s", s.id, key, show(*e))
			}
		}
		for _, r := range s.seen.Replicas() {
			if s.seen.Beyond(r) != 0 {
				t.Fatalf("store %d has seen replica %d with a hole: %v", s.id, r, s.seen.runs)
			}
		}
	}
}

// A comparison as replication makes it, with changes and messages between its steps: it claims no more than it shows.
func TestComparisonWhileOthersChange(t *testing.T) {
	for _, p := range []*configv1.Shape{shapeOf(orsetModel), shapeOf(lwwModel), shapeOf(gcounterModel), shapeOf(ormapModel, flagModel)} {
		t.Run(Describe(p), func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				slots := newSlots(t, p)
				for _, s := range slots {
					s.loose = true
				}
				var sent []message
				clock := uint64(MinTime)
				some := func(label string, most int) {
					for range rapid.IntRange(0, most).Draw(t, label) {
						s := rapid.SampledFrom(slots).Draw(t, "store")
						if len(sent) > 0 && rapid.IntRange(0, 2).Draw(t, "receive") > 0 {
							s.receive(t, rapid.SampledFrom(sent).Draw(t, "message"))
							continue
						}
						clock++
						if m, ok := s.commit(t, clock); ok {
							s.receive(t, m)
							sent = append(sent, m)
						}
					}
				}
				some("before", 8)
				for range rapid.IntRange(1, 3).Draw(t, "rounds") {
					i := rapid.IntRange(0, len(slots)-1).Draw(t, "opens")
					round(t, slots[i], slots[(i+1)%len(slots)], some)
					some("after", 4)
				}
				converge(t, slots)
			})
		})
	}
}

// round is a round of anti-entropy that a opens and b answers.
func round(t *rapid.T, a, b *slot, meanwhile func(string, int)) {
	// a offers.
	liveA3 := a.live()
	seenA3, hashA := a.seen.Clone(), [2]uint64{a.hash(0), a.hash(1)}
	meanwhile("before the keys", 3)
	// b answers with its keys.
	seenB4, liveB4 := b.seen.Clone(), b.live()
	var differ []uint32
	for bucket := range uint32(2) {
		if b.hash(bucket) != hashA[bucket] {
			differ = append(differ, bucket)
		}
	}
	listB := map[string][]byte{}
	for key, e := range b.entities {
		if e.Exists() {
			listB[key] = e.AppendLive(nil)
		}
	}
	meanwhile("before the states", 3)
	// a compares keys.
	seenA5 := a.seen.Clone()
	var toB []message
	want := map[string]bool{}
	deliveredA, deliveredB := map[string]struct{}{}, map[string]struct{}{}
	for i := range keys {
		key := keyOf(i)
		if !slices.Contains(differ, bucketOf(key)) {
			continue
		}
		var mine []byte
		if e := a.entities[key]; e != nil && e.Exists() {
			mine = e.AppendLive(nil)
		}
		theirs := listB[key]
		if string(mine) == string(theirs) {
			continue
		}
		m := a.whole(key)
		m.fill = seenA3
		toB = append(toB, m)
		deliveredB[key], deliveredA[key] = struct{}{}, struct{}{}
		if theirs == nil {
			e := bottom(a.shape)
			a.receive(t, message{key: key, state: e.AppendLive(nil), fill: seenB4})
		} else {
			want[key] = true
		}
	}
	meanwhile("before b merges", 3)
	for _, m := range toB {
		b.receive(t, m)
	}
	b.complete(t, &Comparison{Complete: seenA3, Compared: seenB4, ComparedKeys: seenB4, Buckets: differ, Delivered: deliveredB})
	b.showsRemovals(t, seenA3, liveA3)
	meanwhile("before b sends", 2)
	var toA []message
	for i := range keys {
		if want[keyOf(i)] {
			toA = append(toA, b.whole(keyOf(i)))
		}
	}
	meanwhile("before a merges", 3)
	for _, m := range toA {
		a.receive(t, m)
	}
	a.complete(t, &Comparison{Complete: seenB4, Compared: seenA3, ComparedKeys: seenA5, Buckets: differ, Delivered: deliveredA})
	a.showsRemovals(t, seenB4, liveB4)
}

func (s *slot) complete(t fataler, c *Comparison) {
	for key, e := range s.entities {
		c.Settle(key, bucketOf(key), e)
	}
	s.seen.Merge(c.Complete)
	s.tidy(t)
}

func (s *slot) live() map[Dot]bool {
	out := map[Dot]bool{}
	for _, e := range s.entities {
		e.Live(func(d Dot) bool { out[d] = true; return true })
	}
	return out
}

// showsRemovals checks what a completed comparison claims: nothing is live that the peer had seen, and did not hold.
func (s *slot) showsRemovals(t fataler, complete *Context, live map[Dot]bool) {
	for d := range s.live() {
		if complete.Has(d) && !live[d] {
			t.Fatalf("store %d has taken up the context %v, and shows %v, which is removed there", s.id, complete.runs, d)
		}
	}
}
