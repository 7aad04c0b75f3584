package strong

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/genproto/googleapis/rpc/code"

	"github.com/holdfast-mesh/holdfast/internal/etcd"
	"github.com/holdfast-mesh/holdfast/internal/fenced"
)

// queue holds the commands that wait for a transaction.
type queue struct {
	mu sync.Mutex
	// +checklocks:mu
	waiting []*command
	// How many transactions are under way, and how many commands in them.
	// +checklocks:mu
	transactions, flying int
	// +checklocks:mu
	closed bool
	// Counts the transactions under way.
	running sync.WaitGroup
}

// Commit does all writes in one transaction, each guarded by its slot's epoch and its head's revision, or none of them.
// rev is the modification revision of all their heads.
//
// Where etcd does not answer, the same transaction is tried again until ctx ends; its guards let it be applied once, and
// a head that is equal to the one that was to be written shows that it was. So no two commits may write equal heads. A
// caller that goes away does not stop a commit that may have been sent.
//
// Errors are *Error: Outcome says what became of the writes, Index which one's guard failed.
func (c *Committer) Commit(ctx context.Context, writes []fenced.Write) (rev int64, err error) {
	rev, err = c.commit(ctx, writes)
	label := "applied"
	if e := (*Error)(nil); errors.As(err, &e) {
		label = map[bool]string{true: "unknown", false: "not_applied"}[e.unknown()]
	}
	c.metrics.commits.WithLabelValues(label).Inc()
	return rev, err
}

func (c *Committer) commit(ctx context.Context, writes []fenced.Write) (int64, error) {
	if !c.Up() {
		return 0, refused(code.Code_UNAVAILABLE, ErrDown)
	}
	if err := ctx.Err(); err != nil {
		return 0, refused(code.Code_DEADLINE_EXCEEDED, err)
	}
	if err := c.admit(writes); err != nil {
		return 0, err
	}
	p, err := newCommand(ctx, writes)
	if err != nil {
		return 0, err
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

// admit asks for room in etcd.
func (c *Committer) admit(writes []fenced.Write) error {
	if c.cfg.Admit == nil || !slices.ContainsFunc(writes, func(w fenced.Write) bool { return !w.Frees }) {
		return nil
	}
	if err := c.cfg.Admit(); err != nil {
		return refused(code.Code_RESOURCE_EXHAUSTED, fmt.Errorf("%w: %w", ErrFull, err))
	}
	return nil
}

func (c *Committer) enqueue(p *command) error {
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
	if t := q.take(); t != nil {
		q.running.Add(1)
		go c.send(t)
	}
	return nil
}

// withdraw takes a command back; false where a transaction may carry it already, or carried it.
func (q *queue) withdraw(p *command) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	p.withdrawn = true
	if p.sent {
		return false
	}
	if i := slices.Index(q.waiting, p); i >= 0 {
		q.waiting = slices.Delete(q.waiting, i, i+1)
		return p.silences == 0
	}
	return false
}

// close refuses new commands and waits until those in the queue are answered.
func (q *queue) close() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	q.running.Wait()
}

// take returns the next transaction, and counts it as under way; nil where there is nothing to send, or not yet.
//
// It goes at once where nothing is under way, else when twice as many commands wait as are under way. So a transaction
// carries much: with many clients it saves etcd and us two thirds of what each commit costs. Yet nobody waits for longer
// than the next answer, and no answer holds up many.
//
// +checklocks:q.mu
func (q *queue) take() *transaction {
	if len(q.waiting) == 0 || q.transactions >= maxTransactions || len(q.waiting) < 2*q.flying {
		return nil
	}
	t := newTransaction()
	rest := q.waiting[:0]
	for i, p := range q.waiting {
		if len(t.commands) > 0 && p.alone {
			rest = append(rest, p)
			continue
		}
		added, full := t.add(p)
		if p.sent = added; !added {
			rest = append(rest, p)
		}
		if full || added && p.alone || len(t.commands) == maxBatch {
			rest = append(rest, q.waiting[i+1:]...)
			break
		}
	}
	clear(q.waiting[len(rest):])
	q.waiting = rest
	q.transactions++
	q.flying += len(t.commands)
	return t
}

// landed ends a transaction, puts some of its commands back at the head of the queue, but for those whose callers have
// left, and returns the next one.
func (q *queue) landed(t *transaction, again []*command) *transaction {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.transactions--
	q.flying -= len(t.commands)
	again = slices.DeleteFunc(again, func(p *command) bool { return p.withdrawn })
	for _, p := range again {
		p.sent = false
	}
	q.waiting = append(again, q.waiting...)
	return q.take()
}

// send carries a transaction to etcd, and others after it while there are any.
func (c *Committer) send(t *transaction) {
	defer c.queue.running.Done()
	for t != nil {
		t = c.queue.landed(t, c.transact(t))
	}
}

// transact carries out a transaction and answers its commands, but for those that shall go again: the innocent where
// another's guard failed, and those that etcd did not answer.
func (c *Committer) transact(t *transaction) (again []*command) {
	ctx, cancel := context.WithTimeout(c.work, txnTimeout)
	defer cancel()
	c.metrics.batch.Observe(float64(len(t.commands)))
	res, err := c.cfg.Etcd.Txn(ctx, t.guards, t.ops, nil)
	// Etcd says that it is full also of what it carried out in the moment in which it found that.
	full := errors.Is(err, etcd.ErrFull)
	switch {
	case full:
	case err != nil:
		return c.failed(t, writeError(err))
	case res.Held:
		for _, p := range t.commands {
			p.done <- result{rev: res.Rev}
		}
		return nil
	}
	now, lookErr := c.look(ctx, t)
	switch {
	case lookErr != nil && full:
		return c.failed(t, unknown(err))
	case lookErr != nil:
		// None was applied by this attempt, that is sure. Each may find out by itself.
		for _, p := range t.commands {
			p.alone = true
		}
		return c.retry(t.commands, readError(lookErr))
	}
	for _, p := range t.commands {
		if full {
			p.silences++
		}
		r, innocent := p.judge(now)
		if !innocent {
			if e := (*Error)(nil); errors.As(r.err, &e) && e.NotOwner() {
				c.disown(p.writes[e.index].slot, p.writes[e.index].epoch)
			}
			p.done <- r
			continue
		}
		if full {
			// It was answered, and is not there: it never will be.
			p.silences--
		}
		switch {
		case full && len(t.commands) == 1:
			p.done <- result{err: p.verdict(refused(code.Code_RESOURCE_EXHAUSTED, fmt.Errorf("%w: %w", ErrFull, err)))}
		case p.displaced >= maxDisplaced:
			p.done <- result{err: p.verdict(refused(code.Code_UNAVAILABLE, ErrBusy))}
		default:
			p.displaced++
			p.alone = p.alone || full
			again = append(again, p)
		}
	}
	return again
}

// look reads what a transaction's guards are about.
func (c *Committer) look(ctx context.Context, t *transaction) (map[string]etcd.KV, error) {
	keys, reads := t.looks()
	res, err := c.cfg.Etcd.Txn(ctx, nil, reads, nil)
	if err != nil {
		return nil, err
	}
	now := make(map[string]etcd.KV, len(keys))
	for i, key := range keys {
		now[key] = res.Reads[i]
	}
	return now, nil
}

// failed decides what becomes of the commands of a transaction that was refused as a whole, or had no answer.
func (c *Committer) failed(t *transaction, e *Error) (again []*command) {
	if len(t.commands) > 1 && errors.Is(e, ErrTooLarge) {
		// One by one, so that only the guilty one fails.
		for _, p := range t.commands {
			alone := newTransaction()
			alone.add(p)
			again = append(again, c.transact(alone)...)
		}
		return again
	}
	var undecided []*command
	for _, p := range t.commands {
		if e.unknown() {
			p.silences++
			p.alone = p.silences > 1
		}
		if p.silences == 0 {
			p.done <- result{err: e}
			continue
		}
		undecided = append(undecided, p)
	}
	return c.retry(undecided, e)
}

// retry returns the commands after a pause, or answers them with e where it is too late for that.
func (c *Committer) retry(commands []*command, e *Error) (again []*command) {
	if len(commands) == 0 {
		return nil
	}
	if c.work.Err() != nil {
		for _, p := range commands {
			p.done <- result{err: p.verdict(e)}
		}
		return nil
	}
	c.metrics.retries.Add(float64(len(commands)))
	c.pause()
	return commands
}

// verdict is what an attempt's refusal says about the command: nothing, where an earlier one had no answer.
func (p *command) verdict(e *Error) *Error {
	if p.silences > 0 && !e.unknown() {
		return unknown(e)
	}
	return e
}

// pause waits a little before what had no answer is tried again, or until etcd comes or goes.
func (c *Committer) pause() {
	changed := c.cfg.Etcd.Changed()
	timer := time.NewTimer(retryPause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-changed:
	case <-c.work.Done():
	}
}
