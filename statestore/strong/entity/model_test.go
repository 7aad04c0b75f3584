package entity_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"pgregory.net/rapid"

	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
	"github.com/holdfast-mesh/holdfast/statestore/refusal"
	"github.com/holdfast-mesh/holdfast/statestore/strong/entity"
)

// naive is an entity as one would write it without a care for etcd: whole, and forgetting nothing.
type naive struct {
	exists   bool
	value    string
	events   []string // all since the beginning or the last delete, "sequence:type:payload"
	snapshot string
	snapped  uint64 // the snapshot's sequence; 0: none
	sequence uint64
	deleted  uint64
	ids      []sent
	expiry   time.Time
	version  int64
}

type sent struct {
	id string
	at time.Time
}

// apply returns why the operations are refused, codes.OK where they are not.
func (n *naive) apply(events bool, ops []*holdfastv1.Operation, limit int) codes.Code {
	if events {
		return n.applyEvents(ops, limit)
	}
	for _, op := range ops {
		n.exists, n.value = op.GetSet() != nil, string(op.GetSet().GetValue())
	}
	if len(n.value) > limit {
		return codes.ResourceExhausted
	}
	return codes.OK
}

func (n *naive) applyEvents(ops []*holdfastv1.Operation, limit int) codes.Code {
	snap, dead, taken := false, false, 0
	for _, op := range ops {
		if dead && op.GetDelete() == nil {
			return codes.InvalidArgument
		}
		switch o := op.GetOperation().(type) {
		case *holdfastv1.Operation_Delete:
			dead = true
		case *holdfastv1.Operation_Snapshot:
			snap, n.snapshot = true, string(o.Snapshot.Snapshot)
		case *holdfastv1.Operation_Append:
			if snap {
				return codes.InvalidArgument
			}
			if want := o.Append.ExpectedSequence; want != nil && *want != n.sequence {
				return codes.Aborted
			}
			for _, e := range o.Append.Events {
				n.sequence++
				n.events = append(n.events, fmt.Sprintf("%d:%s:%s", n.sequence, e.Type, e.Payload))
				n.exists = true
			}
			taken += size(o.Append.Events)
		}
	}
	switch {
	case dead:
		n.exists, n.events, n.snapshot, n.snapped, n.deleted = false, nil, "", 0, n.sequence
		return codes.OK
	case taken > limit:
		return codes.ResourceExhausted
	case snap && n.sequence == n.deleted:
		return codes.InvalidArgument
	case snap:
		n.snapped = n.sequence
	}
	state := len(n.snapshot)
	for _, e := range n.after() {
		_, typeAndPayload, _ := strings.Cut(e, ":")
		state += len(typeAndPayload) - len(":") + 64
	}
	if state > limit {
		return codes.ResourceExhausted
	}
	return codes.OK
}

// after are the events after the snapshot.
func (n *naive) after() []string {
	return n.events[len(n.events)-int(n.sequence-max(n.snapped, n.deleted)):]
}

func (n *naive) clone() *naive {
	out := *n
	out.events, out.ids = slices.Clone(n.events), slices.Clone(n.ids)
	return &out
}

func genOps(t *rapid.T, events bool, sequence uint64) []*holdfastv1.Operation {
	one := func(i int) *holdfastv1.Operation {
		label := fmt.Sprint("op", i)
		if !events {
			if rapid.IntRange(0, 5).Draw(t, label) == 0 {
				return del()
			}
			return set(rapid.StringOfN(rapid.RuneFrom([]rune("xyz")), 0, 350, -1).Draw(t, label))
		}
		switch rapid.IntRange(0, 9).Draw(t, label) {
		case 0:
			return del()
		case 1, 2:
			return snapshot(rapid.StringMatching(`[a-z]{0,20}|[a-z]{100,130}`).Draw(t, label))
		case 3:
			return expecting(sequence+uint64(rapid.IntRange(0, 1).Draw(t, label)), appended("exp:ected"))
		default:
			var e []string
			for range rapid.IntRange(0, 3).Draw(t, label) {
				e = append(e, rapid.StringMatching(`[a-c]:[a-z]{0,40}`).Draw(t, label))
			}
			return appended(e...)
		}
	}
	var ops []*holdfastv1.Operation
	for i := range rapid.SampledFrom([]int{1, 1, 1, 2, 3}).Draw(t, "operations") {
		ops = append(ops, one(i))
	}
	return ops
}

// Whatever commands, uses, sweeps and reloads come, the entity is what the naive one is, in memory and in etcd.
func TestLikeTheNaiveOne(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const limit = 300
		events := rapid.Bool().Draw(t, "events")
		config := &configv1.EntityType{Model: configv1.Model_MODEL_VALUE, MaxStateBytes: limit}
		if events {
			config.Model, config.SnapshotEvery = configv1.Model_MODEL_EVENT_SOURCED, 2
		}
		typ := newType(t, config)
		typ.TTL = rapid.SampledFrom([]time.Duration{0, 20 * time.Minute, 100 * time.Second}).Draw(t, "ttl")
		typ.TTLByUse = rapid.Bool().Draw(t, "by use")
		d, now, want := newDisk(), start, &naive{}
		r := d.decode(t, typ)
		commands := 0
		committed := func(next *entity.Record, rev int64) {
			r = next.At(rev)
		}
		t.Repeat(map[string]func(*rapid.T){
			"command": func(t *rapid.T) {
				// Many at a time fill pages.
				for range rapid.SampledFrom([]int{1, 1, 1, 40, 100}).Draw(t, "commands") {
					if typ.Expired(r, now) {
						return
					}
					ops := genOps(t, events, want.sequence)
					after := want.clone()
					code := after.apply(events, ops, limit)
					commands++
					id := fmt.Sprint("id", commands)
					next, w, err := typ.Apply(r, id, ops, now)
					if code != codes.OK {
						if e := (*refusal.Error)(nil); !errors.As(err, &e) || e.Code != code {
							t.Fatalf("%v: got %v, want %s", ops, err, code)
						}
						continue
					}
					if err != nil {
						t.Fatalf("%v: %v", ops, err)
					}
					committed(next, d.commit(t, w))
					after.ids = append(after.ids, sent{id, now})
					after.version = r.Revision
					if after.expiry = (time.Time{}); typ.TTL > 0 && after.exists {
						after.expiry = now.Add(typ.TTL)
					}
					want = after
				}
			},
			"time": func(t *rapid.T) {
				now = now.Add(time.Duration(rapid.IntRange(0, 400_000).Draw(t, "ms")) * time.Millisecond)
			},
			"use": func(t *rapid.T) {
				left := want.expiry.Sub(now)
				next, w, changed := typ.Touch(r, now)
				moves := want.exists && typ.TTL > 0 && typ.TTLByUse && left > 0 && typ.TTL-left > typ.TTL/10
				if changed != moves {
					t.Fatalf("touch with %s left of %s: got %v, want %v", left, typ.TTL, changed, moves)
				}
				if changed {
					committed(next, d.commit(t, w))
					want.expiry = now.Add(typ.TTL)
				}
			},
			"sweep": func(t *rapid.T) {
				marked := d.mark
				next, w, changed := typ.Due(r, d.mark, now)
				if marked != 0 && marked <= now.Unix() != changed && !want.expired(now) {
					t.Fatalf("mark at %d, now %d: changed %v", marked, now.Unix(), changed)
				}
				if !changed {
					return
				}
				exists, seq := r.Exists(), r.Sequence()
				rev := d.commit(t, w)
				committed(next, rev)
				switch {
				case exists && !r.Exists():
					if !want.expired(now) {
						t.Fatal("swept away what was not expired")
					}
					want.expire(rev)
				case !exists:
					// Forgotten: the ids, and of a value all.
					want.ids = nil
					if seq == 0 && (d.rev != 0 || len(d.cells) != 0) {
						t.Fatal("something is left of a value")
					}
				}
			},
			"expire": func(t *rapid.T) {
				next, w, changed := typ.Expire(r, now)
				if changed != want.expired(now) {
					t.Fatalf("expire: got %v, want %v", changed, want.expired(now))
				}
				if changed {
					committed(next, d.commit(t, w))
					want.expire(r.Revision)
				}
			},
			"": func(t *rapid.T) {
				want.check(t, typ, r, now)
				again := d.decode(t, typ)
				want.check(t, typ, again, now)
				if string(again.Head()) != string(r.Head()) || again.Revision != r.Revision {
					t.Fatalf("what was read is another head")
				}
				if (d.mark == 0) != (want.expiry.IsZero() && (d.rev == 0 || want.exists || len(want.ids) == 0)) {
					t.Fatalf("mark %d of %+v", d.mark, *want)
				}
				if due := want.expiry.UnixMilli(); want.exists && typ.TTL > 0 && d.mark*1000 > due+999 {
					t.Fatalf("mark at %d s, the ttl ends at %d ms", d.mark, due)
				}
			},
		})
	})
}

func (n *naive) expired(now time.Time) bool {
	return n.exists && !n.expiry.IsZero() && !now.Before(n.expiry)
}

func (n *naive) expire(rev int64) {
	n.exists, n.value, n.events, n.snapshot, n.snapped, n.deleted = false, "", nil, "", 0, n.sequence
	n.expiry, n.version = time.Time{}, rev
}

func (n *naive) check(t *rapid.T, typ *entity.Type, r *entity.Record, now time.Time) {
	t.Helper()
	if r.Exists() != n.exists || r.Sequence() != n.sequence || r.Deleted() != n.deleted {
		t.Fatalf("got %s, want %+v", describe(typ, r), *n)
	}
	version := ""
	if n.exists {
		version = fmt.Sprint(n.version)
	}
	if got := r.Version(); got != base36(version) {
		t.Fatalf("version %q, want %q", got, base36(version))
	}
	switch v := typ.Value(r); {
	case !n.exists:
		if v != nil {
			t.Fatalf("a value of what does not exist: %v", v)
		}
	case v.GetEventSourced() != nil:
		es := v.GetEventSourced()
		var got []string
		for _, e := range es.Events {
			got = append(got, fmt.Sprintf("%d:%s:%s", e.Sequence, e.Type, e.Payload))
		}
		if !slices.Equal(got, n.after()) || string(es.Snapshot) != n.snapshot || es.SnapshotSequence != n.snapped || es.Sequence != n.sequence {
			t.Fatalf("got %s, want %+v", describe(typ, r), *n)
		}
		if es.SnapshotWanted != (len(got) >= 2 || size(es.Events) > 150) {
			t.Fatalf("snapshot wanted %v after %v", es.SnapshotWanted, got)
		}
	default:
		if string(v.GetValue()) != n.value {
			t.Fatalf("got %q, want %q", v.GetValue(), n.value)
		}
	}
	// The last 4,096 of ten minutes, at least.
	for i, s := range n.ids {
		kept := len(n.ids)-i <= 4096 && now.Sub(s.at) <= 10*time.Minute
		if kept && !r.Applied(s.id) {
			t.Fatalf("request id %s of %s ago, %d after it, is forgotten", s.id, now.Sub(s.at), len(n.ids)-i-1)
		}
	}
	if r.Applied("never sent") || r.Applied("") {
		t.Fatal("an id that nobody sent is known")
	}
}

func size(events []*holdfastv1.Event) int {
	n := 0
	for _, e := range events {
		n += len(e.Type) + len(e.Payload) + 64
	}
	return n
}

func base36(decimal string) string {
	n := int64(0)
	if _, err := fmt.Sscan(decimal, &n); err != nil {
		return ""
	}
	const digits = "0123456789abcdefghijklmnopqrstuvwxyz"
	out := ""
	for ; n > 0; n /= 36 {
		out = string(digits[n%36]) + out
	}
	return out
}
