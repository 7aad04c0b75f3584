package strong

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"google.golang.org/genproto/googleapis/rpc/code"

	"github.com/holdfast-mesh/holdfast/internal/etcd"
)

// commit is one entity's write on its way to a transaction.
type commit struct {
	id                 slotID
	slotKey, entityKey string
	epoch, expected    int64
	record             []byte
	attempts           int
	// sent turns true, under the queue's lock, once a transaction may carry it.
	sent bool
	done chan result
}

type result struct {
	rev int64
	err error
}

// queue holds the commits that wait for a transaction.
type queue struct {
	mu sync.Mutex
	// +checklocks:mu
	waiting []*commit
	// +checklocks:mu
	senders int
	// +checklocks:mu
	closed bool
	// Counts the senders.
	running sync.WaitGroup
}

// Commit writes the entity where the slot's epoch and the entity's revision (0: never written) are as expected, together
// with the request ids. Errors are *Error. A caller that goes away does not stop a commit that may have been sent.
func (c *Committer) Commit(ctx context.Context, entityType string, slot uint32, epoch int64, key string, expectedRev int64, value []byte, exists bool, ids []string) (rev int64, err error) {
	rev, err = c.commit(ctx, slotID{entityType, slot}, epoch, key, expectedRev, record{value, exists, ids})
	label := "applied"
	if e := (*Error)(nil); errors.As(err, &e) {
		label = map[bool]string{true: "unknown", false: "not_applied"}[errors.Is(err, errUnknown)]
	}
	c.metrics.commits.WithLabelValues(label).Inc()
	return rev, err
}

func (c *Committer) commit(ctx context.Context, id slotID, epoch int64, key string, expected int64, r record) (int64, error) {
	if !c.Up() {
		return 0, refused(code.Code_UNAVAILABLE, ErrDown)
	}
	if epoch == 0 {
		return 0, refused(code.Code_UNAVAILABLE, ErrNotOwner)
	}
	if err := ctx.Err(); err != nil {
		return 0, refused(code.Code_DEADLINE_EXCEEDED, err)
	}
	data, err := r.encode()
	if err != nil {
		return 0, refused(code.Code_INVALID_ARGUMENT, err)
	}
	p := &commit{
		id: id, slotKey: slotKey(id), entityKey: entityKey(id, key), epoch: epoch, expected: expected, record: data,
		done: make(chan result, 1),
	}
	if len(data)+len(p.entityKey) > MaxRecordBytes {
		return 0, refused(code.Code_RESOURCE_EXHAUSTED, fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, len(data), MaxRecordBytes))
	}
	if err := c.enqueue(p); err != nil {
		return 0, err
	}
	select {
	case res := <-p.done:
		return res.rev, res.err
	case <-ctx.Done():
	}
	if c.queue.withdraw(p) {
		return 0, refused(code.Code_DEADLINE_EXCEEDED, fmt.Errorf("waiting for a transaction: %w", ctx.Err()))
	}
	select {
	case res := <-p.done: // The answer came with the deadline: it is worth more.
		return res.rev, res.err
	default:
		return 0, unknown(ctx.Err())
	}
}

func (c *Committer) enqueue(p *commit) error {
	q := &c.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return refused(code.Code_UNAVAILABLE, ErrClosed)
	}
	if len(q.waiting) >= maxQueued {
		return refused(code.Code_RESOURCE_EXHAUSTED, ErrBusy)
	}
	q.waiting = append(q.waiting, p)
	if q.senders < maxSenders {
		q.senders++
		q.running.Add(1)
		go c.send()
	}
	return nil
}

// withdraw takes a commit back; false where a transaction may carry it already.
func (q *queue) withdraw(p *commit) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if p.sent {
		return false
	}
	if i := slices.Index(q.waiting, p); i >= 0 {
		q.waiting = slices.Delete(q.waiting, i, i+1)
		return true
	}
	return false
}

// close refuses new commits and waits until those in the queue are answered.
func (q *queue) close() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	q.running.Wait()
}

// again puts commits back at the head of the queue.
func (q *queue) again(batch []*commit) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, p := range batch {
		p.sent = false
	}
	q.waiting = append(batch, q.waiting...)
}

// take removes the next batch, each commit of another entity. Nothing to take ends the calling sender.
func (q *queue) take() []*commit {
	q.mu.Lock()
	defer q.mu.Unlock()
	var batch []*commit
	taken := map[string]bool{}
	bytes := 0
	rest := q.waiting[:0]
	for i, p := range q.waiting {
		size := len(p.record) + 4*len(p.entityKey) + 4*len(p.slotKey)
		full := len(batch) == maxBatch || bytes+size > etcd.MaxTxnBytes && len(batch) > 0
		if full {
			rest = append(rest, q.waiting[i:]...)
			break
		}
		if taken[p.entityKey] {
			rest = append(rest, p)
			continue
		}
		taken[p.entityKey] = true
		bytes += size
		p.sent = true
		batch = append(batch, p)
	}
	clear(q.waiting[len(rest):])
	q.waiting = rest
	if len(batch) == 0 {
		q.senders--
	}
	return batch
}

// send carries batches to etcd until none is left.
func (c *Committer) send() {
	defer c.queue.running.Done()
	for {
		batch := c.queue.take()
		if len(batch) == 0 {
			return
		}
		c.queue.again(c.transact(batch))
	}
}

// transact commits a batch in one transaction and answers each commit, but for the innocent ones of a batch whose guards
// failed: those shall go again.
func (c *Committer) transact(batch []*commit) (again []*commit) {
	ctx, cancel := context.WithTimeout(c.work, txnTimeout)
	defer cancel()
	c.metrics.batch.Observe(float64(len(batch)))
	var guards []etcd.Guard
	var reads, puts []etcd.Op
	slots := map[string]int{}
	epochs := map[string]int64{}
	entities := make([]int, len(batch))
	for i, p := range batch {
		epoch, seen := epochs[p.slotKey]
		if !seen {
			epochs[p.slotKey], epoch = p.epoch, p.epoch
			slots[p.slotKey] = len(reads)
			reads = append(reads, etcd.Read(p.slotKey, true))
		}
		if !seen || epoch != p.epoch {
			// Two epochs of one slot cannot both hold; the guards fail and the reads tell which one is old.
			guards = append(guards, etcd.CreatedAt(p.slotKey, p.epoch))
		}
		entities[i] = len(reads)
		guards = append(guards, etcd.ModifiedAt(p.entityKey, p.expected))
		reads = append(reads, etcd.Read(p.entityKey, true))
		puts = append(puts, etcd.Put(p.entityKey, p.record, 0))
	}
	res, err := c.cfg.Etcd.Txn(ctx, guards, puts, reads)
	if err != nil {
		e := writeError(err)
		if len(batch) > 1 && errors.Is(e, ErrTooLarge) {
			// Refused as a whole: one by one, so that only the guilty one fails.
			for _, p := range batch {
				again = append(again, c.transact([]*commit{p})...)
			}
			return again
		}
		for _, p := range batch {
			p.done <- result{err: e}
		}
		return nil
	}
	if res.Held {
		for _, p := range batch {
			p.done <- result{rev: res.Rev}
		}
		return nil
	}
	for i, p := range batch {
		switch {
		case res.Reads[slots[p.slotKey]].CreateRev != p.epoch:
			c.forget(p.id, p.epoch)
			p.done <- result{err: refused(code.Code_UNAVAILABLE, ErrNotOwner)}
		case res.Reads[entities[i]].ModRev != p.expected:
			p.done <- c.conflict(ctx, p)
		case p.attempts >= maxAttempts:
			p.done <- result{err: refused(code.Code_UNAVAILABLE, ErrBusy)}
		default:
			p.attempts++
			again = append(again, p)
		}
	}
	return again
}

// conflict answers a commit whose entity has another revision than expected. Where the record in etcd is this very one
// (its request ids make it so), an earlier attempt with an unknown outcome was applied after all.
func (c *Committer) conflict(ctx context.Context, p *commit) result {
	kv, err := c.cfg.Etcd.Get(ctx, p.entityKey)
	if err != nil {
		return result{err: unknown(err)}
	}
	if kv.ModRev > p.expected && string(kv.Value) == string(p.record) {
		if r, err := decodeRecord(kv.Value); err == nil && len(r.ids) > 0 {
			return result{rev: kv.ModRev}
		}
	}
	return result{err: refused(code.Code_ABORTED, ErrConflict)}
}
