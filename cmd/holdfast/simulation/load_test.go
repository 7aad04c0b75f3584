package simulation

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
	"github.com/holdfast-mesh/holdfast/statestore"
)

type operation = holdfastv1.Operation

func increment(by uint64) *operation {
	return &operation{Operation: &holdfastv1.Operation_Increment{Increment: &holdfastv1.Increment{By: by}}}
}

func change(by int64) *operation {
	return &operation{Operation: &holdfastv1.Operation_Change{Change: &holdfastv1.Change{By: by}}}
}

func set(value string) *operation {
	return &operation{Operation: &holdfastv1.Operation_Set{Set: &holdfastv1.Set{Value: []byte(value)}}}
}

func add(element string) *operation {
	return &operation{Operation: &holdfastv1.Operation_Add{Add: &holdfastv1.SetAdd{Elements: [][]byte{[]byte(element)}}}}
}

func remove(element string) *operation {
	return &operation{Operation: &holdfastv1.Operation_Remove{Remove: &holdfastv1.SetRemove{Elements: [][]byte{[]byte(element)}}}}
}

func update(key string, op *operation) *operation {
	return &operation{Operation: &holdfastv1.Operation_MapUpdate{MapUpdate: &holdfastv1.MapUpdate{Key: key, Operation: op}}}
}

func drop(key string) *operation {
	return &operation{Operation: &holdfastv1.Operation_MapRemove{MapRemove: &holdfastv1.MapRemove{Key: key}}}
}

func vote(yes bool) *operation {
	return &operation{Operation: &holdfastv1.Operation_Vote{Vote: &holdfastv1.CastVote{InFavour: yes}}}
}

var (
	deletion = &operation{Operation: &holdfastv1.Operation_Delete{Delete: &holdfastv1.Delete{}}}
	clearing = &operation{Operation: &holdfastv1.Operation_Clear{Clear: &holdfastv1.Clear{}}}
	enable   = &operation{Operation: &holdfastv1.Operation_Enable{Enable: &holdfastv1.Enable{}}}
	disable  = &operation{Operation: &holdfastv1.Operation_Disable{Disable: &holdfastv1.Disable{}}}
)

// client is one change under way.
type client struct {
	world   *world
	node    *node
	engine  *statestore.Engine
	spec    *spec
	key     string
	entry   string
	random  *rand.Rand
	write   *write
	disks   int
	ops     []*operation
	request *storev1.Commit
}

// step lets a client begin a change somewhere. What it does is drawn from a stream of its own, so that the run's decisions do
// not depend on what stores answer.
func (w *world) step() {
	w.ops++
	random := rand.New(rand.NewPCG(w.seed, uint64(1000+w.ops)))
	n := w.nodes[random.IntN(len(w.nodes))]
	s := w.specs[random.IntN(len(w.specs))]
	c := &client{world: w, node: n, engine: n.engine, disks: n.disks, spec: s, key: s.pick(random), random: random}
	c.write = &write{id: w.ops, node: n.name, level: s.level, ahead: s.timed() && n.poisoned}
	w.decided("#%d at %s: %s/%s", w.ops, n.name, s.name, c.key)
	if n.engine == nil {
		return
	}
	w.clients.Go(c.run)
}

// run draws, does and notes the change.
func (c *client) run() {
	w, n := c.world, c.node
	ctx, cancel := short(200*time.Millisecond + time.Duration(c.random.Int64N(int64(2800*time.Millisecond))))
	defer cancel()
	c.write.start = time.Now()
	if !c.draw(ctx) {
		w.log("#%d: nothing to do", c.write.id)
		return
	}
	if !c.spec.wild(c.key) {
		w.model.begin(entity{c.spec.name, c.key, c.entry}, c.spec, placed(w.home, c.spec, c.key), c.write)
	}
	c.request = &storev1.Commit{
		Entity: &storev1.Entity{Type: c.spec.name, Key: c.key}, RequestId: fmt.Sprint("r", c.write.id), Operations: c.ops,
	}
	_, err := c.engine.Commit(ctx, c.request)
	w.log("#%d: %v %s at %s: %s %v", c.write.id, c.request.GetEntity(), c.ops, n.name, outcome(err), err)
	if outcome(err) != unknown {
		w.model.finish(c.write, outcome(err))
		return
	}
	if c.random.IntN(2) == 0 && c.again(c.engine) {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	n.unsure = append(n.unsure, c)
}

// again asks the same once more, at the same store: it has to know what it did.
func (c *client) again(engine *statestore.Engine) bool {
	ctx, cancel := short(3 * time.Second)
	defer cancel()
	done, err := engine.Commit(ctx, c.request)
	c.world.log("#%d again: duplicate %t %v", c.write.id, done.GetDuplicate(), err)
	if err == nil {
		c.world.model.finish(c.write, acked)
	}
	return err == nil
}

// askAgain lets the clients of a store that is back ask what became of their changes. It has its disk of before.
func (n *node) askAgain() {
	w := n.world
	w.mu.Lock()
	unsure := n.unsure
	n.unsure = nil
	w.mu.Unlock()
	for _, c := range unsure {
		if engine := n.engine; c.disks == n.disks {
			w.clients.Go(func() { c.again(engine) })
		}
	}
}

// draw chooses the operations; false: none.
func (c *client) draw(ctx context.Context) bool {
	wild, random := c.spec.wild(c.key), c.random
	if wild && random.IntN(6) == 0 && c.spec.model != configv1.Model_MODEL_BCOUNTER {
		c.ops = []*operation{deletion}
		return true
	}
	by := int64(1 + random.IntN(3))
	switch c.spec.model {
	case configv1.Model_MODEL_GCOUNTER:
		c.ops, c.write.by = []*operation{increment(uint64(by))}, by
		if random.IntN(8) == 0 { // Several in one commit.
			c.ops, c.write.by = append(c.ops, increment(1)), by+1
		}
	case configv1.Model_MODEL_PNCOUNTER, configv1.Model_MODEL_BCOUNTER:
		if random.IntN(2) == 0 {
			by = -by
		}
		c.ops, c.write.by = []*operation{change(by)}, by
	case configv1.Model_MODEL_ORMAP:
		c.drawMap(by, wild)
	case configv1.Model_MODEL_FLAG:
		c.ops = []*operation{[]*operation{enable, disable}[random.IntN(2)]}
	case configv1.Model_MODEL_VOTE:
		c.ops = []*operation{vote(random.IntN(2) == 0)}
	default:
		return c.drawItem(ctx, wild)
	}
	return true
}

func (c *client) drawMap(by int64, wild bool) {
	outer, inner := fmt.Sprint("t", c.random.IntN(2)), fmt.Sprint("c", c.random.IntN(2))
	c.entry = outer + "." + inner
	if wild {
		switch c.random.IntN(6) {
		case 0:
			c.ops = []*operation{drop(outer)}
			return
		case 1:
			c.ops = []*operation{update(outer, drop(inner))}
			return
		case 2:
			c.ops = []*operation{clearing}
			return
		}
	}
	c.ops, c.write.by = []*operation{update(outer, update(inner, increment(uint64(by))))}, by
}

// drawItem writes an item that nobody wrote before, or takes away what this store shows.
func (c *client) drawItem(ctx context.Context, wild bool) bool {
	item, w := fmt.Sprint("i", c.write.id), c.write
	write := c.random.IntN(3) > 0 || c.spec.model == configv1.Model_MODEL_GSET
	if wild { // Few names, over and over.
		item = fmt.Sprint("p", c.random.IntN(3))
	}
	register := c.spec.model == configv1.Model_MODEL_LWW || c.spec.model == configv1.Model_MODEL_MVREGISTER
	if write {
		w.adds = item
		if !register {
			c.ops = []*operation{add(item)}
			return true
		}
	}
	which := c.random.IntN(1 << 16)
	value, err := get(ctx, c.engine, c.spec.name, c.key)
	if err != nil {
		return false
	}
	shown := items(value)
	switch {
	case write:
		w.covers, w.all, c.ops = shown, true, []*operation{set(item)}
	case c.spec.model == configv1.Model_MODEL_ORSET && which%8 > 1:
		if len(shown) == 0 {
			return false
		}
		w.covers = []string{shown[which%len(shown)]}
		c.ops = []*operation{remove(w.covers[0])}
	case c.spec.model == configv1.Model_MODEL_ORSET && which%8 == 1:
		w.covers, w.all, c.ops = shown, true, []*operation{clearing}
	default:
		w.covers, w.all, c.ops = shown, true, []*operation{deletion}
	}
	return true
}
