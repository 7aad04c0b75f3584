package simulation

import (
	"math/rand/v2"
	"time"

	"github.com/holdfast-mesh/holdfast/internal/simnet"
)

// fault is one kind of trouble. do is called at a moment when it may happen; it says whether it did.
type fault struct {
	name   string
	weight int
	do     func(*world) bool
}

// kinds are all faults. A run has about two thirds of them: what is never together with anything else shows other bugs.
var kinds = []fault{
	{"two sides", 3, (*world).sides},
	{"ring", 1, (*world).ring},
	{"one way", 2, (*world).oneWay},
	{"alone", 2, (*world).alone},
	{"mended", 5, (*world).mend},
	{"lossy", 3, (*world).lossy},
	{"frozen", 2, onOne(func(w *world, n *node) bool {
		if n.frozen {
			return false
		}
		n.freeze(w.between(200*time.Millisecond, 4*time.Second))
		return true
	})},
	{"crash", 3, onOne(func(_ *world, n *node) bool { n.crash(); return true })},
	{"stop", 1, onOne(func(_ *world, n *node) bool { n.stop(); return true })},
	{"old disk", 2, onOne(func(w *world, n *node) bool {
		if len(n.copies) == 0 || !w.mayLose(n) {
			return false
		}
		n.restore()
		return true
	})},
	{"new disk", 1, onOne(func(w *world, n *node) bool {
		if !w.mayLose(n) {
			return false
		}
		n.wipe()
		return true
	})},
	{"full disk", 1, onOne((*world).fullDisk)},
	{"slow disk", 1, onOne(func(w *world, n *node) bool {
		n.stall(w.between(50*time.Millisecond, 2*time.Second))
		return true
	})},
	{"skew", 1, onOne((*world).skew)},
	{"new key", 1, (*world).newKey},
	{"leave", 1, (*world).leave},
}

func onOne(do func(*world, *node) bool) func(*world) bool {
	return func(w *world) bool {
		n := w.nodes[w.random.IntN(len(w.nodes))]
		return n.engine != nil && do(w, n)
	}
}

// trouble writes and breaks things for a while.
func (w *world) trouble() {
	var menu []fault
	for _, k := range kinds {
		if w.random.IntN(3) > 0 || k.name == "mended" {
			for range k.weight {
				menu = append(menu, k)
			}
		}
	}
	next := time.Now().Add(w.between(0, 2*time.Second))
	for time.Since(w.start) < troubleTime {
		w.sleep(w.between(0, 30*time.Millisecond))
		w.step()
		for _, n := range w.nodes {
			if n.engine == nil && !n.away && time.Now().After(n.back) {
				n.up()
			}
			if n.random.IntN(300) == 0 && n.engine != nil && len(n.copies) < 2 {
				n.copyDisk()
			}
		}
		if time.Now().After(next) {
			k := menu[w.random.IntN(len(menu))]
			w.decided("fault: %s", k.name)
			if k.do(w) {
				w.faults[k.name]++
			}
			next = time.Now().Add(w.between(50*time.Millisecond, 2*time.Second))
		}
	}
}

// mayLose says whether the node's disk may be lost: up to a minority of disks are, in most runs.
func (w *world) mayLose(n *node) bool {
	w.model.mu.Lock()
	defer w.model.mu.Unlock()
	lost := map[string]bool{n.name: true}
	for _, d := range w.model.damages {
		if !d.memory {
			lost[d.node] = true
		}
	}
	return len(lost) <= (len(w.nodes)-1)/2 || w.seed%8 == 0
}

func (w *world) cut(which func(a, b int) bool) bool {
	for i, a := range w.nodes {
		for j, b := range w.nodes {
			if i != j && which(i, j) {
				w.net.Cut(a.name, b.name)
			}
		}
	}
	return true
}

func (w *world) sides() bool {
	side := make([]bool, len(w.nodes))
	for i := range side {
		side[i] = w.random.IntN(2) == 0
	}
	w.log("sides: %v", side)
	return w.cut(func(a, b int) bool { return side[a] != side[b] })
}

// ring leaves each node only its two neighbours: with more than three, those apart meet through others alone.
func (w *world) ring() bool {
	size := len(w.nodes)
	return w.cut(func(a, b int) bool { return (a+1)%size != b && (b+1)%size != a })
}

func (w *world) oneWay() bool {
	return w.cut(func(int, int) bool { return w.random.IntN(4) == 0 })
}

func (w *world) alone() bool {
	one := w.random.IntN(len(w.nodes))
	w.log("alone: %s", w.nodes[one].name)
	return w.cut(func(a, b int) bool { return a == one || b == one })
}

func (w *world) mend() bool {
	w.net.Heal()
	if w.random.IntN(2) == 0 {
		w.net.SetFaults(calm)
	}
	return false
}

func (w *world) lossy() bool {
	f := simnet.Faults{
		MinDelay: 50 * time.Microsecond, MaxDelay: w.between(time.Millisecond, 60*time.Millisecond), Loss: w.random.Float64() / 2,
		Repeat: w.random.Float64() / 5, Reset: w.random.Float64() / 20, Replay: w.random.Float64() / 5, Late: w.random.Float64() / 10,
	}
	w.net.SetFaults(f)
	w.decided("network: %+v", f)
	return true
}

func (w *world) fullDisk(n *node) bool {
	d, disk := w.between(100*time.Millisecond, 3*time.Second), n.disk
	n.unwell(d + diskLook) // It takes the store a moment to see that there is room.
	disk.full(true)
	w.log("%s: disk full for %s", n.name, d)
	w.later(d, func() { disk.full(false) })
	w.recovered(n, n.life)
	return true
}

// recovered looks now and then whether the disk is well again, as the main program does.
func (w *world) recovered(n *node, life int) {
	w.later(diskLook, func() {
		if n.engine == nil || n.life != life {
			return
		}
		ctx, cancel := short(time.Second)
		defer cancel()
		if err := n.engine.Recover(ctx); err != nil || time.Now().Before(n.slow.to) {
			w.recovered(n, life)
		}
	})
}

// skews are how far a clock is off: within what others bear, and far beyond.
var skews = []time.Duration{-time.Hour, time.Hour, -10 * time.Second, 3 * time.Second, 400 * time.Millisecond}

func (w *world) skew(n *node) bool {
	for _, other := range w.nodes { // One node at a time.
		if other.skew.Load() != 0 && other != n {
			return false
		}
	}
	n.skew.Store(int64(skews[w.random.IntN(len(skews))]))
	n.poisoned = n.poisoned || time.Duration(n.skew.Load()) > time.Minute
	w.log("%s: clock is off by %s", n.name, time.Duration(n.skew.Load()))
	return true
}

// newKey replaces the gossip's key: add, use, remove, at one store after the other.
func (w *world) newKey() bool {
	if w.faults["new key"] > 0 {
		return false
	}
	older, newer := w.keys[0], []byte("fedcba9876543210")
	for i, keys := range [][][]byte{{older, newer}, {newer, older}, {newer}} {
		w.later(time.Duration(i)*2*time.Second, func() {
			w.log("keys: step %d", i)
			w.keys = keys
			for _, n := range w.nodes {
				w.later(time.Duration(rand.New(rand.NewPCG(w.seed, uint64(n.index+i))).IntN(1000))*time.Millisecond, func() {
					if n.engine == nil {
						return
					}
					if err := n.member.Node.SetKeys(keys); err != nil {
						w.fail("%s: keys: %v", n.name, err)
					}
				})
			}
		})
	}
	return true
}

// leave takes a member out of the placement and brings it back later, beyond the time in which its identities retire. It is
// down meanwhile, or goes on.
func (w *world) leave() bool {
	stay := w.between(4*time.Second, 9*time.Second)
	if w.out != nil || len(w.nodes) < 4 || time.Since(w.start)+stay > troubleTime-time.Second {
		return false
	}
	n := w.nodes[w.random.IntN(len(w.nodes))]
	down := w.random.IntN(2) == 0
	w.log("%s leaves for %s, down: %t", n.name, stay, down)
	w.replaced(n)
	if n.away = down; down && n.engine != nil {
		n.crash()
	}
	w.later(stay, func() {
		w.log("%s comes back", n.name)
		n.away = false
		w.replaced(nil)
	})
	return true
}

// heal ends all faults.
func (w *world) heal() {
	w.log("all heals: %v", w.faults)
	w.net.Heal()
	w.net.SetFaults(calm)
	for _, n := range w.nodes {
		n.away, n.slow.to = false, time.Now()
		n.skew.Store(0)
		n.disk.full(false)
		n.disk.stall(time.Time{})
		if n.frozen {
			n.thaw()
		}
	}
	// What is on the agenda is all the end of something. It is done at once.
	for len(w.agenda) > 0 {
		next := w.agenda[0]
		w.agenda = w.agenda[1:]
		next.do()
	}
	for _, n := range w.nodes {
		if n.engine == nil {
			n.up()
		}
	}
}
