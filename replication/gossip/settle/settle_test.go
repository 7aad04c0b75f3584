package settle_test

import (
	"bufio"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/holdfast-mesh/holdfast/replication/gossip/settle"
	"github.com/holdfast-mesh/holdfast/statestore/crdt"
)

var rewrite = flag.Bool("rewrite", false, "write the transcripts anew; commit them only if you understand what changed")

// world is one store's table with what a transcript says about it. Identities are written like a1: the first one of node a.
type world struct {
	table   *settle.Table
	members []string
	placed  map[settle.Slot][]string
	mine    map[settle.Slot]have
	// theirs is what each peer has of each slot.
	theirs map[string]map[settle.Slot]have
}

// have is what a store has seen of some identities: up to a number, or all.
type have map[uint64]int

const all = -1

func (h have) context() *crdt.Context {
	c := &crdt.Context{}
	for id, upto := range h {
		if upto == all {
			c.Retire(crdt.NewRetired(id))
		}
		for seq := range upto {
			c.Add(crdt.Dot{Replica: id, Seq: uint64(seq + 1)})
		}
	}
	return c
}

func identity(name string) uint64 {
	n, err := strconv.Atoi(name[1:])
	if err != nil {
		panic(err)
	}
	return uint64(name[0])<<8 | uint64(n)
}

func name(id uint64) string { return fmt.Sprintf("%c%d", rune(id>>8), id&0xff) }

func names(ids []uint64) string {
	out := "-"
	for i, id := range ids {
		if i == 0 {
			out = ""
		}
		out += " " + name(id)
	}
	return strings.TrimSpace(out)
}

func slot(s string) settle.Slot {
	n, err := strconv.Atoi(s)
	if err != nil {
		panic(err)
	}
	return settle.Slot{Type: "t", Slot: uint32(n)}
}

func upto(s string) int {
	switch s {
	case "none":
		return 0
	case "all":
		return all
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		panic(err)
	}
	return n
}

// do carries one line out and returns what it shows.
func (w *world) do(line string) string {
	f := strings.Fields(line)
	switch f[0] {
	case "store": // store a2 of a b c: this is store a2, the placement has a, b and c
		w.table = settle.New(f[1][:1], identity(f[1]))
		w.members = f[3:]
		w.placed, w.mine, w.theirs = map[settle.Slot][]string{}, map[settle.Slot]have{}, map[string]map[settle.Slot]have{}
	case "slot": // slot 1 a b
		w.placed[slot(f[1])] = f[2:]
	case "mine": // mine 1 b1 5
		if w.mine[slot(f[1])] == nil {
			w.mine[slot(f[1])] = have{}
		}
		w.mine[slot(f[1])][identity(f[2])] = upto(f[3])
	case "learn":
		for _, id := range f[1:] {
			w.table.Learn(identity(id), id[:1], false)
		}
	case "live":
		w.table.Live(f[1][:1], identity(f[1]))
	case "open":
		w.table.Busy(identity(f[1]), 1)
	case "closed":
		w.table.Busy(identity(f[1]), -1)
	case "saw": // saw b 1 a1 5
		if w.theirs[f[1]] == nil {
			w.theirs[f[1]] = map[settle.Slot]have{}
		}
		if w.theirs[f[1]][slot(f[2])] == nil {
			w.theirs[f[1]][slot(f[2])] = have{}
		}
		w.theirs[f[1]][slot(f[2])][identity(f[3])] = upto(f[4])
		_, round := w.table.Dead()
		w.table.Saw(f[1], slot(f[2]), round, w.theirs[f[1]][slot(f[2])].context())
	case "attests":
		var ids []uint64
		for _, id := range f[2:] {
			ids = append(ids, identity(id))
		}
		w.table.Attested(f[1], ids)
	case "elsewhere":
		w.table.Elsewhere(identity(f[1]))
	case "moved":
		w.table.Moved()
	case "retired":
		w.table.Learn(identity(f[1]), f[1][:1], true)
	case "dead":
		dead, _ := w.table.Dead()
		return names(dead)
	case "decide":
		open := w.table.Open()
		for s, placed := range w.placed {
			open = w.table.Agree(open, s, placed, w.mine[s].context())
		}
		settled, retire := w.table.Decide(open, w.members)
		return "settled " + names(settled) + ", retire " + names(retire)
	default:
		panic("what is " + f[0])
	}
	return ""
}

func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			in, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var out strings.Builder
			w := &world{}
			for s := bufio.NewScanner(strings.NewReader(string(in))); s.Scan(); {
				line := s.Text()
				if strings.HasPrefix(line, "  ") {
					continue // What was shown last time.
				}
				fmt.Fprintln(&out, line)
				if line == "" || line[0] == '#' {
					continue
				}
				if shown := w.do(line); shown != "" {
					fmt.Fprintln(&out, "  "+shown)
				}
			}
			if *rewrite {
				if err := os.WriteFile(file, []byte(out.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if got, want := out.String(), string(in); got != want {
				t.Errorf("got:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

func TestRegistryKeepsTheFirstNode(t *testing.T) {
	w := settle.New("a", 1)
	if !w.Learn(7, "b", false) || w.Learn(7, "b", false) || w.Learn(7, "c", false) || w.Learn(0, "b", false) || w.Learn(8, "", false) {
		t.Error("news is what was not known and does not contradict")
	}
	if w.Learn(1, "a", true) {
		t.Error("a store's own identity was retired")
	}
	var got []string
	w.Known(func(id uint64, node string, retired bool) { got = append(got, fmt.Sprint(id, node, retired)) })
	if want := []string{"1afalse", "7bfalse"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
