package strong

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-mesh/holdfast/internal/etcd"
	"github.com/holdfast-mesh/holdfast/internal/etcd/etcdtest"
	"github.com/holdfast-mesh/holdfast/internal/fenced"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
)

// TestPausedOwnersWriteAndServeNothing stops processes that own slots until their leases are over and others have taken
// the slots. When they go on they must not change an entity, nor believe that they hold its slot, although they commit
// and ask all the time.
func TestPausedOwnersWriteAndServeNothing(t *testing.T) {
	pauses := 10
	if testing.Short() {
		pauses = 2
	}
	server := etcdtest.Start(t)
	heir := open(t, server.Path, "heir")
	var mu sync.Mutex
	fencedOff, written := 0, 0
	var wg sync.WaitGroup
	for i := range pausedStores {
		wg.Go(func() {
			p := startPaused(t, server.Endpoint, i)
			for round := range pauses {
				slot := uint32(i*100 + round)
				n := pause(t, p, heir, slot, round%2 == 0)
				mu.Lock()
				fencedOff += n.refused
				written += n.written
				mu.Unlock()
				if t.Failed() {
					return
				}
			}
		})
	}
	wg.Wait()
	if fencedOff == 0 {
		t.Error("no commit came too late: the pauses did nothing")
	}
	t.Logf("%d pauses: %d commits before them, %d after them were refused", pausedStores*pauses, written, fencedOff)
}

// TestKilledOwnersSlotsAreFreeSoon measures how long the slots of a process that was killed stay taken.
func TestKilledOwnersSlotsAreFreeSoon(t *testing.T) {
	server := etcdtest.Start(t)
	heir := open(t, server.Path, "heir")
	var mu sync.Mutex
	var took []time.Duration
	var wg sync.WaitGroup
	for i := range 5 {
		wg.Go(func() {
			p := startPaused(t, server.Endpoint, i)
			if p == nil || p.line(t) == "" {
				return
			}
			slot := uint32(i * 100)
			_ = p.cmd.Process.Kill()
			killed := time.Now()
			ctx := within(t, time.Minute)
			if insist(ctx, t, fmt.Sprint("take slot ", slot), func() (err error) {
				if err = heir.Vacated(ctx, "t", slot, p.name); err == nil {
					var epoch int64
					if _, epoch, err = heir.Claim(ctx, "t", slot); err == nil {
						_, err = heir.Commit(ctx, []fenced.Write{{Slot: fenced.Slot{Type: "t", Number: slot}, Epoch: epoch, Key: "new", Head: []byte("v")}})
					}
				}
				return err
			}) {
				mu.Lock()
				took = append(took, time.Since(killed).Round(time.Millisecond))
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	t.Logf("from the kill to another's commit: %v", took)
}

const (
	pausedVar    = "HOLDFAST_TEST_PAUSED_STORE"
	pausedStores = 10
	pausedKeys   = 4
	// pausedRest keeps many stores on few cores from starving each other.
	pausedRest = 5 * time.Millisecond
)

// pausedStore is a process that owns one slot after the other.
type pausedStore struct {
	name  string
	cmd   *exec.Cmd
	lines *bufio.Scanner
}

// round is what a store says about a slot that it lost.
type round struct {
	// asked is when it last asked whether it holds the slot, and was told yes, on CLOCK_BOOTTIME.
	asked            time.Duration
	written, refused int
}

func startPaused(t *testing.T, endpoint string, i int) *pausedStore {
	p := &pausedStore{name: fmt.Sprint("paused", i)}
	p.cmd = exec.Command(os.Args[0])
	p.cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %s %d", pausedVar, endpoint, p.name, i*100))
	p.cmd.Stderr = os.Stderr
	out, err := p.cmd.StdoutPipe()
	if err == nil {
		err = p.cmd.Start()
	}
	if err != nil {
		t.Error(err)
		return nil
	}
	p.lines = bufio.NewScanner(out)
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
	})
	return p
}

func (p *pausedStore) line(t *testing.T) string {
	if !p.lines.Scan() {
		t.Errorf("%s has ended: %v", p.name, p.lines.Err())
		return ""
	}
	return p.lines.Text()
}

func pause(t *testing.T, p *pausedStore, heir *Committer, slot uint32, write bool) (r round) {
	if p == nil {
		return r
	}
	if got, want := p.line(t), fmt.Sprint("owns ", slot); got != want {
		t.Errorf("%s says %q, want %q", p.name, got, want)
		return r
	}
	_ = p.cmd.Process.Signal(syscall.SIGSTOP)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var epoch int64
	if !insist(ctx, t, fmt.Sprint("take slot ", slot), func() (err error) {
		if err = heir.Vacated(ctx, "t", slot, p.name); err == nil {
			_, epoch, err = heir.Claim(ctx, "t", slot)
		}
		return err
	}) {
		return r
	}
	claimed := bootTime()
	want := map[string]string{}
	for k := range pausedKeys {
		key := fmt.Sprint("k", k)
		var head []byte
		var rev int64
		if !insist(ctx, t, fmt.Sprint("load of slot ", slot), func() (err error) {
			head, rev, err = heir.Load(ctx, "t", slot, key)
			return err
		}) {
			return r
		}
		if write {
			head = fmt.Appendf(nil, "heir at %d", rev)
			if !insist(ctx, t, fmt.Sprint("commit to slot ", slot), func() error {
				_, err := heir.Commit(ctx, []fenced.Write{{Slot: fenced.Slot{Type: "t", Number: slot}, Epoch: epoch, Key: key, Revision: rev, Head: head}})
				return err
			}) {
				return r
			}
		}
		want[key] = string(head)
	}
	_ = p.cmd.Process.Signal(syscall.SIGCONT)
	var lost uint32
	said := p.line(t)
	if _, err := fmt.Sscanf(said, "lost %d asked %d written %d refused %d", &lost, &r.asked, &r.written, &r.refused); err != nil || lost != slot {
		t.Errorf("%s says %q, want that it lost %d", p.name, said, slot)
		return r
	}
	if r.asked > claimed {
		t.Errorf("slot %d: %s thought that it held it %s after it was another's", slot, p.name, r.asked-claimed)
	}
	for key, want := range want {
		var head []byte
		if insist(ctx, t, fmt.Sprint("load of slot ", slot), func() (err error) {
			head, _, err = heir.Load(ctx, "t", slot, key)
			return err
		}) && string(head) != want {
			t.Errorf("slot %d: %s is %q, want %q: %s wrote after it had lost the slot", slot, key, head, want, p.name)
		}
	}
	return r
}

// insist does it again while etcd is away: so many processes on few cores make it silent at times.
func insist(ctx context.Context, t *testing.T, what string, f func() error) bool {
	for {
		err := f()
		switch {
		case err == nil:
			return true
		case outcome(err) != storev1.Outcome_OUTCOME_NOT_APPLIED || errors.Is(err, ErrConflict) || errors.Is(err, ErrNotOwner) || ctx.Err() != nil:
			t.Errorf("%s: %v", what, err)
			return false
		}
		time.Sleep(pausedRest)
	}
}

// runPaused is the process: it claims a slot, commits to its entities without rest, asks all the time whether it holds
// it, until it learns that it does not, and goes on with the next.
func runPaused(args string) {
	var endpoint, name string
	var slot uint32
	if _, err := fmt.Sscan(args, &endpoint, &name, &slot); err != nil {
		panic(err)
	}
	client, err := etcd.Dial(etcd.ClientConfig{Endpoints: []string{endpoint}})
	if err != nil {
		panic(err)
	}
	c, err := New(Config{Node: name, Etcd: client, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		panic(err)
	}
	for ; ; slot++ {
		epoch := int64(0)
		for epoch == 0 {
			if _, epoch, err = c.Claim(context.Background(), "t", slot); err != nil {
				time.Sleep(pausedRest)
			}
		}
		var r round
		var mu sync.Mutex
		var clients, asking sync.WaitGroup
		over := make(chan struct{})
		asking.Go(func() {
			for {
				if now := bootTime(); c.Held("t", slot, epoch) {
					r.asked = now
				}
				select {
				case <-over:
					return
				case <-time.After(time.Millisecond):
				}
			}
		})
		for k := range pausedKeys {
			clients.Go(func() {
				w := fenced.Write{Slot: fenced.Slot{Type: "t", Number: slot}, Epoch: epoch, Key: fmt.Sprint("k", k)}
				for n := 0; ; n++ {
					w.Head = fmt.Appendf(nil, "%s %d", name, n)
					rev, err := c.Commit(context.Background(), []fenced.Write{w})
					mu.Lock()
					var e *Error
					switch {
					case err == nil:
						r.written, w.Revision = r.written+1, rev
					case errors.As(err, &e) && e.NotOwner():
						r.refused++
					}
					if err == nil && k == 0 && n == 0 {
						fmt.Println("owns", slot)
					}
					mu.Unlock()
					// As stores do: who asks first finds out.
					if owner, now, err := c.Claim(context.Background(), "t", slot); err == nil && (owner != name || now != epoch) {
						return
					}
					time.Sleep(pausedRest)
				}
			})
		}
		clients.Wait()
		close(over)
		asking.Wait()
		fmt.Printf("lost %d asked %d written %d refused %d\n", slot, r.asked, r.written, r.refused)
	}
}
