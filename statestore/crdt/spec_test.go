package crdt

import (
	"math"
	"slices"
	"sort"
	"strings"

	configv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/config/v1"
	holdfastv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/v1"
)

// What the values mean, said a second time without contexts and joins: a function of the operations that a replica knows.
// Each operation puts marks at places, and ends the marks that it found there at its origin. A mark counts where its
// operation is known and no known operation ended it.

type event struct {
	marks, ends []*mark
}

type mark struct {
	dot  Dot
	path string // of the value in the entity: "/p/x"
	set  bool   // not only the presence of a value without members
	// by and before of counters: the change, and the replica's own mark that it built on.
	by     int64
	before *mark
	// of registers, flags, votes
	clock clock
	time  uint64
	value string
	yes   bool
}

// history is the events that are known.
type history map[*event]bool

func (h history) marks() []*mark {
	ended := map[*mark]bool{}
	for e := range h {
		for _, m := range e.ends {
			ended[m] = true
		}
	}
	var out []*mark
	for e := range h {
		for _, m := range e.marks {
			if !ended[m] {
				out = append(out, m)
			}
		}
	}
	slices.SortFunc(out, func(a, b *mark) int { return a.dot.compare(b.dot) })
	return out
}

func under(marks []*mark, path string) []*mark {
	var out []*mark
	for _, m := range marks {
		if m.path == path || strings.HasPrefix(m.path, path+"/") {
			out = append(out, m)
		}
	}
	return out
}

func at(marks []*mark, path string) []*mark {
	var out []*mark
	for _, m := range marks {
		if m.path == path {
			out = append(out, m)
		}
	}
	return out
}

// specification is an operation in the making.
type specification struct {
	Mutator
	event
	live []*mark
}

// specify is the event of an operation, nil where it changes nothing.
func specify(p *configv1.Shape, known history, op *holdfastv1.Operation, m Mutator) *event {
	s := &specification{Mutator: m, live: known.marks()}
	s.apply(p, "", op)
	if len(s.marks)+len(s.ends) == 0 {
		return nil
	}
	return &s.event
}

func (s *specification) mark(path string, m mark) {
	m.dot, m.path = Dot{s.Replica, s.Seq}, path
	s.Seq++
	s.marks = append(s.marks, &m)
}

func (s *specification) end(marks []*mark) { s.ends = append(s.ends, marks...) }

func (s *specification) apply(p *configv1.Shape, path string, op *holdfastv1.Operation) {
	live := under(s.live, path)
	switch o := op.GetOperation().(type) {
	case *holdfastv1.Operation_Delete:
		s.end(live)
	case *holdfastv1.Operation_Increment:
		s.count(path, int64(o.Increment.GetBy()), live)
	case *holdfastv1.Operation_Change:
		s.count(path, o.Change.GetBy(), live)
	case *holdfastv1.Operation_Set:
		s.write(p, path, o.Set, live)
	case *holdfastv1.Operation_Enable:
		s.end(live)
		s.mark(path, mark{yes: true})
	case *holdfastv1.Operation_Disable:
		if len(live) == 0 || slices.ContainsFunc(live, func(m *mark) bool { return m.yes }) {
			s.end(live)
			s.mark(path, mark{})
		}
	case *holdfastv1.Operation_Vote:
		mine := at(live, path+"/"+s.Node)
		yes, latest := specVote(mine)
		if len(mine) == 0 || yes != o.Vote.InFavour {
			s.end(at(live, path))
			s.end(mine)
			s.mark(path+"/"+s.Node, mark{set: true, time: max(s.Now, latest+1), yes: o.Vote.InFavour})
		}
	case *holdfastv1.Operation_Add:
		names := byteNames(o.Add.GetElements())
		for _, name := range names {
			had := at(live, path+"/"+name)
			if p.Model == gsetModel && len(had) > 0 {
				continue
			}
			s.end(had)
			s.mark(path+"/"+name, mark{set: true})
		}
		if len(s.marks) > 0 {
			s.end(at(live, path))
		} else if len(live) == 0 {
			s.mark(path, mark{})
		}
	case *holdfastv1.Operation_Remove:
		s.remove(path, live, byteNames(o.Remove.GetElements()))
	case *holdfastv1.Operation_MapRemove:
		s.remove(path, live, []string{o.MapRemove.Key})
	case *holdfastv1.Operation_Clear:
		s.remove(path, live, members(live, path))
	case *holdfastv1.Operation_MapUpdate:
		key := path + "/" + o.MapUpdate.Key
		if o.MapUpdate.Operation != nil {
			s.apply(p.Values, key, o.MapUpdate.Operation)
		}
		if len(s.marks) == 0 && len(under(live, key)) == 0 {
			s.mark(key, mark{})
		}
		if len(s.marks) > 0 {
			s.end(at(live, path))
		}
	}
}

func (s *specification) remove(path string, live []*mark, names []string) {
	for _, name := range names {
		s.end(under(live, path+"/"+name))
	}
	if len(s.ends) > 0 {
		s.end(at(live, path))
		s.mark(path, mark{})
	}
}

func (s *specification) count(path string, by int64, live []*mark) {
	if by == 0 && len(live) > 0 {
		return
	}
	var before *mark
	for _, m := range live {
		if m.dot.Replica == s.Replica {
			before = m
			s.end([]*mark{m})
		}
	}
	s.mark(path, mark{by: by, before: before})
}

func (s *specification) write(p *configv1.Shape, path string, o *holdfastv1.Set, live []*mark) {
	m := mark{set: true, value: string(o.Value), clock: clockDefault}
	latest := func(c clock) (time uint64, any bool) {
		for _, l := range live {
			if l.set && l.clock == c {
				time, any = max(time, l.time), true
			}
		}
		return time, any
	}
	if p.Model != mvregisterModel {
		switch o.Clock {
		case holdfastv1.Clock_CLOCK_DEFAULT:
			seen, _ := latest(clockDefault)
			m.time = max(s.Now, seen+1)
		case holdfastv1.Clock_CLOCK_REVERSE:
			m.clock, m.time = clockReverse, math.MaxUint64-s.Now
			if _, any := latest(clockReverse); any {
				return
			}
		default:
			m.clock, m.time = clockCustom, o.CustomClock
			if seen, any := latest(clockCustom); any && seen >= m.time {
				if o.Clock == holdfastv1.Clock_CLOCK_CUSTOM {
					return
				}
				m.time = seen + 1
			}
		}
	}
	s.end(live)
	s.mark(path, m)
}

func byteNames(list [][]byte) []string {
	var out []string
	for _, b := range list {
		out = append(out, string(b))
	}
	sort.Strings(out)
	return slices.Compact(out)
}

// members lists the names below a path.
func members(live []*mark, path string) []string {
	var out []string
	for _, m := range live {
		if rest, ok := strings.CutPrefix(m.path, path+"/"); ok {
			name, _, _ := strings.Cut(rest, "/")
			out = append(out, name)
		}
	}
	sort.Strings(out)
	return slices.Compact(out)
}

func specVote(marks []*mark) (yes bool, latest uint64) {
	for _, m := range marks {
		if m.time >= latest {
			yes, latest = m.yes, m.time
		}
	}
	return yes, latest
}

// specTotal adds up each replica's newest mark and what it built on.
func specTotal(live []*mark) int64 {
	newest := map[uint64]*mark{}
	for _, m := range live {
		newest[m.dot.Replica] = m
	}
	total := int64(0)
	for _, m := range newest {
		for ; m != nil; m = m.before {
			total += m.by
		}
	}
	return total
}

func specValue(p *configv1.Shape, path string, marks []*mark, v View) *holdfastv1.Value {
	live := under(marks, path)
	if len(live) == 0 {
		return nil
	}
	switch p.Model {
	case gcounterModel:
		return &holdfastv1.Value{Kind: &holdfastv1.Value_Gcounter{Gcounter: uint64(specTotal(live))}}
	case pncounterModel:
		return &holdfastv1.Value{Kind: &holdfastv1.Value_Pncounter{Pncounter: specTotal(live)}}
	case gsetModel:
		return &holdfastv1.Value{Kind: &holdfastv1.Value_Gset{Gset: &holdfastv1.SetValue{Elements: byteLists(members(live, path))}}}
	case orsetModel:
		return &holdfastv1.Value{Kind: &holdfastv1.Value_Orset{Orset: &holdfastv1.SetValue{Elements: byteLists(members(live, path))}}}
	case flagModel:
		on := slices.ContainsFunc(live, func(m *mark) bool { return m.yes })
		return &holdfastv1.Value{Kind: &holdfastv1.Value_Flag{Flag: on}}
	case voteModel:
		out := &holdfastv1.VoteValue{TotalVoters: uint32(len(v.Voters))}
		for _, name := range members(live, path) {
			if yes, _ := specVote(at(live, path+"/"+name)); yes {
				if slices.Contains(v.Voters, name) {
					out.VotesFor++
				}
				out.SelfVote = out.SelfVote || name == v.Node
			}
		}
		return &holdfastv1.Value{Kind: &holdfastv1.Value_Vote{Vote: out}}
	case ormapModel:
		entries := map[string]*holdfastv1.Value{}
		for _, name := range members(live, path) {
			entries[name] = specValue(p.Values, path+"/"+name, live, v)
		}
		return &holdfastv1.Value{Kind: &holdfastv1.Value_Ormap{Ormap: &holdfastv1.MapValue{Entries: entries}}}
	case mvregisterModel:
		var values []string
		for _, m := range live {
			if m.set {
				values = append(values, m.value)
			}
		}
		sort.Strings(values)
		return &holdfastv1.Value{Kind: &holdfastv1.Value_Mvregister{Mvregister: &holdfastv1.MultiValue{Values: byteLists(slices.Compact(values))}}}
	}
	best := &mark{}
	for _, m := range live {
		if m.clock > best.clock || m.clock == best.clock && m.time >= best.time {
			best = m
		}
	}
	if p.Model == valueModel {
		return &holdfastv1.Value{Kind: &holdfastv1.Value_Value{Value: []byte(best.value)}}
	}
	return &holdfastv1.Value{Kind: &holdfastv1.Value_Lww{Lww: []byte(best.value)}}
}
