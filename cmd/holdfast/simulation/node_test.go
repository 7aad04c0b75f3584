package simulation

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
	"github.com/holdfast-mesh/holdfast/replication/gossip"
	"github.com/holdfast-mesh/holdfast/replication/gossip/sim"
	"github.com/holdfast-mesh/holdfast/statestore"
	"github.com/holdfast-mesh/holdfast/statestore/wal/faultfs"
)

// memoryTime is how long a LOCAL_MEM change may be in memory only, on a disk that is well.
const memoryTime = 100 * time.Millisecond

// configureAgain is the control plane's tick.
const configureAgain = time.Second

// node is one store, by turns up and down.
type node struct {
	world  *world
	index  int
	name   string
	random *rand.Rand

	disk *disk
	// copies are taken of the disk now and then, to be put back.
	copies []diskCopy
	engine *statestore.Engine
	member *sim.Member
	// life counts starts, disks lost disks.
	life, disks int
	// back is when one that is down comes back; away: not before it is called.
	back time.Time
	away bool
	// frozen, skew and the time of slow are faults under way. slow is when the disk was not well last.
	frozen bool
	skew   atomic.Int64
	slow   struct{ from, to time.Time }
	// poisoned is set where the clock was far ahead: for an hour others refuse the times that it gave.
	poisoned bool
	views    []*view
	// unsure are the clients that do not know what became of their changes; under the world's mu.
	unsure []*client
}

type diskCopy struct {
	at time.Time
	fs *faultfs.FS
}

func newNode(w *world, index int) *node {
	n := &node{world: w, index: index, name: fmt.Sprint("node-", index+1), random: rand.New(rand.NewPCG(w.seed, uint64(100+index)))}
	n.disk = newDisk(&faultfs.FS{}, n.random.Uint64())
	return n
}

func (n *node) up() {
	w := n.world
	logger := w.logger(n.name)
	engine, err := statestore.Open(statestore.Config{
		Node: n.name, Dir: "/data", FS: n.disk, Logger: logger, SegmentBytes: w.segment,
		Now: func() time.Time { return time.Now().Add(time.Duration(n.skew.Load())) },
	})
	if err != nil {
		w.t.Fatalf("open %s: %v", n.name, err)
	}
	var join []string
	for i := range min(3, len(w.nodes)) {
		join = append(join, fmt.Sprintf("10.0.0.%d:7946", i+1))
	}
	member, err := sim.Start(w.net, n.index+1, gossip.Config{
		Node: n.name, Replica: engine.Replica(), Join: join, Keys: w.keys, Engine: engine, Logger: logger,
		Seed: n.random.Uint64(), MaxVersion: 2 + n.random.Uint32N(2),
	})
	if err != nil {
		w.t.Fatalf("start %s: %v", n.name, err)
	}
	engine.Connect(statestore.Links{
		Publisher: member.Node, Replicas: member.Node, Peers: member.Node.Peers, Configured: member.Node.Configure,
	})
	n.engine, n.member = engine, member
	n.life++
	n.configure()
	n.watch()
	n.askAgain()
	w.log("%s is up, identity %016x", n.name, engine.Replica())
}

// configure gives the store the configuration, as a control plane does when a store connects. One that could not keep it is
// told again, as the control plane does at each tick.
func (n *node) configure() {
	err := n.engine.Configure(context.Background(), n.world.configuration())
	if err == nil {
		return
	}
	if !n.disturbed() {
		n.world.t.Errorf("configure %s: %v", n.name, err)
		return
	}
	life := n.life
	n.world.later(configureAgain, func() {
		if n.engine != nil && n.life == life {
			n.configure()
		}
	})
}

// disturbed says that the disk is not well, so that errors are no surprise.
func (n *node) disturbed() bool { return n.slow.to.After(time.Now()) }

// unwell notes that the disk is not well for a while.
func (n *node) unwell(d time.Duration) {
	now := time.Now()
	if now.Sub(n.slow.to) > 2*memoryTime {
		n.slow.from = now
	}
	if end := now.Add(d); end.After(n.slow.to) {
		n.slow.to = end
	}
}

// memoryKept is since when LOCAL_MEM changes may be lost.
func (n *node) memoryKept() time.Time {
	since := time.Now()
	if since.Sub(n.slow.to) < 2*memoryTime && !n.slow.from.IsZero() {
		since = n.slow.from
	}
	return since.Add(-memoryTime)
}

// crash ends the store as a kill together with a loss of power does.
func (n *node) crash() {
	n.world.model.damaged(damage{node: n.name, at: time.Now(), keeps: n.memoryKept(), memory: true})
	n.disk.PowerOff()
	after := newDisk(n.disk.Crash(n.random), n.random.Uint64())
	n.down(n.member.Crash)
	n.disk = after
	n.world.log("%s crashed", n.name)
}

// stop ends the store in good order. It gives the others what they lack where it reaches them.
func (n *node) stop() {
	n.down(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = n.member.Node.HandOver(ctx)
		n.member.Close()
	})
	n.disk.Kill()
	n.world.log("%s stopped", n.name)
}

func (n *node) down(end func()) {
	w := n.world
	if n.frozen {
		n.thaw()
	}
	n.disk.stall(time.Time{})
	n.unwatch()
	engine := n.engine
	end()
	_ = engine.Close()
	n.engine, n.member = nil, nil
	n.back = time.Now().Add(w.between(100*time.Millisecond, 6*time.Second))
}

// wipe crashes the store, and takes its disk.
func (n *node) wipe() {
	n.crash()
	n.disks++
	n.world.model.damaged(damage{node: n.name, at: time.Now()})
	n.disk, n.copies = newDisk(&faultfs.FS{}, n.random.Uint64()), nil
	n.poisoned = time.Duration(n.skew.Load()) > time.Minute // The clock is still what it was.
	n.world.log("%s: disk wiped", n.name)
}

// restore crashes the store, and puts back its disk of some time ago.
func (n *node) restore() {
	if len(n.copies) == 0 {
		return
	}
	n.crash()
	n.disks++
	c := n.copies[n.random.IntN(len(n.copies))]
	n.world.model.damaged(damage{node: n.name, at: time.Now(), keeps: c.at})
	n.disk = newDisk(c.fs.Crash(n.random), n.random.Uint64())
	n.world.log("%s: disk restored, %s old", n.name, time.Since(c.at))
}

// copyDisk keeps what a power failure would leave now.
func (n *node) copyDisk() {
	n.copies = append(n.copies, diskCopy{time.Now(), n.disk.Crash(n.random)})
	n.world.log("%s: disk copied", n.name)
}

// freeze pauses the process as far as others see it: nothing comes from it, nor gets to its disk.
func (n *node) freeze(d time.Duration) {
	life := n.life
	n.frozen = true
	n.world.net.Freeze(n.name, true)
	n.stall(d)
	n.world.log("%s frozen for %s", n.name, d)
	n.world.later(d, func() {
		if n.frozen && n.life == life {
			n.thaw()
		}
	})
}

func (n *node) thaw() {
	n.frozen = false
	n.world.net.Freeze(n.name, false)
	n.world.log("%s thawed", n.name)
}

func (n *node) stall(d time.Duration) {
	n.unwell(d)
	n.disk.stall(time.Now().Add(d))
}

// get reads an entity as a client does, joining its slot where the store is not placed for it.
func get(ctx context.Context, engine *statestore.Engine, typ, key string) (*holdfastv1.Value, error) {
	type answer struct {
		state *storev1.State
		err   error
	}
	answers := make(chan answer, 1)
	deadline, _ := ctx.Deadline()
	engine.View(&storev1.Entity{Type: typ, Key: key}, deadline, nil, func(s *storev1.State, err error) { answers <- answer{s, err} })
	select {
	case a := <-answers:
		return a.state.GetValue(), a.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// outcome is what a client hears of its change.
func outcome(err error) result {
	var refusal *statestore.Error
	switch {
	case err == nil:
		return acked
	case errors.As(err, &refusal) && refusal.Outcome == storev1.Outcome_OUTCOME_NOT_APPLIED:
		return refused
	}
	return unknown
}

// logger writes a store's own log into the run's.
func (w *world) logger(name string) *slog.Logger {
	if !*debug {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(logWriter{w, name}, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

type logWriter struct {
	world *world
	node  string
}

func (l logWriter) Write(b []byte) (int, error) {
	l.world.log("%s: %s", l.node, b[:len(b)-1])
	return len(b), nil
}
