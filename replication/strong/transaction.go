package strong

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/code"

	"github.com/holdfast-mesh/holdfast/internal/etcd"
	"github.com/holdfast-mesh/holdfast/internal/fenced"
	"github.com/holdfast-mesh/holdfast/internal/planted"
)

// command is what one Commit writes, on its way to a transaction. All of its writes are done, or none.
type command struct {
	writes []write
	ops    []etcd.Op
	// size is about what it takes in a transaction, in bytes.
	size int
	// ctx is the caller's: when it ends nobody waits for the answer, and nothing is tried again.
	ctx context.Context
	// displaced counts how often it went again because another's guard failed in its transaction.
	displaced int
	// silences counts the attempts that etcd did not answer: with one, the command may have been applied whatever a later
	// attempt says but for its guards.
	silences int
	// sent turns true, under the queue's lock, once a transaction may carry it.
	sent bool
	// alone keeps it out of others' transactions: it may be what etcd can't answer.
	alone bool
	// withdrawn turns true, under the queue's lock, when its caller has left: it is not sent (again).
	withdrawn bool
	done      chan result
}

// write is what is compared for one entity.
type write struct {
	slot             fenced.Slot
	slotKey, headKey string
	epoch, revision  int64
	head             []byte
	// keep: the head is compared, not written.
	keep bool
}

type result struct {
	rev int64
	err error
}

// newCommand checks writes against what a transaction can hold.
func newCommand(ctx context.Context, writes []fenced.Write) (*command, error) {
	p := &command{ctx: ctx, writes: make([]write, len(writes)), done: make(chan result, 1)}
	if len(writes) == 0 {
		return nil, refused(code.Code_INVALID_ARGUMENT, fmt.Errorf("%w: nothing to write", ErrInvalid))
	}
	slots, heads := map[string]bool{}, map[string]bool{}
	for i, w := range writes {
		t := write{
			slot: w.Slot, slotKey: slotKey(w.Slot), headKey: headKey(w.Slot, w.Key),
			epoch: w.Epoch, revision: w.Revision, head: w.Head, keep: w.Keep,
		}
		if heads[t.headKey] {
			return nil, refused(code.Code_INVALID_ARGUMENT, fmt.Errorf("%w: %s %q is written twice", ErrInvalid, w.Slot.Type, w.Key))
		}
		if w.Epoch == 0 {
			return nil, refused(code.Code_UNAVAILABLE, ErrNotOwner).at(i)
		}
		if n := len(w.Head); n > MaxHeadBytes && !w.Keep {
			return nil, refused(code.Code_RESOURCE_EXHAUSTED, fmt.Errorf("%w: %s %q takes %d bytes, at most %d", ErrTooLarge, w.Slot.Type, w.Key, n, MaxHeadBytes)).at(i)
		}
		slots[t.slotKey], heads[t.headKey] = true, true
		p.writes[i] = t
		p.size += 3*len(t.slotKey) + 2*len(t.headKey) + writeOverhead
		p.operations(t, w)
	}
	if n := len(slots) + len(heads); n > etcd.MaxGuards {
		return nil, refused(code.Code_RESOURCE_EXHAUSTED, fmt.Errorf("%w: %d entities take %d guards, at most %d", ErrTooLarge, len(heads), n, etcd.MaxGuards))
	}
	if n := len(p.ops); n > etcd.MaxOps {
		return nil, refused(code.Code_RESOURCE_EXHAUSTED, fmt.Errorf("%w: %d operations, at most %d", ErrTooLarge, n, etcd.MaxOps))
	}
	if p.size > etcd.MaxTxnBytes {
		return nil, refused(code.Code_RESOURCE_EXHAUSTED, fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, p.size, etcd.MaxTxnBytes))
	}
	return p, nil
}

// operations adds the write's operations.
func (p *command) operations(t write, w fenced.Write) {
	put := func(key string, value []byte) {
		p.ops = append(p.ops, etcd.Put(key, value, 0))
		p.size += len(key) + len(value) + writeOverhead
	}
	switch {
	case w.Keep:
	case w.Head == nil:
		p.ops = append(p.ops, etcd.Delete(t.headKey))
	default:
		put(t.headKey, w.Head)
	}
	if len(w.Put)+len(w.Drop) > 0 {
		cells := cellsKey(w.Slot, w.Key)
		names := make([]string, len(w.Put))
		for i, cell := range w.Put {
			names[i] = cell.Name
			put(cells+cell.Name, cell.Value)
		}
		for _, r := range gaps(w.Drop, names) {
			to := cells + r.to
			if r.to == "" {
				to = etcd.PrefixEnd(cells)
			}
			p.ops = append(p.ops, etcd.DeleteRange(cells+r.from, to))
			p.size += len(cells) + len(to) + writeOverhead
		}
	}
	if w.Mark != 0 {
		put(markKey(w.Slot, w.Key, w.Mark), nil)
	}
	if w.Unmark != 0 && w.Unmark != w.Mark {
		p.ops = append(p.ops, etcd.Delete(markKey(w.Slot, w.Key, w.Unmark)))
		p.size += len(t.headKey) + writeOverhead
	}
}

// span is the names in [from, to); an empty to has no end.
type span struct{ from, to string }

// gaps returns the names that begin with one of the prefixes, without those of puts: etcd refuses a transaction that
// writes a key in a range that it deletes.
func gaps(prefixes, puts []string) []span {
	var out []span
	puts = slices.Sorted(slices.Values(puts))
	for _, p := range prefixes {
		from := p
		for _, name := range puts {
			if !strings.HasPrefix(name, p) {
				continue
			}
			if from < name {
				out = append(out, span{from, name})
			}
			from = name + "\x00"
		}
		to := ""
		if p != "" {
			to = etcd.PrefixEnd(p)
		}
		out = append(out, span{from, to})
	}
	return out
}

// transaction is what several commands share.
type transaction struct {
	commands []*command
	guards   []etcd.Guard
	ops      []etcd.Op
	size     int
	heads    map[string]bool
	// epochs are what the slots are guarded with.
	epochs map[string]int64
}

func newTransaction() *transaction {
	return &transaction{heads: map[string]bool{}, epochs: map[string]int64{}}
}

// add takes the command in, unless the transaction is full, or has one of its entities already.
func (t *transaction) add(p *command) (added, full bool) {
	for _, w := range p.writes {
		if t.heads[w.headKey] {
			return false, false
		}
	}
	if len(t.commands) > 0 && (len(t.guards)+2*len(p.writes) > etcd.MaxGuards || len(t.ops)+len(p.ops) > etcd.MaxOps ||
		t.size+p.size > etcd.MaxTxnBytes) {
		return false, true
	}
	for _, w := range p.writes {
		if epoch, seen := t.epochs[w.slotKey]; !seen || epoch != w.epoch {
			// Two epochs of one slot cannot both hold: then the guards fail, and a look tells which one is old.
			t.epochs[w.slotKey] = w.epoch
			if !planted.On(planted.FenceLeftOut) {
				t.guards = append(t.guards, etcd.CreatedAt(w.slotKey, w.epoch))
			}
		}
		t.guards = append(t.guards, etcd.ModifiedAt(w.headKey, w.revision))
		t.heads[w.headKey] = true
	}
	t.ops = append(t.ops, p.ops...)
	t.size += p.size
	t.commands = append(t.commands, p)
	return true, false
}

// looks are what to read to find out why the guards failed. The guards themselves don't ask for it: that would go through
// etcd's log with every commit.
func (t *transaction) looks() (keys []string, reads []etcd.Op) {
	add := func(key string) {
		keys, reads = append(keys, key), append(reads, etcd.Read(key, false))
	}
	for key := range t.heads {
		add(key)
	}
	for key := range t.epochs {
		add(key)
	}
	return keys, reads
}

// judge tells what a failed attempt means for a command, by what its slots and heads were at a time after it; innocent is
// true where its own guards held. That they hold later means that they held in the attempt: revisions don't come back.
func (p *command) judge(now map[string]etcd.KV) (res result, innocent bool) {
	changed := -1
	for i, w := range p.writes {
		kv := now[w.headKey]
		if kv.ModRev == w.revision {
			continue
		}
		if changed < 0 {
			changed = i
		}
		if w.head != nil && !w.keep && kv.ModRev > w.revision && string(kv.Value) == string(w.head) {
			// No two commands write the same head: an earlier attempt was applied, all of it.
			return result{rev: kv.ModRev}, false
		}
	}
	verdict := refused
	if p.silences > 0 && changed >= 0 {
		// Applied, and changed again since? Only who knows what is in the head can tell.
		verdict = unsettled
	}
	for i, w := range p.writes {
		if now[w.slotKey].CreateRev != w.epoch {
			return result{err: verdict(code.Code_UNAVAILABLE, ErrNotOwner).at(i)}, false
		}
	}
	if changed >= 0 {
		return result{err: verdict(code.Code_ABORTED, ErrConflict).at(changed)}, false
	}
	return result{}, true
}
