package gossip

import (
	"sync"
	"time"

	"github.com/holdfast-mesh/holdfast/replication/gossip/settle"
)

// claims keeps the streams of one store from filling a slot twice at once. An opener holds a slot alone; as an answerer a
// store takes only one peer at a time that has something it lacks, and any number that only want something.
type claims struct {
	self string

	mu sync.Mutex
	// +checklocks:mu
	slots map[settle.Slot]*claim
}

// claim is kept after its end for the time of completion: at most one for each slot and type.
type claim struct {
	// opener holds the slot as an opener, filler as an answerer.
	opener, filler *session
	completed      time.Time
}

// +checklocks:c.mu
func (c *claims) of(slot settle.Slot) *claim {
	if c.slots[slot] == nil {
		c.slots[slot] = &claim{}
	}
	return c.slots[slot]
}

// open asks for a slot that was seen to differ at survey.
func (c *claims) open(s *session, slot settle.Slot, survey time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := c.of(slot)
	if k.opener != nil || k.filler != nil || !survey.IsZero() && k.completed.After(survey) {
		return false
	}
	k.opener = s
	return true
}

// answer asks for a slot that a peer opened. Where both opened it, the one with the greater name answers.
func (c *claims) answer(s *session, slot settle.Slot, behind bool) bool {
	if !behind {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	k := c.of(slot)
	if k.filler != nil || k.opener != nil && (k.opener.peer != s.peer || c.self < s.peer) {
		return false
	}
	k.filler = s
	return true
}

func (c *claims) release(s *session, slot settle.Slot, asked, completed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := c.of(slot)
	if asked && k.opener == s {
		k.opener = nil
	}
	if !asked && k.filler == s {
		k.filler = nil
	}
	if completed {
		k.completed = time.Now()
	}
}
