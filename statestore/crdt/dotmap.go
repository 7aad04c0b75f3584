package crdt

import (
	"slices"
	"sort"
)

// store is the live dots of a state. It never changes, and the zero store has none.
//
// Invariant: members only in shapes that have them (sets, vote, ormap); dots of such a shape are the presence of the whole.
type store struct {
	dots    dots
	members *dotMap
}

func (s store) empty() bool { return s.dots == "" && s.members.live() == 0 }

// dotMap is a dot store of the kind DotMap: names with a store each, ascending, in leaves so that a change copies one leaf
// and the list of leaves, never all. nil is the empty map of a whole state.
//
// A map that is named belongs to a delta that names every member that it touched, those that it left empty included: each
// dot of the delta's context that ever was live in this map was live under one of these names. So joining it needs to look
// at these only. In a whole map no member is empty and nothing can be said of the ones that are missing: the context
// applies to all of them. A join of two named maps is named; any other is whole.
type dotMap struct {
	named  bool
	leaves [][]member
}

type member struct {
	name  string
	store store
}

// maxLeaf bounds what a change copies. With 64 a set of 30,000 elements has a list of 1,000 leaves: either is a few kB.
const maxLeaf = 64

var nothingNamed = &dotMap{named: true}

func (m *dotMap) isNamed() bool { return m != nil && m.named }

// len is the number of members, empty ones included.
func (m *dotMap) len() int {
	if m == nil {
		return 0
	}
	n := 0
	for _, leaf := range m.leaves {
		n += len(leaf)
	}
	return n
}

// live is the number of members that are not empty.
func (m *dotMap) live() int {
	if !m.isNamed() {
		return m.len()
	}
	n := 0
	for it := m.iterate(); it.member() != nil; it.next() {
		if !it.member().store.empty() {
			n++
		}
	}
	return n
}

func (m *dotMap) get(name string) (store, bool) {
	if m == nil || len(m.leaves) == 0 {
		return store{}, false
	}
	i := 0
	if len(m.leaves) > 1 {
		i = sort.Search(len(m.leaves), func(i int) bool { return m.leaves[i][0].name > name }) - 1
		if i < 0 {
			return store{}, false
		}
	}
	leaf := m.leaves[i]
	j := sort.Search(len(leaf), func(j int) bool { return leaf[j].name >= name })
	if j < len(leaf) && leaf[j].name == name {
		return leaf[j].store, true
	}
	return store{}, false
}

// iterator walks a map by name.
type iterator struct {
	leaves [][]member
	at     int
}

func (m *dotMap) iterate() iterator {
	if m == nil {
		return iterator{}
	}
	return iterator{leaves: m.leaves}
}

// member is the one that the iterator stands at, nil at the end.
func (it *iterator) member() *member {
	if len(it.leaves) == 0 {
		return nil
	}
	return &it.leaves[0][it.at]
}

func (it *iterator) next() {
	if it.at++; it.at == len(it.leaves[0]) {
		it.leaves, it.at = it.leaves[1:], 0
	}
}

// builder puts a map together from members that come by name.
type builder struct {
	leaves [][]member
	last   []member
	left   uint64 // how many are still to come, where that is known
}

func (b *builder) add(m member) {
	if len(b.last) == maxLeaf {
		b.leaves = append(b.leaves, b.last)
		b.last = nil
	}
	if b.last == nil {
		b.last = make([]member, 0, max(min(b.left, maxLeaf), 1))
	}
	if b.left > 0 {
		b.left--
	}
	b.last = append(b.last, m)
}

func (b *builder) build(named bool) *dotMap {
	if len(b.last) > 0 {
		b.leaves = append(b.leaves, b.last)
	}
	if len(b.leaves) == 0 && !named {
		return nil
	}
	return &dotMap{named: named, leaves: b.leaves}
}

// edit is a new store for a member; gone takes the member out.
type edit struct {
	member
	gone bool
}

// with makes the edits, which come by name, and copies only the leaves that they are in.
func (m *dotMap) with(edits []edit, named bool) *dotMap {
	if len(edits) == 0 && m.isNamed() == named {
		return m
	}
	var old [][]member
	if m != nil {
		old = m.leaves
	}
	leaves := make([][]member, 0, len(old)+1)
	for len(edits) > 0 {
		// The leaf that the first edit belongs to, with the next ones while they are short, and all edits that do.
		i := max(sort.Search(len(old), func(i int) bool { return old[i][0].name > edits[0].name })-1, 0)
		leaves = append(leaves, old[:i]...)
		old = old[i:]
		var leaf []member
		if len(old) > 0 {
			leaf, old = old[0], old[1:]
		}
		for len(old) > 0 && len(leaf)+len(old[0]) <= maxLeaf/2 {
			leaf, old = slices.Concat(leaf, old[0]), old[1:]
		}
		n := len(edits)
		if len(old) > 0 {
			n = sort.Search(n, func(j int) bool { return edits[j].name >= old[0][0].name })
		}
		leaves = appendLeaf(leaves, editLeaf(leaf, edits[:n]))
		edits = edits[n:]
	}
	leaves = append(leaves, old...)
	if len(leaves) == 0 && !named {
		return nil
	}
	return &dotMap{named: named, leaves: leaves}
}

func editLeaf(leaf []member, edits []edit) []member {
	out := make([]member, 0, len(leaf)+len(edits))
	for _, e := range edits {
		j := sort.Search(len(leaf), func(j int) bool { return leaf[j].name >= e.name })
		out = append(out, leaf[:j]...)
		leaf = leaf[j:]
		if len(leaf) > 0 && leaf[0].name == e.name {
			leaf = leaf[1:]
		}
		if !e.gone {
			out = append(out, e.member)
		}
	}
	return append(out, leaf...)
}

// appendLeaf splits a leaf that is too long, and joins one to the last where both are short.
func appendLeaf(leaves [][]member, leaf []member) [][]member {
	if len(leaf) == 0 {
		return leaves
	}
	if n := len(leaves); n > 0 && len(leaves[n-1])+len(leaf) <= maxLeaf/2 {
		leaves[n-1] = slices.Concat(leaves[n-1], leaf)
		return leaves
	}
	for len(leaf) > maxLeaf {
		n := maxLeaf
		if len(leaf) < 2*maxLeaf {
			n = len(leaf) / 2
		}
		leaves = append(leaves, leaf[:n:n])
		leaf = leaf[n:]
	}
	return append(leaves, leaf)
}

// joiner joins two sides, a and b. changed: a dot came or went that a did not have so.
type joiner struct {
	sawA, sawB known
	changed    bool
}

// join joins two stores of a shape. named: the maps around them are named, on both sides.
func (j *joiner) join(shape *shape, a, b store, named bool) store {
	out := store{dots: joinDots(a.dots, b.dots, j.sawA, j.sawB)}
	j.changed = j.changed || out.dots != a.dots
	if shape.member != nil {
		out.members = j.joinMaps(shape.member, a.members, b.members, named)
	}
	return out
}

// joinMaps joins by name. What one side does not hold is empty there: nothing was ever there, or all of it was removed, as
// its context says. Only a named b, whose context says nothing of other members, is not held against all of a. That is not
// so where more than b's own context was seen on its side.
func (j *joiner) joinMaps(shape *shape, a, b *dotMap, named bool) *dotMap {
	named = named && a.isNamed() && b.isNamed()
	var edits []edit
	put := func(name string, mine *store, theirs store) {
		before := absent(shape, a)
		if mine != nil {
			before = *mine
		}
		after := j.join(shape, before, theirs, named)
		gone := !named && after.empty()
		if mine != nil && (gone || after != before) || mine == nil && !gone {
			edits = append(edits, edit{member{name, after}, gone})
		}
	}
	if b.isNamed() && j.sawB.b == nil && a.isNamed() == named {
		for it := b.iterate(); it.member() != nil; it.next() {
			theirs := it.member()
			if mine, ok := a.get(theirs.name); ok {
				put(theirs.name, &mine, theirs.store)
			} else {
				put(theirs.name, nil, theirs.store)
			}
		}
		return a.with(edits, named)
	}
	for ia, ib := a.iterate(), b.iterate(); ia.member() != nil || ib.member() != nil; {
		mine, theirs := ia.member(), ib.member()
		switch {
		case theirs == nil || mine != nil && mine.name < theirs.name:
			put(mine.name, &mine.store, absent(shape, b))
			ia.next()
		case mine == nil || theirs.name < mine.name:
			put(theirs.name, nil, theirs.store)
			ib.next()
		default:
			put(mine.name, &mine.store, theirs.store)
			ia.next()
			ib.next()
		}
	}
	return a.with(edits, named)
}

// absent is what a map holds of a member that it does not have. Missing in a named map, it does not decide whether a join is
// named; in a whole one it is whole.
func absent(shape *shape, m *dotMap) store {
	if shape.member != nil && m.isNamed() {
		return store{members: nothingNamed}
	}
	return store{}
}

// without leaves out the dots that drop names, in the whole store. The result is whole.
func (s store) without(drop func(Dot) bool) store {
	out := store{dots: s.dots.without(drop)}
	var edits []edit
	for it := s.members.iterate(); it.member() != nil; it.next() {
		m := it.member()
		if after := m.store.without(drop); after.empty() || after != m.store {
			edits = append(edits, edit{member{m.name, after}, after.empty()})
		}
	}
	out.members = s.members.with(edits, false)
	return out
}

// whole is the store without names of what is empty.
func (s store) whole() store {
	if !s.members.isNamed() {
		return s // Below a whole map all are whole.
	}
	return s.without(func(Dot) bool { return false })
}

// each visits the live dots.
func (s store) each(yield func(d Dot, payload string) bool) bool {
	for at := s.dots; at != ""; {
		d, payload, rest := at.next()
		if !yield(d, payload) {
			return false
		}
		at = rest
	}
	for it := s.members.iterate(); it.member() != nil; it.next() {
		if !it.member().store.each(yield) {
			return false
		}
	}
	return true
}
