package gossip

import (
	"context"
	"fmt"
	"sync"
	"time"

	replicationv1 "github.com/holdfast-mesh/holdfast/proto/holdfast/replication/v1"
)

// peer keeps one stream to one live member.
type peer struct {
	node   *Node
	name   string
	meta   meta
	queue  *pushQueue
	cancel context.CancelFunc
	// redial ends the pause before the next attempt.
	redial chan struct{}

	// mu guards the session, nil while there is none.
	mu sync.Mutex
	// +checklocks:mu
	session *session
}

func (p *peer) run(ctx context.Context) {
	wait := redialMin
	for ctx.Err() == nil {
		start := time.Now()
		met, err := p.connect(ctx)
		if ctx.Err() != nil {
			return
		}
		longest := redialMax
		switch took := time.Since(start); {
		case met && took > redialMax:
			wait = redialMin
		case !met && took > redialMax:
			longest = redialSlow
		}
		p.node.cfg.Logger.Debug("stream to peer ended", "peer", p.name, "error", err)
		if pauseUntil(ctx, p.node.jitter(min(wait, longest)), p.redial) {
			wait = redialMin
			continue
		}
		wait = min(2*wait, longest)
	}
}

// connect dials, greets and carries messages until the stream ends. It reports whether there was one.
func (p *peer) connect(ctx context.Context) (met bool, err error) {
	if p.node.isCut(p.name) {
		return false, errCut
	}
	conn, hello, version, err := p.dial(ctx)
	if err != nil {
		return false, err
	}
	s := p.node.newSession(conn, hello, version, p.queue)
	// First the pushes, then the round: what was committed before the queue opened is in the hashes.
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
	return true, s.run(ctx)
}

// dial dials and greets. Only some peers are dialed at a time: handshakes cost more than anything else between stores, and
// a machine that does too many at once finishes none in time.
func (p *peer) dial(ctx context.Context) (Conn, *replicationv1.Hello, uint32, error) {
	select {
	case p.node.dialing <- struct{}{}:
	case <-ctx.Done():
		return nil, nil, 0, ctx.Err()
	}
	defer func() { <-p.node.dialing }()
	dial, cancel := context.WithTimeout(ctx, dialTimeout)
	conn, err := p.node.cfg.Dialer.Dial(dial, p.meta.Peer)
	cancel()
	if err != nil {
		return nil, nil, 0, fmt.Errorf("dial: %w", err)
	}
	hello, version, err := greet(ctx, conn, p.node.hello())
	if err == nil && hello.GetNode() != p.name {
		err = fmt.Errorf("%w: %q", errWrong, hello.GetNode())
	}
	if err != nil {
		_ = conn.Close()
		p.node.refused(p.name, err)
		return nil, nil, 0, err
	}
	return conn, hello, version, nil
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
