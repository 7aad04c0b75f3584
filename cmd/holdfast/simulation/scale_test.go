package simulation

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-mesh/holdfast/internal/simnet"
	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
	"github.com/holdfast-mesh/holdfast/replication/gossip"
	"github.com/holdfast-mesh/holdfast/replication/gossip/sim"
	"github.com/holdfast-mesh/holdfast/statestore"
	"github.com/holdfast-mesh/holdfast/statestore/wal/faultfs"
)

var scaleStores = flag.Int("sim.stores", 40, "stores in TestManyStores")

const (
	// scaleWriters of the stores write. Only they dial the others: a stream takes memory at both ends, and with 500 stores
	// all would be 250,000 of them; deltas travel on the streams of the store that made them, so for how soon a write is
	// seen the others don't matter.
	scaleWriters = 5
	scaleWrites  = 200
	scaleKey     = "counted"
)

// A write is seen soon at all of many stores, each a real engine with a disk that takes time to sync, on a network that
// delays and loses. Time is the bubble's: what the processors of 500 machines would take is not in it, what one machine's
// do isn't either.
func TestManyStores(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMany(t, *scaleStores)
		defer m.end()
		var delays []time.Duration
		for i := range scaleWrites {
			delays = append(delays, m.write(i))
		}
		slices.Sort(delays)
		p50, p99 := delays[len(delays)/2], delays[len(delays)*99/100]
		t.Logf("%d stores, ready after %v; %d writes at %d of them, seen by all after p50 %v, p99 %v, max %v of virtual time",
			len(m.stores), m.ready, len(delays), scaleWriters, p50, p99, delays[len(delays)-1])
		// The network takes 2 ms at most, a disk as much: anything like this needed a repair.
		if p99 > scaleLate {
			t.Errorf("p99 is %v, want at most %v", p99, scaleLate)
		}
	})
}

// scaleLate is ten times what network and disks take.
const scaleLate = 60 * time.Millisecond

// many is the stores of a run.
type many struct {
	t      *testing.T
	net    *simnet.Net
	stores []*one
	ready  time.Duration

	// mu guards last and more.
	mu   sync.Mutex
	last []uint64
	more chan struct{}
}

// one is one of them.
type one struct {
	many   *many
	index  int
	engine *statestore.Engine
	node   *gossip.Node
	host   *simnet.Host
	over   chan struct{}
	done   sync.WaitGroup
}

// Push notes what the store shows.
func (o *one) Push(state *storev1.State) {
	m := o.many
	m.mu.Lock()
	m.last[o.index] = max(m.last[o.index], state.GetValue().GetGcounter())
	m.mu.Unlock()
	select {
	case m.more <- struct{}{}:
	default:
	}
}

func newMany(t *testing.T, size int) *many {
	faults := calm
	faults.Loss = 0.01
	m := &many{t: t, net: simnet.New(1, faults), last: make([]uint64, size), more: make(chan struct{}, 1)}
	began := time.Now()
	config := &storev1.Configure{Placement: &configv1.Placement{Epoch: 1, Seed: 1}}
	config.Types = []*configv1.EntityType{{
		Type: "counter", Model: configv1.Model_MODEL_GCOUNTER, Consistency: configv1.Consistency_CONSISTENCY_EVENTUAL,
		Write: configv1.WriteLevel_WRITE_LEVEL_LOCAL,
	}}
	for i := range size {
		config.Placement.Members = append(config.Placement.Members, &configv1.Member{Name: fmt.Sprint("node-", i+1), Weight: 1})
	}
	for i := range size {
		m.start(i, config)
	}
	for _, o := range m.stores[:scaleWriters] {
		for connected := 0; connected < size-1; time.Sleep(10 * time.Millisecond) {
			connected = 0
			for _, p := range o.node.Peers() {
				if p.GetConnected() {
					connected++
				}
			}
			if time.Since(began) > 5*time.Minute {
				t.Fatalf("store %d is connected to %d of %d others", o.index+1, connected, size-1)
			}
		}
	}
	m.ready = time.Since(began)
	// Most stores can't dial here, so they can't fill the slot from another: until the placement is old they would wait for it.
	time.Sleep(time.Minute)
	for _, o := range m.stores {
		o.engine.View(&storev1.Entity{Type: "counter", Key: scaleKey}, time.Time{}, o, func(*storev1.State, error) {})
	}
	return m
}

func (m *many) start(i int, config *storev1.Configure) {
	log := slog.New(slog.DiscardHandler)
	name := config.GetPlacement().GetMembers()[i].GetName()
	engine, err := statestore.Open(statestore.Config{Node: name, Dir: "/data", FS: newDisk(&faultfs.FS{}, uint64(i)), Logger: log})
	if err != nil {
		m.t.Fatal(err)
	}
	o := &one{many: m, index: i, engine: engine, host: m.net.Attach(name, i+1), over: make(chan struct{})}
	address := o.host.Address()
	bind := net.JoinHostPort(address.IP.String(), strconv.Itoa(address.Port))
	o.node, err = gossip.Start(gossip.Config{
		Node: name, Replica: engine.Replica(), Bind: bind, PeerAddress: address.String(), Join: []string{"10.0.0.1:7946", "10.0.0.2:7946"},
		Keys: [][]byte{[]byte("0123456789abcdef")}, Engine: engine, Dialer: o, Logger: log, Transport: sim.NewTransport(o.host), Seed: uint64(i + 1),
	})
	if err != nil {
		m.t.Fatal(err)
	}
	o.done.Go(func() {
		for {
			select {
			case c := <-o.host.Calls():
				o.done.Go(func() { _ = o.node.Accept(context.Background(), c) })
			case <-o.over:
				return
			}
		}
	})
	engine.Connect(statestore.Links{Publisher: o.node, Replicas: o.node, Peers: o.node.Peers, Configured: o.node.Configure})
	if err := engine.Configure(context.Background(), config); err != nil {
		m.t.Fatal(err)
	}
	m.stores = append(m.stores, o)
}

// Dial is gossip.Dialer: only the writers dial.
func (o *one) Dial(ctx context.Context, address string) (gossip.Conn, error) {
	if o.index >= scaleWriters {
		select {
		case <-ctx.Done():
		case <-o.over:
		}
		return nil, simnet.ErrRefused
	}
	return o.host.DialMessages(ctx, address)
}

// write increments at one of the writers and returns how long after the acknowledgement all stores show it.
func (m *many) write(i int) time.Duration {
	o := m.stores[i%scaleWriters]
	answered := make(chan error, 1)
	o.engine.CommitAsync(&storev1.Commit{
		Entity: &storev1.Entity{Type: "counter", Key: scaleKey},
		Operations: []*holdfastv1.Operation{{
			Operation: &holdfastv1.Operation_Increment{Increment: &holdfastv1.Increment{By: 1}},
		}},
	}, time.Now().Add(time.Minute), func(_ *storev1.Committed, err error) { answered <- err })
	if err := <-answered; err != nil {
		m.t.Fatal(err)
	}
	acked := time.Now()
	for late := time.After(time.Minute); ; {
		m.mu.Lock()
		least := slices.Min(m.last)
		m.mu.Unlock()
		if least > uint64(i) {
			return time.Since(acked)
		}
		select {
		case <-m.more:
		case <-late:
			m.t.Fatalf("write %d is not seen by all after a minute", i+1)
		}
	}
}

func (m *many) end() {
	for _, o := range m.stores {
		close(o.over)
		o.node.Kill()
		o.host.Detach()
	}
	for _, o := range m.stores {
		o.done.Wait()
		_ = o.engine.Close()
	}
	time.Sleep(time.Minute)
}
