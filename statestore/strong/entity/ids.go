package entity

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/holdfast-mesh/holdfast/internal/fenced"
)

// id is the beginning of a request id's SHA-256.
type id [16]byte

func idOf(requestID string) id {
	sum := sha256.Sum256([]byte(requestID))
	return id(sum[:16])
}

// ids are the request ids that an entity remembers: the newest in its head, older ones in pages, of which those from first
// until before next are kept.
type ids struct {
	newest []id
	// Invariant: first <= next <= first + maxPages, len(pages) == next - first.
	first, next uint64
	pages       []*page
}

type page struct {
	// written is in unix seconds.
	written int64
	ids     [headIDs]id
}

func (s *ids) has(requestID string) bool {
	if requestID == "" {
		return false
	}
	wanted := idOf(requestID)
	if slices.Contains(s.newest, wanted) {
		return true
	}
	for _, p := range s.pages {
		if slices.Contains(p.ids[:], wanted) {
			return true
		}
	}
	return false
}

// add returns the ids with one more, and adds to w what that changes in cells.
func (s *ids) add(requestID string, now time.Time, w *fenced.Write) ids {
	out := *s
	out.newest = s.newest
	if len(out.newest) == headIDs {
		out.spill(now, w)
	}
	out.newest = append(slices.Clip(out.newest), idOf(requestID))
	return out
}

// spill writes the newest ids to a page, and drops pages that are old.
func (s *ids) spill(now time.Time, w *fenced.Write) {
	p := &page{written: now.Unix(), ids: [headIDs]id(s.newest)}
	w.Put = append(w.Put, fenced.Cell{Name: pageName(s.next), Value: p.encode(s.next)})
	s.newest = nil
	s.pages = append(slices.Clip(s.pages), p)
	s.next++
	if len(s.pages) > maxPages {
		// Its cell was just written over.
		s.first, s.pages = s.first+1, s.pages[1:]
	}
	for range dropPages {
		if len(s.pages) == 1 || now.Unix()-s.pages[0].written <= int64(keepIDs/time.Second) {
			return
		}
		w.Drop = append(w.Drop, pageName(s.first))
		s.first, s.pages = s.first+1, s.pages[1:]
	}
}

func pageName(n uint64) string { return fmt.Sprintf("r/%03d", n%maxPages) }

const pageLayout = 1

func (p *page) encode(number uint64) []byte {
	b := []byte{pageLayout}
	b = binary.AppendUvarint(b, number)
	b = binary.AppendUvarint(b, uint64(p.written))
	for _, i := range p.ids {
		b = append(b, i[:]...)
	}
	return b
}

// load reads the pages that the head names.
func (s *ids) load(cells func(from, to string) ([]fenced.Cell, error)) error {
	n := s.next - s.first
	if n == 0 {
		return nil
	}
	found, err := cells("r/", "r0")
	if err != nil {
		return err
	}
	s.pages = make([]*page, n)
	for _, c := range found {
		number, p, err := decodePage(c.Value)
		if err != nil {
			return fmt.Errorf("cell %s: %w", c.Name, err)
		}
		if number >= s.first && number < s.next && pageName(number) == c.Name {
			s.pages[number-s.first] = p
		}
	}
	if slices.Contains(s.pages, nil) {
		return ErrChanged
	}
	return nil
}

func decodePage(b []byte) (uint64, *page, error) {
	r := reader{b: b}
	r.layout(pageLayout)
	number, written := r.uvarint(), r.unix()
	p := &page{written: written}
	for i := range p.ids {
		p.ids[i] = id(r.take(len(id{})))
	}
	if r.failed || len(r.b) != 0 {
		return 0, nil, errCorrupt
	}
	return number, p, nil
}
