package gossip

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// peer keeps one stream to one live member.
type peer struct {
	node   *Node
	name   string
	meta   meta
	queue  *pushQueue
	cancel context.CancelFunc

	// mu guards the session, nil while there is none.
	mu sync.Mutex
	// +checklocks:mu
	session *session
}

func (p *peer) run(ctx context.Context) {
	wait := redialMin
	for ctx.Err() == nil {
		start := time.Now()
		err := p.connect(ctx)
		if ctx.Err() != nil {
			return
		}
		if time.Since(start) > redialMax {
			wait = redialMin
		}
		p.node.cfg.Logger.Debug("stream to peer ended", "peer", p.name, "error", err)
		pause(ctx, p.node.jitter(wait))
		wait = min(2*wait, redialMax)
	}
}

// connect dials, greets and carries messages until the stream ends.
func (p *peer) connect(ctx context.Context) error {
	dial, cancel := context.WithTimeout(ctx, dialTimeout)
	conn, err := p.node.cfg.Dialer.Dial(dial, p.meta.Peer)
	cancel()
	if err != nil {
		return fmt.Errorf("dial: %w", err)
	}
	hello, err := greet(ctx, conn, p.node.hello())
	if err == nil && hello.GetNode() != p.name {
		err = fmt.Errorf("%w: %q", errWrong, hello.GetNode())
	}
	if err != nil {
		_ = conn.Close()
		if errors.Is(err, errSelf) || errors.Is(err, errWrong) || errors.Is(err, errProtocol) {
			p.node.cfg.Logger.Warn("peer refused", "peer", p.name, "address", p.meta.Peer, "error", err)
		}
		return err
	}
	s := newSession(p.node.exchange, conn, p.queue)
	// First the pushes, then the round: what was committed before the queue opened is in the digests.
	p.queue.setOpen(true)
	s.round()
	p.set(s)
	p.node.metrics.connected.Inc()
	p.node.cfg.Logger.Debug("stream to peer", "peer", p.name)
	defer func() {
		p.node.metrics.connected.Dec()
		p.set(nil)
		p.queue.setOpen(false)
	}()
	return s.run(ctx)
}

func (p *peer) set(s *session) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.session = s
}

// current returns the session, or nil.
func (p *peer) current() *session {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.session
}
