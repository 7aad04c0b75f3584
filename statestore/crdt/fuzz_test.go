package crdt

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"

	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
)

// fixtures are encodings of version 1: they must decode to these values as long as there is a version 1.
var fixtures = []struct {
	hex  string
	want *holdfastv1.Value
}{
	{"010200", nil},
	{"010202" + "0000000000000001" + "03" + "0000000000000002" + "ac02", counterValue(303)},
	{"010300", nil},
	{"010301" + "64" + "0000000000000001" + "0161", lwwValue("a")},
	{"010302" + "64" + "0000000000000001", nil},
	{"010101" + "64" + "0000000000000001" + "00", &holdfastv1.Value{Kind: &holdfastv1.Value_Value{Value: []byte{}}}},
	{"010402" + "000000", nil},
	{
		"010402" + "01" + "0000000000000001" + "02" + "01" + "0000000000000002" + "05" +
			"01" + "0161" + "02" + "0000000000000001" + "02" + "07" + "0000000000000002" + "05" + "01",
		mapValue(map[string]*holdfastv1.Value{"a": counterValue(8)}),
	},
	{
		"010403" + "01" + "0000000000000001" + "02" + "00" +
			"02" + "0161" + "01" + "0000000000000001" + "01" + "64" + "0178" + "0162" + "01" + "0000000000000001" + "02" + "01" + "00",
		mapValue(map[string]*holdfastv1.Value{"a": lwwValue("x"), "b": lwwValue("")}),
	},
}

func TestFixturesDecode(t *testing.T) {
	for _, f := range fixtures {
		b, err := hex.DecodeString(f.hex)
		if err != nil {
			t.Fatal(f.hex, err)
		}
		s, err := Decode(b)
		if err != nil {
			t.Errorf("%s: %v", f.hex, err)
			continue
		}
		if got := s.Append(nil); !bytes.Equal(got, b) {
			t.Errorf("%s: encodes as %x", f.hex, got)
		}
		wantValue(t, f.hex, s, f.want)
	}
}

func TestDecodeRefuses(t *testing.T) {
	r := "0000000000000001"
	for what, h := range map[string]string{
		"nothing":                     "",
		"version 2":                   "020200",
		"model 9":                     "010900",
		"bytes left over":             "01020000",
		"count over the rest":         "0102ff01",
		"varint not minimal":          "01028000",
		"replica 0":                   "010201000000000000000001",
		"replicas out of order":       "010202" + r + "01" + r + "01",
		"register kind":               "010303",
		"register time 0":             "01030100" + r + "00",
		"map of maps":                 "010404000000",
		"dot cloud not compact":       "0104020001" + r + "0100",
		"vector with 0":               "01040201" + r + "000000",
		"entry without dots":          "01040201" + r + "01" + "00" + "01" + "0161" + "00",
		"dot not in the context":      "010402" + "00" + "00" + "01" + "0161" + "01" + r + "01" + "05",
		"map key not UTF-8":           "01040201" + r + "01" + "00" + "01" + "01ff" + "01" + r + "01" + "05",
		"map key empty":               "01040201" + r + "01" + "00" + "01" + "00" + "01" + r + "01" + "05" + "00",
		"cut within a map":            "01040201" + r + "01" + "00" + "01" + "0161" + "01" + r,
		"replica twice in the vector": "01040202" + r + "01" + r + "02" + "0000",
	} {
		b, err := hex.DecodeString(h)
		if err != nil {
			t.Fatal(what, err)
		}
		if s, err := Decode(b); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: got %v, %v", what, s, err)
		}
	}
	if _, err := Decode(make([]byte, MaxEncoded+1)); !errors.Is(err, ErrCorrupt) {
		t.Errorf("too long: %v", err)
	}
}

// seeds are one small state of each model.
func seeds(t testing.TB) [][]byte {
	var out [][]byte
	for _, k := range kinds {
		s := k.bottom()
		out = append(out, s.Append(nil))
		for i := range uint64(3) {
			op := incOp(i)
			switch {
			case k.model == ormapModel && k.values == gcounterModel:
				op = updateOp(string(rune('a'+i)), incOp(i))
			case k.model == ormapModel:
				op = updateOp(string(rune('a'+i)), setOp("x"))
			case k.model != gcounterModel:
				op = setOp("x")
			}
			d, err := s.Delta(op, Mutator{Replica: i + 1, Now: MinTime + i})
			if err != nil {
				t.Fatal(err)
			}
			merge(t, s, d)
			out = append(out, d.Append(nil))
		}
		out = append(out, s.Append(nil))
	}
	return out
}

// What decodes is canonical, and obeys the laws, whoever made it.
func FuzzDecode(f *testing.F) {
	for _, a := range seeds(f) {
		for _, b := range seeds(f) {
			f.Add(a, b, a)
		}
	}
	f.Fuzz(func(t *testing.T, x, y, z []byte) {
		a, err := Decode(x)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Fatalf("error of another kind: %v", err)
			}
			return
		}
		if got := a.Append(nil); !bytes.Equal(got, x) {
			t.Fatalf("decoded %x, encodes as %x", x, got)
		}
		b, c := orBottom(a, y), orBottom(a, z)
		checkLaws(t, a, b, c)
	})
}

// orBottom decodes another state of s's model.
func orBottom(s State, b []byte) State {
	o, err := Decode(b)
	model, values := s.Model()
	if err == nil {
		if m, v := o.Model(); m == model && v == values {
			return o
		}
	}
	o, err = New(model, values)
	if err != nil {
		panic(err)
	}
	return o
}
