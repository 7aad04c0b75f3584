package simulation

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
)

// The model knows what clients know: which changes they asked for, what they were answered, what they saw before, and which
// disks were lost. From that alone it says what every store has to show once all is healed:
//
//   - A refused change is nowhere. An acknowledged one that is safe is everywhere. One of unknown outcome, or one that its
//     level does not promise to keep after what became of the disks, is everywhere or nowhere.
//   - A counter is the sum of its changes.
//   - An item (an element of a set, a value of a register) is written once. It is there, unless it was covered: removed,
//     deleted or overwritten by a change whose client had seen it. A change that covers all may have covered more than was
//     seen, but nothing that was written after its end.

// result is how a client's change ended.
type result int

const (
	unknown result = iota
	acked
	refused
)

func (r result) String() string { return [...]string{"unknown", "acked", "refused"}[r] }

// write is one change that a client asked for.
type write struct {
	id     int
	node   string
	level  configv1.WriteLevel
	start  time.Time
	end    time.Time
	result result
	// by is what it adds to a counter.
	by int64
	// adds is the item it writes, "" for none. covers are the items it takes away; all: whatever is there.
	adds   string
	covers []string
	all    bool
	// ahead: it has a time that others refuse for long.
	ahead bool
}

// damage is a loss of a store's disk: what was durable there after keeps and before at is gone.
type damage struct {
	node      string
	at, keeps time.Time
	// memory: only what was acknowledged before it was durable.
	memory bool
}

// loses says whether the damage may take what the node had of w.
func (d damage) loses(w *write) bool { return !d.at.Before(w.start) && d.keeps.Before(w.end) }

// model is what the clients of one run know.
type model struct {
	// mu guards what follows: clients end at any time.
	mu       sync.Mutex
	entities map[entity]*history
	damages  []damage
	// least is the fewest members that any placement of the run had; moved: there was more than one placement.
	least int
	moved bool
}

// entity names what is checked as one: an entity, or a counter within one.
type entity struct{ typ, key, entry string }

func (e entity) String() string {
	if e.entry != "" {
		return e.typ + "/" + e.key + "/" + e.entry
	}
	return e.typ + "/" + e.key
}

type history struct {
	spec   *spec
	placed []string
	writes []*write
}

func newModel(members int) *model { return &model{entities: map[entity]*history{}, least: members} }

// history returns what is known of an entity. The lock is held.
func (m *model) history(e entity, s *spec, placed []string) *history {
	h := m.entities[e]
	if h == nil {
		h = &history{spec: s, placed: placed}
		m.entities[e] = h
	}
	return h
}

// begin notes a change before it is asked for: from here on its outcome is unknown.
func (m *model) begin(e entity, s *spec, placed []string, w *write) {
	m.mu.Lock()
	defer m.mu.Unlock()
	h := m.history(e, s, placed)
	w.end = time.Now().Add(24 * time.Hour)
	h.writes = append(h.writes, w)
}

// finish notes what a client was told. What it does not know may still happen at any time.
func (m *model) finish(w *write, r result) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if w.result = r; r != unknown {
		w.end = time.Now()
	}
}

func (m *model) damaged(d damage) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.damages = append(m.damages, d)
}

// safe says whether an acknowledged change must have survived all damages.
func (m *model) safe(h *history, w *write) bool {
	if w.result != acked || w.ahead {
		return false
	}
	lost, here := map[string]bool{}, false
	for _, d := range m.damages {
		if !d.loses(w) || d.memory && w.level != configv1.WriteLevel_WRITE_LEVEL_LOCAL_MEM {
			continue
		}
		here = here || d.node == w.node
		if !d.memory {
			lost[d.node] = true
		}
	}
	copies := len(h.placed)
	if h.spec.replicas == 0 {
		copies = m.least
	}
	switch w.level {
	case configv1.WriteLevel_WRITE_LEVEL_ALL:
		return len(lost) < copies
	case configv1.WriteLevel_WRITE_LEVEL_MAJORITY:
		return len(lost) < copies/2+1
	default:
		// A store that is not placed (any more) gives its copy away once the placed ones have it: then theirs count.
		return !here && (!m.moved && slices.Contains(h.placed, w.node) || len(lost) < copies)
	}
}

// bounds are the least and the greatest that a counter may show.
func (m *model) bounds(h *history) (low, high int64) {
	for _, w := range h.writes {
		switch {
		case w.result == refused:
		case m.safe(h, w):
			low += w.by
			high += w.by
		default:
			low += min(w.by, 0)
			high += max(w.by, 0)
		}
	}
	return low, high
}

// item says whether an item must, or may, be there.
func (m *model) item(h *history, w *write) (must, may bool) {
	must, may = m.safe(h, w), w.result != refused
	for _, c := range h.writes {
		if c == w || c.result == refused {
			continue
		}
		switch {
		case slices.Contains(c.covers, w.adds):
			must = false
			if m.safe(h, c) {
				may = false
			}
		case c.all && w.start.Before(c.end):
			must = false
		}
	}
	return must && may, may
}

// check compares what a store shows of an entity with what it has to, "" where that fits.
func (m *model) check(e entity, h *history, value *holdfastv1.Value) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if h.spec.counts() {
		low, high := m.bounds(h)
		if got := counted(value, e.entry); got < low || got > high {
			return fmt.Sprintf("%s is %d, must be %d to %d: %s", e, got, low, high, m.story(h))
		}
		return ""
	}
	shown := items(value)
	known, wanted, found := map[string]bool{}, "", len(shown) > 0
	for _, w := range h.writes {
		if w.adds == "" {
			continue
		}
		known[w.adds] = true
		must, may := m.item(h, w)
		there := slices.Contains(shown, w.adds)
		if must {
			wanted = w.adds
		}
		if there && !may {
			return fmt.Sprintf("%s shows %q, which is refused or surely gone", e, w.adds)
		}
		if must && !there && !h.spec.oneWins() {
			return fmt.Sprintf("%s lacks %q, which nobody took away", e, w.adds)
		}
	}
	if wanted != "" && !found {
		return fmt.Sprintf("%s is empty: nobody took %q away", e, wanted)
	}
	for _, s := range shown {
		if !known[s] {
			return fmt.Sprintf("%s shows %q, which nobody wrote", e, s)
		}
	}
	return ""
}

// story tells what became of the changes of a counter.
func (m *model) story(h *history) string {
	var out []string
	for _, w := range h.writes {
		word := w.result.String()
		if w.result == acked && !m.safe(h, w) {
			word = "acked, lost perhaps"
		}
		out = append(out, fmt.Sprintf("#%d %+d %s %s", w.id, w.by, w.node, word))
	}
	return strings.Join(out, "; ")
}

// tally counts how all changes ended.
func (m *model) tally() (by [3]int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, h := range m.entities {
		for _, w := range h.writes {
			by[w.result]++
		}
	}
	return by
}
