package strong

import (
	"slices"
	"strings"
	"testing"

	"github.com/holdfast-mesh/holdfast/internal/fenced"
)

func TestKeysDoNotCollide(t *testing.T) {
	seen := map[string]bool{}
	for _, typ := range []string{"a", "a/b", "a%2Fb", ""} {
		for _, key := range []string{"", "/", "b", "b/0001/c", "%2F", "ü", "\x00\xff"} {
			slot := fenced.Slot{Type: typ, Number: 1}
			k := headKey(slot, key)
			if seen[k] {
				t.Errorf("%q %q: key %q is taken", typ, key, k)
			}
			seen[k] = true
			if strings.Count(k, "/") != 5 {
				t.Errorf("%q %q: key %q", typ, key, k)
			}
			if got, want := cellsKey(slot, key), strings.Replace(k, "entities", "cells", 1)+"/"; got != want {
				t.Errorf("%q %q: cells at %q, want %q", typ, key, got, want)
			}
			mark := fenced.Mark{At: 1_700_000_000, Slot: 1, Key: key}
			if got, ok := parseMark(typ, markKey(slot, key, mark.At)); !ok || got != mark {
				t.Errorf("%q: mark %+v, %v, want %+v", typ, got, ok, mark)
			}
		}
	}
}

func TestMarksAreSortedByTime(t *testing.T) {
	var keys []string
	for _, at := range []int64{0, 9, 10, 99_999_999_999, 100_000_000_000} {
		keys = append(keys, markKey(fenced.Slot{Type: "t", Number: 4095}, "k", at))
	}
	if !slices.IsSorted(keys) {
		t.Errorf("not in order: %q", keys)
	}
}

func TestWhatIsNoMarkIsNotTakenForOne(t *testing.T) {
	for _, key := range []string{"", "/holdfast/due/t/", "/holdfast/due/t/1", "/holdfast/due/t/1/2", "/holdfast/due/t/x/0001/k", "/holdfast/due/t/1/x/k", "/holdfast/due/t/1/1/%", "/holdfast/due/u/1/1/k"} {
		if m, ok := parseMark("t", key); ok {
			t.Errorf("%q: %+v", key, m)
		}
	}
}

func TestRangesToDeleteLeaveOutWhatIsPut(t *testing.T) {
	for _, test := range []struct {
		prefixes, puts []string
		want           []span
	}{
		{nil, []string{"a"}, nil},
		{[]string{"e/"}, nil, []span{{"e/", "e0"}}},
		{[]string{"e/"}, []string{"s"}, []span{{"e/", "e0"}}},
		{[]string{"e/"}, []string{"e/7", "s", "e/5"}, []span{{"e/", "e/5"}, {"e/5\x00", "e/7"}, {"e/7\x00", "e0"}}},
		{[]string{"e/"}, []string{"e/"}, []span{{"e/\x00", "e0"}}},
		{[]string{""}, []string{"s"}, []span{{"", "s"}, {"s\x00", ""}}},
		{[]string{"a", "b"}, []string{"b1"}, []span{{"a", "b"}, {"b", "b1"}, {"b1\x00", "c"}}},
	} {
		if got := gaps(test.prefixes, test.puts); !slices.Equal(got, test.want) {
			t.Errorf("gaps(%q, %q) = %q, want %q", test.prefixes, test.puts, got, test.want)
		}
	}
}
