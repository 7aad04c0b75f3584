package serve

import (
	"context"
	"maps"
	"slices"

	"google.golang.org/grpc/codes"

	storev1 "github.com/holdfast-mesh/holdfast/proto/holdfast/store/v1"
	"github.com/holdfast-mesh/holdfast/statestore"
	"github.com/holdfast-mesh/holdfast/statestore/refusal"
)

// Peer is a connection that another store forwards calls on. The turns that were begun on it end with it: that store may
// have died, and who waits for those turns must not wait for their deadlines.
type Peer struct {
	server *Server
	caller *statestore.Caller
}

// NewPeer takes a connection of another store; Gone must follow.
func (s *Server) NewPeer() *Peer {
	p := &Peer{s, s.engine.NewCaller()}
	s.mu.Lock()
	closed := s.closed
	if !closed {
		s.peers[p] = struct{}{}
	}
	s.mu.Unlock()
	if closed {
		s.engine.Gone(p.caller)
	}
	return p
}

// Handle carries out a call that the other store forwarded: Get, Begin, Commit, Abort and Settle of strong entities. It is never
// forwarded again.
func (p *Peer) Handle(ctx context.Context, req *storev1.Request) *storev1.Response {
	var r *storev1.Response
	switch req.GetCall().(type) {
	case *storev1.Request_Get, *storev1.Request_Begin, *storev1.Request_Commit, *storev1.Request_Abort, *storev1.Request_Settle:
		r = p.server.engine.StrongCall(ctx, p.caller, true, req)
	default:
		r = refused(req, refusal.NotApplied(codes.PermissionDenied, "other stores may not make this call"))
	}
	p.server.metrics.answered(req, r)
	return r
}

// Gone ends the connection's turns; commits under way go on.
func (p *Peer) Gone() {
	p.server.mu.Lock()
	delete(p.server.peers, p)
	p.server.mu.Unlock()
	p.server.engine.Gone(p.caller)
}

// endPeers ends the turns of all other stores.
func (s *Server) endPeers() {
	s.mu.Lock()
	peers := slices.Collect(maps.Keys(s.peers))
	s.mu.Unlock()
	for _, p := range peers {
		p.Gone()
	}
}
