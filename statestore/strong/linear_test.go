package strong_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anishathalye/porcupine"
	"google.golang.org/grpc/codes"
	"pgregory.net/rapid"

	"github.com/holdfast-mesh/holdfast/internal/fenced"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
	"github.com/holdfast-mesh/holdfast/statestore/refusal"
	"github.com/holdfast-mesh/holdfast/statestore/strong"
	"github.com/holdfast-mesh/holdfast/statestore/strong/strongtest"
)

// These tests run stores with an etcd and a network that delay, lose and reorder, in virtual time, and hold what callers
// saw against a list for each key: a command appends its id to the lists of its keys, so that whatever is lost, applied
// twice or seen in another order shows in the next read.

// weather is how bad it is: probabilities in percent.
type weather struct {
	seed uint64
	// slow is the longest delay of anything.
	slow time.Duration
	// lost, late and again are what becomes of commits: never carried out, carried out when nobody waits any more, and sent
	// again while the first may be under way. unsent, unanswered and hungUp are what becomes of calls to other stores.
	lost, late, again, unsent, unanswered, hungUp int
	// unheld is how often a store can't be sure of its lease, lapse how often a lease ends.
	unheld int
	lapse  time.Duration
}

func drawWeather(t *rapid.T) weather {
	percent := func(name string, most int) int { return rapid.IntRange(0, most).Draw(t, name) }
	return weather{
		seed: rapid.Uint64().Draw(t, "seed"), slow: time.Duration(percent("slow", 300)) * time.Millisecond,
		lost: percent("lost", 20), late: percent("late", 30), again: percent("again", 30),
		unsent: percent("unsent", 20), unanswered: percent("unanswered", 20), hungUp: percent("hungUp", 10),
		unheld: percent("unheld", 30), lapse: time.Duration(rapid.IntRange(100, 5000).Draw(t, "lapse")) * time.Millisecond,
	}
}

type storm struct {
	weather
	mu   sync.Mutex
	rng  *rand.Rand
	over atomic.Bool
}

// happens is true in so many percent of the cases, until the storm is over.
func (s *storm) happens(percent int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rng.IntN(100) < percent && !s.over.Load()
}

func (s *storm) intN(n int) int { s.mu.Lock(); defer s.mu.Unlock(); return s.rng.IntN(n) }

// some is a time up to d. Most are short.
func (s *storm) some(d time.Duration) time.Duration {
	if s.over.Load() || d <= 0 {
		return 0
	}
	if s.intN(4) > 0 {
		d /= 20
	}
	return time.Duration(s.intN(int(d) + 1))
}

// rest waits for a while, unless ctx ends.
func (s *storm) rest(ctx context.Context) error {
	select {
	case <-time.After(s.some(s.slow)):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// stormy is a store's etcd in a storm.
type stormy struct {
	*strongtest.Store
	*storm
	etcd *strongtest.Etcd
	// pending counts commits that are carried out when nobody waits any more.
	pending *sync.WaitGroup
}

func around[T any](s *stormy, ctx context.Context, call func() (T, error)) (out T, err error) {
	if err := s.rest(ctx); err != nil {
		return out, err
	}
	if out, err = call(); err == nil {
		err = s.rest(ctx)
	}
	return out, err
}

func (s *stormy) Load(ctx context.Context, typ string, slot uint32, key string) ([]byte, int64, error) {
	type loaded struct {
		head []byte
		rev  int64
	}
	l, err := around(s, ctx, func() (l loaded, err error) {
		l.head, l.rev, err = s.Store.Load(ctx, typ, slot, key)
		return l, err
	})
	return l.head, l.rev, err
}

func (s *stormy) Cells(ctx context.Context, typ string, slot uint32, key, from, to string, limit int) ([]fenced.Cell, bool, error) {
	more := false
	cells, err := around(s, ctx, func() (cells []fenced.Cell, err error) {
		cells, more, err = s.Store.Cells(ctx, typ, slot, key, from, to, limit)
		return cells, err
	})
	return cells, more, err
}

func (s *stormy) Claim(ctx context.Context, typ string, slot uint32) (string, int64, error) {
	var epoch int64
	owner, err := around(s, ctx, func() (owner string, err error) {
		owner, epoch, err = s.Store.Claim(ctx, typ, slot)
		return owner, err
	})
	return owner, epoch, err
}

func (s *stormy) Owner(ctx context.Context, typ string, slot uint32) (string, error) {
	return around(s, ctx, func() (string, error) { return s.Store.Owner(ctx, typ, slot) })
}

func (s *stormy) Held(typ string, slot uint32, epoch int64) bool {
	return s.Store.Held(typ, slot, epoch) && !s.happens(s.unheld)
}

// Commit is replication/strong's: an attempt without answer is made again, as long as there is time.
func (s *stormy) Commit(ctx context.Context, writes []fenced.Write) (int64, error) {
	uncertain := false
	for {
		rev, err := s.attempt(ctx, writes)
		var refused *strongtest.Error
		switch {
		case err == nil:
			return rev, nil
		case errors.As(err, &refused):
			if rev := s.ours(writes); refused.Changed && rev != 0 {
				return rev, nil
			}
			if uncertain {
				refused.Result = storev1.Outcome_OUTCOME_UNKNOWN
			}
			return 0, refused
		}
		uncertain = true
		if ctx.Err() != nil || !s.happens(s.again) {
			return 0, err
		}
	}
}

// ours is the revision of the first write's head where etcd has that very one.
func (s *stormy) ours(writes []fenced.Write) int64 {
	for _, w := range writes {
		if head, rev, _ := s.etcd.Entity(w.Slot.Type, w.Key); !w.Keep && rev > w.Revision && bytes.Equal(head, w.Head) {
			return rev
		}
	}
	return 0
}

func (s *stormy) attempt(ctx context.Context, writes []fenced.Write) (int64, error) {
	carryOut := func() (int64, error) { return s.Store.Commit(context.Background(), writes) }
	if err := s.rest(ctx); err != nil {
		return 0, strongtest.ErrLost
	}
	switch {
	case s.happens(s.lost):
		_ = s.rest(ctx)
		return 0, strongtest.ErrLost
	case s.happens(s.late):
		s.pending.Go(func() {
			time.Sleep(s.some(20 * s.slow))
			_, _ = carryOut()
		})
		_ = s.rest(ctx)
		return 0, strongtest.ErrLost
	}
	rev, err := carryOut()
	if s.rest(ctx) != nil {
		return 0, strongtest.ErrLost
	}
	return rev, err
}

// roads is the network between the stores in a storm.
type roads struct {
	*mesh
	*storm
	mu sync.Mutex
}

func (r *roads) Call(ctx context.Context, to string, req *storev1.Request) (*storev1.Response, error) {
	if err := r.rest(ctx); err != nil {
		return nil, err
	}
	if r.happens(r.unsent) {
		return nil, &strongtest.Error{Text: "no connection", Result: notApplied, GRPC: codes.Unavailable}
	}
	if r.happens(r.hungUp) {
		r.mu.Lock()
		n := r.nodes[to]
		old := n.peers
		n.peers = strong.NewCaller()
		r.mu.Unlock()
		n.cmd.Gone(old)
	}
	r.mu.Lock()
	n := r.nodes[to]
	caller := n.peers
	r.mu.Unlock()
	// The deadline goes with the request; that the caller left does not.
	ctx2, cancel := context.WithTimeout(context.Background(), max(strong.Timeout(req), time.Millisecond))
	defer cancel()
	answered := make(chan *storev1.Response, 1)
	r.work.Go(func() { answered <- n.cmd.Call(ctx2, caller, true, req) })
	select {
	case resp := <-answered:
		if r.happens(r.unanswered) || r.rest(ctx) != nil {
			return nil, errors.New("the answer was lost")
		}
		return resp, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// step is what a caller did, and saw, of some keys.
type step struct {
	id   string
	keys []string
	// kind is "read", "append", "delete", or "match": an append where the first key's list was expected, refused where refused.
	kind     string
	expected string
	refused  bool
	// seen are the lists that a read saw, in the order of keys.
	seen []string
}

func (s step) String() string {
	return fmt.Sprintf("%s %s %v expected %q refused %v saw %q", s.kind, s.id, s.keys, s.expected, s.refused, s.seen)
}

// lists is the model: what each key has.
var lists = porcupine.Model{
	Init: func() any { return "" },
	Step: func(state, input, _ any) (bool, any) {
		// A state is "key=list" pairs in the order of keys.
		m := map[string]string{}
		for _, pair := range strings.Split(state.(string), " ") {
			key, list, _ := strings.Cut(pair, "=")
			m[key] = list
		}
		s := input.(step)
		switch s.kind {
		case "read":
			for i, key := range s.keys {
				if m[key] != s.seen[i] {
					return false, nil
				}
			}
			return true, state
		case "match":
			if (m[s.keys[0]] == s.expected) == s.refused {
				// One whose outcome is not known is never refused: it may be after everything else.
				return s.seen != nil, state
			}
			if s.refused {
				return true, state
			}
		case "delete":
			m[s.keys[0]] = ""
		}
		if s.kind != "delete" {
			for _, key := range s.keys {
				m[key] += s.id + ","
			}
		}
		var out []string
		for _, key := range slices.Sorted(func(yield func(string) bool) {
			for key := range m {
				if !yield(key) {
					return
				}
			}
		}) {
			if m[key] != "" {
				out = append(out, key+"="+m[key])
			}
		}
		return true, strings.Join(out, " ")
	},
	Equal: func(a, b any) bool { return a == b },
	DescribeOperation: func(input, _ any) string {
		return input.(step).String()
	},
}

// world is a run.
type world struct {
	*mesh
	*storm
	typ     string
	pending sync.WaitGroup
	clock   atomic.Int64
	counts  sync.Mutex
	history []porcupine.Operation
	// outcomes count what became of the commands; shaky counts those that were unknown at first.
	applied, refused, unknown, shaky int
}

func newWorld(t *testing.T, w weather, typ string) *world {
	m := &mesh{t: t, etcd: strongtest.New(), nodes: map[string]*node{}, types: types(t), cut: map[string]error{}}
	out := &world{mesh: m, storm: &storm{weather: w, rng: rand.New(rand.NewPCG(w.seed, 0))}, typ: typ}
	network := &roads{mesh: m, storm: out.storm}
	m.placed = []string{"a", "b", "c"}
	for _, name := range m.placed {
		n := &node{mesh: m, name: name, etcd: m.etcd.Store(name), peers: strong.NewCaller()}
		etcd := &stormy{Store: n.etcd, storm: out.storm, etcd: m.etcd, pending: &out.pending}
		n.cmd = strong.New(m.config(name, func() (strong.Committer, strong.Forwarder) { return etcd, network }))
		m.nodes[name] = n
	}
	return out
}

func (w *world) anyNode() *node { return w.nodes[w.placed[w.intN(len(w.placed))]] }

func (w *world) record(s step, call int64, known bool) {
	ret := w.clock.Add(1)
	if !known {
		ret = math.MaxInt64
	}
	w.counts.Lock()
	defer w.counts.Unlock()
	w.history = append(w.history, porcupine.Operation{Input: s, Call: call, Return: ret})
}

// listOf is a state as a list.
func listOf(s *storev1.State) string {
	if es := s.GetValue().GetEventSourced(); es != nil {
		list := string(es.Snapshot)
		for _, e := range es.Events {
			list += string(e.Payload) + ","
		}
		return list
	}
	return string(s.GetValue().GetValue())
}

// appendOps appends id to the list in s.
func (w *world) appendOps(s *storev1.State, id string) []*holdfastv1.Operation {
	if w.typ == "account" {
		return setOp(listOf(s) + id + ",")
	}
	ops := []*holdfastv1.Operation{{Operation: &holdfastv1.Operation_Append{Append: &holdfastv1.AppendEvents{
		Events: []*holdfastv1.Event{{Type: "e", Payload: []byte(id)}},
	}}}}
	if s.GetValue().GetEventSourced().GetSnapshotWanted() {
		ops = append(ops, &holdfastv1.Operation{Operation: &holdfastv1.Operation_Snapshot{Snapshot: &holdfastv1.SaveSnapshot{Snapshot: []byte(listOf(s) + id + ",")}}})
	}
	return ops
}

func (w *world) entity(key string) *storev1.Entity { return &storev1.Entity{Type: w.typ, Key: key} }

func (w *world) call(n *node, caller *strong.Caller, req *storev1.Request) (*storev1.Response, *refusal.Error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	r := n.cmd.Call(ctx, caller, false, req)
	if r.Error != nil {
		return nil, refusal.FromProto(r.Error)
	}
	return r, nil
}

// read reads keys as one, and returns the version of the first and its list.
func (w *world) read(keys []string) (version, list string, ok bool) {
	call := w.clock.Add(1)
	r, err := w.call(w.anyNode(), nil, &storev1.Request{Call: &storev1.Request_Get{Get: &storev1.Get{Entity: w.entity(keys[0]), Others: keys[1:]}}})
	if err != nil {
		return "", "", false
	}
	s := step{kind: "read", keys: keys}
	for _, st := range append([]*storev1.State{r.GetState()}, r.GetOthers()...) {
		s.seen = append(s.seen, listOf(st))
	}
	w.record(s, call, true)
	return r.GetState().Version, s.seen[0], true
}

// command carries out s, again where its outcome is not known or it was not applied.
func (w *world) command(s step, version string) {
	call := w.clock.Add(1)
	unknown := false
	for range 1 + w.intN(4) {
		switch outcome, mismatch := w.try(s, version); {
		case outcome == storev1.Outcome_OUTCOME_APPLIED:
			w.count(&w.applied)
			if unknown {
				w.count(&w.shaky)
			}
			w.record(s, call, true)
			return
		case mismatch && !unknown:
			s.refused = true
			w.record(s, call, true)
			return
		case mismatch:
			// Refused, and no attempt was applied: else that is what the store says first.
			w.count(&w.refused)
			return
		case outcome == storev1.Outcome_OUTCOME_UNKNOWN:
			unknown = true
		}
		time.Sleep(w.some(time.Second))
	}
	if unknown {
		w.count(&w.unknown)
		s.seen = []string{}
		w.record(s, call, false)
		return
	}
	w.count(&w.refused)
}

func (w *world) count(n *int) { w.counts.Lock(); *n++; w.counts.Unlock() }

func (w *world) try(s step, version string) (outcome storev1.Outcome, mismatch bool) {
	n, caller := w.anyNode(), strong.NewCaller()
	defer n.cmd.Gone(caller)
	r, err := w.call(n, caller, &storev1.Request{Call: &storev1.Request_Begin{Begin: &storev1.Begin{
		Entity: w.entity(s.keys[0]), Others: s.keys[1:], RequestId: s.id, TimeoutMs: 2000, IfMatch: version,
	}}})
	if err != nil {
		return err.Outcome, err.Code == codes.FailedPrecondition
	}
	begun := r.GetBegun()
	if begun.AlreadyApplied {
		return storev1.Outcome_OUTCOME_APPLIED, false
	}
	time.Sleep(w.some(w.slow))
	commit := &storev1.Commit{Entity: w.entity(s.keys[0]), RequestId: s.id, Token: begun.Token, TimeoutMs: 2000}
	if s.kind == "delete" {
		commit.Operations = []*holdfastv1.Operation{{Operation: &holdfastv1.Operation_Delete{Delete: &holdfastv1.Delete{}}}}
	} else {
		commit.Operations = w.appendOps(begun.State, s.id)
		for i, other := range begun.Others {
			commit.Others = append(commit.Others, &holdfastv1.EntityOut{Key: s.keys[i+1], Operations: w.appendOps(other, s.id)})
		}
	}
	r, err = w.call(n, caller, &storev1.Request{Call: &storev1.Request_Commit{Commit: commit}})
	switch {
	case err != nil:
		return err.Outcome, false
	case r.GetCommitted() == nil:
		w.t.Errorf("commit was answered with %v", r)
	}
	return storev1.Outcome_OUTCOME_APPLIED, false
}

// client does some things at random.
func (w *world) client(name string, steps int) {
	keys := []string{"x", "y", "z"}
	for i := range steps {
		id := fmt.Sprintf("%s%d", name, i)
		key := keys[w.intN(len(keys))]
		switch w.intN(8) {
		case 0, 1:
			w.read([]string{key})
		case 2:
			w.read([]string{"y", "x"})
		case 3:
			w.command(step{kind: "append", id: id, keys: []string{"y", "x"}}, "")
		case 4:
			if version, list, ok := w.read([]string{key}); ok && version != "" {
				w.command(step{kind: "match", id: id, keys: []string{key}, expected: list}, version)
			}
		case 5:
			if w.intN(3) == 0 {
				w.command(step{kind: "delete", id: id, keys: []string{key}}, "")
			}
		default:
			w.command(step{kind: "append", id: id, keys: []string{key}}, "")
		}
		time.Sleep(w.some(w.slow))
	}
}

// run lets clients work in the storm, and sees that all is well after it.
func (w *world) run() error {
	var clients, leases sync.WaitGroup
	for _, name := range []string{"p", "q", "r", "s"} {
		clients.Go(func() { w.client(name, 12) })
	}
	stop := make(chan struct{})
	leases.Go(func() {
		for {
			select {
			case <-time.After(w.some(8 * w.lapse)):
				w.anyNode().etcd.Lapse()
			case <-stop:
				return
			}
		}
	})
	clients.Wait()
	close(stop)
	leases.Wait()
	w.over.Store(true)
	w.pending.Wait()
	// In fair weather all is well again: turns that were left behind end with their deadlines.
	time.Sleep(2 * time.Second)
	for _, key := range []string{"x", "y", "z"} {
		if _, _, ok := w.read([]string{key}); !ok {
			return fmt.Errorf("%s can't be read after the storm", key)
		}
		before := w.applied
		w.command(step{kind: "append", id: "end", keys: []string{key}}, "")
		if w.applied == before {
			return fmt.Errorf("%s can't be written after the storm", key)
		}
	}
	w.read([]string{"x", "y", "z"})
	for _, n := range w.nodes {
		n.cmd.Close()
	}
	w.work.Wait()
	return nil
}

// bounded makes the history easier to check, and no other. A command whose outcome is not known was carried out before the
// first answer that shows it. Where none does, it was never carried out, or a delete came before any read: without it
// everybody saw the same, but for who was refused because of it.
func bounded(history []porcupine.Operation) []porcupine.Operation {
	slices.SortFunc(history, func(a, b porcupine.Operation) int { return cmp.Compare(a.Call, b.Call) })
	var out []porcupine.Operation
	for _, op := range history {
		s := op.Input.(step)
		if op.Return != math.MaxInt64 || s.kind == "delete" {
			out = append(out, op)
			continue
		}
		keep := false
		for _, other := range history {
			o := other.Input.(step)
			switch {
			case o.refused && slices.ContainsFunc(s.keys, func(key string) bool { return slices.Contains(o.keys, key) }):
				keep = true
			case o.kind == "read" && slices.ContainsFunc(o.seen, func(list string) bool { return strings.Contains(","+list, ","+s.id+",") }):
				keep = true
				op.Return = min(op.Return, other.Return)
			}
		}
		if keep {
			out = append(out, op)
		}
	}
	return out
}

// errUndecided: so many commands of unknown outcome that their orders can't be tried in time.
var errUndecided = errors.New("the check took too long")

// check holds the history against the model. Not in virtual time.
func check(history []porcupine.Operation) error {
	switch porcupine.CheckOperationsTimeout(lists, bounded(history), 10*time.Second) {
	case porcupine.Illegal:
		var all []string
		for _, op := range history {
			all = append(all, fmt.Sprintf("%d-%d %v", op.Call, op.Return, op.Input))
		}
		return fmt.Errorf("not linearizable:\n%s", strings.Join(all, "\n"))
	case porcupine.Unknown:
		return errUndecided
	}
	return nil
}

func TestLinearizable(t *testing.T) {
	for _, typ := range []string{"account", "cart"} {
		t.Run(typ, func(t *testing.T) {
			var sum struct{ runs, undecided, applied, refused, unknown, shaky int }
			rapid.Check(t, func(rt *rapid.T) {
				weather := drawWeather(rt)
				var err error
				var history []porcupine.Operation
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t, weather, typ)
					err = w.run()
					history = w.history
					sum.applied += w.applied
					sum.refused += w.refused
					sum.unknown += w.unknown
					sum.shaky += w.shaky
				})
				if err == nil {
					err = check(history)
				}
				sum.runs++
				if errors.Is(err, errUndecided) {
					sum.undecided++
					return
				}
				if err != nil {
					rt.Fatalf("%+v: %v", weather, err)
				}
			})
			t.Logf("%d runs, %d undecided: %d applied, %d of them after an unknown outcome, %d not applied, %d unknown", sum.runs, sum.undecided, sum.applied, sum.shaky, sum.refused, sum.unknown)
			if sum.shaky == 0 || sum.unknown == 0 || sum.refused == 0 {
				t.Error("the storms were too mild")
			}
			if sum.undecided > sum.runs/20 {
				t.Error("too many histories could not be checked")
			}
		})
	}
}
