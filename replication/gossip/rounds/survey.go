package rounds

import (
	replicationv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/replication/v1"
)

// Survey finds the slots that differ. It is not safe for concurrent use.
type Survey struct {
	engine Engine
	stream Stream
	// open has the group hashes that this store sent and that were not answered yet, by type.
	open map[string]*[groups]uint64
}

// NewSurvey makes a survey.
func NewSurvey(engine Engine, stream Stream) *Survey {
	return &Survey{engine: engine, stream: stream, open: map[string]*[groups]uint64{}}
}

// hashes reads the common slots of a type; ok is false where there are none.
func (s *Survey) hashes(entityType string) (bySlot *[slots]uint64, byGroup *[groups]uint64, common func(uint32) bool) {
	if common = s.stream.Common(entityType); common == nil {
		return nil, nil, nil
	}
	bySlot, byGroup = new([slots]uint64), new([groups]uint64)
	for _, h := range s.engine.SlotHashes(entityType) {
		if h.GetSlot() < slots && h.GetHash() != 0 && common(h.GetSlot()) {
			bySlot[h.GetSlot()] = h.GetHash()
			byGroup[h.GetSlot()/groupSlots] ^= mix(h.GetSlot(), h.GetHash())
		}
	}
	return bySlot, byGroup, common
}

// mix makes equal hashes of different slots different, so that they do not cancel each other out (splitmix64).
func mix(slot uint32, hash uint64) uint64 {
	x := hash + (uint64(slot)+1)*0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// Open sends the group hashes of all types, and returns the types.
func (s *Survey) Open() (types []string) {
	for _, t := range s.engine.Types() {
		_, byGroup, common := s.hashes(t)
		if common == nil {
			continue
		}
		g := &replicationv1.Groups{Type: t, Epoch: s.stream.Epoch()}
		for i, h := range byGroup {
			if h != 0 {
				g.Groups = append(g.Groups, &replicationv1.GroupHash{Group: uint32(i), Hash: h})
			}
		}
		s.open[t] = byGroup
		types = append(types, t)
		if !s.stream.Send(&replicationv1.Message{Kind: &replicationv1.Message_Groups{Groups: g}}) {
			break
		}
	}
	return types
}

// Groups answers with the slots of the groups that differ.
func (s *Survey) Groups(g *replicationv1.Groups) {
	out := &replicationv1.SlotHashes{Type: g.GetType()}
	mark := s.stream.Mark(g.GetType())
	bySlot, byGroup, common := s.hashes(g.GetType())
	if common == nil {
		return
	}
	var theirs [groups]uint64
	for _, h := range g.GetGroups() {
		if h.GetGroup() < groups {
			theirs[h.GetGroup()] = h.GetHash()
		}
	}
	var same []uint32
	for i := range uint32(groups) {
		equal := theirs[i] == byGroup[i]
		if !equal {
			out.Groups = append(out.Groups, i)
		}
		for slot := i * groupSlots; slot < (i+1)*groupSlots; slot++ {
			switch {
			case !common(slot):
			case equal:
				same = append(same, slot)
			case bySlot[slot] != 0:
				out.Slots = append(out.Slots, &replicationv1.SlotHash{Slot: slot, Hash: bySlot[slot]})
			}
		}
	}
	s.stream.Same(g.GetType(), same, mark)
	s.stream.Send(&replicationv1.Message{Kind: &replicationv1.Message_SlotHashes{SlotHashes: out}})
}

// SlotHashes returns the slots that differ; ok is false where nothing was asked.
func (s *Survey) SlotHashes(in *replicationv1.SlotHashes) (differing []uint32, ok bool) {
	sent := s.open[in.GetType()]
	if sent == nil {
		return nil, false
	}
	delete(s.open, in.GetType())
	mark := s.stream.Mark(in.GetType())
	bySlot, byGroup, common := s.hashes(in.GetType())
	if common == nil {
		return nil, true
	}
	var unequal [groups]bool
	for _, g := range in.GetGroups() {
		if g < groups {
			unequal[g] = true
		}
	}
	theirs := map[uint32]uint64{}
	for _, h := range in.GetSlots() {
		if h.GetSlot() < slots {
			theirs[h.GetSlot()] = h.GetHash()
		}
	}
	var same []uint32
	for i := range uint32(groups) {
		for slot := i * groupSlots; slot < (i+1)*groupSlots; slot++ {
			switch {
			case !common(slot):
			case unequal[i] && bySlot[slot] != theirs[slot]:
				differing = append(differing, slot)
			case unequal[i], sent[i] == byGroup[i]: // The peer had what this store has now.
				same = append(same, slot)
			}
		}
	}
	s.stream.Same(in.GetType(), same, mark)
	return differing, true
}
