package crdt

// Comparison is what a completed comparison of one slot with a peer says (Gonçalves, Almeida, Baquero, Fonte 2017): all
// of the peer's states that differed were delivered, so this store knows the effect of every dot that the peer had seen.
//
// One thing is left. A dot that came here by another way between the comparison and now, and that the peer had seen removed
// by then, was not compared: it must go, or this store would claim to have seen a removal that it does not show.
type Comparison struct {
	// Complete is what the peer had seen when it compared.
	Complete *Context
	// Compared is what this store had seen when it compared the hashes, ComparedKeys when it compared the keys.
	Compared, ComparedKeys *Context
	// Buckets are those that differed, for which ComparedKeys holds; Compared holds for all others.
	Buckets []uint32
	// Delivered are the keys whose states the peer sent, or said that it has not.
	Delivered map[string]struct{}
	// Turn counts how often this store had dropped the slot when it compared: what a comparison that began before a drop
	// delivered may be gone, and completing it would claim to have seen what is not there.
	Turn uint64
}

// Settle drops the live dots of one entity that have to go, and reports whether there were any. Once it was called for
// all entities of the slot, the slot's context takes up Complete.
func (c *Comparison) Settle(key string, bucket uint32, s *State) (changed bool) {
	if _, delivered := c.Delivered[key]; delivered {
		return false
	}
	compared := c.Compared
	for _, b := range c.Buckets {
		if b == bucket {
			compared = c.ComparedKeys
		}
	}
	live := s.live.without(func(d Dot) bool { return c.Complete.Has(d) && !compared.Has(d) })
	if live == s.live {
		return false
	}
	// What was dropped stays seen until the slot's context holds it.
	s.Hold(s.Context())
	s.live = live
	return true
}
