package gossip

import (
	"context"
	"slices"

	"google.golang.org/protobuf/proto"

	replicationv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/replication/v1"
)

// Engine is the state behind a Node. All methods may be called concurrently. What the reading ones return is durable, and
// no longer the engine's to change.
type Engine interface {
	// Merge takes deltas in; they are durable when it returns.
	Merge(ctx context.Context, deltas []*replicationv1.Delta) error
	// Types lists the entity types that are replicated here.
	Types() []string
	// SlotHashes lists the slots of a type that have entities, with a hash each: equal states, equal hashes.
	SlotHashes(entityType string) []*replicationv1.SlotHash
	// KeyHashes lists a slot's entities.
	KeyHashes(entityType string, slot uint32) []*replicationv1.KeyHash
	// States returns the whole states of those keys that exist.
	States(entityType string, keys []string) []*replicationv1.Delta
}

// exchange answers messages. It keeps nothing between them: no order, loss or repetition of messages can confuse it.
type exchange struct {
	engine  Engine
	metrics *metrics
}

// emit hands a message to the stream; false means that the stream is over.
type emit func(*replicationv1.Message) bool

// open opens a round of anti-entropy.
func (x *exchange) open(send emit) bool {
	x.metrics.rounds.Inc()
	for _, t := range x.engine.Types() {
		d := &replicationv1.Digest{Type: t, Slots: x.engine.SlotHashes(t)}
		if !send(&replicationv1.Message{Kind: &replicationv1.Message_Digest{Digest: d}}) {
			return false
		}
	}
	return true
}

// answer answers one message of anti-entropy.
func (x *exchange) answer(m *replicationv1.Message, send emit) bool {
	switch k := m.GetKind().(type) {
	case *replicationv1.Message_Digest:
		return x.digest(k.Digest, send)
	case *replicationv1.Message_SlotKeys:
		return x.slotKeys(k.SlotKeys, send)
	case *replicationv1.Message_Want:
		return x.want(k.Want, send)
	}
	return true // Of a later version: not for us.
}

func (x *exchange) knows(entityType string) bool {
	return slices.Contains(x.engine.Types(), entityType)
}

// digest answers with the key hashes of the slots that differ.
func (x *exchange) digest(d *replicationv1.Digest, send emit) bool {
	if !x.knows(d.GetType()) {
		return true
	}
	hashes := make(map[uint32]uint64, len(d.GetSlots()))
	for _, s := range d.GetSlots() {
		if s.GetSlot() < slots {
			hashes[s.GetSlot()] = s.GetHash()
		}
	}
	var differing []uint32
	for _, s := range x.engine.SlotHashes(d.GetType()) {
		if theirs, ok := hashes[s.GetSlot()]; !ok || theirs != s.GetHash() {
			differing = append(differing, s.GetSlot())
		}
		delete(hashes, s.GetSlot())
	}
	for slot := range hashes { // What only they have.
		differing = append(differing, slot)
	}
	slices.Sort(differing)
	for _, slot := range differing {
		keys := x.engine.KeyHashes(d.GetType(), slot)
		size := 0
		for i, k := range keys {
			if size += proto.Size(k) + 4; size > maxSlotKeysBytes {
				keys = keys[:i]
				break
			}
		}
		sk := &replicationv1.SlotKeys{Type: d.GetType(), Slot: slot, Keys: keys}
		if !send(&replicationv1.Message{Kind: &replicationv1.Message_SlotKeys{SlotKeys: sk}}) {
			return false
		}
	}
	return true
}

// slotKeys compares a slot with the peer's, asks for what this store lacks and sends what the peer lacks.
func (x *exchange) slotKeys(sk *replicationv1.SlotKeys, send emit) bool {
	if !x.knows(sk.GetType()) || sk.GetSlot() >= slots {
		return true
	}
	theirs := make(map[string]uint64, len(sk.GetKeys()))
	for _, k := range sk.GetKeys() {
		theirs[k.GetKey()] = k.GetHash()
	}
	var want, give []string
	for _, k := range x.engine.KeyHashes(sk.GetType(), sk.GetSlot()) {
		hash, ok := theirs[k.GetKey()]
		if !ok || hash != k.GetHash() {
			give = append(give, k.GetKey())
		}
		if ok && hash == k.GetHash() {
			delete(theirs, k.GetKey())
		}
	}
	for key := range theirs {
		want = append(want, key)
	}
	slices.Sort(want)
	for part := range chunks(want, maxWant, maxMessageBytes) {
		w := &replicationv1.Want{Type: sk.GetType(), Keys: part}
		if !send(&replicationv1.Message{Kind: &replicationv1.Message_Want{Want: w}}) {
			return false
		}
	}
	return x.states(sk.GetType(), give, send)
}

// want sends the states asked for.
func (x *exchange) want(w *replicationv1.Want, send emit) bool {
	if !x.knows(w.GetType()) {
		return true
	}
	// A key asked for twice is sent once: an answer is never much larger than what it is about.
	keys := slices.Clone(w.GetKeys())
	slices.Sort(keys)
	return x.states(w.GetType(), slices.Compact(keys), send)
}

func (x *exchange) states(entityType string, keys []string, send emit) bool {
	for part := range slices.Chunk(keys, maxStates) {
		states := x.engine.States(entityType, part)
		for len(states) > 0 {
			n, size := 0, 0
			for n < len(states) && (n == 0 || size+deltaSize(states[n]) <= maxMessageBytes) {
				size += deltaSize(states[n])
				n++
			}
			x.metrics.repaired.Add(float64(n))
			if !send(deltasMessage(states[:n])) {
				return false
			}
			states = states[n:]
		}
	}
	return true
}

// merge merges what a peer sent. Deltas of unknown types are skipped: this store's configuration may be behind, and
// anti-entropy brings them once it is not. One that the engine refuses does not take the others with it.
func (x *exchange) merge(ctx context.Context, in []*replicationv1.Delta) error {
	types := x.engine.Types()
	known := make([]*replicationv1.Delta, 0, len(in))
	for _, d := range in {
		if d != nil && slices.Contains(types, d.GetType()) {
			known = append(known, d)
		}
	}
	x.metrics.unknownType.Add(float64(len(in) - len(known)))
	if len(known) == 0 {
		return nil
	}
	err := x.engine.Merge(ctx, known)
	if err == nil {
		x.metrics.merged.Add(float64(len(known)))
		return nil
	}
	if len(known) == 1 {
		x.metrics.mergeErrors.Inc()
		return err
	}
	var last error
	for _, d := range known {
		if err := x.engine.Merge(ctx, []*replicationv1.Delta{d}); err != nil {
			x.metrics.mergeErrors.Inc()
			last = err
		} else {
			x.metrics.merged.Inc()
		}
	}
	return last
}

func deltasMessage(d []*replicationv1.Delta) *replicationv1.Message {
	return &replicationv1.Message{Kind: &replicationv1.Message_Deltas{Deltas: &replicationv1.Deltas{Deltas: d}}}
}

// deltaSize is at least the delta's size in a message.
func deltaSize(d *replicationv1.Delta) int {
	return len(d.GetType()) + len(d.GetKey()) + len(d.GetState()) + 24
}

// chunks yields parts of keys with at most n keys and, but for single ones that are larger, size bytes.
func chunks(keys []string, n, size int) func(yield func([]string) bool) {
	return func(yield func([]string) bool) {
		for len(keys) > 0 {
			i, bytes := 0, 0
			for i < len(keys) && i < n && (i == 0 || bytes+len(keys[i])+8 <= size) {
				bytes += len(keys[i]) + 8
				i++
			}
			if !yield(keys[:i]) {
				return
			}
			keys = keys[i:]
		}
	}
}
