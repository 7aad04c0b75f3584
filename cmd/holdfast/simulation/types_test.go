package simulation

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/holdfast-mesh/holdfast/internal/placement"
	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
)

// spec is one entity type of a run.
type spec struct {
	name      string
	model     configv1.Model
	values    *configv1.Shape
	level     configv1.WriteLevel
	replicas  uint32
	passivate time.Duration
	floor     int64
	keys      []string
}

// The keys of a type lie in two slots: a slot's context is shared, and that is what must not go wrong. The last key of each
// slot is wild: anything happens to it, deletes too, and it is only compared.
const (
	keySlots    = 2
	keysPerSlot = 3
)

// keysOf finds a type's keys; they are the same in all runs, and looking for them costs some ten thousand hashes.
func keysOf(typ string) []string {
	if k, ok := keysFound.Load(typ); ok {
		return k.([]string)
	}
	var out []string
	for slot := range keySlots {
		first := fmt.Sprintf("s%d-0", slot)
		out = append(out, first)
		for i, want := 1, placement.Slot(typ, first); len(out) < (slot+1)*keysPerSlot; i++ {
			if key := fmt.Sprintf("s%d-%d", slot, i); placement.Slot(typ, key) == want {
				out = append(out, key)
			}
		}
	}
	keysFound.Store(typ, out)
	return out
}

var keysFound sync.Map

func (s *spec) wild(key string) bool { return slices.Index(s.keys, key)%keysPerSlot == keysPerSlot-1 }

func (s *spec) pick(random *rand.Rand) string { return s.keys[random.IntN(len(s.keys))] }

// counts says that the model checks sums, not items.
func (s *spec) counts() bool {
	switch s.model {
	case configv1.Model_MODEL_GCOUNTER, configv1.Model_MODEL_PNCOUNTER, configv1.Model_MODEL_BCOUNTER, configv1.Model_MODEL_ORMAP:
		return true
	}
	return false
}

// checked says that the model knows the type's values.
func (s *spec) checked() bool {
	return s.model != configv1.Model_MODEL_FLAG && s.model != configv1.Model_MODEL_VOTE
}

// oneWins says that of several items written at once one is shown.
func (s *spec) oneWins() bool { return s.model == configv1.Model_MODEL_LWW }

// grows says that a value never gets less at a store.
func (s *spec) grows() bool {
	return s.model == configv1.Model_MODEL_GCOUNTER || s.model == configv1.Model_MODEL_GSET || s.model == configv1.Model_MODEL_ORMAP
}

// timed says that the type's states carry times, which a store may refuse.
func (s *spec) timed() bool {
	return s.model == configv1.Model_MODEL_LWW || s.model == configv1.Model_MODEL_VOTE
}

func (s *spec) configuration() *configv1.EntityType {
	t := &configv1.EntityType{
		Type: s.name, Model: s.model, Values: s.values, Consistency: configv1.Consistency_CONSISTENCY_EVENTUAL,
		Write: s.level, Replicas: s.replicas, MaxStateBytes: 1 << 18, Floor: s.floor,
	}
	if s.passivate > 0 {
		t.PassivateAfter = durationpb.New(s.passivate)
	}
	return t
}

// specs draws the types of a run: counters of all levels, and most of the other types.
func specs(random *rand.Rand) []*spec {
	levels := []configv1.WriteLevel{
		configv1.WriteLevel_WRITE_LEVEL_LOCAL, configv1.WriteLevel_WRITE_LEVEL_LOCAL_MEM,
		configv1.WriteLevel_WRITE_LEVEL_MAJORITY, configv1.WriteLevel_WRITE_LEVEL_ALL,
	}
	var out []*spec
	add := func(name string, model configv1.Model, values *configv1.Shape, level configv1.WriteLevel) {
		s := &spec{name: name, model: model, values: values, level: level, keys: keysOf(name)}
		s.replicas = []uint32{0, 0, 2, 3}[random.IntN(4)]
		if random.IntN(2) == 0 {
			s.passivate = time.Duration(1+random.IntN(4)) * time.Second
		}
		out = append(out, s)
	}
	for i, l := range levels {
		add(fmt.Sprint("count-", strings.ToLower(strings.TrimPrefix(l.String(), "WRITE_LEVEL_"))), configv1.Model_MODEL_GCOUNTER, nil, levels[i])
	}
	counters := &configv1.Shape{Model: configv1.Model_MODEL_ORMAP, Values: &configv1.Shape{Model: configv1.Model_MODEL_GCOUNTER}}
	for _, m := range []struct {
		name   string
		model  configv1.Model
		values *configv1.Shape
	}{
		{"pncounter", configv1.Model_MODEL_PNCOUNTER, nil},
		{"gset", configv1.Model_MODEL_GSET, nil},
		{"orset", configv1.Model_MODEL_ORSET, nil},
		{"lww", configv1.Model_MODEL_LWW, nil},
		{"mvregister", configv1.Model_MODEL_MVREGISTER, nil},
		{"flag", configv1.Model_MODEL_FLAG, nil},
		{"vote", configv1.Model_MODEL_VOTE, nil},
		{"ormap", configv1.Model_MODEL_ORMAP, counters},
		{"bcounter", configv1.Model_MODEL_BCOUNTER, nil},
	} {
		keep, level := random.IntN(4) > 0, levels[random.IntN(len(levels))]
		if keep {
			add(m.name, m.model, m.values, level)
		}
	}
	return out
}

// counted is a counter's value; entry is its path in a map.
func counted(v *holdfastv1.Value, entry string) int64 {
	for name := range strings.SplitSeq(entry, ".") {
		if name != "" {
			v = v.GetOrmap().GetEntries()[name]
		}
	}
	switch k := v.GetKind().(type) {
	case *holdfastv1.Value_Gcounter:
		return int64(k.Gcounter)
	case *holdfastv1.Value_Pncounter:
		return k.Pncounter
	case *holdfastv1.Value_Bcounter:
		return k.Bcounter.GetValue()
	}
	return 0
}

// items are what a set or a register shows.
func items(v *holdfastv1.Value) []string {
	var raw [][]byte
	switch k := v.GetKind().(type) {
	case *holdfastv1.Value_Gset:
		raw = k.Gset.GetElements()
	case *holdfastv1.Value_Orset:
		raw = k.Orset.GetElements()
	case *holdfastv1.Value_Mvregister:
		raw = k.Mvregister.GetValues()
	case *holdfastv1.Value_Lww:
		raw = [][]byte{k.Lww}
	}
	var out []string
	for _, b := range raw {
		out = append(out, string(b))
	}
	slices.Sort(out)
	return out
}

// flat is a value as text, equal for values that all replicas have to agree on: a bounded counter's rights and a vote's own
// part differ.
func flat(v *holdfastv1.Value) string {
	switch k := v.GetKind().(type) {
	case nil:
		return "nothing"
	case *holdfastv1.Value_Ormap:
		var out []string
		for _, name := range slices.Sorted(maps.Keys(k.Ormap.GetEntries())) {
			out = append(out, name+"="+flat(k.Ormap.GetEntries()[name]))
		}
		return "{" + strings.Join(out, " ") + "}"
	case *holdfastv1.Value_Flag:
		return fmt.Sprint(k.Flag)
	case *holdfastv1.Value_Vote:
		return fmt.Sprintf("%d of %d", k.Vote.GetVotesFor(), k.Vote.GetTotalVoters())
	case *holdfastv1.Value_Gcounter, *holdfastv1.Value_Pncounter, *holdfastv1.Value_Bcounter:
		return fmt.Sprint(counted(v, ""))
	}
	return fmt.Sprintf("%q", items(v))
}
