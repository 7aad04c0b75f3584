package crdt

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/prototext"

	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
)

var update = flag.Bool("update", false, "write fixtures that are not there; those that are there never change")

// samples are some operations of each shape, by two replicas.
func samples(p *configv1.Shape) []*holdfastv1.Operation {
	switch p.Model {
	case gcounterModel:
		return []*holdfastv1.Operation{incOp(300), incOp(0), incOp(5)}
	case pncounterModel, bcounterModel:
		return []*holdfastv1.Operation{changeOp(300), changeOp(-3), changeOp(5)}
	case gsetModel:
		return []*holdfastv1.Operation{addOp("x", "y"), addOp(), addOp("", "z")}
	case orsetModel:
		return []*holdfastv1.Operation{addOp("x", "y"), takeOp("x"), addOp("", "x")}
	case mvregisterModel:
		return []*holdfastv1.Operation{setOp("a"), setOp(""), setOp("b")}
	case flagModel:
		return []*holdfastv1.Operation{enableOp(), disableOp(), enableOp()}
	case voteModel:
		return []*holdfastv1.Operation{voteOp(true), voteOp(false), voteOp(true)}
	case ormapModel:
		ops := []*holdfastv1.Operation{updateOp("k", nil)}
		for i, op := range samples(p.Values) {
			ops = append(ops, updateOp([]string{"k", "l", "m"}[i%3], op))
		}
		return append(ops, removeOp("k"))
	}
	return []*holdfastv1.Operation{setOp("a"), clockOp("b", holdfastv1.Clock_CLOCK_REVERSE, 0), clockOp("c", holdfastv1.Clock_CLOCK_CUSTOM, 7)}
}

// sampleStates are the deltas of the samples, the state with and without its context, and bottom.
func sampleStates(t testing.TB, p *configv1.Shape) [][]byte {
	s := bottom(p)
	out := [][]byte{s.Append(nil)}
	seq := []uint64{1, 1}
	for i, op := range samples(p) {
		who := i % 2
		m := Mutator{Replica: uint64(0x1234 + who), Seq: seq[who], Now: uint64(1000 + i), Node: node(who), Absorb: func(r uint64) bool { return who == 1 && r == 0x1234 }}
		d, err := s.Delta(op, m)
		if err != nil {
			m.Replica = 0x1234
			m.Seq = seq[0]
			who = 0
			if d, err = s.Delta(op, m); err != nil {
				t.Fatal(err)
			}
		}
		if !d.Bottom() {
			seq[who] = d.Context().Next(m.Replica)
		}
		if _, err := s.Merge(&d); err != nil {
			t.Fatal(err)
		}
		out = append(out, d.Append(nil))
	}
	return append(out, s.Append(nil), s.AppendLive(nil))
}

// Fixtures: what version 2 wrote must decode to the same values as long as there is a version 2. A line is an encoding in
// hex and the value in text format.
func TestFixturesDecode(t *testing.T) {
	for _, p := range testShapes {
		name := filepath.Join("testdata", "v2", strings.ReplaceAll(Describe(p), " ", "-")+".txt")
		text, err := os.ReadFile(name)
		if *update && errors.Is(err, os.ErrNotExist) {
			text, err = fixture(t, p), nil
			if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o777), os.WriteFile(name, text, 0o666)); err != nil {
				t.Fatal(err)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		// Today's code writes the same.
		if want := fixture(t, p); !bytes.Equal(squeeze(text), squeeze(want)) {
			t.Errorf("%s: the same changes are now encoded as\n%s", name, want)
		}
		for line := range strings.Lines(string(text)) {
			code, value, _ := strings.Cut(strings.TrimSpace(line), " ")
			b, err := hex.DecodeString(code)
			if err != nil {
				t.Fatal(name, err)
			}
			s, err := Decode(b)
			if err != nil {
				t.Errorf("%s: %s: %v", name, code, err)
				continue
			}
			if got := s.Append(nil); !bytes.Equal(got, b) {
				t.Errorf("%s: %s: encodes as %x", name, code, got)
			}
			wantValue(t, name+": "+code, s, value)
		}
	}
}

func fixture(t *testing.T, p *configv1.Shape) []byte {
	var out bytes.Buffer
	for _, b := range sampleStates(t, p) {
		s, err := Decode(b)
		if err != nil {
			t.Fatal(err)
		}
		out.WriteString(hex.EncodeToString(b))
		if v := s.Value(testView); v != nil {
			out.WriteString(" " + prototext.MarshalOptions{}.Format(v))
		}
		out.WriteString("\n")
	}
	return out.Bytes()
}

// squeeze takes out the spaces, which prototext varies on purpose.
func squeeze(b []byte) []byte { return bytes.ReplaceAll(b, []byte(" "), nil) }

func TestDecodeRefuses(t *testing.T) {
	const r, q = "0000000000000001", "0000000000000002"
	for what, h := range map[string]string{
		"nothing":                       "",
		"version 1":                     "010200",
		"version 3":                     "03020000",
		"model 99":                      "02630000",
		"model 0":                       "02000000",
		"an element as a model":         "02ff0000",
		"no context":                    "0202",
		"unknown kind of context":       "02020200",
		"bytes left over":               "0202000000",
		"count over the rest":           "020200ff01",
		"varint not minimal":            "0202008000",
		"replica 0":                     "02020001" + "0000000000000000" + "01" + "0101",
		"sequence 0":                    "02020001" + r + "00" + "0101",
		"dots out of order":             "02020002" + r + "01" + "0101" + r + "01" + "0101",
		"payload cut":                   "02020001" + r + "01" + "0180",
		"payload too long":              "02020001" + r + "01" + "020101",
		"absorbed replica twice":        "02020001" + r + "01" + "1501" + r + "0101" + r + "0201",
		"context that is the live dots": "02020101" + r + "010101" + "01" + r + "01" + "0101",
		"live dot not in the context":   "02020101" + q + "010101" + "01" + r + "01" + "0101",
		"runs that touch":               "02020101" + r + "0201010001" + "00",
		"empty run":                     "02020101" + r + "010100" + "00",
		"run out of range":              "02020101" + r + "0102ffffffffffffffffff01" + "00",
		"replica without a run":         "02020101" + r + "00" + "00",
		"replicas out of order":         "02020102" + q + "010101" + r + "010101" + "00",
		"lww clock":                     "02030001" + r + "01" + "0104",
		"lww time 1":                    "02030001" + r + "01" + "020101",
		"lww created with bytes":        "02030001" + r + "01" + "020001",
		"flag mark":                     "02090001" + r + "01" + "0102",
		"mvregister mark":               "02080001" + r + "01" + "0102",
		"presence with a payload":       "02070001" + r + "01" + "0101" + "00",
		"element with a payload":        "02070000" + "02" + "0178" + "01" + r + "01" + "0101",
		"member without a dot":          "02070000" + "02" + "0178" + "00",
		"elements out of order":         "02070000" + "04" + "0179" + "01" + r + "0100" + "0178" + "01" + q + "0100",
		"dot twice":                     "02070000" + "04" + "0178" + "01" + r + "0100" + "0179" + "01" + r + "0100",
		"map key empty":                 "0204020000" + "02" + "00" + "01" + r + "01" + "0101",
		"map key not UTF-8":             "0204020000" + "02" + "01ff" + "01" + r + "01" + "0101",
		"names in a whole map":          "020404020000" + "02" + "0178" + "01" + r + "0100" + "01",
		"map of value":                  "0204010000" + "00",
		"map of bcounter":               "02040b0000" + "00",
		"nine maps":                     "02" + strings.Repeat("04", 9) + "020000" + "00",
		"vote of no node":               "020a0000" + "02" + "00" + "01" + r + "01" + "020201",
		"vote of 2":                     "020a0000" + "02" + "016e" + "01" + r + "01" + "020202",
		"row with 0 given":              "020b0001" + r + "01" + "0c010001" + r + "00",
		"row out of order":              "020b0001" + r + "01" + "15010002" + q + "01" + r + "01",
		"row cut":                       "020b0001" + r + "01" + "03010001",
	} {
		b, err := hex.DecodeString(h)
		if err != nil {
			t.Fatal(what, err)
		}
		if s, err := Decode(b); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: got %+v, %v", what, s, err)
		}
	}
	if _, err := Decode(make([]byte, MaxEncoded+1)); !errors.Is(err, ErrCorrupt) {
		t.Errorf("too long: %v", err)
	}
	if _, err := Decode([]byte{1, 2, 0}); err == nil || !strings.Contains(err.Error(), "version 1") {
		t.Errorf("version 1: %v", err)
	}
}

// What decodes is canonical, and obeys the laws, whoever made it.
func FuzzDecode(f *testing.F) {
	for _, p := range testShapes {
		states := sampleStates(f, p)
		for i := range states {
			f.Add(states[i], states[(i+1)%len(states)], states[(i+2)%len(states)])
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
		checkEncoding(t, a)
		b, c := orBottom(a, y), orBottom(a, z)
		if !agree(a, b, c) {
			// Nothing is promised, but that it can be kept.
			abc := joined(t, a, b, c)
			again, err := DecodeOwn(abc.Append(nil))
			if err != nil || !same(again, abc) {
				t.Fatalf("%s decoded as %s: %v", show(abc), show(again), err)
			}
			return
		}
		checkLaws(t, a, b, c)
	})
}

// orBottom decodes another state of s's shape.
func orBottom(s State, b []byte) State {
	if o, err := Decode(b); err == nil && o.Is(s.Shape()) {
		return o
	}
	return bottom(s.Shape())
}

// agree tells whether states could be of one entity: a dot names one change of one member, with one effect, and who
// names members names all that its context is about.
func agree(states ...State) bool {
	places := map[Dot]string{}
	for _, s := range states {
		if !place(places, s.live, "") {
			return false
		}
	}
	for _, s := range states {
		for d, path := range places {
			if s.Context().Has(d) && !reaches(s.live, strings.Split(path, "\x00")) {
				return false
			}
		}
	}
	return true
}

func place(places map[Dot]string, s store, path string) bool {
	for at := s.dots; at != ""; {
		d, _, rest := at.next()
		if where, ok := places[d]; ok && where != path {
			return false
		}
		places[d] = path
		at = rest
	}
	for it := s.members.iterate(); it.member() != nil; it.next() {
		if !place(places, it.member().store, path+"="+hex.EncodeToString([]byte(it.member().name))+"\x00") {
			return false
		}
	}
	return true
}

// reaches tells whether a join with s looks at a path.
func reaches(s store, path []string) bool {
	for _, step := range path {
		if step == "" || !s.members.isNamed() {
			return true // The end, or all that is below.
		}
		name, err := hex.DecodeString(step[1:])
		if err != nil {
			panic(err)
		}
		next, ok := s.members.get(string(name))
		if !ok {
			return false
		}
		s = next
	}
	return true
}

func FuzzDecodeContext(f *testing.F) {
	c := &Context{}
	f.Add(c.Append(nil), c.Append(nil))
	for _, d := range []Dot{{1, 1}, {1, 2}, {1, 5}, {2, 7}, {9, 1 << 40}} {
		before := c.Append(nil)
		c.Add(d)
		f.Add(c.Append(nil), before)
	}
	f.Fuzz(func(t *testing.T, x, y []byte) {
		a, err := DecodeContext(x)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Fatalf("error of another kind: %v", err)
			}
			return
		}
		if got := a.Append(nil); !bytes.Equal(got, x) {
			t.Fatalf("decoded %x, encodes as %x", x, got)
		}
		b, err := DecodeContext(y)
		if err != nil {
			b = nil
		}
		checkContexts(t, a, b)
	})
}

func checkContexts(t fataler, a, b *Context) {
	ab, ba := a.Clone(), b.Clone()
	grew := ab.Merge(b)
	ba.Merge(a)
	if !ab.Equal(ba) || ab.Hash() != ba.Hash() || !ab.Covers(a) || !ab.Covers(b) || grew == a.Covers(b) || ab.Merge(b) || !a.Equal(a.Clone()) {
		t.Fatalf("merge of %x and %x: %x", a.Append(nil), b.Append(nil), ab.Append(nil))
	}
	for i, r := range ab.runs {
		if r.from == 0 || r.from > r.to || i > 0 && ab.runs[i-1].replica == r.replica && ab.runs[i-1].to+1 >= r.from {
			t.Fatalf("runs %v", ab.runs)
		}
		for _, seq := range []uint64{r.from - 1, r.from, r.to, r.to + 1} {
			d := Dot{r.replica, seq}
			if seq != 0 && ab.Has(d) != (a.Has(d) || b.Has(d)) {
				t.Fatalf("%v in the union of %v and %v: %v", d, a.runs, b.runs, ab.Has(d))
			}
		}
	}
}

// What decoding allocates is in proportion to the input, whatever the input says of itself.
func TestDecodeAllocatesInProportion(t *testing.T) {
	names := []byte{encodingVersion, byte(orsetModel), contextIsLive, 0}
	const n = 1 << 14
	names = binary.AppendUvarint(names, 2*n+1)
	for i := range uint16(n) {
		names = append(names, 2, byte(i>>8), byte(i), 0)
	}
	nested := []byte{encodingVersion, byte(ormapModel), byte(ormapModel), byte(gcounterModel), contextIsLive, 0}
	nested = binary.AppendUvarint(nested, 2*n+1)
	for i := range uint16(n) {
		nested = append(nested, 3, 'a', 'a'+byte(i%64), '!', 0, 0)
	}
	runs := []byte{encodingVersion, byte(gcounterModel), contextGiven, 1, 0, 0, 0, 0, 0, 0, 0, 1}
	runs = binary.AppendUvarint(runs, n)
	for range n {
		runs = append(runs, 1, 1)
	}
	runs = append(runs, 0)
	dots := []byte{encodingVersion, byte(gcounterModel), contextIsLive}
	dots = binary.AppendUvarint(dots, n)
	for i := range uint64(n) {
		dots = append(binary.BigEndian.AppendUint64(dots, i+1), 1, 1, 1)
	}
	for what, b := range map[string][]byte{"names": names, "nested names": nested, "runs": runs, "dots": dots} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		s, err := Decode(b)
		runtime.ReadMemStats(&after)
		if (err != nil) != (what == "nested names") {
			t.Errorf("%s: %v", what, err)
		}
		// Members take 40 bytes, a name 16 more, runs 24; slices grow by doubling.
		if got := (after.TotalAlloc - before.TotalAlloc) / uint64(len(b)); got > 40 {
			t.Errorf("%s: %d times the input is allocated", what, got)
		} else {
			t.Logf("%s: %d times the input is allocated", what, got)
		}
		runtime.KeepAlive(s)
	}
}
