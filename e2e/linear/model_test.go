package linear

import (
	"testing"

	"github.com/anishathalye/porcupine"
)

// ops builds a history of one register: each operation returns before the next is called, unless it says otherwise.
func ops(list ...operation) []*operation {
	var all []*operation
	for i := range list {
		o := list[i]
		o.Key, o.Caller = "k", i
		if o.Returned == 0 {
			o.Called, o.Returned = int64(i*10), int64(i*10+5)
		}
		all = append(all, &o)
	}
	return all
}

// The judge finds what it is there to find, and lets pass what a register allows.
func TestJudge(t *testing.T) {
	wrote := func(value, writes uint32) operation {
		return operation{Kind: write, Value: value, Set: true, Got: register{value, writes}}
	}
	saw := func(value, writes uint32) operation { return operation{Kind: read, Got: register{value, writes}} }
	lost := func(value uint32) operation { return operation{Kind: write, Value: value, Fate: unknown} }
	for _, tt := range []struct {
		name string
		all  []*operation
		want porcupine.CheckResult
	}{
		{"one after the other", ops(saw(0, 0), wrote(1, 1), saw(1, 1), wrote(2, 2), saw(2, 2)), porcupine.Ok},
		{"a stale read", ops(wrote(1, 1), wrote(2, 2), saw(1, 1)), porcupine.Illegal},
		{"a lost write", ops(wrote(1, 1), wrote(2, 1), saw(2, 1)), porcupine.Illegal},
		{"a write that was acknowledged and is not there", ops(wrote(1, 1), saw(0, 0)), porcupine.Illegal},
		{"unknown, and it was applied", ops(lost(1), saw(1, 1)), porcupine.Ok},
		{"unknown, and it was not applied", ops(lost(1), saw(0, 0)), porcupine.Ok},
		{"unknown, and applied late", ops(lost(1), saw(0, 0), wrote(2, 1), saw(1, 2)), porcupine.Ok},
		{"unknown, applied and taken back", ops(lost(1), saw(1, 1), saw(0, 0)), porcupine.Illegal},
		{"unknown, and overwritten unseen", ops(lost(1), wrote(2, 2), saw(2, 2)), porcupine.Ok},
		{"applied twice", ops(operation{Kind: write, Value: 1, Fate: applied}, saw(1, 2)), porcupine.Illegal},
		{"applied twice around another", ops(operation{Kind: write, Value: 1, Fate: applied, Called: 1, Returned: 100},
			operation{Kind: write, Value: 2, Set: true, Got: register{2, 2}, Called: 10, Returned: 20}, saw(1, 3)), porcupine.Illegal},
		{"refused, but applied", ops(operation{Kind: write, Value: 1, Fate: refused}, saw(1, 1)), porcupine.Illegal},
		{"compared and set", ops(wrote(1, 1), operation{Kind: compareAndSet, Expected: register{1, 1}, Value: 2, Set: true, Got: register{2, 2}}), porcupine.Ok},
		{"compared wrongly and set", ops(wrote(1, 1), operation{Kind: compareAndSet, Expected: register{3, 3}, Value: 2, Set: true, Got: register{2, 2}}), porcupine.Illegal},
		{"set against a version that was not there any more", ops(wrote(1, 1), wrote(1, 2),
			operation{Kind: ifMatch, Expected: register{1, 1}, Value: 2, Set: true, Got: register{2, 3}}), porcupine.Illegal},
		{"refused against the version that was there", ops(wrote(1, 1), operation{Kind: ifMatch, Expected: register{1, 1}, Value: 2}), porcupine.Illegal},
		{"refused against an old version", ops(wrote(1, 1), wrote(2, 2), operation{Kind: ifMatch, Expected: register{1, 1}, Value: 3}, saw(2, 2)), porcupine.Ok},
		{"refused as a mismatch, but applied", ops(wrote(1, 1), operation{Kind: ifMatch, Expected: register{1, 1}, Value: 3, Called: 11, Returned: 30}, saw(3, 2)), porcupine.Illegal},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got, _ := check(tt.all); got != tt.want {
				t.Errorf("verdict %s, want %s", got, tt.want)
			}
		})
	}
}

// A version names one state.
func TestJudgeOfVersions(t *testing.T) {
	at := func(value, writes uint32, etag string) operation {
		return operation{Kind: read, Got: register{value, writes}, ETag: etag}
	}
	for _, tt := range []struct {
		name string
		all  []*operation
		ok   bool
	}{
		{"one each", ops(at(1, 1, "a"), at(1, 1, "a"), at(2, 2, "b")), true},
		{"one for two states", ops(at(1, 1, "a"), at(2, 2, "a")), false},
		{"two for one state", ops(at(1, 1, "a"), at(1, 1, "b")), false},
	} {
		if err := checkVersions(tt.all); (err == nil) != tt.ok {
			t.Errorf("%s: %v, want ok: %v", tt.name, err, tt.ok)
		}
	}
}
