package statestore_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/holdfast-mesh/holdfast/internal/placement"
	replicationv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/replication/v1"
	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
	"github.com/holdfast-mesh/holdfast/statestore"
	"github.com/holdfast-mesh/holdfast/statestore/crdt"
	"github.com/holdfast-mesh/holdfast/statestore/wal/faultfs"
)

func view(t *testing.T, e *statestore.Engine, ent *storev1.Entity, sub statestore.Subscriber) *storev1.State {
	t.Helper()
	// Whoever fills the slot first answers all that wait for it.
	answer := make(chan *storev1.State, 1)
	e.View(ent, time.Time{}, sub, func(s *storev1.State, err error) {
		if err != nil {
			t.Error(err)
		}
		answer <- s
	})
	return <-answer
}

// repair runs a round of anti-entropy for each slot that differs, a opening, and returns how many states were sent.
func repair(t *testing.T, a, b *statestore.Engine) int {
	t.Helper()
	sent := 0
	for _, typ := range a.Types() {
		differ := map[uint32]uint64{}
		for _, s := range b.SlotHashes(typ) {
			differ[s.Slot] = s.Hash
		}
		for _, s := range a.SlotHashes(typ) {
			if differ[s.Slot] == s.Hash {
				delete(differ, s.Slot)
			} else {
				differ[s.Slot] = s.Hash
			}
		}
		for slot := range differ {
			r := &round{t: t, a: a, b: b, typ: typ, slot: slot}
			r.run()
			sent += r.sent
		}
	}
	return sent
}

// round is one of anti-entropy for one slot. The hooks run at the moments in which messages are under way.
type round struct {
	t                   *testing.T
	a, b                *statestore.Engine
	typ                 string
	slot                uint32
	sent                int
	afterOffer, midway  func()
	afterKeys, lastWord func()
}

func call(f func()) {
	if f != nil {
		f()
	}
}

// failed is an error where the engine's disk is well.
func (r *round) failed(e *statestore.Engine, err error) {
	if e.Status().Disk == "ok" {
		r.t.Error(err)
	}
}

func (r *round) run() {
	r.t.Helper()
	turnA, turnB := r.a.SlotTurn(r.typ, r.slot), r.b.SlotTurn(r.typ, r.slot)
	// t3: the offer.
	seenA, bucketsA := r.a.SlotSummary(r.typ, r.slot)
	call(r.afterOffer)
	// t4: b's keys of the buckets that differ.
	seenB, bucketsB := r.b.SlotSummary(r.typ, r.slot)
	hashes := map[uint32]uint64{}
	for _, h := range bucketsA {
		hashes[h.Bucket] ^= h.Hash
	}
	for _, h := range bucketsB {
		hashes[h.Bucket] ^= h.Hash
	}
	buckets := []uint32{}
	for bucket, hash := range hashes {
		if hash != 0 {
			buckets = append(buckets, bucket)
		}
	}
	var keysB []*replicationv1.KeyHash
	if len(buckets) > 0 {
		seenB, keysB = r.b.SlotKeys(r.typ, r.slot, buckets)
	}
	call(r.afterKeys)
	// t5: a compares.
	var keysA []*replicationv1.KeyHash
	seenA5 := seenA
	if len(buckets) > 0 {
		seenA5, keysA = r.a.SlotKeys(r.typ, r.slot, buckets)
	}
	theirs, mine := map[string]uint64{}, map[string]uint64{}
	for _, k := range keysB {
		theirs[k.Key] = k.Hash
	}
	for _, k := range keysA {
		mine[k.Key] = k.Hash
	}
	var send, want, absentHere, absentThere []string
	for key, hash := range theirs {
		if h, ok := mine[key]; !ok {
			absentHere, want = append(absentHere, key), append(want, key)
		} else if h != hash {
			want = append(want, key)
		}
	}
	for key, hash := range mine {
		if h, ok := theirs[key]; !ok {
			absentThere, send = append(absentThere, key), append(send, key)
		} else if h != hash {
			send = append(send, key)
		}
	}
	_, states := r.a.SlotStates(r.typ, r.slot, send)
	delivered := func(lists ...[]string) map[string]struct{} {
		out := map[string]struct{}{}
		for _, l := range lists {
			for _, k := range l {
				out[k] = struct{}{}
			}
		}
		return out
	}
	r.sent += len(states)
	call(r.midway)
	// b takes a's states.
	doneB := &crdt.Comparison{Complete: seenA, Compared: seenB, ComparedKeys: seenB, Delivered: delivered(send, absentHere), Turn: turnB}
	if err := r.b.MergeStates(context.Background(), r.typ, r.slot, seenA, states, absentHere, doneB); err != nil {
		r.failed(r.b, err)
	}
	// b answers the wants with what it has now.
	fillB, states := r.b.SlotStates(r.typ, r.slot, want)
	found := map[string]bool{}
	for _, d := range states {
		found[d.Key] = true
	}
	var gone []string
	for _, key := range want {
		if !found[key] {
			gone = append(gone, key)
		}
	}
	r.sent += len(states)
	call(r.lastWord)
	doneA := &crdt.Comparison{Complete: seenB, Compared: seenA, ComparedKeys: seenA5, Buckets: buckets, Delivered: delivered(want, absentThere), Turn: turnA}
	if err := r.a.MergeStates(context.Background(), r.typ, r.slot, seenB, nil, absentThere, nil); err != nil {
		r.failed(r.a, err)
	}
	if err := r.a.MergeStates(context.Background(), r.typ, r.slot, fillB, states, gone, doneA); err != nil {
		r.failed(r.a, err)
	}
}

// keysOfOneSlot are n keys that share a slot of the type.
func keysOfOneSlot(typ string, n int) []string {
	keys := []string{"k0"}
	for i := 1; len(keys) < n; i++ {
		if key := fmt.Sprint("k", i); placement.Slot(typ, key) == placement.Slot(typ, keys[0]) {
			keys = append(keys, key)
		}
	}
	return keys
}

// What can't be read for a comparison must not be taken for removed: the comparison has to end.
func TestUnreadableEntitiesEndComparisons(t *testing.T) {
	fs := &faultfs.FS{}
	a := configured(t, statestore.Config{Dir: "/d", FS: fs})
	mustCommit(t, a, commitOf("count", "k", "", inc(1)))
	if err := a.Age(time.Hour); err != nil || a.Status().Passive != 1 {
		t.Fatalf("%d are passive, %v", a.Status().Passive, err)
	}
	slot := placement.Slot("count", "k")
	for name, read := range map[string]func() int{
		"summary": func() int { _, b := a.SlotSummary("count", slot); return len(b) },
		"keys":    func() int { _, k := a.SlotKeys("count", slot, nil); return len(k) },
		"states":  func() int { _, s := a.SlotStates("count", slot, []string{"k"}); return len(s) },
	} {
		turn := a.SlotTurn("count", slot)
		fs.Inject(func(_ int, op, _ string) error {
			if op == "read" {
				return errors.New("bad sector")
			}
			return nil
		})
		if got := read(); got != 0 || a.SlotTurn("count", slot) == turn {
			t.Errorf("%s: got %d of what can't be read, turn %d was %d", name, got, a.SlotTurn("count", slot), turn)
		}
		fs.Inject(nil)
		if read() != 1 {
			t.Errorf("%s: nothing once it can be read", name)
		}
	}
}
