package gossip

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
)

// SetKeys replaces the keys while the node runs: all decrypt, the first one encrypts. A key is rotated in three steps, each
// at all members before the next: add the new one behind the old, put it first, leave the old one out.
func (n *Node) SetKeys(keys [][]byte) error {
	ring := n.keyring
	switch {
	case ring == nil:
		return errors.New("gossip: the node runs without keys")
	case len(keys) == 0:
		return errors.New("gossip: refusing to go on without a key")
	}
	n.keysMu.Lock()
	defer n.keysMu.Unlock()
	for _, key := range keys {
		if err := ring.AddKey(bytes.Clone(key)); err != nil {
			return fmt.Errorf("gossip: %w", err)
		}
	}
	if err := ring.UseKey(keys[0]); err != nil {
		return fmt.Errorf("gossip: %w", err)
	}
	for _, old := range slices.Clone(ring.GetKeys()) {
		if slices.ContainsFunc(keys, func(key []byte) bool { return bytes.Equal(key, old) }) {
			continue
		}
		// The ring removes in place, under the feet of who decrypts, but for the last one. Using a key moves it to the front.
		for _, key := range slices.Backward(slices.Clone(ring.GetKeys())) {
			if !bytes.Equal(key, old) {
				_ = ring.UseKey(key)
			}
		}
		_ = ring.RemoveKey(old)
		_ = ring.UseKey(keys[0])
	}
	return nil
}
