package crdt

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"slices"
	"unicode/utf8"

	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
)

// orMap is the observed-remove map (Almeida et al. 2018, section 7.4, with a DotFun as each entry's store): a causal
// context for the whole map and, for each key, its live dots with a payload each. Join keeps a dot that both have, and one
// that only one has where the other has not seen it; what the other has seen and no longer has, it removed. A key exists
// while it has a live dot. No tombstones: a removed key costs only its dots in the context, which compact away.
//
// Values of gcounter: each increment is a new dot that carries the sum of its replica's increments of that key and
// takes the place of that replica's dot before; the value is the sum over replicas of their newest live dot. Values of
// lww: each set is a new dot in the place of all that were seen; of several live ones the latest (time, replica) counts.
//
// What a remove does to concurrent changes: it takes exactly the dots that its store had seen. A concurrent increment stays,
// whole: no acknowledged increment is lost because another store removed the key without having seen it. Its dot
// carries its replica's sum, so that replica's earlier increments, though seen by the remover, stay with it. A concurrent
// set stays too. Everybody else's part goes.
type orMap struct {
	values  configv1.Model
	context context
	// Invariant: no entry without a dot, and every dot is in context.
	entries map[string]map[Dot]payload
}

// payload is what a dot carries.
type payload struct {
	// count of a gcounter.
	count uint64
	// time of an lww; its replica is the dot's.
	time uint64
	// bytes of an lww, as a string because they are never changed.
	bytes string
}

// join makes one of two payloads of the same dot. Correct stores never differ there; this keeps the laws for all others.
func (p payload) join(o payload) payload {
	p.count = max(p.count, o.count)
	if o.time > p.time || o.time == p.time && o.bytes > p.bytes {
		p.time, p.bytes = o.time, o.bytes
	}
	return p
}

// zeroTime is the time of an entry that was only created: any set beats it.
const zeroTime = MinTime - 1

func newMap(values configv1.Model) *orMap {
	return &orMap{values: values, context: newContext(), entries: map[string]map[Dot]payload{}}
}

func (m *orMap) Model() (configv1.Model, configv1.Model) {
	return configv1.Model_MODEL_ORMAP, m.values
}

func (m *orMap) Delta(op *holdfastv1.Operation, by Mutator) (State, error) {
	switch o := op.GetOperation().(type) {
	case *holdfastv1.Operation_MapUpdate:
		key := o.MapUpdate.GetKey()
		if err := checkMapKey(key); err != nil {
			return nil, err
		}
		return m.update(key, o.MapUpdate.GetOperation(), by)
	case *holdfastv1.Operation_MapRemove:
		d := newMap(m.values)
		for dot := range m.entries[o.MapRemove.GetKey()] {
			d.context.add(dot)
		}
		d.context.compact()
		return d, nil
	}
	return nil, unfit(op, configv1.Model_MODEL_ORMAP, "map_update and map_remove")
}

func checkMapKey(key string) error {
	switch {
	case key == "":
		return fmt.Errorf("%w: map_update without a key", ErrOperation)
	case len(key) > MaxMapKey:
		return fmt.Errorf("%w: map key of %d bytes, at most %d", ErrOperation, len(key), MaxMapKey)
	case !utf8.ValidString(key):
		return fmt.Errorf("%w: map key is not UTF-8", ErrOperation)
	}
	return nil
}

func (m *orMap) update(key string, op *holdfastv1.Operation, by Mutator) (State, error) {
	d := newMap(m.values)
	live := m.entries[key]
	next := payload{}
	switch o := op.GetOperation().(type) {
	case nil:
		if op != nil {
			return nil, m.unfitEntry(key, op)
		}
		if len(live) > 0 {
			return d, nil
		}
		if m.values == configv1.Model_MODEL_LWW {
			next.time = zeroTime
		}
	case *holdfastv1.Operation_Increment:
		if m.values != configv1.Model_MODEL_GCOUNTER {
			return nil, m.unfitEntry(key, op)
		}
		n := o.Increment.GetBy()
		if n == 0 && len(live) > 0 {
			return d, nil
		}
		if total := countOf(live); n > math.MaxUint64-total {
			return nil, fmt.Errorf("entry %q: %w: the counter is at %d, %d more is over 2^64-1", key, ErrOverflow, total, n)
		}
		newest := uint64(0)
		for dot, p := range live {
			if dot.Replica == by.Replica {
				d.context.add(dot)
				if dot.Seq > newest {
					newest, next.count = dot.Seq, p.count
				}
			}
		}
		next.count += n
	case *holdfastv1.Operation_Set:
		if m.values != configv1.Model_MODEL_LWW {
			return nil, m.unfitEntry(key, op)
		}
		seen := stamp{}
		for dot, p := range live {
			d.context.add(dot)
			seen.time = max(seen.time, p.time)
		}
		at, err := seen.next(by)
		if err != nil {
			return nil, fmt.Errorf("entry %q: %w", key, err)
		}
		next.time, next.bytes = at.time, string(o.Set.GetValue())
	case *holdfastv1.Operation_Delete:
		return nil, fmt.Errorf("entry %q: %w: an entry is deleted by map_remove", key, ErrOperation)
	default:
		return nil, m.unfitEntry(key, op)
	}
	last := m.context.last(by.Replica)
	if last == math.MaxUint64 {
		return nil, fmt.Errorf("entry %q: %w: this replica's changes are at the last number", key, ErrOverflow)
	}
	dot := Dot{Replica: by.Replica, Seq: last + 1}
	d.entries[key] = map[Dot]payload{dot: next}
	d.context.add(dot)
	d.context.compact()
	return d, nil
}

func (m *orMap) unfitEntry(key string, op *holdfastv1.Operation) error {
	takes := "increment"
	if m.values == configv1.Model_MODEL_LWW {
		takes = "set"
	}
	return fmt.Errorf("entry %q: %w", key, unfit(op, m.values, takes))
}

func (m *orMap) Merge(other State) (bool, error) {
	o, ok := other.(*orMap)
	if !ok || o.values != m.values {
		return false, mismatch(m, other)
	}
	changed := false
	// Only where other knows dots that it no longer holds can anything of ours go; its entries alone tell what it holds.
	for key, mine := range m.entries {
		theirs := o.entries[key]
		for dot := range mine {
			if _, held := theirs[dot]; !held && o.context.has(dot) {
				delete(mine, dot)
				changed = true
			}
		}
		if len(mine) == 0 {
			delete(m.entries, key)
		}
	}
	for key, theirs := range o.entries {
		for dot, p := range theirs {
			have, held := m.entries[key][dot]
			if !held && m.context.has(dot) {
				continue
			}
			joined := p
			if held {
				joined = have.join(p)
			}
			if held && joined == have {
				continue
			}
			if m.entries[key] == nil {
				m.entries[key] = make(map[Dot]payload, len(theirs))
			}
			m.entries[key][dot] = joined
			changed = true
		}
	}
	if m.context.merge(o.context) {
		changed = true
	}
	return changed, nil
}

func (m *orMap) Value() *holdfastv1.Value {
	if !m.Exists() {
		return nil
	}
	entries := make(map[string]*holdfastv1.Value, len(m.entries))
	for key, live := range m.entries {
		if m.values == configv1.Model_MODEL_GCOUNTER {
			entries[key] = &holdfastv1.Value{Kind: &holdfastv1.Value_Gcounter{Gcounter: countOf(live)}}
		} else {
			entries[key] = &holdfastv1.Value{Kind: &holdfastv1.Value_Lww{Lww: []byte(latestOf(live))}}
		}
	}
	return &holdfastv1.Value{Kind: &holdfastv1.Value_Ormap{Ormap: &holdfastv1.MapValue{Entries: entries}}}
}

// countOf sums each replica's newest live dot. An older one of the same replica is there only until the delta that took
// its place arrives too.
func countOf(live map[Dot]payload) uint64 {
	return saturatingSum(func(yield func(uint64) bool) {
		for dot, p := range live {
			newest := true
			for other := range live {
				if other.Replica == dot.Replica && other.Seq > dot.Seq {
					newest = false
				}
			}
			if newest && !yield(p.count) {
				return
			}
		}
	})
}

func latestOf(live map[Dot]payload) string {
	var best Dot
	for dot, p := range live {
		if best.Seq == 0 {
			best = dot
			continue
		}
		b := live[best]
		c := stamp{p.time, dot.Replica}.compare(stamp{b.time, best.Replica})
		if c > 0 || c == 0 && dot.Seq > best.Seq {
			best = dot
		}
	}
	return live[best].bytes
}

// Exists is true from the first change on, also when all keys were removed again: the map is then there, and empty.
func (m *orMap) Exists() bool { return !m.context.empty() }

func (m *orMap) Bottom() bool { return m.context.empty() }

func (m *orMap) Clone() State {
	c := &orMap{values: m.values, context: m.context.clone(), entries: make(map[string]map[Dot]payload, len(m.entries))}
	for key, live := range m.entries {
		c.entries[key] = maps.Clone(live)
	}
	return c
}

func (m *orMap) Append(dst []byte) []byte {
	dst = append(dst, encodingVersion, byte(configv1.Model_MODEL_ORMAP), byte(m.values))
	dst = m.context.append(dst)
	dst = binary.AppendUvarint(dst, uint64(len(m.entries)))
	for _, key := range slices.Sorted(maps.Keys(m.entries)) {
		dst = appendBytes(dst, key)
		live := m.entries[key]
		dst = binary.AppendUvarint(dst, uint64(len(live)))
		for _, dot := range slices.SortedFunc(maps.Keys(live), Dot.compare) {
			dst = appendReplica(dst, dot.Replica)
			dst = binary.AppendUvarint(dst, dot.Seq)
			p := live[dot]
			if m.values == configv1.Model_MODEL_GCOUNTER {
				dst = binary.AppendUvarint(dst, p.count)
			} else {
				dst = binary.AppendUvarint(dst, p.time)
				dst = appendBytes(dst, p.bytes)
			}
		}
	}
	return dst
}

func decodeMap(r *reader) *orMap {
	m := &orMap{values: configv1.Model(r.byte())}
	if m.values != configv1.Model_MODEL_GCOUNTER && m.values != configv1.Model_MODEL_LWW {
		r.fail("unknown model of values")
		return m
	}
	m.context = decodeContext(r)
	n := r.count(12)
	m.entries = make(map[string]map[Dot]payload, n)
	lastKey := ""
	for range n {
		key := string(r.bytes())
		if r.err == nil && (key <= lastKey || len(key) > MaxMapKey || !utf8.ValidString(key)) {
			r.fail("map key out of order, too long or not UTF-8")
		}
		lastKey = key
		live := decodeDots(r, m.values)
		for dot := range live {
			if !m.context.has(dot) {
				r.fail("live dot that the context has not seen")
			}
		}
		m.entries[key] = live
		if r.err != nil {
			return m
		}
	}
	return m
}

func decodeDots(r *reader, values configv1.Model) map[Dot]payload {
	n := r.count(10)
	if r.err == nil && n == 0 {
		r.fail("map entry without a dot")
	}
	live := make(map[Dot]payload, n)
	last := Dot{}
	for range n {
		dot := r.dot(last)
		last = dot
		p := payload{}
		if values == configv1.Model_MODEL_GCOUNTER {
			p.count = r.uint()
		} else {
			p.time = r.uint()
			if r.err == nil && p.time < zeroTime {
				r.fail("time before the first")
			}
			p.bytes = string(r.bytes())
		}
		live[dot] = p
	}
	return live
}
