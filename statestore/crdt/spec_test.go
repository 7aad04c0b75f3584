package crdt

import (
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
)

// What the values mean, said a second time without any merging: as a function of the operations that a replica has seen,
// each with those that its maker had seen.

type event struct {
	replica int
	seq     int // of its replica
	time    uint64
	op      *holdfastv1.Operation
	saw     map[*event]bool
}

// register: of the visible writes the one with the greatest (time, replica).
func specRegister(visible map[*event]bool) *event {
	var best *event
	for e := range visible {
		if best == nil || e.time > best.time || e.time == best.time && e.replica > best.replica {
			best = e
		}
	}
	return best
}

// removed: some visible remove of the key had seen e.
func removed(e *event, key string, visible map[*event]bool) bool {
	for r := range visible {
		if r.op.GetMapRemove().GetKey() == key && r.op.GetMapRemove() != nil && r.saw[e] {
			return true
		}
	}
	return false
}

func specMap(visible map[*event]bool, counters bool) *holdfastv1.Value {
	if len(visible) == 0 {
		return nil
	}
	entries := map[string]*holdfastv1.Value{}
	for _, key := range []string{"p", "q", "r"} {
		var live []*event
		for e := range visible {
			if e.op.GetMapUpdate().GetKey() == key && e.op.GetMapUpdate() != nil && !removed(e, key, visible) {
				live = append(live, e)
			}
		}
		if len(live) == 0 {
			continue
		}
		if counters {
			total := uint64(0)
			for replica := range 3 {
				total += counted(newest(live, replica), key)
			}
			entries[key] = counterValue(total)
			continue
		}
		sets := map[*event]bool{}
		for _, e := range live {
			if e.op.GetMapUpdate().Operation != nil {
				sets[e] = true
			}
		}
		last := ""
		if e := specRegister(sets); e != nil {
			last = string(e.op.GetMapUpdate().Operation.GetSet().GetValue())
		}
		entries[key] = lwwValue(last)
	}
	return mapValue(entries)
}

func newest(events []*event, replica int) *event {
	var last *event
	for _, e := range events {
		if e.replica == replica && (last == nil || e.seq > last.seq) {
			last = e
		}
	}
	return last
}

// counted is a replica's increments of the key up to e, from the last time on that it had seen all of them removed.
func counted(e *event, key string) uint64 {
	if e == nil {
		return 0
	}
	var before []*event
	for o := range e.saw {
		if o.op.GetMapUpdate() != nil && o.op.GetMapUpdate().Key == key && !removed(o, key, e.saw) {
			before = append(before, o)
		}
	}
	return e.op.GetMapUpdate().GetOperation().GetIncrement().GetBy() + counted(newest(before, e.replica), key)
}

func (k kind) spec(visible map[*event]bool) *holdfastv1.Value {
	switch k.model {
	case gcounterModel:
		if len(visible) == 0 {
			return nil
		}
		total := uint64(0)
		for e := range visible {
			total += e.op.GetIncrement().GetBy()
		}
		return counterValue(total)
	case ormapModel:
		return specMap(visible, k.values == gcounterModel)
	}
	e := specRegister(visible)
	if e == nil || e.op.GetSet() == nil {
		return nil
	}
	if k.model == valueModel {
		return &holdfastv1.Value{Kind: &holdfastv1.Value_Value{Value: e.op.GetSet().GetValue()}}
	}
	return lwwValue(string(e.op.GetSet().GetValue()))
}

func TestEveryReplicaShowsWhatItsEventsMean(t *testing.T) {
	each(t, func(t *testing.T, k kind) {
		rapid.Check(t, func(t *rapid.T) {
			replicas := []State{k.bottom(), k.bottom(), k.bottom()}
			visible := []map[*event]bool{{}, {}, {}}
			clock := uint64(MinTime)
			for n := range rapid.IntRange(1, 15).Draw(t, "steps") {
				i := rapid.IntRange(0, 2).Draw(t, "replica")
				if rapid.IntRange(0, 2).Draw(t, "step") == 0 {
					from := rapid.IntRange(0, 2).Draw(t, "pull from")
					merge(t, replicas[i], replicas[from])
					for e := range visible[from] {
						visible[i][e] = true
					}
				} else {
					clock += rapid.Uint64Range(0, 2).Draw(t, "clock")
					e := &event{replica: i, seq: n, op: k.operation(t), saw: map[*event]bool{}}
					for o := range visible[i] {
						e.saw[o] = true
					}
					d, err := replicas[i].Delta(e.op, Mutator{Replica: uint64(i + 1), Now: clock})
					if err != nil {
						t.Fatalf("%v", err)
					}
					if d.Bottom() {
						continue // No change, no event.
					}
					e.time = timeOf(d)
					merge(t, replicas[i], d)
					visible[i][e] = true
				}
				for r, s := range replicas {
					if got, want := s.Value(), k.spec(visible[r]); !proto.Equal(got, want) {
						t.Fatalf("replica %d: got %v, want %v", r, got, want)
					}
				}
			}
		})
	})
}

// timeOf is the time that a delta of one change gave it.
func timeOf(d State) uint64 {
	switch s := d.(type) {
	case *register:
		return s.time
	case *orMap:
		for _, live := range s.entries {
			for _, p := range live {
				return p.time
			}
		}
	}
	return 0
}
