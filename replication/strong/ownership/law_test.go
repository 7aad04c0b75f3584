package ownership

import (
	"container/heap"
	"errors"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/holdfast-mesh/holdfast/internal/fenced"
)

// TestHeldOnlyWhatIsOwned lets stores with clocks that run at different rates claim slots of one etcd, while requests and
// answers are late or lost, stores pause, leave and start again: whenever a store would serve a slot from memory, the
// slot's key in etcd is the very claim that it thinks it has.
func TestHeldOnlyWhatIsOwned(t *testing.T) {
	served := 0
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t, maxDrift)
		if w.run(steps) != "" {
			t.Fatal(w.broken)
		}
		for _, s := range w.stores {
			served += s.served
		}
	})
	if served == 0 {
		t.Error("no store ever served a slot from memory")
	}
	t.Logf("looked at %d slots that were served", served)
}

// TestDriftBeyondTheBoundIsFound shows that the law's check is sharp: clocks that drift more than the margin allows break it.
func TestDriftBeyondTheBoundIsFound(t *testing.T) {
	found := false
	rapid.Check(t, func(t *rapid.T) {
		if found {
			return
		}
		w := newWorld(t, 3*maxDrift)
		found = w.run(steps) != ""
	})
	if !found {
		t.Error("no run served what another could own")
	}
}

const (
	steps = 400
	// maxDrift is what the margin is good for, in parts of a thousand.
	maxDrift = 50
	// patience is how long a request waits for its answer.
	patience = time.Second
)

// world is an etcd and its stores in simulated time.
type world struct {
	t      *rapid.T
	now    time.Duration
	events events
	serial int
	stores []*simStore
	broken string

	// The etcd: its clock's rate, leases with their expiry in real time, keys.
	rate    float64
	rev     int64
	lease   int64
	expires map[int64]time.Duration
	keys    map[string]Key
}

// simStore is a process with a machine; a restart makes another life of it.
type simStore struct {
	name    string
	home    string
	machine *Machine
	rate    float64
	offset  time.Duration
	life    int
	paused  time.Duration
	served  int
}

type event struct {
	at     time.Duration
	serial int
	do     func()
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at < e[j].at || e[i].at == e[j].at && e[i].serial < e[j].serial
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	old := *e
	last := old[len(old)-1]
	*e = old[:len(old)-1]
	return last
}

func newWorld(t *rapid.T, drift int) *world {
	w := &world{t: t, expires: map[int64]time.Duration{}, keys: map[string]Key{}}
	rate := rapid.Custom(func(t *rapid.T) float64 {
		return 1 + float64(rapid.SampledFrom([]int{-drift, 0, drift}).Draw(t, "drift"))/1000
	})
	w.rate = rate.Draw(t, "etcd's clock")
	for i := range 3 {
		s := &simStore{name: string(rune('a' + i)), rate: rate.Draw(t, "store's clock"), offset: time.Duration(i) * time.Hour}
		if rapid.Bool().Draw(t, "its home is known") {
			s.home = "home of " + s.name
		}
		w.stores = append(w.stores, s)
		w.start(s)
	}
	w.after(0, w.disturb)
	return w
}

func (w *world) after(d time.Duration, do func()) {
	w.serial++
	heap.Push(&w.events, event{w.now + d, w.serial, do})
}

// in runs do in the store's process after d, or when its pause ends; not if it was started again meanwhile.
func (w *world) in(s *simStore, d time.Duration, do func()) {
	life := s.life
	var try func()
	try = func() {
		switch {
		case s.life != life:
		case s.paused > w.now:
			w.after(s.paused-w.now, try)
		default:
			do()
		}
	}
	w.after(d, try)
}

func (s *simStore) clock(now time.Duration) time.Duration {
	return s.offset + time.Duration(s.rate*float64(now))
}

// run returns what went wrong.
func (w *world) run(steps int) string {
	for range steps {
		e := heap.Pop(&w.events).(event)
		w.now = max(w.now, e.at)
		e.do()
		for _, s := range w.stores {
			for slot, epoch := range s.machine.claims {
				if !s.machine.Held(s.clock(w.now), slot, epoch) {
					continue
				}
				s.served++
				if k := w.keys[slotName(slot)]; k.Value != s.name || k.Created != epoch {
					w.broken = fmt.Sprintf("at %s store %s serves slot %d of epoch %d, in etcd it is %+v", w.now, s.name, slot.Number, epoch, k)
					return w.broken
				}
			}
		}
	}
	return ""
}

func (w *world) start(s *simStore) {
	s.life++
	s.machine = New(Config{Node: s.name, Home: s.home, TTL: MinTTL})
	w.in(s, 0, func() { w.loop(s) })
}

// loop is the driver's for the lease.
func (w *world) loop(s *simStore) {
	req, wait := s.machine.Next(s.clock(w.now))
	if req.Kind == None {
		w.in(s, max(time.Duration(float64(wait)/s.rate), time.Millisecond), func() { w.loop(s) })
		return
	}
	w.call(s, req, func(a Answer) {
		s.machine.Done(s.clock(w.now), req, a)
		w.loop(s)
	})
}

func (w *world) claim(s *simStore, step Step) {
	if step.Request.Kind == None {
		return
	}
	w.call(s, step.Request, func(a Answer) {
		w.claim(s, s.machine.Claimed(s.clock(w.now), step.Request, a))
	})
}

// call sends a request. It may arrive late, even after its sender has given up; so may its answer; or either is lost.
func (w *world) call(s *simStore, req Request, done func(Answer)) {
	delay := rapid.SampledFrom([]time.Duration{0, 0, 0, 0, 1, 10, 400, 900, 1500, 4000, -1})
	over := false
	finish := func(a Answer) {
		if !over {
			over = true
			done(a)
		}
	}
	w.in(s, patience, func() { finish(Answer{Err: errors.New("no answer")}) })
	there := delay.Draw(w.t, "request's delay")
	if there < 0 {
		return
	}
	w.after(there*time.Millisecond, func() {
		a := w.answer(s, req)
		if back := delay.Draw(w.t, "answer's delay"); back >= 0 {
			w.in(s, back*time.Millisecond, func() { finish(a) })
		}
	})
}

// disturb does something to a store, again and again.
func (w *world) disturb() {
	s := rapid.SampledFrom(w.stores).Draw(w.t, "store")
	switch rapid.SampledFrom([]string{"claim", "claim", "claim", "claim", "claim", "pause", "restart", "leave"}).Draw(w.t, "act") {
	case "claim":
		slot := fenced.Slot{Type: "t", Number: rapid.Uint32Range(1, 2).Draw(w.t, "slot")}
		w.in(s, 0, func() { w.claim(s, s.machine.Claim(slot)) })
	case "pause":
		s.paused = w.now + rapid.SampledFrom([]time.Duration{100, 1700, 1900, 2100, 5000}).Draw(w.t, "pause")*time.Millisecond
	case "restart":
		w.start(s)
	case "leave":
		s.machine.Leave(s.clock(w.now))
	}
	w.after(rapid.SampledFrom([]time.Duration{1, 50, 300, 2000}).Draw(w.t, "calm")*time.Millisecond, w.disturb)
}

func slotName(s fenced.Slot) string { return fmt.Sprint("slot ", s.Number) }

// answer is what etcd does with a request.
func (w *world) answer(s *simStore, req Request) Answer {
	_, alive := w.expires[req.Lease]
	store := "store " + s.name
	put := func(key, value string) {
		w.rev++
		k := w.keys[key]
		if k.Created == 0 {
			k.Created = w.rev
		}
		k.Value, k.Lease = value, req.Lease
		w.keys[key] = k
	}
	switch req.Kind {
	case Grant:
		w.lease++
		w.renew(w.lease, req.TTL)
		return Answer{Lease: w.lease, TTL: req.TTL}
	case ReadFormer:
		return Answer{Key: w.keys[store]}
	case Probe:
		return Answer{}
	case Look:
		return Answer{Key: w.keys[slotName(req.Slot)]}
	case Revoke:
		w.end(req.Lease)
		return Answer{}
	case Register, KeepAlive:
		if !alive {
			return Answer{Err: ErrLeaseGone}
		}
		if req.Kind == Register {
			put(store, s.home)
			return Answer{}
		}
		w.renew(req.Lease, MinTTL)
		return Answer{TTL: MinTTL}
	case Take:
		key := slotName(req.Slot)
		if w.keys[key].Created == 0 {
			if !alive {
				return Answer{Err: ErrLeaseGone}
			}
			put(key, s.name)
		}
		return Answer{Key: w.keys[key]}
	}
	panic(req.Kind)
}

// renew lets a lease live for its TTL on etcd's clock, and perhaps a little longer.
func (w *world) renew(lease int64, ttl time.Duration) {
	lag := rapid.SampledFrom([]time.Duration{0, 0, 1, 500}).Draw(w.t, "lag") * time.Millisecond
	at := w.now + time.Duration(float64(ttl)/w.rate) + lag
	w.expires[lease] = at
	w.after(at-w.now, func() {
		if w.expires[lease] == at {
			w.end(lease)
		}
	})
}

func (w *world) end(lease int64) {
	delete(w.expires, lease)
	for name, k := range w.keys {
		if k.Lease == lease {
			delete(w.keys, name)
		}
	}
}
