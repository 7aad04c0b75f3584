package crdt

import (
	"errors"
	"fmt"
	"testing"

	"pgregory.net/rapid"

	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
)

// cluster is some nodes whose stores come and go; each incarnation has an identity of its own. One counter each.
type cluster struct {
	shape  *configv1.Shape
	stores []*slot // by node
	lives  []int   // by node: how many incarnations it had
	owner  map[uint64]int
	// changes are what each identity did, by sequence from 1; all of it was acknowledged.
	changes map[uint64][]int64
	// retired are the identities that are over, with what of them was known then: nothing more of them ever shows up.
	retired map[uint64]uint64
	sent    []sent
	// filled are the stores that lost nothing, or have compared since with one that is filled.
	filled []bool
	op     func(int64) *holdfastv1.Operation
	low    int64
}

type sent struct {
	message
	from uint64
}

const counterKey = "k0"

func newCluster(p *configv1.Shape, n int) *cluster {
	c := &cluster{shape: p, owner: map[uint64]int{}, changes: map[uint64][]int64{}, retired: map[uint64]uint64{}}
	c.op = func(by int64) *holdfastv1.Operation { return incOp(uint64(by)) }
	if p.Model == pncounterModel || p.Values.GetModel() == pncounterModel {
		c.op, c.low = changeOp, -3
	}
	if p.Model == ormapModel {
		plain := c.op
		c.op = func(by int64) *holdfastv1.Operation { return updateOp("p", plain(by)) }
	}
	for i := range n {
		c.stores, c.lives, c.filled = append(c.stores, nil), append(c.lives, 0), append(c.filled, true)
		c.start(i, nil)
	}
	return c
}

// start starts a node's store with a new identity on a disk, nil for an empty one.
func (c *cluster) start(i int, disk *slot) {
	c.lives[i]++
	s := newSlot(c.shape, i)
	s.loose = true
	s.id = uint64(i+1)*100 + uint64(c.lives[i])
	c.owner[s.id] = i
	if disk != nil {
		s.seen, s.entities = disk.seen.Clone(), map[string]*State{}
		for key, e := range disk.entities {
			copied := *e
			s.entities[key] = &copied
		}
	}
	c.stores[i] = s
}

// lose starts a node's store on an empty disk, if the other stores are not empty themselves: then all is lost.
func (c *cluster) lose(i int) bool {
	for j, filled := range c.filled {
		if j != i && !filled {
			return false
		}
	}
	c.filled[i] = false
	c.start(i, nil)
	return true
}

func (c *cluster) compare(t fataler, i int) {
	j := (i + 1) % len(c.stores)
	compareNow(t, c.stores[i], c.stores[j])
	if c.filled[i] || c.filled[j] {
		c.filled[i], c.filled[j] = true, true
	}
}

// deliver brings a message. What comes from an identity that is retired comes late: a store that knows refuses it, and
// one that does not know is younger than the last connection of that identity.
func (c *cluster) deliver(t fataler, s *slot, m sent) {
	if _, over := c.retired[m.from]; !over {
		s.receive(t, m.message)
	} else if s.seen.Retired().Has(m.from) {
		o, err := Decode(m.state)
		if err != nil {
			t.Fatalf("%v", err)
		}
		e, live := s.entity(m.key), false
		o.Live(func(Dot) bool { live = true; return false })
		if _, err := e.Join(&o, s.seen, nil); live && !errors.Is(err, ErrRetired) {
			t.Fatalf("a delta of retired identity %d: got %v", m.from, err)
		}
	}
}

// absorb is the engine's rule: former identities of the node, all of which are retired.
func (c *cluster) absorb(s *slot) func(uint64) bool {
	node := c.owner[s.id]
	for id, owner := range c.owner {
		if _, over := c.retired[id]; owner == node && id != s.id && !over {
			return nil
		}
	}
	return func(id uint64) bool {
		owner, known := c.owner[id]
		return known && owner == node && id != s.id && s.seen.Retired().Has(id)
	}
}

func (c *cluster) change(t fataler, s *slot, by int64) {
	e := s.entity(counterKey)
	d, err := e.Delta(c.op(by), Mutator{Replica: s.id, Seq: s.next, Now: MinTime, Absorb: c.absorb(s)})
	if err != nil {
		t.Fatalf("%v", err)
	}
	if d.Bottom() {
		s.tidy(t)
		return
	}
	s.next++
	c.changes[s.id] = append(c.changes[s.id], by)
	m := message{key: counterKey, state: d.Append(nil)}
	s.receive(t, m)
	c.sent = append(c.sent, sent{m, s.id})
}

// retire retires what is settled: dead, and of which all stores have seen the same.
func (c *cluster) retire() {
	for id := range c.changes {
		if c.stores[c.owner[id]].id == id {
			continue
		}
		settled := true
		for _, s := range c.stores {
			settled = settled && s.seen.Only(id).Equal(c.stores[0].seen.Only(id))
		}
		if _, already := c.retired[id]; settled && !already {
			c.retired[id] = c.stores[0].seen.Next(id) - 1
			for _, s := range c.stores {
				s.seen.Retire(s.seen.Retired().Union(NewRetired(id)))
			}
		}
	}
}

func (c *cluster) value(s *slot) int64 {
	if s.entities[counterKey] == nil {
		return 0
	}
	v := s.entities[counterKey].Value(View{})
	if m := v.GetOrmap(); m != nil {
		v = m.Entries["p"]
	}
	return int64(v.GetGcounter()) + v.GetPncounter()
}

// known is the sum of what some stores know of: of each identity all up to the last change that one of them has seen, since
// each carries those before.
func (c *cluster) known(stores ...*slot) int64 {
	total := int64(0)
	for id, changes := range c.changes {
		last, over := c.retired[id]
		if !over {
			for _, s := range stores {
				last = max(last, s.seen.Next(id)-1)
			}
		}
		for _, by := range changes[:last] {
			total += by
		}
	}
	return total
}

// Increments that anybody knows of are counted once, whatever was lost, doubled and late on the way, however often stores
// restart on their disks or on empty ones, and whoever absorbed whom.
func TestAbsorbLosesAndDoublesNothing(t *testing.T) {
	for _, p := range []*configv1.Shape{shapeOf(gcounterModel), shapeOf(pncounterModel), shapeOf(ormapModel, gcounterModel), shapeOf(ormapModel, pncounterModel)} {
		t.Run(Describe(p), func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				c := newCluster(p, 3)
				for range rapid.IntRange(1, 40).Draw(t, "steps") {
					i := rapid.IntRange(0, len(c.stores)-1).Draw(t, "store")
					s := c.stores[i]
					switch rapid.IntRange(0, 9).Draw(t, "step") {
					case 0:
						c.start(i, s)
					case 1:
						c.lose(i)
					case 2, 3:
						c.compare(t, i)
					case 4:
						c.retire()
					case 5, 6:
						if len(c.sent) > 0 {
							c.deliver(t, s, rapid.SampledFrom(c.sent).Draw(t, "message"))
						}
					default:
						c.change(t, s, rapid.Int64Range(c.low, 3).Draw(t, "by"))
					}
				}
				want := c.known(c.stores...)
				for range 2 {
					for i := range c.stores {
						compareNow(t, c.stores[i], c.stores[(i+1)%len(c.stores)])
					}
				}
				for _, s := range c.stores {
					if got := c.value(s); got != want {
						t.Fatalf("store %d shows %d, the changes add up to %d: %s", s.id, got, want, show(*s.entity(counterKey)))
					}
				}
			})
		})
	}
}

// Restarts leave a live dot and an absorbed one for each node, not one for each identity.
func TestCountersDontGrowWithRestarts(t *testing.T) {
	c := newCluster(shapeOf(gcounterModel), 3)
	size := 0
	for round := range 50 {
		for i, s := range c.stores {
			c.change(t, s, 1)
			c.start(i, s)
		}
		for i := range c.stores {
			compareNow(t, c.stores[i], c.stores[(i+1)%3])
			compareNow(t, c.stores[i], c.stores[(i+2)%3])
		}
		c.retire()
		got := len(c.stores[0].entities[counterKey].AppendLive(nil))
		if round == 3 {
			size = got
		}
		if round > 3 && got > size+12 {
			t.Fatalf("round %d: %d bytes, %d in round 3", round, got, size)
		}
	}
	if got := c.value(c.stores[0]); got != 150 {
		t.Errorf("got %d after 150 increments", got)
	}
	if got := len(c.stores[0].seen.Replicas()); got != 0 {
		t.Errorf("%d identities in the context after all retired", got)
	}
}

// An identity must not go on without what it acknowledged: this is what identities are for.
func TestOldIdentityLosesIncrements(t *testing.T) {
	mine, others := bottom(shapeOf(gcounterModel)), bottom(shapeOf(gcounterModel))
	for range 2 {
		d, err := mine.Delta(incOp(1), Mutator{Replica: 1, Seq: 1})
		if err != nil {
			t.Fatal(err)
		}
		merge(t, &others, d)
	}
	if got := others.Value(View{}).GetGcounter(); got != 1 {
		t.Errorf("two increments under one identity that went back: got %d", got)
	}
}

// The bounded counter.

type bank struct {
	*cluster
	heirs map[uint64]uint64 // identities that have an heir on their disk
	lost  bool              // some disk was lost
	adds  int64             // all that was ever acknowledged
	takes int64
}

func (b *bank) mutator(s *slot) Mutator {
	return Mutator{Replica: s.id, Seq: s.next, Now: MinTime, Heir: func(id uint64) bool {
		_, over := b.retired[id]
		for heir, ok := b.heirs[id]; ok && over; heir, ok = b.heirs[heir] {
			if heir == s.id {
				return true
			}
		}
		return false
	}}
}

func (b *bank) send(t fataler, s *slot, d State) {
	if d.Bottom() {
		return
	}
	s.next++
	b.changes[s.id] = append(b.changes[s.id], 0)
	m := message{key: counterKey, state: d.Append(nil)}
	s.receive(t, m)
	b.sent = append(b.sent, sent{m, s.id})
}

// Whatever is lost, doubled and late, and whoever restarts: no more is ever taken off than was put in, counting all that
// was acknowledged anywhere; and where no disk was lost, the rights of all are the value over the floor.
func TestBoundedCounterStaysOverItsFloor(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := &bank{cluster: newCluster(shapeOf(bcounterModel), 3), heirs: map[uint64]uint64{}}
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			i := rapid.IntRange(0, len(b.stores)-1).Draw(t, "store")
			s := b.stores[i]
			switch rapid.IntRange(0, 11).Draw(t, "step") {
			case 0:
				old := s.id
				b.start(i, s)
				b.heirs[old] = b.stores[i].id
			case 1:
				if rapid.IntRange(0, 3).Draw(t, "lose the disk") == 0 {
					b.lost = b.lose(i) || b.lost
				}
			case 2, 3:
				b.compare(t, i)
			case 4:
				b.retire()
			case 5, 6:
				if len(b.sent) > 0 {
					b.deliver(t, s, rapid.SampledFrom(b.sent).Draw(t, "message"))
				}
			case 7:
				to := rapid.SampledFrom(b.stores).Draw(t, "to").id
				n := rapid.Uint64Range(0, 4).Draw(t, "rights")
				e := s.entity(counterKey)
				d, err := e.Transfer(to, n, b.mutator(s))
				if err == nil {
					b.send(t, s, d)
				}
			default:
				by := rapid.Int64Range(-4, 4).Draw(t, "by")
				e := s.entity(counterKey)
				d, err := e.Delta(changeOp(by), b.mutator(s))
				if err != nil {
					continue
				}
				b.send(t, s, d)
				if by > 0 {
					b.adds += by
				} else {
					b.takes -= by
				}
				if b.takes > b.adds {
					t.Fatalf("%d taken off, %d put in", b.takes, b.adds)
				}
			}
			for _, s := range b.stores {
				if v := s.entity(counterKey).Value(View{Replica: s.id, Floor: -7}).GetBcounter(); v != nil && v.Value < -7 {
					t.Fatalf("store %d shows %d, below the floor", s.id, v.Value)
				}
			}
		}
		for range 2 {
			for i := range b.stores {
				compareNow(t, b.stores[i], b.stores[(i+1)%len(b.stores)])
			}
		}
		if b.lost {
			return
		}
		for _, s := range b.stores {
			e := s.entity(counterKey)
			rights := uint64(0)
			for id := range b.owner {
				rights += e.Rights(id)
			}
			if got := e.Value(View{}).GetBcounter().GetValue(); got != b.adds-b.takes || rights != uint64(got) {
				t.Fatalf("store %d shows %d with rights to %d, want %d: %s", s.id, got, rights, b.adds-b.takes, fmt.Sprint(readBook(e.live.dots)))
			}
		}
	})
}
