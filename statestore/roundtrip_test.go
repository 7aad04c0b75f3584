package statestore_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
	"github.com/holdfast-mesh/holdfast/statestore"
	"github.com/holdfast-mesh/holdfast/statestore/wal/faultfs"
)

func add(elements ...string) *holdfastv1.Operation {
	a := &holdfastv1.SetAdd{}
	for _, e := range elements {
		a.Elements = append(a.Elements, []byte(e))
	}
	return &holdfastv1.Operation{Operation: &holdfastv1.Operation_Add{Add: a}}
}

func take(elements ...string) *holdfastv1.Operation {
	r := &holdfastv1.SetRemove{}
	for _, e := range elements {
		r.Elements = append(r.Elements, []byte(e))
	}
	return &holdfastv1.Operation{Operation: &holdfastv1.Operation_Remove{Remove: r}}
}

// consistent checks what must hold of an engine at any time: a slot's hash is that of its keys and its context, and states,
// keys and entities agree.
func consistent(t interface{ Errorf(string, ...any) }, e *statestore.Engine) {
	entities := uint64(0)
	for _, typ := range e.Types() {
		for _, s := range e.SlotHashes(typ) {
			seen, keys := e.SlotKeys(typ, s.Slot, nil)
			want, names := seen.Hash(), []string(nil)
			for _, k := range keys {
				want ^= k.Hash
				names = append(names, k.Key)
			}
			entities += uint64(len(keys))
			if s.Hash != want {
				t.Errorf("slot %d of %s: hash %x, its keys say %x", s.Slot, typ, s.Hash, want)
			}
			if _, states := e.SlotStates(typ, s.Slot, names); len(states) != len(keys) {
				t.Errorf("slot %d of %s: %d keys, %d states", s.Slot, typ, len(keys), len(states))
			}
			want = 0
			_, buckets := e.SlotSummary(typ, s.Slot)
			for _, b := range buckets {
				want ^= b.Hash
			}
			if s.Hash != want^seen.Hash() {
				t.Errorf("slot %d of %s: hash %x, its buckets say %x", s.Slot, typ, s.Hash, want^seen.Hash())
			}
		}
	}
	if got := e.Status().Entities; got != entities {
		t.Errorf("status has %d entities, the slots %d", got, entities)
	}
}

// hashes are all of an engine's.
func hashes(e *statestore.Engine) map[string]uint64 {
	out := map[string]uint64{}
	for _, typ := range e.Types() {
		for _, s := range e.SlotHashes(typ) {
			out[fmt.Sprint(typ, s.Slot)] = s.Hash
		}
	}
	return out
}

// shelf is an engine on a disk, and what must be in it.
type shelf struct {
	t    *rapid.T
	fs   *faultfs.FS
	e    *statestore.Engine
	want map[string]*holdfastv1.Value
}

func (s *shelf) open() {
	var err error
	s.e, err = statestore.Open(statestore.Config{Node: "node-1", Dir: "/d", FS: s.fs, Logger: quiet(), SegmentBytes: 2000})
	if err == nil {
		err = s.e.Configure(context.Background(), testConfigure(1))
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *shelf) commit(typ, key string, ops ...*holdfastv1.Operation) {
	committed, err := s.e.Commit(context.Background(), commitOf(typ, key, "", ops...))
	if err != nil {
		s.t.Fatal(err)
	}
	s.want[typ+"/"+key] = committed.State.Value
	if !committed.State.Exists {
		delete(s.want, typ+"/"+key)
	}
}

func (s *shelf) check() {
	for _, typ := range []string{"count", "tags", "names"} {
		for _, key := range shelfKeys {
			state, err := s.e.Get(entity(typ, key))
			if err != nil {
				s.t.Fatal(err)
			}
			want := s.want[typ+"/"+key]
			if state.Exists != (want != nil) || !proto.Equal(state.Value, want) {
				s.t.Fatalf("%s %s: got %v, want %v", typ, key, state, want)
			}
		}
	}
	consistent(s.t, s.e)
}

// The keys share few slots: some of a slot may be passive while others change.
var shelfKeys = keysOfOneSlot("tags", 4)

// TestRoundTrips: commits, passivation, log snapshots, restarts and crashes in any order; a model says what must be there.
func TestRoundTrips(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := &shelf{t: rt, fs: &faultfs.FS{}, want: map[string]*holdfastv1.Value{}}
		s.open()
		defer func() { s.e.Close() }()
		key := rapid.SampledFrom(shelfKeys)
		value := rapid.SampledFrom([]string{"a", "b", "c"})
		rt.Repeat(map[string]func(*rapid.T){
			"count": func(rt *rapid.T) { s.commit("count", key.Draw(rt, "key"), inc(1)) },
			"add": func(rt *rapid.T) {
				s.commit("tags", key.Draw(rt, "key"), add(value.Draw(rt, "e"), value.Draw(rt, "e")))
			},
			"remove": func(rt *rapid.T) { s.commit("tags", key.Draw(rt, "key"), take(value.Draw(rt, "e"))) },
			"entry": func(rt *rapid.T) {
				s.commit("names", key.Draw(rt, "key"), update(value.Draw(rt, "e"), set(value.Draw(rt, "v"))), update("x", nil))
			},
			"delete": func(rt *rapid.T) {
				s.commit(rapid.SampledFrom([]string{"count", "tags", "names"}).Draw(rt, "type"), key.Draw(rt, "key"), del())
			},
			"age": func(rt *rapid.T) {
				if err := s.e.Age(time.Hour); err != nil {
					rt.Fatal(err)
				}
				if got := s.e.Status(); got.Passive != got.Entities {
					rt.Fatalf("%d of %d idle entities are passive", got.Passive, got.Entities)
				}
				consistent(rt, s.e)
			},
			"restart": func(rt *rapid.T) {
				before := hashes(s.e)
				if err := s.e.Close(); err != nil {
					rt.Fatal(err)
				}
				s.open()
				if after := hashes(s.e); !maps.Equal(before, after) {
					rt.Fatalf("hashes %v became %v", before, after)
				}
			},
			"crash": func(rt *rapid.T) {
				before := hashes(s.e)
				s.fs = s.fs.Crash(rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 1)))
				s.e.Close()
				s.open()
				if after := hashes(s.e); !maps.Equal(before, after) {
					rt.Fatalf("hashes %v became %v", before, after)
				}
			},
			"": func(*rapid.T) {
				if rapid.IntRange(0, 3).Draw(rt, "look") == 0 {
					s.check()
				}
			},
		})
		s.check()
	})
}

func TestPassiveEntities(t *testing.T) {
	e := configured(t, statestore.Config{Dir: t.TempDir()})
	keys := keysOfOneSlot("count", 3)
	for _, key := range keys {
		mustCommit(t, e, commitOf("count", key, "", inc(2)))
	}
	r := &recorder{}
	view(t, e, entity("count", keys[2]), r)
	if err := e.Age(time.Hour); err != nil {
		t.Fatal(err)
	}
	status := func(entities, passive uint64) {
		t.Helper()
		if got := e.Status(); got.Entities != entities || got.Passive != passive {
			t.Errorf("got %d entities, %d passive, want %d and %d", got.Entities, got.Passive, entities, passive)
		}
	}
	status(3, 2)
	in, err := e.Inspect(context.Background(), entity("count", keys[0]))
	if err != nil || in.Active || in.State.GetValue().GetGcounter() != 2 || in.Hash == 0 || len(in.Seen) != 1 {
		t.Errorf("got %v, %v", in, err)
	}
	status(3, 2)
	// An absent key of the same slot is not looked for on the disk, and makes nothing.
	if s := read(t, e, "count", "none"); s.Exists {
		t.Errorf("got %v", s)
	}
	other := configured(t, statestore.Config{Dir: t.TempDir()})
	if got := repair(t, e, other); got != 3 {
		t.Errorf("handed over %d states, want 3", got)
	}
	status(3, 2)
	if got := read(t, e, "count", keys[0]).Version; got != in.State.Version {
		t.Errorf("version %s became %s", in.State.Version, got)
	}
	status(3, 1)
	mustCommit(t, e, commitOf("count", keys[1], "", inc(1)))
	status(3, 0)
	wantCount(t, e, keys[1], 3)
	mustCommit(t, e, commitOf("count", keys[2], "", inc(1)))
	if n := len(r.states); n == 0 || r.states[n-1].GetValue().GetGcounter() != 3 {
		t.Errorf("pushed %v", r.states)
	}
	consistent(t, e)
	// What a delete took is not brought back by the section that still has it.
	if err := e.Age(time.Hour); err != nil {
		t.Fatal(err)
	}
	mustCommit(t, e, commitOf("count", keys[0], "", del()))
	status(2, 1)
	if read(t, e, "count", keys[0]).Exists {
		t.Error("it is back")
	}
	if err := e.Age(time.Hour); err != nil {
		t.Fatal(err)
	}
	if read(t, e, "count", keys[0]).Exists {
		t.Error("it is back after a log snapshot")
	}
	consistent(t, e)
}
