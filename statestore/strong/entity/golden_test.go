package entity_test

import (
	"bufio"
	"encoding/hex"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	"github.com/holdfast-mesh/holdfast/statestore/strong/entity"
)

var update = flag.Bool("update", false, "write the golden files of the present layout anew; only for new ones, or after the version was raised")

// goldenEntities are written with the present layout, one file each.
func goldenEntities(t *testing.T) map[string]func() (*entity.Type, *disk) {
	return map[string]func() (*entity.Type, *disk){
		"value": func() (*entity.Type, *disk) {
			typ, d := valueType(t), newDisk()
			r := d.do(t, typ, d.decode(t, typ), "first", start, set("one"))
			d.do(t, typ, r, "second", start, set("two"))
			return typ, d
		},
		"value-ttl-touched": func() (*entity.Type, *disk) {
			typ, d := valueType(t), newDisk()
			typ.TTL, typ.TTLByUse = time.Minute, true
			r := d.do(t, typ, d.decode(t, typ), "first", start, set("one"))
			_, w, changed := typ.Touch(r, start.Add(10*time.Second))
			if !changed {
				t.Fatal("touch changed nothing")
			}
			d.commit(t, w)
			return typ, d
		},
		"value-deleted": func() (*entity.Type, *disk) {
			typ, d := valueType(t), newDisk()
			r := d.do(t, typ, d.decode(t, typ), "first", start, set("one"))
			d.do(t, typ, r, "second", start, del())
			return typ, d
		},
		"value-pages": func() (*entity.Type, *disk) {
			typ, d := valueType(t), newDisk()
			r := d.decode(t, typ)
			for i := range 70 {
				r = d.do(t, typ, r, fmt.Sprint("id", i), start.Add(time.Duration(i)*time.Second), set(fmt.Sprint(i)))
			}
			return typ, d
		},
		"events": func() (*entity.Type, *disk) {
			typ, d := eventType(t), newDisk()
			r := d.do(t, typ, d.decode(t, typ), "first", start, appended("a:1", "b:2"))
			r = d.do(t, typ, r, "second", start.Add(time.Second), appended("a:3"), snapshot("six"))
			d.do(t, typ, r, "third", start.Add(time.Minute+1234567*time.Nanosecond), appended("c:4", "d:", "e:6"))
			return typ, d
		},
		"events-deleted": func() (*entity.Type, *disk) {
			typ, d := eventType(t), newDisk()
			r := d.do(t, typ, d.decode(t, typ), "first", start, appended("a:1", "b:2"), snapshot("three"))
			d.do(t, typ, r, "second", start, del())
			return typ, d
		},
		"events-begun-anew": func() (*entity.Type, *disk) {
			typ, d := eventType(t), newDisk()
			r := d.do(t, typ, d.decode(t, typ), "first", start, appended("a:1", "b:2"))
			r = d.do(t, typ, r, "second", start, del())
			d.do(t, typ, r, "third", start, appended("a:1"))
			return typ, d
		},
	}
}

// text is a golden file: what etcd has, then what it means.
func (d *disk) text(typ *entity.Type, r *entity.Record) string {
	var b strings.Builder
	fmt.Fprintf(&b, "head %d %x\n", d.rev, d.head)
	for _, name := range slices.Sorted(maps.Keys(d.cells)) {
		fmt.Fprintf(&b, "cell %s %x\n", name, d.cells[name])
	}
	fmt.Fprintf(&b, "mark %d\nstate %s\n", d.mark, describe(typ, r))
	return b.String()
}

// The present layout is what it was.
func TestGoldenWritten(t *testing.T) {
	for name, build := range goldenEntities(t) {
		t.Run(name, func(t *testing.T) {
			typ, d := build()
			got := d.text(typ, d.decode(t, typ))
			file := filepath.Join("testdata", "layout2", name+".txt")
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// What any version wrote can be read, and means the same.
func TestGoldenRead(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("testdata", "layout*", "*.txt"))
	if err != nil || len(files) < 9 {
		t.Fatalf("%d golden files, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(file, func(t *testing.T) {
			f, err := os.Open(file)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			d, want := newDisk(), ""
			for lines := bufio.NewScanner(f); lines.Scan(); {
				kind, rest, _ := strings.Cut(lines.Text(), " ")
				name, value, _ := strings.Cut(rest, " ")
				raw, _ := hex.DecodeString(value)
				switch kind {
				case "head":
					if _, err := fmt.Sscan(name, &d.rev); err != nil {
						t.Fatal(err)
					}
					d.head = raw
				case "cell":
					d.cells[name] = raw
				case "state":
					want = rest
				}
			}
			typ := valueType(t)
			if strings.HasPrefix(filepath.Base(file), "events") {
				typ = eventType(t)
			}
			r := d.decode(t, typ)
			if got := describe(typ, r); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
			first := "first"
			if strings.Contains(file, "pages") {
				first = "id0"
			}
			if !r.Applied(first) || r.Applied("never sent") {
				t.Error("its request ids are not known")
			}
		})
	}
}

func TestTypes(t *testing.T) {
	for _, c := range []struct {
		name string
		typ  *configv1.EntityType
		want string
	}{
		{"a counter", &configv1.EntityType{Model: configv1.Model_MODEL_GCOUNTER}, "value or event_sourced"},
		{"too large", &configv1.EntityType{Model: configv1.Model_MODEL_VALUE, MaxStateBytes: 1 << 20}, "at most 1040384"},
		{"a folded value", &configv1.EntityType{Model: configv1.Model_MODEL_VALUE, Folded: true}, "entity snapshots are for"},
		{"encoded events", &configv1.EntityType{Model: configv1.Model_MODEL_EVENT_SOURCED, ValueEncoding: configv1.ValueEncoding_VALUE_ENCODING_JSON}, "encoding is for"},
		{"no descriptors", &configv1.EntityType{Model: configv1.Model_MODEL_VALUE, ValueEncoding: configv1.ValueEncoding_VALUE_ENCODING_PROTO, ValueMessage: "a.B"}, "the descriptors don't have it"},
		{"bad descriptors", &configv1.EntityType{Model: configv1.Model_MODEL_VALUE, ValueEncoding: configv1.ValueEncoding_VALUE_ENCODING_PROTO, ValueDescriptors: []byte{0xff}}, "read its descriptors"},
		{"another encoding", &configv1.EntityType{Model: configv1.Model_MODEL_VALUE, ValueEncoding: 9}, "not known"},
	} {
		if _, err := entity.NewType(c.typ); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
}
