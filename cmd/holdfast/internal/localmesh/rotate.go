package localmesh

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
)

// GossipKeys are the fingerprints of gossip keys: the first encrypts, all decrypt. It is also the answer to GET /v1/gossip
// at a store's HTTP socket.
type GossipKeys struct {
	Keys []string `json:"keys"`
}

// GossipStatus is the keys of the mesh's key file, and of each store.
type GossipStatus struct {
	Keys   []string      `json:"keys"`
	Stores []StoreGossip `json:"stores"`
}

// StoreGossip is which keys a store uses.
type StoreGossip struct {
	Node  string   `json:"node"`
	Keys  []string `json:"keys"`
	Error string   `json:"error,omitempty"`
}

// RotateStep is a line of the answer to POST /v1/gossip/rotate.
type RotateStep struct {
	Step string `json:"step,omitempty"`
	// Keys, in the last line of a rotation that succeeded, are what is in use now.
	Keys  []string `json:"keys,omitempty"`
	Error string   `json:"error,omitempty"`
}

// Fingerprint names a gossip key, a line of the key file, without giving it away: the keys are random and long.
func Fingerprint(line string) string {
	sum := sha256.Sum256([]byte(strings.TrimSpace(line)))
	return hex.EncodeToString(sum[:4])
}

// Fingerprints of all keys in a key file.
func Fingerprints(file []byte) []string {
	out := []string{}
	for line := range bytes.Lines(file) {
		if line = bytes.TrimSpace(line); len(line) > 0 {
			out = append(out, Fingerprint(string(line)))
		}
	}
	return out
}

// Gossip tells which keys are in use.
func (m *Mesh) Gossip(ctx context.Context) (*GossipStatus, error) {
	file, err := os.ReadFile(m.paths.GossipKey())
	if err != nil {
		return nil, fmt.Errorf("gossip key: %w", err)
	}
	names := m.nodeNames()
	s := &GossipStatus{Keys: Fingerprints(file), Stores: make([]StoreGossip, len(names))}
	var wg sync.WaitGroup
	for i, name := range names {
		wg.Go(func() {
			keys, err := m.keysOf(ctx, name)
			s.Stores[i] = StoreGossip{Node: name, Keys: keys}
			if err != nil {
				s.Stores[i].Error = err.Error()
			}
		})
	}
	wg.Wait()
	return s, nil
}

func (m *Mesh) keysOf(ctx context.Context, node string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	var has GossipKeys
	err := (Client{Paths: m.paths}).json(ctx, http.MethodGet, m.paths.StoreHTTPSocket(node), "/v1/gossip", nil, &has)
	return has.Keys, err
}

// Rotate replaces the gossip key while all stores go on: they learn the new one, then encrypt with it, then forget the old
// ones; each step begins when all stores have done the one before. A rotation that broke off is done again from its start:
// whatever the file has then counts as old.
func (m *Mesh) Rotate(ctx context.Context, tell func(format string, args ...any)) ([]string, error) {
	if !m.change.TryLock() {
		return nil, errBusy
	}
	defer m.change.Unlock()
	m.mu.Lock()
	ready := m.ready
	m.mu.Unlock()
	if !ready {
		return nil, errBusy
	}
	file, err := os.ReadFile(m.paths.GossipKey())
	if err != nil {
		return nil, fmt.Errorf("gossip key: %w", err)
	}
	fresh := bytes.TrimSpace(m.opts.NewGossipKey())
	name := Fingerprint(string(fresh))
	old := bytes.TrimSpace(file)
	join := func(keys ...[]byte) []byte { return append(bytes.Join(keys, []byte("\n")), '\n') }
	for _, step := range []struct {
		file []byte
		what string
	}{
		{join(old, fresh), "every store knows the new key " + name},
		{join(fresh, old), "every store encrypts with it"},
		{join(fresh), fmt.Sprintf("every store has forgotten what was before (%s)", strings.Join(Fingerprints(old), ", "))},
	} {
		if err := replaceFile(m.paths.GossipKey(), step.file); err != nil {
			return nil, fmt.Errorf("gossip key: %w", err)
		}
		if err := m.waitKeys(ctx, Fingerprints(step.file)); err != nil {
			return nil, err
		}
		tell("%s", step.what)
	}
	m.progress("gossip key changed to %s", name)
	return []string{name}, nil
}

// waitKeys waits until every store has exactly these keys, in this order.
func (m *Mesh) waitKeys(ctx context.Context, want []string) error {
	var missing []string
	done := until(ctx, keysTimeout, func(ctx context.Context) bool {
		s, err := m.Gossip(ctx)
		if err != nil {
			return false
		}
		missing = nil
		for _, store := range s.Stores {
			if !slices.Equal(store.Keys, want) {
				missing = append(missing, store.Node)
			}
		}
		return len(missing) == 0
	})
	switch {
	case ctx.Err() != nil:
		return errors.New("broken off: run it again, it starts from where the keys are now")
	case !done:
		return fmt.Errorf("not changed yet at %s within %v; all stores still understand each other: see to these and run it again",
			strings.Join(missing, ", "), keysTimeout)
	}
	return nil
}
