package stateclient

import (
	"time"

	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
)

// A stopped or starved store keeps its connection, and its socket still takes new ones; only an answer shows life. So a
// connection counts as up once a first probe is answered, and is given up when a later one isn't: calls then fail at
// once, and go to another node, instead of each waiting for its own deadline.

// probe asks the store for a sign of life. done may be nil.
func (s *session) probe(timeout time.Duration, done func(*storev1.Response, *Error)) {
	k := &call{
		req:     &storev1.Request{Call: &storev1.Request_GetStatus{GetStatus: &storev1.GetStatus{}}},
		timeout: timeout, internal: true, done: done,
	}
	if err := s.start(k); err != nil {
		k.refuse(s.c, err)
	}
}

// greet makes the session the client's once the store has answered.
func (s *session) greet() {
	s.probe(dialTimeout, func(_ *storev1.Response, err *Error) {
		if err != nil {
			s.conn.Close()
			return
		}
		s.c.adopt(s)
	})
}

// alive gives the connection up when the store has stopped answering, and cached entities that nobody reads.
func (s *session) alive() {
	t := time.NewTicker(probeEvery)
	defer t.Stop()
	var (
		seen  = s.reads.Load()
		quiet time.Duration // since something was read, in steps of probeEvery
		asked bool
		ticks time.Duration
	)
	for {
		select {
		case <-s.gone:
			return
		case <-t.C:
		}
		ticks++
		s.follow(s.cache.sweep(ticks%(sweepEvery/probeEvery) == 0))
		if n := s.reads.Load(); n != seen {
			seen, quiet, asked = n, 0, false
			continue
		}
		quiet += probeEvery
		switch {
		case asked && quiet >= hungAfter:
			s.conn.Close()
			return
		case !asked && (quiet >= idleProbe || s.waiting()):
			// The time to answer counts from the question.
			quiet, asked = 0, true
			s.probe(hungAfter+grace, nil)
		}
	}
}

// waiting reports whether a call is under way.
func (s *session) waiting() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.pending) > 0
}
