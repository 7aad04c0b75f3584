package strong

import (
	"bytes"
	"slices"
	"strings"
	"testing"
)

func TestKeysDoNotCollide(t *testing.T) {
	seen := map[string]bool{}
	for _, typ := range []string{"a", "a/b", "a%2Fb", ""} {
		for _, key := range []string{"", "/", "b", "b/0001/c", "%2F", "ü", "\x00\xff"} {
			k := entityKey(slotID{typ, 1}, key)
			if seen[k] {
				t.Errorf("%q %q: key %q is taken", typ, key, k)
			}
			seen[k] = true
			if strings.Count(k, "/") != 5 {
				t.Errorf("%q %q: key %q", typ, key, k)
			}
		}
	}
}

func FuzzRecord(f *testing.F) {
	for _, r := range []record{{}, {exists: true, value: []byte("v")}, {ids: []string{"", "x"}, value: []byte{0}}} {
		b, err := r.encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte{1, 0, 0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decodeRecord(b)
		if err != nil {
			return
		}
		again, err := r.encode()
		if err != nil {
			t.Fatal(err)
		}
		got, err := decodeRecord(again)
		if err != nil || !bytes.Equal(got.value, r.value) || got.exists != r.exists || !slices.Equal(got.ids, r.ids) {
			t.Errorf("decode(encode(%+v)) = %+v, %v", r, got, err)
		}
	})
}
