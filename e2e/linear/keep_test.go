package linear

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"

	"github.com/anishathalye/porcupine"
)

// pageBytes bounds the page that is kept in the repository.
const pageBytes = 1 << 20

// byReturn is the operations in the order of their replies.
func (h *history) byReturn() []*operation {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := slices.Clone(h.all)
	slices.SortFunc(all, func(a, b *operation) int { return int(a.Returned - b.Returned) })
	return all
}

// keep writes the history where it was asked for, or is illegal.
func (r *trial) keep(verdict porcupine.CheckResult, info porcupine.LinearizationInfo, all []*operation) {
	folder := *results
	if folder == "" && verdict != porcupine.Ok {
		var err error
		if folder, err = os.MkdirTemp("", "hf-linear-"); err != nil {
			r.t.Error(err)
			return
		}
	}
	if folder != "" {
		info.AddAnnotations(r.annotations())
		name := filepath.Join(folder, r.name)
		if err := porcupine.VisualizePath(model, info, name+".html"); err != nil {
			r.t.Error(err)
		}
		if err := writeJSON(name+".json", all); err != nil {
			r.t.Error(err)
		}
		r.t.Logf("the history is kept as %s.html and %s.json", name, name)
	}
	if *page != "" && verdict == porcupine.Ok {
		r.writePage(all)
	}
}

func writeJSON(name string, v any) error {
	data, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(name, data, 0o600)
}

// writePage writes the check of the register with the most unknown outcomes, as much of it as fits.
func (r *trial) writePage(all []*operation) {
	doubts := map[string]int{}
	for _, o := range all {
		if o.Fate == unknown || o.Fate == applied {
			doubts[o.Key]++
		}
	}
	busiest := keyName(r.name, 0)
	for key, n := range doubts {
		if n > doubts[busiest] || n == doubts[busiest] && key < busiest {
			busiest = key
		}
	}
	var some []*operation
	for _, o := range all {
		if o.Key == busiest {
			some = append(some, o)
		}
	}
	slices.SortFunc(some, func(a, b *operation) int { return int(a.Called - b.Called) })
	for ; len(some) > 0; some = some[:len(some)*9/10] {
		verdict, info := check(some)
		if verdict != porcupine.Ok {
			// The first part of a history is one only with those operations that had not returned.
			continue
		}
		info.AddAnnotations(r.annotations())
		if err := porcupine.VisualizePath(model, info, *page); err != nil {
			r.t.Error(err)
			return
		}
		if f, err := os.Stat(*page); err == nil && f.Size() < pageBytes {
			r.t.Logf("the check of %s, %d operations, is in %s (%d KiB)", busiest, len(some), *page, f.Size()>>10)
			return
		}
	}
}
