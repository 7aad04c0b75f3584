package linear

import (
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"
)

// kind of an operation.
type kind int

const (
	read kind = iota
	write
	// compareAndSet is compared by the service, ifMatch by the store: a write that names the version that it replaces.
	compareAndSet
	ifMatch
)

var kindNames = [...]string{"read", "write", "compare-and-set", "if-match"}

func (k kind) String() string { return kindNames[k] }

// fate is what a caller knows of an operation.
type fate int

const (
	// answered: the reply is there.
	answered fate = iota
	// applied: it was applied, and its reply was lost.
	applied
	// unknown: it may have been applied, or may be yet.
	unknown
	// refused: it was not applied and never will be.
	refused
)

var fateNames = [...]string{"answered", "applied", "unknown", "refused"}

func (f fate) String() string { return fateNames[f] }

// register is a register's state. Each write has a value of its own, so that a read names the write that it saw, and writes
// says how many there were.
type register struct {
	Value  uint32 `json:"value"`
	Writes uint32 `json:"writes"`
}

func (r register) String() string { return fmt.Sprintf("%d (%d writes)", r.Value, r.Writes) }

// operation is one call of a caller, with its repetitions.
type operation struct {
	Caller int
	Key    string
	Kind   kind
	// Value is what is written; Expected is what compareAndSet and ifMatch replace.
	Value    uint32
	Expected register
	// Called and Returned are nanoseconds since the run began.
	Called, Returned int64
	Fate             fate
	// Set is false for a comparison that failed. Got is the register after the operation, where it is answered (but for an
	// ifMatch that failed).
	Set bool
	Got register
	// ETag is the version that came with Got, if one did.
	ETag string
	// hold is how long the service takes.
	hold time.Duration
	// Attempts are what the caller got, for who looks for the cause.
	Attempts []string
}

// history is what callers saw in a run.
type history struct {
	mu  sync.Mutex
	all []*operation
}

func (h *history) add(o *operation) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all = append(h.all, o)
}

// step is the register's specification.
func step(s register, o *operation) (bool, register) {
	after := register{Value: o.Value, Writes: s.Writes + 1}
	does := true
	switch o.Kind {
	case read:
		return o.Got == s, s
	case compareAndSet:
		does = s.Value == o.Expected.Value
	case ifMatch:
		does = s == o.Expected
	}
	switch {
	case o.Fate == unknown && !does:
		return true, s
	case o.Fate == unknown:
		return true, after
	case o.Fate == applied:
		return does, after
	case o.Set:
		return does && o.Got == after, after
	case o.Kind == ifMatch:
		return !does, s
	default:
		return !does && o.Got == s, s
	}
}

func describe(o *operation) string {
	text := o.Kind.String()
	switch o.Kind {
	case write:
		text += fmt.Sprintf(" %d", o.Value)
	case compareAndSet, ifMatch:
		text += fmt.Sprintf(" %d for %d", o.Value, o.Expected.Value)
	}
	switch {
	case o.Fate != answered:
		return text + ": " + o.Fate.String()
	case o.Kind == ifMatch && !o.Set:
		return text + ": mismatch"
	case o.Kind == compareAndSet && !o.Set:
		return text + ": it is " + o.Got.String()
	default:
		return text + ": " + o.Got.String()
	}
}

var model = porcupine.Model{
	Init: func() any { return register{} },
	Step: func(state, input, _ any) (bool, any) {
		return step(state.(register), input.(*operation))
	},
	Partition: func(all []porcupine.Operation) [][]porcupine.Operation {
		byKey := map[string][]porcupine.Operation{}
		var keys []string
		for _, o := range all {
			key := o.Input.(*operation).Key
			if byKey[key] == nil {
				keys = append(keys, key)
			}
			byKey[key] = append(byKey[key], o)
		}
		slices.Sort(keys)
		var parts [][]porcupine.Operation
		for _, key := range keys {
			parts = append(parts, byKey[key])
		}
		return parts
	},
	DescribeOperation: func(input, _ any) string { return describe(input.(*operation)) },
	DescribeState:     func(state any) string { return state.(register).String() },
}

// operations is the history as porcupine takes it. What was refused had no effect. What is unknown may have its effect at any
// later time, but at the latest before somebody else has seen its value.
func operations(all []*operation) []porcupine.Operation {
	type written struct {
		key   string
		value uint32
	}
	seen := map[written]int64{}
	for _, o := range all {
		if o.Fate == answered && (o.Kind == read || o.Kind == compareAndSet || o.Set) {
			w := written{o.Key, o.Got.Value}
			if at, ok := seen[w]; !ok || o.Returned < at {
				seen[w] = o.Returned
			}
		}
	}
	var out []porcupine.Operation
	for _, o := range all {
		if o.Fate == refused || o.Kind == read && o.Fate != answered {
			continue
		}
		back := o.Returned
		if o.Fate == unknown {
			back = math.MaxInt64
			if at, ok := seen[written{o.Key, o.Value}]; ok {
				back = max(at, o.Called)
			}
		}
		out = append(out, porcupine.Operation{ClientId: o.Caller, Input: o, Call: o.Called, Return: back})
	}
	return out
}

// checkTime bounds a check: one that takes longer has no verdict, which fails the run.
const checkTime = 30 * time.Second

// check looks for an order that a register allows.
func check(all []*operation) (porcupine.CheckResult, porcupine.LinearizationInfo) {
	return porcupine.CheckOperationsVerbose(model, operations(all), checkTime)
}

// checkVersions wants a version to name one state of a register, and a state to have one version.
func checkVersions(all []*operation) error {
	type version struct{ key, etag string }
	type state struct {
		key string
		register
	}
	states, versions := map[version]register{}, map[state]string{}
	for _, o := range all {
		if o.Fate != answered || o.ETag == "" || o.Kind == ifMatch && !o.Set {
			continue
		}
		if was, ok := states[version{o.Key, o.ETag}]; ok && was != o.Got {
			return fmt.Errorf("%s: version %s is of %v and of %v", o.Key, o.ETag, was, o.Got)
		}
		if was, ok := versions[state{o.Key, o.Got}]; ok && was != o.ETag {
			return fmt.Errorf("%s: %v has the versions %s and %s", o.Key, o.Got, was, o.ETag)
		}
		states[version{o.Key, o.ETag}], versions[state{o.Key, o.Got}] = o.Got, o.ETag
	}
	return nil
}
