package strong

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/genproto/googleapis/rpc/code"

	"github.com/holdfast-mesh/holdfast/internal/etcd/etcdtest"
	"github.com/holdfast-mesh/holdfast/internal/fenced"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
)

func load(t *testing.T, c *Committer, slot uint32, key string) (string, int64) {
	t.Helper()
	head, rev, err := c.Load(within(t, 5*time.Second), "t", slot, key)
	if err != nil {
		t.Fatalf("load %s: %v", key, err)
	}
	return string(head), rev
}

func cells(t *testing.T, c *Committer, key, from, to string, limit int) (got []string, more bool) {
	t.Helper()
	list, more, err := c.Cells(within(t, 5*time.Second), "t", 1, key, from, to, limit)
	if err != nil {
		t.Fatalf("cells of %s: %v", key, err)
	}
	for _, cell := range list {
		got = append(got, cell.Name+"="+string(cell.Value))
	}
	return got, more
}

func due(t *testing.T, c *Committer, before int64, limit int) []fenced.Mark {
	t.Helper()
	marks, err := c.Due(within(t, 5*time.Second), "t", time.Unix(before, 0), limit)
	if err != nil {
		t.Fatalf("due: %v", err)
	}
	return marks
}

// retries is how many commits were sent again, by the registry that the Committer was given.
func retries(t *testing.T, r *prometheus.Registry) float64 {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "holdfast_strong_commit_retries_total" {
			return f.Metric[0].Counter.GetValue()
		}
	}
	return 0
}

func must(t *testing.T, c *Committer, writes ...fenced.Write) int64 {
	t.Helper()
	rev, err := c.Commit(within(t, 5*time.Second), writes)
	if err != nil {
		t.Fatalf("commit: %v", err)
	}
	return rev
}

func TestCellsAndMarksGoWithTheirHead(t *testing.T) {
	server := etcdtest.Start(t)
	c := open(t, server.Path, "a")
	epoch := claim(t, c, 1)
	w := one(epoch, "k", 0, []byte("1"))
	w.Put = []fenced.Cell{{Name: "e/1", Value: []byte("x")}, {Name: "e/2", Value: []byte("y")}, {Name: "s", Value: []byte("z")}}
	w.Mark = 1000
	rev := must(t, c, w)
	other := one(epoch, "k2", 0, []byte("other"))
	other.Put, other.Mark = []fenced.Cell{{Name: "e/1", Value: []byte("not k's")}}, 900
	must(t, c, other)

	if got, more := cells(t, c, "k", "", "", 0); more || !slices.Equal(got, []string{"e/1=x", "e/2=y", "s=z"}) {
		t.Errorf("cells %q, more %v", got, more)
	}
	if got, more := cells(t, c, "k", "e/", "e0", 1); !more || !slices.Equal(got, []string{"e/1=x"}) {
		t.Errorf("the first event %q, more %v", got, more)
	}
	if got, more := cells(t, c, "k", "e/2", "e0", 1); more || !slices.Equal(got, []string{"e/2=y"}) {
		t.Errorf("the second event %q, more %v", got, more)
	}
	if got := due(t, c, 999, 0); !slices.Equal(got, []fenced.Mark{{At: 900, Slot: 1, Key: "k2"}}) {
		t.Errorf("due at 999: %+v", got)
	}
	if got := due(t, c, 1000, 0); len(got) != 2 || got[1] != (fenced.Mark{At: 1000, Slot: 1, Key: "k"}) {
		t.Errorf("due at 1000: %+v", got)
	}
	if got := due(t, c, 5000, 1); len(got) != 1 || got[0].At != 900 {
		t.Errorf("the first due: %+v", got)
	}

	// What is dropped goes, but for what is put in the same moment; the mark moves.
	w = one(epoch, "k", rev, []byte("2"))
	w.Drop = []string{"e/"}
	w.Put = []fenced.Cell{{Name: "e/2", Value: []byte("Y")}, {Name: "e/3", Value: []byte("new")}}
	w.Mark, w.Unmark = 2000, 1000
	rev = must(t, c, w)
	if got, _ := cells(t, c, "k", "", "", 0); !slices.Equal(got, []string{"e/2=Y", "e/3=new", "s=z"}) {
		t.Errorf("cells %q", got)
	}
	if got := due(t, c, 1999, 0); len(got) != 1 {
		t.Errorf("due at 1999: %+v", got)
	}

	// Cells and marks may be written beside a head that stays.
	w = fenced.Write{Slot: w.Slot, Epoch: epoch, Key: "k", Revision: rev, Keep: true, Put: []fenced.Cell{{Name: "s", Value: []byte("Z")}}, Mark: 2000, Unmark: 2000}
	must(t, c, w)
	if got, r := load(t, c, 1, "k"); got != "2" || r != rev {
		t.Errorf("head %q at %d, want it as it was at %d", got, r, rev)
	}
	if got, _ := cells(t, c, "k", "s", "", 0); !slices.Equal(got, []string{"s=Z"}) {
		t.Errorf("cells %q", got)
	}
	if got := due(t, c, 2000, 0); len(got) != 2 {
		t.Errorf("due at 2000: %+v", got)
	}

	// Nothing of it is written where the head has changed.
	w = one(epoch, "k", rev-1, []byte("3"))
	w.Drop, w.Unmark = []string{""}, 2000
	if _, err := c.Commit(within(t, 5*time.Second), []fenced.Write{w}); !errors.Is(err, ErrConflict) {
		t.Errorf("commit at an old revision: %v", err)
	}
	if got, _ := cells(t, c, "k", "", "", 0); len(got) != 3 {
		t.Errorf("cells %q", got)
	}

	// Forgotten: head, cells and mark.
	must(t, c, fenced.Write{Slot: w.Slot, Epoch: epoch, Key: "k", Revision: rev, Drop: []string{"e/", ""}, Unmark: 2000})
	got, _ := cells(t, c, "k", "", "", 0)
	head, rev := load(t, c, 1, "k")
	if len(got) != 0 || head != "" || rev != 0 || len(due(t, c, 5000, 0)) != 1 {
		t.Errorf("left of a forgotten entity: head %q, %d, cells %q, marks %+v", head, rev, got, due(t, c, 5000, 0))
	}
	if got, _ := cells(t, c, "k2", "", "", 0); len(got) != 1 {
		t.Errorf("cells of the other entity: %q", got)
	}
}

func TestSeveralEntitiesAreWrittenTogether(t *testing.T) {
	server := etcdtest.Start(t)
	a, b := open(t, server.Path, "a"), open(t, server.NewPath(), "b")
	mine, theirs := claim(t, a, 1), claim(t, b, 2)
	at := func(slot uint32, epoch int64, key string, rev int64, head string) fenced.Write {
		return fenced.Write{Slot: fenced.Slot{Type: "t", Number: slot}, Epoch: epoch, Key: key, Revision: rev, Head: []byte(head)}
	}
	rev := must(t, a, at(1, mine, "x", 0, "x1"), at(2, theirs, "y", 0, "y1"), at(1, mine, "z", 0, "z1"))
	for slot, key := range map[uint32]string{1: "x", 2: "y"} {
		if got, r := load(t, b, slot, key); got != key+"1" || r != rev {
			t.Errorf("%s is %q at %d, want it at %d", key, got, r, rev)
		}
	}
	for _, test := range []struct {
		name            string
		writes          []fenced.Write
		index           int
		conflict, moved bool
	}{
		{"one has changed", []fenced.Write{at(1, mine, "x", rev, "x2"), at(2, theirs, "y", rev-1, "y2")}, 1, true, false},
		{"one slot has moved", []fenced.Write{at(1, mine, "x", rev, "x2"), at(2, theirs-1, "y", rev, "y2")}, 1, false, true},
		{"one that is only looked at has changed", []fenced.Write{at(1, mine, "x", rev, "x2"), {Slot: fenced.Slot{Type: "t", Number: 2}, Epoch: theirs, Key: "y", Revision: 7, Keep: true}}, 1, true, false},
	} {
		_, err := a.Commit(within(t, 5*time.Second), test.writes)
		var e *Error
		if !errors.As(err, &e) || e.Index() != test.index || e.Conflict() != test.conflict || e.NotOwner() != test.moved || outcome(err) != storev1.Outcome_OUTCOME_NOT_APPLIED {
			t.Fatalf("%s: %v, outcome %v", test.name, err, outcome(err))
		}
		if got, r := load(t, a, 1, "x"); got != "x1" || r != rev {
			t.Errorf("%s: x is %q at %d", test.name, got, r)
		}
	}
	// Another store's epoch that failed says nothing about claims of this one.
	if !a.Held("t", 1, mine) || !b.Held("t", 2, theirs) {
		t.Error("a claim was dropped")
	}
}

func TestCommitsThatCannotBeAreRefused(t *testing.T) {
	server := etcdtest.Start(t)
	c := open(t, server.Path, "a", func(cfg *Config) { cfg.Admit = func() error { return errors.New("81 % of the quota") } })
	epoch := claim(t, c, 1)
	many := make([]fenced.Write, 128)
	for i := range many {
		many[i] = one(epoch, fmt.Sprint(i), 0, []byte("v"))
		many[i].Frees = true
	}
	wide := one(epoch, "k", 0, []byte("v"))
	wide.Frees = true
	for i := range 128 {
		wide.Put = append(wide.Put, fenced.Cell{Name: fmt.Sprint(i)})
	}
	big := one(epoch, "k", 0, []byte("v"))
	big.Frees = true
	big.Put = []fenced.Cell{{Name: "1", Value: make([]byte, 900_000)}, {Name: "2", Value: make([]byte, 900_000)}}
	room := one(epoch, "k", 0, []byte("v"))
	small := room
	small.Frees = true
	for _, test := range []struct {
		name   string
		writes []fenced.Write
		want   error
		code   code.Code
	}{
		{"nothing", nil, ErrInvalid, code.Code_INVALID_ARGUMENT},
		{"twice the same", []fenced.Write{small, small}, ErrInvalid, code.Code_INVALID_ARGUMENT},
		{"too many entities", many, ErrTooLarge, code.Code_RESOURCE_EXHAUSTED},
		{"too many cells", []fenced.Write{wide}, ErrTooLarge, code.Code_RESOURCE_EXHAUSTED},
		{"too many bytes", []fenced.Write{big}, ErrTooLarge, code.Code_RESOURCE_EXHAUSTED},
		{"no room", []fenced.Write{small, room}, ErrFull, code.Code_RESOURCE_EXHAUSTED},
		{"no claim", []fenced.Write{{Slot: small.Slot, Key: "k", Head: []byte("v"), Frees: true}}, ErrNotOwner, code.Code_UNAVAILABLE},
	} {
		_, err := c.Commit(within(t, 5*time.Second), test.writes)
		var e *Error
		if !errors.As(err, &e) || !errors.Is(err, test.want) || e.Code() != int32(test.code) || outcome(err) != storev1.Outcome_OUTCOME_NOT_APPLIED {
			t.Errorf("%s: %v", test.name, err)
		}
	}
	over, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := c.Commit(over, []fenced.Write{small}); outcome(err) != storev1.Outcome_OUTCOME_NOT_APPLIED {
		t.Errorf("commit whose caller is gone: %v", err)
	}
	// As much as can be, and what needs no more room.
	rev := must(t, c, many[:127]...)
	if got, r := load(t, c, 1, "126"); got != "v" || r != rev {
		t.Errorf("the last of 127 is %q at %d, want it at %d", got, r, rev)
	}
}

func TestChangedAndVacatedWait(t *testing.T) {
	server := etcdtest.Start(t)
	a, b := open(t, server.Path, "a"), open(t, server.NewPath(), "b")
	epoch := claim(t, a, 1)
	wait := func(what string, f func(context.Context) error) <-chan error {
		done := make(chan error, 1)
		ctx := within(t, 10*time.Second)
		go func() { done <- f(ctx) }()
		select {
		case err := <-done:
			t.Errorf("%s is over before it came: %v", what, err)
		case <-time.After(50 * time.Millisecond): // Long enough to show that it does not come by itself.
		}
		return done
	}
	changed := func(rev int64) <-chan error {
		return wait("change", func(ctx context.Context) error { return b.Changed(ctx, "t", 1, "k", rev) })
	}
	done := changed(0)
	rev := must(t, a, one(epoch, "k", 0, []byte("1")))
	if err := <-done; err != nil {
		t.Errorf("wait for the first: %v", err)
	}
	done = changed(rev)
	must(t, a, one(epoch, "k2", 0, []byte("other")))
	rev = must(t, a, one(epoch, "k", rev, []byte("2")))
	if err := <-done; err != nil {
		t.Errorf("wait for the second: %v", err)
	}
	done = changed(rev)
	must(t, a, one(epoch, "k", rev, nil))
	if err := <-done; err != nil {
		t.Errorf("wait for the end: %v", err)
	}
	if err := b.Vacated(within(t, time.Second), "t", 9, "a"); err != nil {
		t.Errorf("wait for a slot that is free: %v", err)
	}
	if err := b.Vacated(within(t, time.Second), "t", 1, "c"); err != nil {
		t.Errorf("wait for a slot of another: %v", err)
	}
	done = wait("vacancy", func(ctx context.Context) error { return b.Vacated(ctx, "t", 1, "a") })
	if err := a.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	if err := <-done; err != nil {
		t.Errorf("wait for a slot that was given back: %v", err)
	}
	claim(t, b, 1)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if err := b.Changed(ctx, "t", 1, "k", 0); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("wait beyond the deadline: %v", err)
	}
}

// A commit whose answer is late or never comes is applied once, and known to be, within its own time.
func TestCommitsOutliveLostAnswers(t *testing.T) {
	server := etcdtest.Start(t)
	registry := prometheus.NewRegistry()
	c := open(t, server.Path, "a", func(cfg *Config) { cfg.Metrics, cfg.TTL = registry, time.Minute })
	epoch := claim(t, c, 1)
	const clients, rounds = 8, 6
	var stop atomic.Bool
	var wg sync.WaitGroup
	counts := make([]int, clients)
	for i := range clients {
		wg.Go(func() {
			rev := int64(0)
			for n := 1; !stop.Load(); n++ {
				r, err := commit(within(t, 20*time.Second), c, epoch, fmt.Sprint(i), rev, fmt.Appendf(nil, "%d/%d", i, n))
				if outcome(err) == storev1.Outcome_OUTCOME_NOT_APPLIED && errors.Is(err, ErrDown) {
					n--
					continue
				}
				if err != nil {
					t.Errorf("client %d, commit %d: %v, outcome %v", i, n, err, outcome(err))
					return
				}
				rev, counts[i] = r, n
			}
		})
	}
	for range rounds {
		time.Sleep(100 * time.Millisecond) // Some load between the faults.
		server.PauseAnswers()
		time.Sleep(300 * time.Millisecond)
		server.Break()
		server.Resume()
	}
	eventually(t, 10*time.Second, "etcd is back", c.Up)
	time.Sleep(100 * time.Millisecond)
	stop.Store(true)
	wg.Wait()
	for i, n := range counts {
		if got, _ := load(t, c, 1, fmt.Sprint(i)); got != fmt.Sprintf("%d/%d", i, n) {
			t.Errorf("client %d: %q, want its commit %d", i, got, n)
		}
	}
	again := retries(t, registry)
	if again == 0 {
		t.Error("no commit was sent again: the faults did nothing")
	}
	t.Logf("%v commits, %v sent again", counts, again)
}

// Etcd also says that it is full of transactions that it carried out. Nothing that is there may be called not applied.
func TestFullEtcdHidesNothing(t *testing.T) {
	server := etcdtest.StartWithQuota(t, 16<<20)
	c := open(t, server.Path, "a", func(cfg *Config) { cfg.TTL = time.Minute })
	epoch := claim(t, c, 1)
	var wg sync.WaitGroup
	var refusals atomic.Int64
	for client := range 16 {
		wg.Go(func() {
			for i := 0; ; i++ {
				key := fmt.Sprint(client, "/", i)
				value := append(make([]byte, 256<<10), key...)
				_, err := commit(within(t, 20*time.Second), c, epoch, key, 0, value)
				if err == nil {
					continue
				}
				if outcome(err) == storev1.Outcome_OUTCOME_UNKNOWN {
					continue
				}
				refusals.Add(1)
				if !errors.Is(err, ErrFull) && !errors.Is(err, ErrDown) {
					t.Errorf("commit %s: %v", key, err)
				}
				head, rev, err := c.Load(within(t, 20*time.Second), "t", 1, key)
				for errors.Is(err, ErrDown) {
					head, rev, err = c.Load(within(t, 20*time.Second), "t", 1, key)
				}
				if err != nil || rev != 0 {
					t.Errorf("refused commit %s: there are %d bytes at revision %d, %v", key, len(head), rev, err)
				}
				return
			}
		})
	}
	wg.Wait()
	if refusals.Load() == 0 {
		t.Error("nothing was refused")
	}
}
